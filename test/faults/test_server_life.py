"""Servers are restored, copied, upgraded and dropped."""

import pathlib
import shutil
import time

import psycopg
import pytest

from expectations import assert_exact
from harness.database import Database
from harness.postgres import server_user
from harness.processes import Process, wait_until


def stream_on(cluster, kafka, topic):
    db = Database(cluster)
    db.create_server(kafka.address)
    db.create_tables(topic)
    topic.produce_sequence(300)
    db.create_stream()
    assert_exact(db, topic)
    return db


def test_point_in_time_recovery(new_cluster, topic, kafka, run_directory, installation):
    """Restored to a moment, the stream goes on from that moment: what came later is read again, once."""
    archive = run_directory.subdirectory("archive", owner=server_user())
    primary = new_cluster({"archive_mode": "on", "archive_command": f"cp %p {archive}/%f"}).start()
    db = stream_on(primary, kafka, topic)
    restored = new_cluster(primary=primary)
    topic.produce_sequence(300, first=301)
    assert_exact(db, topic)
    db.run("SELECT pg_create_restore_point('good')")
    topic.produce_sequence(300, first=601)
    assert_exact(db, topic)
    db.run("TRUNCATE target")
    db.run("SELECT pg_switch_wal()")
    primary.stop()
    (restored.data / "standby.signal").unlink()
    (restored.data / "recovery.signal").touch()
    shutil.chown(restored.data / "recovery.signal", server_user())
    (restored.data / "postgresql.auto.conf").write_text("")
    restored.settings.update({"restore_command": f"cp {archive}/%f %p", "recovery_target_name": "good",
                              "recovery_target_action": "pause"})
    restored.write_settings()
    restored.start()
    copy = Database(restored, name=db.name)
    wait_until(lambda: copy.value("SELECT pg_get_wal_replay_pause_state() = 'paused'"))
    assert copy.value("SELECT count(*) FROM target") == 600
    assert copy.next_offsets() == {0: 200, 1: 200, 2: 200}
    assert copy.status().pid is None
    copy.run("SELECT pg_wal_replay_resume()")
    copy.worker_pid()
    assert_exact(copy, topic)
    copy.drop()


def test_a_data_directory_in_binary_upgrade_mode(new_cluster, topic, kafka, installation, run_directory):
    """pg_upgrade starts servers in this mode: neither launcher nor workers."""
    cluster = new_cluster().start()
    db = stream_on(cluster, kafka, topic)
    cluster.stop()
    topic.produce_sequence(300, first=301)
    cluster.process = Process("PostgreSQL in binary upgrade mode",
                              [installation.bin / "postgres", "-D", cluster.data, "-b"], cluster.log, user=server_user(),
                              environment=installation.environment())
    wait_until(cluster._is_ready)
    db.reconnect()
    assert db.column("SELECT backend_type FROM pg_stat_activity WHERE backend_type ~ 'kafka'") == []
    assert db.value("SELECT count(*) FROM target") == 300
    cluster.stop()
    cluster.start()
    db.reconnect()
    assert_exact(db, topic)
    db.drop()


def test_pg_upgrade(new_cluster, topic, kafka, installation, run_directory):
    """Afterwards the streams are stopped, with their checkpoints, and go on when somebody starts them."""
    old = new_cluster().start()
    db = stream_on(old, kafka, topic)
    db.run("CREATE TABLE batches (id bigint); CREATE PROCEDURE write_batch(bigint) LANGUAGE sql AS "
           "$$ INSERT INTO public.batches SELECT id FROM public.topic $$")
    db.call("create_stream", "procedure", source="topic", foreach_batch="write_batch(bigint)")
    db.process_all_available("procedure")
    old.stop()
    new = new_cluster()
    work = run_directory.subdirectory("upgrade", owner=server_user())
    result = installation.run("pg_upgrade", "-b", installation.bin, "-B", installation.bin, "-d", old.data, "-D", new.data,
                              "-U", "postgres", "-p", old.port, "-P", new.port, "-s", work, as_server_user=True, check=False,
                              cwd=work)
    assert result.returncode == 0, result.stdout + result.stderr
    topic.produce_sequence(300, first=301)
    new.start()
    upgraded = Database(new, name=db.name)
    assert (upgraded.status().state, upgraded.status().pid) == ("stopped", None)
    assert upgraded.value("SELECT count(*) FROM target") == 300
    assert upgraded.next_offsets() == {0: 100, 1: 100, 2: 100}
    for stream in ("s", "procedure"):
        upgraded.call("start_stream", stream)
    assert_exact(upgraded, topic)
    upgraded.process_all_available("procedure")
    assert upgraded.column("SELECT id FROM batches ORDER BY id") == list(range(1, 601))


