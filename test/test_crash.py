"""Processes die at bad moments; the rows stay exact."""

import os
import signal

from expectations import assert_exact
from harness.processes import stat_fields, wait_until
from observer import Observer

MESSAGES = 60_000


def rows(db):
    return db.value("SELECT count(*) FROM target")


def start_ingest(db, topic, max_offsets_per_trigger=500):
    """A stream with small batches, so that it is busy for a while; returns when it has begun."""
    db.create_tables(topic)
    topic.produce_sequence(MESSAGES)
    db.create_stream(max_offsets_per_trigger=max_offsets_per_trigger)
    wait_until(lambda: rows(db) > 0)


def test_kill_9_of_the_worker_ten_times(db, topic):
    start_ingest(db, topic)
    with Observer(db) as observer:
        for _ in range(10):
            before = rows(db)
            pid = db.worker_pid()
            if before < MESSAGES:
                wait_until(lambda: rows(db) > before)
            os.kill(pid, signal.SIGKILL)
            # The postmaster restarts everything; nobody keeps a connection.
            wait_until(lambda: db.connection.closed or not alive(db))
            db.reconnect()
            db.worker_pid()
        assert_exact(db, topic)
    assert observer.snapshots > 10


def alive(db):
    import psycopg
    try:
        db.run("SELECT 1")
        return True
    except psycopg.OperationalError:
        return False


def test_terminated_worker_comes_back(db, topic):
    start_ingest(db, topic)
    with Observer(db):
        for _ in range(3):
            pid = db.worker_pid()
            db.run("SELECT pg_terminate_backend(%s)", pid)
            wait_until(lambda: db.status().pid not in (pid, None))
        assert_exact(db, topic)


def test_cancelled_batch_is_retried(db, topic):
    start_ingest(db, topic)
    with Observer(db):
        for _ in range(5):
            db.run("SELECT pg_cancel_backend(%s)", db.worker_pid())
        assert_exact(db, topic)


def test_immediate_restart_of_the_server(db, topic, postgres):
    start_ingest(db, topic)
    with Observer(db):
        for _ in range(2):
            before = rows(db)
            wait_until(lambda: rows(db) > before or before == MESSAGES)
            postgres.restart("immediate")
            db.reconnect()
        assert_exact(db, topic)


def test_fast_restart_of_the_server(db, topic, postgres):
    start_ingest(db, topic)
    with Observer(db):
        db.run("CHECKPOINT")  # the one at the end has little to write
        assert postgres.stop("fast") < 5
        postgres.start()
        db.reconnect()
        assert_exact(db, topic)


def test_fast_stop_with_the_broker_away(db, topic, postgres, kafka):
    start_ingest(db, topic)
    kafka.suspend()
    db.run("CHECKPOINT")
    assert postgres.stop("fast") < 5
    postgres.start()
    db.reconnect()
    kafka.resume()
    assert_exact(db, topic)


def test_worker_ends_with_the_postmaster(db, topic, postgres):
    db.create_tables(topic)
    db.create_stream()
    pid = db.worker_pid()
    postgres.process.stop(signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}") or is_zombie(pid), what="the worker's end")
    # Another postmaster may start only after the old one's children are gone.
    def restarted():
        try:
            postgres.start()
            return True
        except RuntimeError:
            return False
    wait_until(restarted, timeout=60)
    db.reconnect()
    topic.produce_sequence(30)
    assert_exact(db, topic)


def is_zombie(pid):
    try:
        return stat_fields(f"/proc/{pid}")[0] == "Z"
    except OSError:
        return True


def test_synchronous_commit_off_loses_nothing(db, topic, postgres):
    db.run(f"ALTER DATABASE {db.name} SET synchronous_commit = off")
    start_ingest(db, topic)
    with Observer(db):
        postgres.restart("immediate")
        db.reconnect()
        assert_exact(db, topic)


def test_serializable_by_default(db, topic):
    db.run(f"ALTER DATABASE {db.name} SET default_transaction_isolation = 'serializable'")
    start_ingest(db, topic)
    assert_exact(db, topic)
