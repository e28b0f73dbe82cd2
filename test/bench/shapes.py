"""A part of make bench: a stream against COPY into other kinds of tables.

A table with a primary key and one more index, and whole messages as text or bytea,
where COPY reads the same lines into one column.  By environment: ROWS (2000000), PAIRS (5).
"""

from bench import pairs, rows
from bench.contenders import Shape
from bench.environment import describe, say, size, start_servers

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
    result = {"servers": describe(db), "rows": count, "shapes": {}}
    for name, file, shape in shapes(db):
        say(name)
        result["shapes"][name] = pairs.measure(db, file(directory), count, size("PAIRS", 5), say, shape)
    return result


def lines(result):
    for name, shape in result["shapes"].items():
        yield name, (f"{shape['stream']['rows_per_second']:,.0f} rows/s, {pairs.ratio_text(shape)} of COPY's "
                     f"{shape['copy']['rows_per_second']:,.0f}")


def bars(result):
    for name, shape in result["shapes"].items():
        yield f"stream, {name}", shape["ratio"]