def quickly(action, seconds):
    started = time.monotonic()
    result = action()
    assert time.monotonic() - started < seconds
    return result


def test_databases_are_copied_and_dropped_around_streams(db, topic, postgres):
    """Only our own database is in use by our workers, and who wants to drop it is told so at once."""
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream()
    assert_exact(db, topic)
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        for statement in ("CREATE DATABASE from_template1", "DROP DATABASE from_template1",
                          "CREATE DATABASE closed", "ALTER DATABASE closed ALLOW_CONNECTIONS false"):
            quickly(lambda: admin.execute(statement), 5)
        db.connection.close()
        for statement in (f"DROP DATABASE {db.name}", f"CREATE DATABASE copy TEMPLATE {db.name}",
                          f"ALTER DATABASE {db.name} RENAME TO other"):
            # PostgreSQL itself waits 5 s for other sessions to go
            with pytest.raises(psycopg.errors.ObjectInUse):
                quickly(lambda: admin.execute(statement), 15)
        # a start of the server looks into every database that accepts connections
        admin.close()
    postgres.restart()
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        db.reconnect()
        db.worker_pid()
        quickly(lambda: admin.execute("DROP DATABASE closed"), 5)
        topic.produce_sequence(30, first=31)
        assert_exact(db, topic)
        db.call("stop_stream")
        db.connection.close()
        admin.execute(f"ALTER DATABASE {db.name} ALLOW_CONNECTIONS false")
        quickly(lambda: admin.execute(f"CREATE DATABASE copied TEMPLATE {db.name}"), 10)
        admin.execute(f"ALTER DATABASE {db.name} ALLOW_CONNECTIONS true")
        db.reconnect()
        db.call("start_stream")
        topic.produce_sequence(30, first=61)
        assert_exact(db, topic)
        admin.execute("DROP DATABASE copied")


def test_a_database_that_stops_accepting_connections(db, topic, postgres):
    """The stream waits, and goes on when it may."""
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream()
    assert_exact(db, topic)
    with (psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin,
          db.server_setting("kafka_ingest.max_restart_delay", "2 s")):
        admin.execute(f"ALTER DATABASE {db.name} ALLOW_CONNECTIONS false")
        db.run("SELECT pg_terminate_backend(%s)", db.worker_pid())
        topic.produce_sequence(30, first=31)
        wait_until(lambda: db.status().pid is None)
        admin.execute(f"ALTER DATABASE {db.name} ALLOW_CONNECTIONS true")
        assert_exact(db, topic)


@pytest.mark.timeout(600)
def test_the_offset_table_stays_small_after_many_commits(db, new_topic):
    topic = new_topic()
    db.create_tables(topic)
    db.run(f"ALTER DATABASE {db.name} SET synchronous_commit = off")
    topic.produce_sequence(30_000)
    db.create_stream(max_offsets_per_trigger=1)
    db.wait_for("SELECT count(*) FROM target", 30_000, timeout=500)
    # 30,000 versions of the row would be 4.5 MB
    assert db.value("SELECT pg_relation_size('kafka.stream_offset')") <= 512 * 1024
    assert db.value("SELECT pg_indexes_size('kafka.stream_offset')") <= 64 * 1024
    assert_exact(db, topic)
