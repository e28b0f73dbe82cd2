"""A topic that was deleted and created again is not the same topic, whatever its offsets say."""

import time

import pytest

from expectations import assert_another_topic_noticed, assert_exact, error
from harness.processes import wait_until
from observer import Observer


def recreate(kafka, topic, messages):
    """Deletes the topic, creates it anew and writes more messages than before."""
    kafka.recreate_topic(topic)
    topic.produce_all({"value": {"id": n}, "partition": n % topic.partitions} for n in messages)


def all_rows(db):
    return db.run("SELECT id, p, o FROM target")


def fail_on_recreated(db, topic, kafka, stopped, messages):
    """A stream has read 15 messages; its topic is recreated while it runs or is stopped, and it fails."""
    db.create_tables(topic)
    topic.produce_sequence(15)
    db.create_stream()
    db.process_all_available()
    before = all_rows(db)
    if stopped:
        db.call("stop_stream")
    recreate(kafka, topic, messages)
    if stopped:
        db.call("start_stream")
    db.wait_for_state("failed", timeout=60)
    assert_another_topic_noticed(db, before)
    # a start compares before it reads
    assert not stopped or len(all_rows(db)) == 15


@pytest.mark.parametrize("stopped", [True, False])
def test_recreated_and_longer(db, topic, kafka, stopped):
    fail_on_recreated(db, topic, kafka, stopped, range(100, 160))
    db.call("start_stream")
    status = db.wait_for_state("failed", timeout=60)
    assert "is not the one" in status.last_error, status
    db.run("DELETE FROM target WHERE id >= 100")
    db.call("reset_stream")
    db.call("start_stream")
    db.process_all_available()
    assert db.column("SELECT id FROM target WHERE id >= 100 ORDER BY id") == list(range(100, 160))


@pytest.mark.parametrize("stopped", [True, False])
def test_recreated_and_shorter(db, topic, kafka, stopped):
    fail_on_recreated(db, topic, kafka, stopped, range(100, 106))
    db.call("reset_stream")
    db.call("start_stream")
    db.process_all_available()
    assert db.column("SELECT id FROM target WHERE id >= 100 ORDER BY id") == list(range(100, 106))


def three_are_read(db, new_topic, **options):
    """A topic of one partition, whose three messages a running stream has read."""
    topic = new_topic(1)
    db.create_tables(topic)
    topic.produce_sequence(3)
    db.create_stream(**options)
    db.process_all_available()
    return topic


@pytest.mark.parametrize("limit", [None, 4])
def test_recreated_under_a_running_stream(db, new_topic, kafka, limit):
    """As many messages as the old one had, or more, and nobody waits: what the new topic has before the old offset is not passed over."""
    topic = three_are_read(db, new_topic, max_offsets_per_trigger=limit)
    for length in (3, 3, 4, 9, 30):
        before = all_rows(db)
        messages = range(length * 100, length * 101)
        recreate(kafka, topic, messages)
        # it looks once more, later and later, before it says so
        with error(f'topic "{topic.name}" '):
            db.process_all_available(timeout="50 s")
        assert_another_topic_noticed(db, before)
        db.run("TRUNCATE target")
        db.call("reset_stream")
        db.call("start_stream")
        db.process_all_available()
        assert db.column("SELECT id FROM target ORDER BY id") == list(messages)
        assert db.next_offsets() == topic.offsets()


@pytest.mark.parametrize("limit", [None, 4])
def test_recreated_as_soon_as_it_has_been_read(db, new_topic, kafka, limit):
    """Nobody asks about the topic, and the last look at it was a moment ago."""
    topic = three_are_read(db, new_topic, max_offsets_per_trigger=limit)
    for length in (4, 9, 9, 30, 30):
        before = all_rows(db)
        recreate(kafka, topic, range(100, 100 + length))
        assert topic.name in db.wait_for_state("failed", timeout=60).last_error
        assert_another_topic_noticed(db, before)
        db.run("TRUNCATE target")
        db.call("reset_stream")
        db.call("start_stream")
        db.process_all_available()
        assert db.column("SELECT id FROM target ORDER BY id") == list(range(100, 100 + length))
        db.run("UPDATE target SET id = 0")


def test_recreated_after_many_looks(db, new_topic, kafka):
    """None of them has found anything, and the next one counts."""
    with db.server_setting("kafka_ingest.metadata_refresh_interval", "1"):
        topic = three_are_read(db, new_topic)
        begin = time.monotonic()
        wait_until(lambda: time.monotonic() - begin > 8, interval=0.5, what="the topic has been looked at some eight times")
        before = all_rows(db)
        recreate(kafka, topic, range(100, 109))
        db.wait_for_state("failed", timeout=60)
        assert_another_topic_noticed(db, before)


@pytest.mark.parametrize("length", [3, 9])
def test_recreated_under_a_stream_that_goes_on(db, new_topic, kafka, length):
    topic = three_are_read(db, new_topic, fail_on_data_loss=False)
    messages = list(range(100, 100 + length))
    knows_ids = db.value("SELECT every(topic_id IS NOT NULL) FROM kafka.stream_offset")
    recreate(kafka, topic, messages)
    if not knows_ids:
        wait_until(lambda: db.column("SELECT DISTINCT id FROM target WHERE id >= 100 ORDER BY id") == messages, timeout=60)
    db.process_all_available()
    assert db.column(f"SELECT {'' if knows_ids else 'DISTINCT'} id FROM target WHERE id >= 100 ORDER BY id") == messages
    # what was read on by mistake, where nothing is known of ids, comes once more
    assert db.value("SELECT every(o >= 3) IS NOT FALSE FROM (SELECT o FROM target WHERE id >= 100 GROUP BY o HAVING count(*) > 1) twice")
    assert db.next_offsets() == topic.offsets()
    assert db.status().data_loss_at is not None


