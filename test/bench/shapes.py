"""test/run.sh bench.shapes: a stream against COPY into other kinds of tables than make bench's.

A table with a primary key and one more index, and whole messages as text or bytea,
where COPY reads the same lines into one column.  Sizes by environment: ROWS (2000000), PAIRS (5), POSTGRES_VERSION (Debian's).
"""

from bench import pairs, rows
from bench.contenders import Shape
from bench.environment import run, say, size, start_servers

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
    db, broker = start_servers(directory)
    db.create_topic_table("orders", rows.COLUMNS, name="orders_topic")
    broker.create_topic("orders", rows.PARTITIONS)
    rows.produce(count, broker.address, "orders", rows_file(directory))
    rows.write_lines(count, lines_file(directory))
    say(f"{count} messages; librdkafka {db.value('SELECT kafka.library_version()')}")
    for name, file, shape in shapes(db):
        result = pairs.measure(db, file(directory), count, size("PAIRS", 5), say, shape)
        say(f"{name:26} COPY {result['copy']['rows_per_second']:9,.0f} rows/s, "
            f"stream {result['stream']['rows_per_second']:9,.0f} rows/s, ratio {result['ratio']:.2f}")


if __name__ == "__main__":
    run(measure)
