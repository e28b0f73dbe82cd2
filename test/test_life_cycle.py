"""stop, start, alter, drop; process_all_available, available_now, triggers."""

import os
import signal
import threading
import time

import pytest

import gates
from expectations import assert_exact, error
from harness.processes import suspend, wait_until


def backends(db, pid):
    return db.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid)


def test_stop_returns_when_the_worker_is_gone(db, topic):
    db.create_tables(topic)
    db.create_stream()
    pid = db.worker_pid()
    db.call("stop_stream")
    status = db.status()
    assert (status.state, status.pid) == ("stopped", None)
    wait_until(lambda: backends(db, pid) == 0)  # the last thing of a process that is seen
    topic.produce_sequence(30)
    db.call("start_stream")
    assert_exact(db, topic)


def test_stop_and_start_under_load(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(30_000)
    db.create_stream(max_offsets_per_trigger=1000)
    for rows in range(5000, 25_001, 5000):
        wait_until(lambda: db.value("SELECT count(*) FROM target") >= rows)
        db.call("stop_stream")
        assert db.value("SELECT count(*) = (SELECT sum(next_offset) FROM kafka.stream_offset) FROM target")
        db.call("start_stream")
    assert_exact(db, topic)


def test_rolled_back_stop_goes_on(db, topic):
    db.create_tables(topic)
    db.create_stream()
    db.worker_pid()
    with db.connect(autocommit=False) as session:
        session.execute("SELECT kafka.stop_stream('s')")
        session.rollback()
    topic.produce_sequence(30)
    assert_exact(db, topic)


def test_rolled_back_savepoint(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(30)
    with db.connect(autocommit=False) as session:
        session.execute("SELECT kafka.create_stream('s', source => 'topic', target => 'target', start => false)")
        session.execute("SAVEPOINT a")
        session.execute("SELECT kafka.start_stream('s')")
        session.execute("ROLLBACK TO a")
        session.commit()
    assert db.status().state == "stopped"
    assert db.value("SELECT count(*) FROM target") == 0


def test_start_and_stop_twice(db, topic):
    db.create_tables(topic)
    db.create_stream()
    db.call("start_stream")
    db.call("start_stream")
    topic.produce_sequence(30)
    assert_exact(db, topic)
    db.call("stop_stream")
    db.call("stop_stream")
    assert db.status().state == "stopped"


def test_drop_stream(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream(query="SELECT * FROM topic")
    db.process_all_available()
    pid = db.worker_pid()
    relations = "SELECT count(*) FROM pg_class WHERE relkind = 'v' AND relnamespace = 'kafka'::regnamespace"
    views = db.value(relations)
    db.call("drop_stream")
    assert db.status() is None
    wait_until(lambda: backends(db, pid) == 0)
    assert db.value(relations) == views - 1
    assert db.value("SELECT count(*) FROM target") == 30
    with error('"s" does not exist', sqlstate="42704"):
        db.call("drop_stream")
    db.call("drop_stream", if_exists=True)


def test_rolled_back_drop_goes_on(db, topic):
    db.create_tables(topic)
    db.create_stream()
    db.worker_pid()
    with db.connect(autocommit=False) as session:
        session.execute("SELECT kafka.drop_stream('s')")
        session.rollback()
    topic.produce_sequence(30)
    assert_exact(db, topic)


def test_many_create_and_drop(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(30)
    for _ in range(10):
        db.run("TRUNCATE target")
        db.create_stream()
        assert_exact(db, topic)
        db.call("drop_stream")


def test_functions_name_a_missing_stream(db):
    for function in ("start_stream", "stop_stream", "alter_stream", "reset_stream", "process_all_available"):
        with error('"nothing" does not exist', sqlstate="42704"):
            db.call(function, "nothing")


def test_alter_stream(db, topic):
    db.create_tables(topic)
    db.run("CREATE TABLE other (LIKE target)")
    topic.produce_sequence(30)
    db.create_stream(query="SELECT * FROM topic")
    assert_exact(db, topic)
    db.call("alter_stream", query="SELECT * FROM topic WHERE id > 50", target="other",
            max_offsets_per_trigger=10)
    topic.produce_sequence(30, first=31)
    db.process_all_available()
    assert db.column("SELECT id FROM other ORDER BY id") == list(range(51, 61))
    assert db.value("SELECT count(*) FROM target") == 30
    assert db.next_offsets() == topic.offsets()
    with error("column", detail="unknown"):
        db.call("alter_stream", query="SELECT id, p AS unknown FROM topic")
    db.call("alter_stream", query="SELECT 7 AS p, id FROM topic")
    topic.produce({"id": 100})
    db.process_all_available()
    assert db.run("SELECT id, p, o FROM other WHERE id = 100") == [(100, 7, None)]


def test_process_all_available_waits_for_what_is_there(db, topic):
    db.create_tables(topic)
    db.create_stream(trigger_interval="1 s")
    for first in (1, 101, 201):
        topic.produce_sequence(100, first=first)
        db.process_all_available()
        assert db.value("SELECT count(*) FROM target") == first + 99


def test_process_all_available_times_out(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream()
    db.process_all_available()
    with db.connect(autocommit=False) as session:
        session.execute("LOCK TABLE target")
        topic.produce_sequence(30, first=31)
        started = time.monotonic()
        with error("tim"):
            db.process_all_available(timeout="3 s")
        assert 2.9 < time.monotonic() - started < 8
        session.rollback()
    assert_exact(db, topic)


def test_process_all_available_of_a_stopped_stream(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream(start=False)
    started = time.monotonic()
    with error("not running|stopped"):
        db.process_all_available()
    assert time.monotonic() - started < 5


def test_process_all_available_can_be_cancelled(db, topic):
    db.create_tables(topic)
    db.create_stream()
    db.process_all_available()
    with db.connect(autocommit=False) as locker, db.connect() as waiter:
        locker.execute("LOCK TABLE target")
        topic.produce_sequence(3)
        errors = []

        def wait():
            try:
                waiter.execute("SELECT kafka.process_all_available('s')")
            except Exception as caught:
                errors.append(caught.sqlstate)

        thread = threading.Thread(target=wait)
        thread.start()
        db.wait_for("SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'active' "
                    "AND query LIKE '%process_all_available%' AND pid <> pg_backend_pid()")
        waiter.cancel()
        thread.join(10)
        assert errors == ["57014"]
        locker.rollback()


def test_available_now_stops_at_the_pinned_end(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(5000)
    db.create_stream(trigger="available_now", max_offsets_per_trigger=700, start=False)
    db.call("start_stream")
    topic.produce_sequence(1000, first=5001)
    db.wait_for_state("stopped")
    assert db.column("SELECT id FROM target ORDER BY id") == list(range(1, 5001))
    db.call("start_stream")
    db.wait_for_state("stopped")
    assert_exact(db, topic, process=False)


def test_available_now_of_an_empty_topic(db, topic):
    db.create_tables(topic)
    db.create_stream(trigger="available_now")
    db.wait_for_state("stopped")


@pytest.mark.parametrize("limit, batches_of_backlog", [(1000, 20), (7, 400)])
def test_max_offsets_per_trigger_is_fair(db, topic, limit, batches_of_backlog):
    """A long backlog in one partition does not starve the others."""
    db.create_tables(topic)
    topic.produce_all({"value": {"id": n}, "partition": 0} for n in range(batches_of_backlog * limit))
    topic.produce_all({"value": {"id": n}, "partition": 1} for n in range(20_000, 20_100))
    topic.produce_all({"value": {"id": 30_000}, "partition": 2} for n in range(1))
    gates.build(db, "in the batch")
    with gates.closed(db):
        db.create_stream(max_offsets_per_trigger=limit)
        gates.wait_for_worker(db)  # librdkafka fetches the other partitions meanwhile
    assert_exact(db, topic)
    batches = db.run("SELECT num_input_rows FROM kafka.stream_progress WHERE stream = 's'")
    assert batches and all(rows <= limit for rows, in batches)
    # One transaction per batch: the small partition was done long before the backlog; when, is the broker's business.
    assert db.value("""SELECT count(DISTINCT xmin::text) FROM target WHERE xmin::text::bigint <=
                       (SELECT max(xmin::text::bigint) FROM target WHERE p = 2)""") <= batches_of_backlog / 2


def test_small_limit_on_a_long_backlog(db, topic):
    """Hundreds of batches from what was fetched at once: with a stop in between, markers, aborted messages and news."""
    db.create_tables(topic)
    topic.produce_all({"value": {"id": n}, "partition": 0} for n in range(2_000))
    with topic.transaction(commit=False) as produce:
        produce(*({"id": -n} for n in range(1, 50)), partition=0)
    with topic.transaction() as produce:
        produce(*({"id": 2_000 + n} for n in range(50)), partition=1)
    topic.wait_for_markers()
    db.create_stream(max_offsets_per_trigger=3)
    db.wait_for("SELECT count(*) > 100 FROM target")
    db.call("stop_stream")
    # what was fetched for later batches is not in the checkpoint
    assert db.value("SELECT max(o) + 1 FROM target WHERE p = 0") == db.next_offsets()[0] < 2_000
    topic.produce_all({"value": {"id": 3_000 + n}, "partition": n % 3} for n in range(90))
    db.call("start_stream")
    assert_exact(db, topic)
    assert db.value("SELECT max(num_input_rows) FROM kafka.stream_progress WHERE stream = 's'") <= 3


def test_a_cancelled_stop_leaves_no_error(db, topic):
    """The worker can't listen, is sent SIGTERM, and the caller gives up: the stream goes on, and nobody asks why its worker has ended."""
    db.create_tables(topic)
    db.create_stream()
    worker = db.worker_pid()
    suspend(worker)
    try:
        with db.connect() as session:
            session.execute("SET statement_timeout = '3s'")
            with error("statement timeout"):
                session.execute("SELECT kafka.stop_stream('s')")
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_until(lambda: backends(db, worker) == 0)
    topic.produce_sequence(30)
    assert_exact(db, topic)
    status = db.status()
    assert status.pid != worker and status.last_error is None


def test_trigger_interval_spaces_batches(db, topic):
    db.create_tables(topic)
    db.create_stream(trigger_interval="500 ms")
    topic.produce({"id": 0})
    db.wait_for("SELECT count(*) FROM target", 1)
    with topic.producing(1):
        db.wait_for("SELECT count(*) >= 4 FROM kafka.stream_progress WHERE stream = 's'")
    assert_exact(db, topic)
    assert db.value("""SELECT min(gap) FROM (SELECT started_at - lag(started_at) OVER (ORDER BY batch_id) AS gap
                       FROM kafka.stream_progress WHERE stream = 's') g""").total_seconds() > 0.4


def test_progress_and_lag(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(300)
    db.create_stream()
    db.process_all_available()
    status = db.status()
    assert status.messages == 300 and status.bytes > 300 and status.restarts == 0
    assert status.last_error is None
    db.wait_for_state("idle")
    assert db.run("SELECT partition, next_offset, high_watermark, lag FROM kafka.stream_lag ORDER BY 1") == [
        (0, 100, 100, 0), (1, 100, 100, 0), (2, 100, 100, 0)]
    assert db.value("SELECT every(last_message_at > now() - interval '1 minute') FROM kafka.stream_lag")
    assert db.value("SELECT sum(num_input_rows)::bigint FROM kafka.stream_progress") == 300
    assert db.value("SELECT sum(num_output_rows)::bigint FROM kafka.stream_progress") == 300
    assert db.value("SELECT application_name FROM pg_stat_activity WHERE pid = %s", status.pid) == "kafka_ingest s"
    db.wait_for(f"SELECT wait_event IS NOT NULL FROM pg_stat_activity WHERE pid = {status.pid}")
