"""What is wrong around a batch, not with its messages: waited for or tried again, never a dead letter."""

import os
import resource
import shutil
import subprocess

import pytest

import gates
from expectations import assert_exact
from harness.postgres import server_user
from harness.processes import wait_until


def no_letters(db):
    assert db.value("SELECT count(*) FROM kafka.dead_letter") == 0


def test_no_snapshot_while_the_target_is_locked(db, topic):
    """An exclusive lock that is held for long: the worker that waits for it holds back no vacuum."""
    db.create_tables(topic)
    db.create_stream()
    db.process_all_available()
    pid = db.worker_pid()
    with db.connect(autocommit=False) as session:
        session.execute("LOCK TABLE target")
        topic.produce_sequence(30)
        db.wait_for(f"SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {pid}", 1)
        assert db.run("SELECT backend_xmin, backend_xid FROM pg_stat_activity WHERE pid = %s", pid) == [(None, None)]
        session.rollback()
    assert_exact(db, topic)


def test_statement_timeout(db, topic):
    """A user's limits on statements are not the workers'; where they end a batch, it comes again."""
    db.create_tables(topic)
    gates.build(db, "in the batch")
    db.run(f"ALTER DATABASE {db.name} SET statement_timeout = '50 ms'")
    timeouts = db.column("SELECT name FROM pg_settings WHERE name IN ('transaction_timeout')")
    for name in timeouts:
        db.run(f"ALTER DATABASE {db.name} SET {name} = '1 s'")
    topic.produce_sequence(300)
    with gates.closed(db):
        db.create_stream(on_error="dead_letter")
        gates.wait_for_worker(db)
        if timeouts:
            wait_until(lambda: db.status().restarts > 0)
    for name in timeouts:
        db.run(f"ALTER DATABASE {db.name} RESET {name}")
    assert_exact(db, topic)
    no_letters(db)


def limit_memory(pid, size):
    """Only a process's own user may change its limits."""
    subprocess.run(["prlimit", f"--pid={pid}", f"--as={size}:"], user=server_user(), group=server_user(), check=True, cwd="/")


def test_out_of_memory(db, topic):
    """malloc fails in the worker."""
    db.create_tables(topic)
    db.run("CREATE FUNCTION memory() RETURNS int LANGUAGE sql VOLATILE AS $$ SELECT length(repeat('x', 800000000)) $$")
    db.create_stream(on_error="dead_letter", query="SELECT id, p, o FROM topic WHERE id < 25 OR public.memory() > 0")
    db.process_all_available()
    pid = db.worker_pid()
    with open(f"/proc/{pid}/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    # librdkafka's threads, started anew when a batch is tried again, have room in this
    limit_memory(pid, now + 600_000_000)
    topic.produce_sequence(30)
    status = db.wait_for_state("backing off")
    assert status.last_error_sqlstate == "53200", status
    limit_memory(pid, "unlimited")
    assert_exact(db, topic)
    no_letters(db)
    assert db.status().pid == pid


@pytest.fixture
def small_file_system(run_directory):
    """A directory of 8 MB; only root can make one."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    directory = run_directory.subdirectory("small")
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs", directory], stderr=subprocess.PIPE,
                           text=True)
    if mount.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mount.stderr}")
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)


def test_disk_full(db, topic, small_file_system):
    database = db.name
    db.create_tables(topic)
    tablespace = small_file_system / "space"
    tablespace.mkdir(mode=0o777)
    shutil.chown(tablespace, server_user())
    db.run(f"CREATE TABLESPACE small_{database} LOCATION '{tablespace}'")
    try:
        db.run(f"ALTER TABLE target SET TABLESPACE small_{database}")
        db.run("ALTER TABLE target ADD COLUMN filler text DEFAULT repeat('x', 700)")
        topic.produce_sequence(30_000)
        db.create_stream(on_error="dead_letter", max_offsets_per_trigger=1000)
        status = db.wait_for_state("backing off", timeout=60)
        assert status.last_error_sqlstate == "53100", status
        before = db.value("SELECT count(*) FROM target")
        assert before == db.value("SELECT sum(next_offset) FROM kafka.stream_offset") and before > 0
        # There is room again.
        subprocess.run(["mount", "-o", "remount,size=200m", small_file_system], check=True)
        assert_exact(db, topic)
        no_letters(db)
    finally:
        db.call("drop_stream")
        db.run("DROP TABLE target")
        db.run(f"DROP TABLESPACE small_{database}")


def test_another_writer_of_the_checkpoint_wins(db, topic):
    """Somebody else has moved the stream's offsets while its worker wrote: the worker's rows are rolled back."""
    db.create_tables(topic)
    gates.build(db, "in the batch")
    topic.produce_sequence(300)
    with gates.closed(db):
        db.create_stream(on_error="dead_letter")
        gates.wait_for_worker(db)
        with db.connect(autocommit=False) as other:
            other.execute("ALTER TABLE kafka.stream_offset DISABLE TRIGGER USER")
            # of the partition that the batch at the gate is reading; others may have been committed already
            partition = other.execute("SELECT p FROM topic WHERE id = 50").fetchone()[0]
            other.execute("INSERT INTO target SELECT id, p, o FROM topic WHERE p = %s AND o < 10", [partition])
            other.execute("UPDATE kafka.stream_offset SET next_offset = 10 WHERE partition = %s", [partition])
            other.commit()
    db.wait_for("SELECT last_error_sqlstate FROM kafka.stream_status", "40001")
    assert_exact(db, topic)
    no_letters(db)
