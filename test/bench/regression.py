"""make bench-check: a short measurement that fails only when a stream has become much slower than COPY.

What is judged is the ratio of the two in the same run, so that a slow or busy
machine makes no difference; sizes by environment as for make bench.
"""

import os
import sys

from bench import pairs, rows
from harness import build, paths
from harness.database import Database
from harness.kafka import Broker
from harness.postgres import DEBIAN, Cluster
from harness.processes import clean_up_at_exit, stop_all

FLOOR = 0.4         # of COPY; several times less than what a quiet machine shows is a fault
ROWS = 500_000      # so many that the start of the worker doesn't count
PAIRS = 3
ATTEMPTS = 3        # another program may have had the machine during one


def ratio_to_copy(installation, run_directory, say=print):
    """Starts a PostgreSQL and a Kafka of its own; returns the best median of a few attempts."""
    count = int(os.environ.get("ROWS") or ROWS)
    cluster = Cluster(installation, run_directory, "bench-check", {"shared_buffers": "512MB", "autovacuum": "off"})
    broker = Broker(run_directory, "bench-check-kafka")
    try:
        cluster.create().start()
        broker.create().start()
        db = Database(cluster)
        db.create_server(broker.address)
        db.create_topic_table("orders", rows.COLUMNS, name="orders_topic")
        db.run("SET statement_timeout = 0; SET client_min_messages = warning")
        broker.create_topic("orders", rows.PARTITIONS)
        csv_path = run_directory.path / "bench-check.csv"
        rows.produce(count, broker.address, "orders", csv_path)
        best = 0.0
        for _ in range(ATTEMPTS):
            best = max(best, pairs.measure(db, csv_path, count, int(os.environ.get("PAIRS") or PAIRS), say)["ratio"])
            if best >= FLOOR:
                break
        return best
    finally:
        cluster.remove()
        broker.remove()


def main():
    clean_up_at_exit()
    directory = paths.RunDirectory()
    try:
        version = int(os.environ.get("POSTGRES_VERSION") or DEBIAN)
        ratio = ratio_to_copy(build.build(version, directory), directory)
    finally:
        stop_all()
        directory.remove()
    print(f"a stream has {ratio:.2f} of COPY's rows/s; at least {FLOOR} is asked")
    return 0 if ratio >= FLOOR else 1


if __name__ == "__main__":
    sys.exit(main())
