"""Life of the server: preloading, idleness, standby, dump and restore, databases."""

import os
import subprocess
import time

import confluent_kafka
import psycopg

from expectations import assert_exact, error
from harness.database import Database
from harness.postgres import WHEELS
from harness.processes import cpu_seconds, wait_until


def test_idle_worker_costs_nothing(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(300)
    db.create_stream()
    db.process_all_available()
    pid = db.wait_for_state("idle").pid
    cpu, started = cpu_seconds(pid), time.monotonic()

    def three_seconds_passed():
        assert db.run("SELECT xact_start, backend_xmin, backend_xid FROM pg_stat_activity WHERE pid = %s",
                      pid) == [(None, None, None)]
        return time.monotonic() - started > 3

    wait_until(three_seconds_passed, interval=0.1)
    assert db.status().pid == pid
    assert cpu_seconds(pid) - cpu < 0.1


def test_without_preloading(new_cluster, topic, kafka):
    cluster = new_cluster({"shared_preload_libraries": ""}).start()
    database = Database(cluster)
    database.create_server(kafka.address)
    database.create_tables(topic)
    topic.produce_sequence(3)
    assert database.value("SELECT count(*) FROM topic") == 3  # needs no worker
    with error("shared_preload_libraries|preload", hint="shared_preload_libraries"):
        database.create_stream()


def test_server_restart_resumes(db, topic, postgres):
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream()
    assert_exact(db, topic)
    postgres.stop()
    topic.produce_sequence(30, first=31)
    postgres.start()
    db.reconnect()
    db.worker_pid()
    assert_exact(db, topic)


def test_stopped_stream_stays_stopped_after_a_restart(db, topic, postgres):
    db.create_tables(topic)
    db.create_stream()
    db.call("stop_stream")
    postgres.restart()
    db.reconnect()
    assert db.status().state == "stopped"
    assert db.status().pid is None


def test_standby_and_promotion(new_cluster, topic, kafka):
    primary = new_cluster().start()
    db = Database(primary)
    db.create_server(kafka.address)
    db.create_tables(topic)
    topic.produce_sequence(300)
    db.create_stream()
    db.process_all_available()
    standby = new_cluster(primary=primary).start()
    replica = Database(standby, name=db.name)
    topic.produce_sequence(300, first=301)
    db.process_all_available()
    replica.wait_for("SELECT count(*) FROM target", 600)
    assert replica.next_offsets() == topic.offsets()
    assert replica.status().pid is None
    assert replica.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'kafka%stream%'") == 0
    primary.stop("immediate")
    topic.produce_sequence(300, first=601)
    replica.run("SELECT pg_promote()")
    replica.worker_pid()
    assert_exact(replica, topic)


def test_dump_and_restore(db, topic, postgres, installation, run_directory):
    db.create_tables(topic)
    topic.produce_sequence(300)
    db.create_stream()
    db.create_stream("by_query", query="SELECT * FROM topic WHERE id < 0")
    db.process_all_available()
    dump = run_directory.path / "dump.sql"
    dump.write_text(installation.run("pg_dump", "-d", postgres.conninfo(db.name)).stdout)
    restored = Database(postgres, extension=False)
    try:
        installation.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", postgres.conninfo(restored.name),
                         "-f", dump)
        topic.produce_sequence(300, first=301)
        assert_exact(db, topic)
        for name in ("s", "by_query"):
            status = restored.status(name)
            assert (status.state, status.pid) == ("stopped", None)
        assert restored.next_offsets() == {0: 100, 1: 100, 2: 100}
        assert restored.value("SELECT count(*) FROM target") == 300
        restored.call("start_stream")
        assert_exact(restored, topic)
        restored.call("drop_stream", "by_query")
        restored.create_stream("another", start=False)
    finally:
        restored.drop()


def test_copied_database_does_not_start_by_itself(db, topic, postgres):
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream()
    assert_exact(db, topic)
    db.call("stop_stream")
    db.call("start_stream")
    db.call("stop_stream")
    db.run("UPDATE kafka.stream SET enabled = true")
    db.connection.close()
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {db.name}_copy TEMPLATE {db.name}")
    copy = Database(postgres, name=f"{db.name}_copy")
    try:
        assert copy.status().state == "stopped"
        copy.call("start_stream")
        topic.produce_sequence(30, first=31)
        assert_exact(copy, topic)
    finally:
        copy.drop()


def test_drop_database_is_quick(db, topic, postgres, kafka):
    db.create_tables(topic)
    db.create_stream()
    doomed = Database(postgres)
    doomed.create_server(kafka.address)
    doomed.create_tables(topic)
    doomed.create_stream()
    doomed.worker_pid()
    db.run("CHECKPOINT")  # DROP DATABASE makes one, too
    started = time.monotonic()
    doomed.drop()
    assert time.monotonic() - started < 4  # PostgreSQL waits 5 s for sessions that do not go
    topic.produce_sequence(30)
    assert_exact(db, topic)


def test_drop_database_of_a_stranger_is_quick(db, topic, postgres):
    db.create_tables(topic)
    db.create_stream()
    db.process_all_available()
    stranger = Database(postgres, extension=False)
    db.run("CHECKPOINT")
    started = time.monotonic()
    stranger.drop()
    assert time.monotonic() - started < 4


def test_extension_dropped_while_running(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(20_000)
    db.create_stream(max_offsets_per_trigger=500)
    pid = db.worker_pid()
    db.run("DROP EXTENSION kafka_ingest CASCADE")
    db.wait_for(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}", 0)
    db.run("CREATE EXTENSION kafka_ingest")
    assert db.value("SELECT count(*) FROM kafka.stream") == 0


def test_many_streams(db, topic):
    db.create_topic_table(topic)
    topic.produce_sequence(30)
    for number in range(12):
        db.run(f"CREATE TABLE target_{number} (id bigint)")
        db.create_stream(f"s{number}", target=f"target_{number}")
    for number in range(12):
        db.process_all_available(f"s{number}")
        assert db.value(f"SELECT count(*) FROM target_{number}") == 30


def test_offset_table_stays_small(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(6000)
    db.run("ALTER TABLE target SET (autovacuum_enabled = off); ALTER TABLE kafka.stream_offset SET (autovacuum_enabled = off)")
    db.create_stream(max_offsets_per_trigger=3)
    # Looks again and again, for moments: process_all_available, or an ANALYZE, would hold a snapshot, and with it old versions.
    db.wait_for("SELECT sum(next_offset)::int FROM kafka.stream_offset", 6000, timeout=60)
    assert db.value("SELECT pg_relation_size('kafka.stream_offset')") <= 64 * 1024


def test_librdkafka_is_named(db, postgres):
    version = db.value("SELECT kafka.library_version()")
    assert version[0].isdigit()
    if os.environ.get("LIBRDKAFKA") == "newest" and postgres.installation.version in WHEELS:
        assert version == confluent_kafka.libversion()[0]


def test_plain_psql_sees_the_help(db, postgres):
    """Every function and view has a comment."""
    undocumented = db.column("""SELECT p.oid::regprocedure::text FROM pg_proc p
        WHERE pronamespace = 'kafka'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
        UNION ALL SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace = 'kafka'::regnamespace
        AND relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL""")
    assert undocumented == []
    assert subprocess.run([postgres.installation.bin / "psql", "--version"], stdout=subprocess.PIPE,
                          env=postgres.installation.environment(), check=True).stdout
