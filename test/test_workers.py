"""workers => n: several processes share the partitions of one stream."""

import contextlib
import itertools

import pytest
from confluent_kafka import Producer

from crashes import kill_worker
from expectations import assert_exact, error
from harness.database import Database
from harness.processes import beside, wait_until
from observer import Observer
from upserts import assert_upserted, produce, random_changes, upsert_stream

MESSAGES = 40_000


@pytest.fixture
def topic(new_topic):
    """An empty topic of five partitions."""
    return new_topic(5)


def rows(db):
    return db.value("SELECT count(*) FROM target")


def workers(db, name="s"):
    """worker -> pid, of those that are there."""
    return dict(db.run("SELECT worker, pid FROM kafka.stream_worker WHERE stream = %s AND pid IS NOT NULL", name))


def wait_for_workers(db, count, name="s"):
    def all_there():
        found = workers(db, name)
        return found if len(found) == count else None
    return wait_until(all_there, what=lambda: f"{count} workers: {db.run('SELECT * FROM kafka.stream_worker')}")


def start_ingest(db, topic, count, **options):
    """A stream with small batches, so that it is busy for a while; returns when it has begun."""
    db.create_tables(topic)
    topic.produce_sequence(MESSAGES)
    db.create_stream(workers=count, **{"max_offsets_per_trigger": 500, **options})
    wait_for_workers(db, count)
    wait_until(lambda: rows(db) > 0)


def assert_own_partitions(db, count):
    """Every batch of worker i is about partitions p with p % count = i, and no batch_id comes twice."""
    batches = db.run("SELECT worker, batch_id, ARRAY(SELECT jsonb_object_keys(end_offsets)::int) "
                     "FROM kafka.stream_progress WHERE stream = 's'")
    assert batches
    assert all(partition % count == worker for worker, _, partitions in batches for partition in partitions)
    assert len({batch_id for _, batch_id, _ in batches}) == len(batches)
    assert all(batch_id % count == worker for worker, batch_id, _ in batches)


# --- exactness -------------------------------------------------------------

def test_workers_share_the_partitions(db, topic):
    db.create_tables(topic)
    db.create_stream(workers=3)
    pids = wait_for_workers(db, 3)
    topic.produce_sequence(3000)
    assert_exact(db, topic)
    assert_own_partitions(db, 3)
    assert set(db.column("SELECT DISTINCT worker FROM kafka.stream_progress")) == {0, 1, 2}
    db.wait_for_state("idle")
    status = db.status()
    assert (status.workers, status.pid, status.pids) == (3, pids[0], [pids[0], pids[1], pids[2]])
    assert (status.messages, status.restarts, status.last_error) == (3000, 0, None)
    assert db.run("SELECT partition, lag, high_watermark FROM kafka.stream_lag ORDER BY 1") == [
        (partition, 0, 600) for partition in range(5)]
    assert db.column("SELECT application_name FROM pg_stat_activity WHERE pid = ANY (%s) ORDER BY 1",
                     status.pids) == ["kafka_ingest s 0", "kafka_ingest s 1", "kafka_ingest s 2"]


def test_kill_9_of_one_among_several(db, topic):
    start_ingest(db, topic, 3)
    with Observer(db) as observer:
        for number in range(4):
            before = rows(db)
            pids = wait_for_workers(db, 3)
            wait_until(lambda: rows(db) > before or before == MESSAGES)
            kill_worker(db, pid=pids[number % 3])
        assert_exact(db, topic)
    assert observer.snapshots > 4
    wait_for_workers(db, 3)


def test_one_is_terminated_the_others_stay(db, topic):
    start_ingest(db, topic, 3)
    before = wait_for_workers(db, 3)
    with Observer(db):
        db.run("SELECT pg_terminate_backend(%s)", before[1])
        after = wait_until(lambda: workers(db).get(1) not in (None, before[1]) and workers(db))
        assert_exact(db, topic)
    assert (after[0], after[2]) == (before[0], before[2])
    assert db.status().restarts == 1


def test_immediate_restart_of_the_server(db, topic, postgres):
    start_ingest(db, topic, 2)
    with Observer(db):
        postgres.restart("immediate")
        db.reconnect()
        assert_exact(db, topic)
    wait_for_workers(db, 2)


def test_stop_start_and_alter_under_load(db, topic):
    start_ingest(db, topic, 1)
    with Observer(db):
        for count in (3, 2, 5, 1, 4):
            before = rows(db)
            db.call("alter_stream", workers=count)
            assert set(wait_for_workers(db, count)) == set(range(count))
            wait_until(lambda: rows(db) > before or before == MESSAGES)
            pids = list(workers(db).values())
            db.call("stop_stream")
            assert workers(db) == {}
            # a process that has let go of its stream is listed until it has ended
            wait_until(lambda: db.value("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s)", pids) == 0)
            assert rows(db) == db.value("SELECT sum(next_offset) FROM kafka.stream_offset")
            assert db.status().state == "stopped"
            db.call("start_stream")
        assert_exact(db, topic)
    wait_for_workers(db, 4)
    assert db.status().workers == 4


