"""test/run.sh bench.shapes: a stream against COPY into other kinds of tables than make bench's.

A table with a primary key and one more index, and whole messages as text or bytea,
where COPY reads the same lines into one column.  Sizes by environment: ROWS (2000000), PAIRS (5), POSTGRES_VERSION (15).
"""

import sys

from bench import pairs, rows
from bench.__main__ import SETTINGS, say, size
from bench.contenders import Shape
from harness import build, paths
from harness.database import Database
from harness.kafka import Broker
from harness.postgres import Cluster
from harness.processes import clean_up_at_exit, stop_all

INDEXES = ("ALTER TABLE {table} ADD PRIMARY KEY (order_id)", "CREATE INDEX ON {table} (customer)")
# JSON has neither of these two characters unquoted, so that COPY takes each line whole
LINES = "FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02'"


def shapes(db):
    """Topic tables over the one topic, and how COPY reads the same rows."""
    yield "primary key and an index", rows_file, Shape(indexes=INDEXES)
    for kind in ("text", "bytea"):
        db.create_topic_table("orders", f"line {kind}", name=f"lines_{kind}", format=kind)
        yield kind, lines_file, Shape(f"lines_{kind}", copy_options=LINES)


def rows_file(directory):
    return directory.path / "rows.csv"


def lines_file(directory):
    return directory.path / "lines.json"


def measure(directory):
    count = size("ROWS", 2_000_000)
    version = size("POSTGRES_VERSION", 15)
    cluster = Cluster(build.build(version, directory), directory, "bench", SETTINGS).create().start()
    broker = Broker(directory).create().start()
    db = Database(cluster)
    db.create_server(broker.address)
    db.create_topic_table("orders", rows.COLUMNS, name="orders_topic")
    db.run("SET statement_timeout = 0; SET client_min_messages = warning")
    broker.create_topic("orders", rows.PARTITIONS)
    rows.produce(count, broker.address, "orders", rows_file(directory))
    rows.write_lines(count, lines_file(directory))
    say(f"{count} messages; PostgreSQL {version}, librdkafka {db.value('SELECT kafka.library_version()')}")
    for name, file, shape in shapes(db):
        result = pairs.measure(db, file(directory), count, size("PAIRS", 5), say, shape)
        say(f"{name:26} COPY {result['copy']['rows_per_second']:9,.0f} rows/s, "
            f"stream {result['stream']['rows_per_second']:9,.0f} rows/s, ratio {result['ratio']:.2f}")


def main():
    clean_up_at_exit()
    directory = paths.RunDirectory()
    try:
        measure(directory)
    finally:
        stop_all()
        directory.remove()


if __name__ == "__main__":
    sys.exit(main())