@pytest.mark.parametrize("limit", [None, 700])
def test_a_doubt_about_the_topic_costs_nothing(db, new_topic, kafka, limit):
    """The cluster is asked about the topic every second, in looks for new partitions: nothing is lost or read twice for that."""
    topic = new_topic(3)
    db.create_tables(topic)
    with db.server_setting("kafka_ingest.metadata_refresh_interval", "1"):
        db.create_stream(max_offsets_per_trigger=limit)
        with Observer(db):
            with topic.producing(200):
                for total in (4, 5, 6):
                    kafka.add_partitions(topic.name, total)
                    db.wait_for("SELECT count(*) FROM kafka.stream_offset", total)
                rows = db.value("SELECT count(*) FROM target")
                db.wait_for(f"SELECT count(*) > {rows + 2000} FROM target", timeout=60)
            topic.partitions_added(6)
            assert_exact(db, topic)


def test_deleted(db, topic, kafka):
    db.create_tables(topic)
    topic.produce_sequence(15)
    db.create_stream()
    db.process_all_available()
    kafka.delete_topic(topic.name)
    status = db.wait_for_state("failed", timeout=60)
    assert topic.name in status.last_error and "reset_stream" in status.last_error_hint


def test_a_restart_reads_nothing_twice(db, topic):
    """The last message is looked at again at every start, and dropped."""
    db.create_tables(topic)
    for _ in range(3):
        topic.produce_sequence(9)
        db.create_stream() if db.status() is None else db.call("start_stream")
        db.process_all_available()
        db.call("stop_stream")
    assert db.value("SELECT count(*) FROM target") == 27
    assert db.next_offsets() == topic.offsets()


def test_null_arguments_are_errors(db, topic):
    db.create_tables(topic)
    db.create_stream()
    for call in ("stop_stream(NULL)", "drop_stream(NULL)", "process_all_available(NULL)",
                 "process_all_available('s', NULL)", "start_stream(NULL)", "reset_stream(NULL)",
                 "alter_stream(NULL)", "topic_partitions(NULL)", "offsets_for_timestamp('topic', NULL)"):
        with error("must not be null", sqlstate="22004"):
            db.run(f"SELECT kafka.{call}")


def test_lag_without_a_worker_is_unknown(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream(start=False)
    assert set(db.column("SELECT lag FROM kafka.stream_lag")) == {None}
    db.call("start_stream")
    db.process_all_available()
    assert set(db.column("SELECT lag FROM kafka.stream_lag")) == {0}
    db.call("stop_stream")
    topic.produce_sequence(30)
    assert set(db.column("SELECT lag FROM kafka.stream_lag")) == {None}


def test_row_security_violation_is_the_messages_fault(db, topic):
    db.run("DROP ROLE IF EXISTS kafka_limited")
    db.run("CREATE ROLE kafka_limited")
    try:
        db.create_tables(topic)
        db.run("""ALTER TABLE target ENABLE ROW LEVEL SECURITY;
                  CREATE POLICY small ON target USING (true) WITH CHECK (id < 4);
                  GRANT USAGE ON FOREIGN SERVER broker TO kafka_limited;
                  GRANT SELECT ON topic TO kafka_limited; GRANT SELECT, INSERT ON target TO kafka_limited""")
        topic.produce(*({"id": n} for n in range(8)))
        db.run("SET ROLE kafka_limited")
        db.create_stream()
        status = db.wait_for_state("failed")
        assert "offset 4" in status.last_error_detail
        assert db.column("SELECT id FROM target ORDER BY id") == [0, 1, 2, 3]
        db.call("drop_stream")
    finally:
        db.run("RESET ROLE")
        db.run("DROP OWNED BY kafka_limited")
        db.run("DROP ROLE kafka_limited")


def test_a_pending_start_is_seen_through_savepoints(db, topic):
    db.create_tables(topic)
    db.create_stream()
    with db.connect(autocommit=False) as session:
        session.execute("SAVEPOINT a; SELECT kafka.stop_stream('s'); ROLLBACK TO a")
        session.execute("SELECT kafka.alter_stream('s', max_offsets_per_trigger => 7)")
        with error("was changed in this transaction", hint="COMMIT"):
            session.execute("SELECT kafka.process_all_available('s')")
    assert wait_until(lambda: db.status().pid)


def test_read_only_transactions(db, topic):
    db.create_tables(topic)
    db.create_stream(start=False)
    for call in ("create_stream('x', 'topic', target => 'target')", "start_stream('s')", "stop_stream('s')",
                 "alter_stream('s')", "reset_stream('s')", "drop_stream('s')"):
        with db.connect(autocommit=False) as session:
            session.execute("SET TRANSACTION READ ONLY")
            with error(r"cannot execute kafka\.\w+\(\) in a read-only transaction", sqlstate="25006"):
                session.execute(f"SELECT kafka.{call}")
