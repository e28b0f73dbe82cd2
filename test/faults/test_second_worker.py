"""Two workers forced onto one stream: one goes on, the other ends without having written anything."""

import pathlib
import subprocess

import pytest

from expectations import assert_exact
from harness import paths
from harness.database import Database
from observer import Observer


@pytest.fixture
def db(new_cluster, kafka):
    """On a server of its own, where slots and their generations are counted from the beginning."""
    database = Database(new_cluster().start())
    database.create_server(kafka.address)
    return database


@pytest.fixture
def start_second_worker(db, installation, run_directory):
    library = run_directory.path / "second_worker.so"
    if not library.exists():
        headers = installation.run("pg_config", "--includedir-server").stdout.strip()
        subprocess.run(["gcc", "-shared", "-fPIC", "-fno-strict-aliasing", "-fwrapv", f"-I{headers}", f"-I{paths.SOURCE}/src",
                        pathlib.Path(__file__).with_name("second_worker.c"), "-o", library], check=True)
    db.run(f"CREATE FUNCTION start_second_worker(slot int, generation int, stream_id bigint) RETURNS int "
           f"AS '{library}' LANGUAGE C")
    return lambda slot, generation: db.value("SELECT start_second_worker(%s, %s, stream_id) FROM kafka.stream WHERE name = 's'",
                                             slot, generation)


def test_two_workers_on_one_stream(db, topic, start_second_worker):
    db.create_tables(topic)
    topic.produce_sequence(60_000)
    db.create_stream(max_offsets_per_trigger=500)
    pid = db.worker_pid()
    db.wait_for("SELECT count(*) > 0 FROM target")
    with Observer(db):
        # Whatever slot and generation it claims: that of the first worker is among these.
        for slot in range(4):
            for generation in range(1, 6):
                start_second_worker(slot, generation)
        assert_exact(db, topic)
    assert db.status().pid == pid
    assert db.status().restarts == 0
    assert db.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'second worker' OR application_name ~ 'kafka_ingest s'") == 1
