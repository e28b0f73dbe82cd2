"""kill -9 of the worker at exact points of a batch."""

import os
import signal

import psycopg
import pytest

import gates
from crashes import kill_worker
from expectations import assert_exact
from harness.processes import wait_until
from observer import Observer


def kill(db, pid):
    """kill -9; returns when everybody has been restarted."""
    session = db.connection
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT pg_sleep(60)")
    db.reconnect()


def test_while_waiting_for_messages(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream()
    with Observer(db):
        db.process_all_available()
        db.wait_for_state("idle")
        kill_worker(db)
        topic.produce_sequence(30, first=31)
        assert_exact(db, topic)


@pytest.mark.parametrize("place", gates.PLACES)
def test_before_the_commit(db, topic, place):
    """Nothing of the batch is left, and all of it comes again."""
    db.create_tables(topic)
    gates.build(db, place)
    topic.produce_sequence(120)
    with Observer(db):
        with gates.closed(db):
            db.create_stream()
            kill(db, gates.wait_for_worker(db))
        assert_exact(db, topic)


def test_right_after_the_commit(db, topic, postgres):
    """The commit is in the log, but neither worker nor readers know: it waits for a standby that doesn't come."""
    db.create_tables(topic)
    db.create_stream()
    topic.produce_sequence(30)
    assert_exact(db, topic)
    db.run("SET synchronous_commit = local")
    db.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    try:
        db.run("SELECT pg_reload_conf()")
        pid = db.worker_pid()

        def waits_for_the_standby():
            topic.produce({"id": 1000})
            return db.value("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", pid) == "SyncRep"

        with Observer(db):
            wait_until(waits_for_the_standby, interval=0.1)
            seen = db.value("SELECT count(*) FROM target")
            kill(db, pid)
            # Recovery replays the commit, although its worker never learned of it.
            assert db.value("SELECT count(*) FROM target") > seen
            db.run("SET synchronous_commit = local")
            db.run("ALTER SYSTEM RESET synchronous_standby_names")
            db.run("SELECT pg_reload_conf()")
            assert_exact(db, topic)
    finally:
        db.run("SET synchronous_commit = local")
        db.run("ALTER SYSTEM RESET synchronous_standby_names")
        db.run("SELECT pg_reload_conf()")


def test_again_and_again_at_the_same_place(db, topic):
    db.create_tables(topic)
    gates.build(db, "after the rows, before the offsets")
    topic.produce_sequence(3000)
    with gates.closed(db):
        db.create_stream(max_offsets_per_trigger=1000)
        with Observer(db):
            kill(db, gates.wait_for_worker(db))
            for _ in range(3):
                with gates.closed(db):
                    kill(db, gates.wait_for_worker(db))
            assert_exact(db, topic)