def test_rolled_back_alter_keeps_the_workers(db, topic):
    db.create_tables(topic)
    db.create_stream(workers=2)
    wait_for_workers(db, 2)
    with db.connect(autocommit=False) as session:
        session.execute("SELECT kafka.alter_stream('s', workers => 4)")
        assert workers(db) == {}
        session.rollback()
    assert set(wait_for_workers(db, 2)) == {0, 1}
    topic.produce_sequence(50)
    assert_exact(db, topic)
    assert_own_partitions(db, 2)


def test_more_workers_than_partitions(db, new_topic):
    topic = new_topic(2)
    db.create_tables(topic)
    topic.produce_sequence(2000)
    db.create_stream(workers=4, max_offsets_per_trigger=100)
    assert_exact(db, topic)
    wait_for_workers(db, 4)
    db.wait_for_state("idle")
    assert set(db.column("SELECT DISTINCT worker FROM kafka.stream_progress")) == {0, 1}


def test_new_partitions_go_to_their_owner(db, new_topic, kafka, postgres):
    topic = new_topic(2)
    with db.server_setting("kafka_ingest.metadata_refresh_interval", "1"):
        db.create_tables(topic)
        topic.produce_sequence(200)
        db.create_stream(workers=3)
        assert_exact(db, topic)
        pids = wait_for_workers(db, 3)
        with Observer(db):
            kafka.add_partitions(topic.name, 7)
            topic.partitions_added(7)
            topic.produce_sequence(700, first=201)
            wait_until(lambda: len(db.next_offsets()) == 7)
            assert_exact(db, topic)
        assert workers(db) == pids
        assert_own_partitions(db, 3)
        assert set(db.column("SELECT DISTINCT worker FROM kafka.stream_progress")) == {0, 1, 2}


def test_standby_and_promotion(new_cluster, topic, kafka):
    primary = new_cluster().start()
    db = Database(primary)
    db.create_server(kafka.address)
    db.create_tables(topic)
    topic.produce_sequence(500)
    db.create_stream(workers=2)
    db.process_all_available()
    standby = new_cluster(primary=primary).start()
    replica = Database(standby, name=db.name)
    topic.produce_sequence(500, first=501)
    db.process_all_available()
    replica.wait_for("SELECT count(*) FROM target", 1000)
    assert (replica.status().state, workers(replica)) == ("stopped", {})
    primary.stop("immediate")
    topic.produce_sequence(500, first=1001)
    replica.run("SELECT pg_promote()")
    wait_for_workers(replica, 2)
    assert_exact(replica, topic)


# --- the stream as a whole -------------------------------------------------

def test_failure_of_one_stops_all(db, topic):
    db.create_tables(topic)
    db.run("ALTER TABLE target ADD CHECK (id <> 777)")
    topic.produce_sequence(500)
    db.create_stream(workers=3)
    wait_for_workers(db, 3)
    topic.produce({"id": 777}, partition=4)
    failed = db.wait_for_state("failed")
    assert failed.last_error_sqlstate == "23514"
    assert "partition 4, offset 100" in failed.last_error_detail
    wait_for_workers_gone(db)
    topic.produce_sequence(500, first=1001)
    db.run("ALTER TABLE target DROP CONSTRAINT target_id_check")
    db.call("start_stream")
    assert_exact(db, topic)
    wait_for_workers(db, 3)


@contextlib.contextmanager
def trickle(topic):
    """Until it ends, every partition gets a message each 4 ms."""
    producer = Producer({"bootstrap.servers": topic.address, "linger.ms": 0, "enable.idempotence": True})

    def produce(stop):
        for number in itertools.count(1):
            for partition in range(topic.partitions):
                producer.produce(topic.name, b'{"id": %d}' % number, partition=partition)
            producer.poll(0)
            if stop.wait(0.004):
                return

    with beside(produce):
        yield
    assert producer.flush(60) == 0


def test_process_all_available_while_others_commit(db, new_topic):
    """It waits for the commits that were on their way, not for a moment without any: commits take long here, and never end."""
    topic = new_topic(12)
    db.create_tables(topic)
    db.run(f"ALTER DATABASE {db.name} SET commit_delay = 60000; ALTER DATABASE {db.name} SET commit_siblings = 0")
    db.create_stream(workers=12)
    wait_for_workers(db, 12)
    with trickle(topic):
        db.wait_for("SELECT count(DISTINCT p) FROM target", 12)
        for _ in range(4):
            before = topic.offsets()
            db.process_all_available(timeout="10 s")
            after = db.next_offsets()
            assert all(after[partition] >= end for partition, end in before.items())
    assert_exact(db, topic)


