"""What every measurement needs: a PostgreSQL and a Kafka of its own, sizes by environment, and an end."""

import os
import pathlib
import sys

from harness import build, paths
from harness.database import Database
from harness.kafka import PRODUCTION, Broker
from harness.postgres import DEBIAN, Cluster, Installation
from harness.processes import clean_up_at_exit, stop_all

SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "16GB", "checkpoint_timeout": "1h",
            "synchronous_commit": "on", "fsync": "on", "wal_level": "replica", "autovacuum": "off"}


def size(name, default):
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        sys.exit(f"{name} must be a number, not {text!r}")
    return int(text)


def say(text):
    print(text, flush=True)


def postgres_version():
    return size("POSTGRES_VERSION", DEBIAN)


def start_servers(directory, settings=None):
    """Returns a connection to a new PostgreSQL that knows the new Kafka as server "broker", and the latter.

    settings: beside SETTINGS
    """
    version = postgres_version()
    say(f"building, starting PostgreSQL {version} and Kafka")
    installed = os.environ.get("INSTALLATION")
    installation = Installation(version, pathlib.Path(installed)) if installed else build.build(version, directory)
    cluster = Cluster(installation, directory, "bench", {**SETTINGS, **(settings or {})}).create().start()
    broker = Broker(directory, java_options=PRODUCTION).create().start()
    db = Database(cluster)
    db.create_server(broker.address)
    db.run("SET statement_timeout = 0; SET client_min_messages = warning")
    return db, broker


def describe(db):
    """What of the servers matters to whoever compares two results."""
    return {"server_version": db.value("SHOW server_version").split()[0],
            "librdkafka": db.value("SELECT kafka.library_version()"),
            **{name: db.value(f"SHOW {name}") for name in (*SETTINGS, "wal_compression", "full_page_writes")}}


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
