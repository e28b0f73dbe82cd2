"""More streams than processes, and many at the start of the server."""

import re

import pytest

from expectations import assert_exact
from harness.database import Database
from harness.processes import wait_until

STREAMS = 100
PROCESSES = 12
WORKERS = PROCESSES - 2  # our launcher and that of logical replication take one each

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def hundred(new_cluster, topic, kafka):
    """A server with a hundred streams and twelve processes for workers."""
    cluster = new_cluster({"max_worker_processes": PROCESSES, "kafka_ingest.max_stream_workers": 128, "kafka_ingest.max_restart_delay": "5s",
                           "max_connections": 20}).start()
    db = Database(cluster)
    db.create_server(kafka.address)
    db.create_topic_table(topic, "id bigint, p int OPTIONS (metadata 'partition'), o bigint OPTIONS (metadata 'offset')")
    for number in range(STREAMS):
        db.run(f"CREATE TABLE target_{number} (LIKE topic)")
        db.create_stream(f"s{number}", target=f"target_{number}")
    return db


def workers(db):
    return db.value("SELECT count(*) FROM kafka.stream_status WHERE pid IS NOT NULL")


def log_since(cluster, position):
    with open(cluster.log, "rb") as file:
        file.seek(position)
        return file.read().decode(errors="replace")


def test_a_hundred_streams(hundred, topic):
    db, cluster = hundred, hundred.cluster
    topic.produce_sequence(30)

    # As many run as there are processes; the others wait, and the log says why, once a minute at most.
    wait_until(lambda: workers(db) == WORKERS, timeout=120)
    wait_until(lambda: db.value("SELECT count(*) FROM kafka.stream_status WHERE state = 'backing off'") >= STREAMS - WORKERS, timeout=120)
    log = log_since(cluster, 0)
    warnings = re.findall("WARNING:.*max_worker_processes|HINT:.*max_worker_processes|WARNING:.*could not start.*", log)
    assert 1 <= len(warnings) <= 20, f"{len(warnings)} warnings for {STREAMS} streams"
    assert re.search("HINT:.*max_worker_processes", log)
    running = db.column("SELECT stream FROM kafka.stream_status WHERE pid IS NOT NULL")
    for name in running[:3]:
        assert_exact(db, topic, stream=name, target=name.replace("s", "target_"))

    # A process that becomes free goes to a stream that waits.
    for name in running:
        db.call("stop_stream", name)
    wait_until(lambda: workers(db) == WORKERS, timeout=120)
    for name in running:
        db.call("start_stream", name)

    # With enough processes all start, a few at a time.
    cluster.settings["max_worker_processes"] = 120
    cluster.write_settings()
    position = cluster.log.stat().st_size
    cluster.restart()
    db.reconnect()
    wait_until(lambda: workers(db) == STREAMS, timeout=300, what=lambda: f"all streams run: {workers(db)} do")
    assert "max_worker_processes" not in log_since(cluster, position)
    topic.produce_sequence(30, first=31)
    for number in range(STREAMS):
        assert_exact(db, topic, stream=f"s{number}", target=f"target_{number}")
    db.run("CHECKPOINT")  # the one at the end has little to write
    assert cluster.stop("fast") < 10
