"""What every measurement needs: a PostgreSQL and a Kafka of its own, sizes by environment, and an end."""

import os

from harness import build, paths
from harness.database import Database
from harness.kafka import PRODUCTION, Broker
from harness.postgres import DEBIAN, Cluster, Installation
from harness.processes import clean_up_at_exit, stop_all

SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "16GB", "checkpoint_timeout": "1h",
            "synchronous_commit": "on", "fsync": "on", "wal_level": "replica", "autovacuum": "off"}


def size(name, default):
    return int(os.environ.get(name) or default)


def say(text):
    print(text, flush=True)


def postgres_version():
    return size("POSTGRES_VERSION", DEBIAN)


def start_servers(directory, settings=None, installed=None):
    """Returns a connection to a new PostgreSQL that knows the new Kafka as server "broker", and the latter.

    settings: beside SETTINGS; installed: the path of an installation to use instead of building one.
    """
    version = postgres_version()
    say(f"building, starting PostgreSQL {version} and Kafka")
    installation = Installation(version, installed) if installed else build.build(version, directory)
    cluster = Cluster(installation, directory, "bench", {**SETTINGS, **(settings or {})}).create().start()
    broker = Broker(directory, java_options=PRODUCTION).create().start()
    db = Database(cluster)
    db.create_server(broker.address)
    db.run("SET statement_timeout = 0; SET client_min_messages = warning")
    return db, broker


def run(measure):
    """Calls measure with a new directory, and removes what it has started; returns its result."""
    clean_up_at_exit()
    directory = paths.RunDirectory()
    try:
        return measure(directory)
    except Exception:
        say(f"logs: {directory.keep_logs('bench')}")
        raise
    finally:
        stop_all()
        directory.remove()