def wait_for_workers_gone(db):
    wait_until(lambda: not workers(db))


def test_skip_message_goes_on_where_one_worker_stands(db, topic):
    db.create_tables(topic)
    db.create_stream(workers=2)
    topic.produce({"id": 1}, "no json", {"id": 2}, partition=3)
    db.wait_for_state("failed")
    db.run("SELECT kafka.skip_message('s', %s, 3, 1)", topic.name)
    db.call("start_stream")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [1, 2]
    assert db.next_offsets() == topic.offsets()


def test_a_dropped_target_fails_the_stream(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(50)
    db.create_stream(workers=3)
    assert_exact(db, topic)
    db.run("DROP TABLE target")
    topic.produce_sequence(50, first=51)
    assert "target" in db.wait_for_state("failed").last_error
    wait_for_workers_gone(db)
    db.run("CREATE TABLE other (LIKE topic)")
    db.call("alter_stream", target="other")
    db.call("start_stream")
    db.process_all_available()
    assert db.column("SELECT id FROM other ORDER BY id") == list(range(51, 101))


def test_available_now_ends_when_all_are_done(db, topic):
    db.create_tables(topic)
    # One partition has nearly all: its worker ends long after the others.
    topic.produce_all({"value": {"id": number}, "partition": 1} for number in range(10_000))
    topic.produce_sequence(50, first=20_000)
    db.create_stream(workers=3, trigger="available_now", max_offsets_per_trigger=300, start=False)
    db.call("start_stream")
    topic.produce_sequence(1000, first=30_000)
    db.wait_for_state("stopped")
    wait_for_workers_gone(db)
    assert rows(db) == 10_050
    db.call("start_stream")
    db.wait_for_state("stopped")
    assert_exact(db, topic, process=False)


def test_process_all_available_waits_for_all(db, topic):
    db.create_tables(topic)
    db.create_stream(workers=3)
    for first in range(1, 2001, 200):
        topic.produce_sequence(200, first=first)
        db.process_all_available()
        assert rows(db) == first + 199


def test_the_rate_limit_is_shared(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(2000)
    db.create_stream(workers=3, max_offsets_per_trigger=100)
    assert_exact(db, topic)
    largest = dict(db.run("SELECT worker, max(num_input_rows) FROM kafka.stream_progress GROUP BY 1"))
    assert sum(largest.values()) <= 100
    assert all(number <= 34 for number in largest.values())


def test_the_error_budget_is_the_streams(db, topic):
    db.create_tables(topic)
    topic.produce_all({"value": "bad", "partition": number % 5} for number in range(500))
    db.create_stream(workers=5, on_error="dead_letter", max_errors=40, max_offsets_per_trigger=15)
    db.wait_for_state("failed")
    wait_for_workers_gone(db)
    assert db.value("SELECT count(*) FROM kafka.dead_letter") == 40
    assert db.status().errors == 40
    db.call("alter_stream", max_errors=0)
    db.call("start_stream")
    db.process_all_available()
    assert db.value("SELECT count(*) FROM kafka.dead_letter") == 500
    assert db.next_offsets() == topic.offsets()


# --- modes -----------------------------------------------------------------

def test_upsert_of_keys_that_keep_to_their_partition(db, new_topic):
    topic = new_topic(4)
    upsert_stream(db, topic, workers=3)
    wait_for_workers(db, 3)
    for seed in range(5):
        produce(topic, *random_changes(2000, keys=100, seed=seed))
    assert_upserted(db, topic)


def test_foreach_batch(db, topic):
    db.create_topic_table(topic, "id bigint")
    db.run("CREATE TABLE target (id bigint); CREATE TABLE batches (batch_id bigint PRIMARY KEY, n int)")
    db.run("""CREATE PROCEDURE public.write_batch(batch_id bigint) LANGUAGE plpgsql AS $$ BEGIN
                  INSERT INTO public.target SELECT id FROM public.topic;
                  INSERT INTO public.batches SELECT batch_id, count(*) FROM public.topic;
              END $$""")
    topic.produce_sequence(3000)
    db.call("create_stream", source="topic", foreach_batch="public.write_batch(bigint)", workers=3,
            max_offsets_per_trigger=100)
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == list(range(1, 3001))
    assert db.value("SELECT sum(n)::int FROM batches") == 3000
    db.call("alter_stream", workers=2)
    topic.produce_sequence(1000, first=3001)
    db.process_all_available()
    assert db.value("SELECT sum(n)::int FROM batches") == 4000


@pytest.mark.parametrize("what, options", [
    ("groups", {"mode": "update", "query": "SELECT id, count(*) AS n FROM topic GROUP BY id"}),
    ("groups", {"mode": "complete", "query": "SELECT id, count(*) AS n FROM topic GROUP BY id"}),
    ("watermark", {"query": "SELECT date_bin('1 min', at, '2000-01-01') AS start, count(*) AS n FROM topic GROUP BY 1",
                   "watermark_column": "at", "watermark_delay": "1 min"}),
    ("watermark", {"query": "SELECT id, at FROM topic", "watermark_column": "at", "watermark_delay": "1 min",
                   "deduplicate_by": ["id"]}),
])
def test_what_needs_a_state_has_one_worker(db, topic, what, options):
    db.create_topic_table(topic, "id bigint, at timestamptz")
    db.run("CREATE TABLE target (id bigint PRIMARY KEY, n bigint, start timestamptz, at timestamptz)")
    if options.get("mode") is None:
        db.run("ALTER TABLE target DROP CONSTRAINT target_pkey, ALTER id DROP NOT NULL")
    with error("more than one worker", detail=what, hint="workers => 1", sqlstate="0A000"):
        db.create_stream(workers=2, **options)
    db.create_stream(**options)
    with error("more than one worker", detail=what, hint="workers => 1", sqlstate="0A000"):
        db.call("alter_stream", workers=2)
    topic.produce({"id": 1, "at": "2026-11-01 00:00+00"})
    db.process_all_available()
    assert db.status().workers == 1


def test_bad_numbers_of_workers(db, topic):
    db.create_tables(topic)
    for number in (0, -1, 65):
        with error("workers must be between 1 and 64", sqlstate="22023"):
            db.create_stream(workers=number)
    with error("max_offsets_per_trigger must be at least the number of workers", detail="4 workers", sqlstate="22023"):
        db.create_stream(workers=4, max_offsets_per_trigger=3)
    db.create_stream(workers=4, start=False)
    with error("workers must be between 1 and 64", sqlstate="22023"):
        db.call("alter_stream", workers=65)
    with error("max_offsets_per_trigger must be at least the number of workers", sqlstate="22023"):
        db.call("alter_stream", max_offsets_per_trigger=3)
    assert db.value("SELECT workers FROM kafka.stream") == 4


# --- limits of the server --------------------------------------------------

def test_too_few_processes(new_cluster, topic, kafka):
    """The status says so, and what has a worker goes on."""
    # the launcher, PostgreSQL's own for logical replication, and two for four workers
    db = Database(new_cluster({"max_worker_processes": 4}).start())
    db.create_server(kafka.address)
    db.create_tables(topic)
    topic.produce_sequence(100)
    db.create_stream(workers=4)
    wait_for_workers(db, 2)
    status = db.wait_for_state("backing off")
    assert (status.last_error, status.last_error_sqlstate) == ("out of background worker slots", "53400")
    assert "max_worker_processes" in status.last_error_hint
    assert status.retry_at is not None and len(status.pids) == 2
    db.call("alter_stream", workers=2)
    assert_exact(db, topic)
    assert len(db.wait_for_state("idle").pids) == 2


def test_too_few_slots(new_cluster, topic, kafka):
    db = Database(new_cluster({"kafka_ingest.max_stream_workers": 3}).start())
    db.create_server(kafka.address)
    db.create_tables(topic)
    with error("all 3 slots", detail="4 workers", hint="kafka_ingest.max_stream_workers", sqlstate="53400"):
        db.create_stream(workers=4)
    db.create_stream(workers=3)
    wait_for_workers(db, 3)
    with error("all 3 slots", hint="kafka_ingest.max_stream_workers", sqlstate="53400"):
        db.create_stream("another")
    db.call("alter_stream", workers=2)
    db.create_stream("another", query="SELECT * FROM topic WHERE false")
    topic.produce_sequence(50)
    assert_exact(db, topic)
    wait_for_workers(db, 2)
    wait_for_workers(db, 1, name="another")


def test_data_loss_is_counted_by_each_worker(db, new_topic, kafka):
    topic = new_topic(3)
    db.create_tables(topic)
    topic.produce_sequence(300)
    db.create_stream(start=False, workers=3, fail_on_data_loss=False)
    kafka.delete_records(topic.name, {0: 40, 2: 100})
    db.call("start_stream")
    assert_exact(db, topic)
    assert db.run("SELECT partition, lost_offsets FROM kafka.stream_offset ORDER BY 1") == [(0, 40), (1, 0), (2, 100)]
    assert db.value("SELECT count(*) FROM target") == 160
    assert db.status().lost_offsets == 140
