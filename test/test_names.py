"""A name server that doesn't answer keeps nobody: neither a query's cancel nor a stream's nor the server's end."""

import subprocess
import time

import psycopg
import pytest

from harness import paths
from harness.database import Database
from harness.processes import wait_until

SOON = 15  # seconds; the name server takes 60


@pytest.fixture(scope="module")
def slow_names(run_directory):
    library = run_directory.path / "slow_names.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(paths.TEST / "slow_names.c"), "-ldl"], check=True)
    library.chmod(0o755)
    return library


@pytest.fixture
def asked(run_directory):
    """A file that is there once the name server was asked."""
    directory = run_directory.subdirectory("asked")
    directory.chmod(0o777)
    file = directory / "asked"
    file.unlink(missing_ok=True)
    return file


@pytest.fixture
def slow_db(new_cluster, installation, slow_names, asked):
    preload = " ".join(filter(None, (installation.environment().get("LD_PRELOAD"), str(slow_names))))
    cluster = new_cluster({"kafka_ingest.metadata_refresh_interval": "1s"},  # an idle worker looks at its server then
                          environment={"LD_PRELOAD": preload, "SLOW_NAMES_ASKED": str(asked)}).start()
    return Database(cluster)


def test_cancel(slow_db, asked):
    slow_db.create_server("broker.silent:9092")
    slow_db.create_topic_table("topic")
    started = time.monotonic()
    with slow_db.connect(options="-c statement_timeout=2s") as session:
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("SELECT * FROM topic")
    assert asked.exists() and time.monotonic() - started < SOON


def test_the_broker_is_said_to_be_unreachable_in_time(slow_db, asked):
    slow_db.create_server("broker.silent:9092", socket_timeout_ms=3000)
    slow_db.create_topic_table("topic")
    started = time.monotonic()
    with pytest.raises(psycopg.Error, match="could not reach the Kafka cluster"):
        slow_db.run("SELECT * FROM topic")
    assert asked.exists() and time.monotonic() - started < SOON


def test_stop_of_stream_and_server(slow_db, topic, kafka, asked):
    slow_db.create_server(kafka.address)
    slow_db.create_tables(topic)
    topic.produce_sequence(10)
    slow_db.create_stream()
    slow_db.process_all_available()
    slow_db.run("ALTER SERVER broker OPTIONS (SET bootstrap_servers 'broker.silent:9092')")
    wait_until(asked.exists, what="the worker asks for the new name")
    started = time.monotonic()
    slow_db.call("stop_stream")
    assert time.monotonic() - started < SOON
    asked.unlink()
    slow_db.call("start_stream")
    wait_until(asked.exists, what="the worker asks again")
    assert slow_db.cluster.stop("fast") < SOON
    slow_db.cluster.start()
    slow_db.reconnect()
    slow_db.run(f"ALTER SERVER broker OPTIONS (SET bootstrap_servers '{kafka.address}')")
    topic.produce_sequence(10, first=11)
    slow_db.process_all_available()
    assert slow_db.column("SELECT id FROM target ORDER BY id") == list(range(1, 21))
    assert slow_db.next_offsets() == topic.offsets()
