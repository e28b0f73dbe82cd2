"""A part of make bench: update and complete mode against the best plain SQL that does the same.

Plain SQL reads the same rows from staging tables that are loaded already, once in batches (a
staging table and a transaction each), once in one statement over all; what COPY takes to load a staging table is measured beside it, since
somebody has to.  A stream gets the messages from Kafka, decodes them and commits its offsets as well.
In turn, from the same start; the tables must be identical in the end.  By environment:

    MODES_ROWS (1000000), PAIRS (3)
    BATCH  rows of a batch, of plain SQL and the stream (250000 for plain SQL; the stream's own)
    ONLY   the first letters of a case's name: only these are run
"""

import dataclasses
import os
import random
import statistics
import sys
import tempfile
import time

from bench import contenders, rows
from bench.environment import describe, say, size, start_servers
from harness.processes import wait_until

KEYS = 1_000_000
COLUMNS = "id bigint, small int, middle int, amount numeric, customer text, changed_at timestamptz"
GROUPS = {"small": 10, "middle": 10_000, "id": KEYS}
BATCHES, ONE_STATEMENT, STREAM = "plain SQL, batches", "plain SQL, one statement", "stream"
RESULT = "count(*) AS n, sum(amount) AS total, max(amount) AS largest"


@dataclasses.dataclass(frozen=True)
class Case:
    """A mode with a target; plain SQL with {rows} for where they come from, and {all} for them and all before."""
    name: str
    mode: str
    target: str                 # its columns
    plain: tuple
    query: str = None           # of the stream; None: its source is the topic table
    filled: bool = False        # the target has a row for each key before


def cases():
    others = ("small", "middle", "amount", "customer", "changed_at")
    yield Case("upsert of existing keys", "update", COLUMNS.replace("id bigint", "id bigint PRIMARY KEY"),
               ("INSERT INTO target SELECT DISTINCT ON (id) id, " + ", ".join(others) + " FROM {rows} ORDER BY id, number DESC "
                "ON CONFLICT (id) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in others),),
               filled=True)
    for mode in ("update", "complete"):
        for key, groups in GROUPS.items():
            insert = f"INSERT INTO target AS t SELECT {key}, {RESULT} FROM {{}} GROUP BY {key}"
            if mode == "update":
                plain = (insert.format("{rows}") + f" ON CONFLICT ({key}) DO UPDATE SET n = t.n + excluded.n, total = t.total + "
                         "excluded.total, largest = greatest(t.largest, excluded.largest)",)
            else:
                plain = ("TRUNCATE target", insert.format("{all}"))
            yield Case(f"{mode}, {groups:,} groups", mode, f"{key} {'bigint' if key == 'id' else 'int'} PRIMARY KEY, n bigint, total numeric, largest numeric",
                       plain, f"SELECT {key}, {RESULT} FROM events GROUP BY {key}")


def _values(count):
    """Keys in random order; two runs have the same."""
    chosen = random.Random(7)
    for number in range(count):
        key = chosen.randrange(KEYS) + 1
        yield (key, key % GROUPS["small"], key % GROUPS["middle"], f"{number % 1000}.{number % 89 + 10}", f"customer-{key:07d}",
               f"2026-{number % 12 + 1:02d}-{number % 28 + 1:02d}T{number % 24:02d}:{number % 60:02d}:00Z")


def produce(count, broker):
    broker.create_topic("events", rows.PARTITIONS)
    text = '{"id":%d,"small":%d,"middle":%d,"amount":%s,"customer":"%s","changed_at":"%s"}'
    rows.produce_values(((text % values).encode() for values in _values(count)), broker.address, "events",
                        # messages of a key keep their order
                        lambda number, value: int(value[6:value.index(b",")]) % rows.PARTITIONS)


def stage(db, batch):
    """The rows of the topic as tables of batches, staged_1 ..., and a view over the first i of them, staged_up_to_i."""
    db.create_topic_table("events", COLUMNS + ", p int OPTIONS (metadata 'partition'), number bigint OPTIONS (metadata 'offset')",
                          name="staging_topic")
    db.run("CREATE TABLE staged AS SELECT *, row_number() OVER (ORDER BY number, p) AS place FROM staging_topic")
    count = db.value("SELECT count(*) FROM staged")
    batches = -(-count // batch)
    for number in range(1, batches + 1):
        db.run(f"CREATE TABLE staged_{number} AS SELECT * FROM staged WHERE place > %s AND place <= %s ORDER BY place",
               (number - 1) * batch, number * batch)
        db.run(f"VACUUM ANALYZE staged_{number}")
        db.run(f"CREATE VIEW staged_up_to_{number} AS " +
               " UNION ALL ".join(f"SELECT * FROM staged_{i}" for i in range(1, number + 1)))
    db.run("VACUUM ANALYZE staged")
    return count, batches


def prepare(db, case):
    db.run("DROP TABLE IF EXISTS target")
    db.run(f"CREATE TABLE target ({case.target})")
    if case.filled:
        db.run("INSERT INTO target SELECT g, 0, 0, 0, 'nobody', '2000-01-01' FROM generate_series(1, %s) g", KEYS)
    db.run("VACUUM ANALYZE target")
    db.run("CHECKPOINT")


def plain(db, case, count, batches):
    """Rows/s and CPU seconds of plain SQL; batches None: all at once."""
    prepare(db, case)
    pid = db.value("SELECT pg_backend_pid()")
    cpu = contenders.process_usage(pid)["cpu_seconds"]
    started = time.monotonic()
    for number in range(1, batches + 1) if batches else (None,):
        names = {"rows": f"staged_{number}", "all": f"staged_up_to_{number}"} if number else {"rows": "staged", "all": "staged"}
        with db.connection.transaction():
            for statement in case.plain:
                db.run(statement.format(**names))
    seconds = time.monotonic() - started
    return count / seconds, contenders.process_usage(pid)["cpu_seconds"] - cpu


def stream(db, case, count):
    """Rows/s of a stream from its start to the last commit, and CPU seconds of its worker with librdkafka's threads."""
    prepare(db, case)
    started = time.monotonic()
    db.create_stream("bench", target="target", mode=case.mode, **({"query": case.query} if case.query else {"source": "events"}))
    # not by process_all_available: its snapshot would keep all row versions of all batches
    wait_until(lambda: db.value("SELECT sum(next_offset) FROM kafka.stream_offset WHERE stream = 'bench'") == count, timeout=1800,
               interval=0.01, what="all messages are committed")
    seconds = time.monotonic() - started
    cpu = contenders.process_usage(db.worker_pid("bench"))["cpu_seconds"]
    say(f"    batches of the stream: {[rows for rows, in db.run('SELECT num_input_rows FROM kafka.stream_progress ORDER BY batch_id')]}")
    db.call("drop_stream", "bench")
    return count / seconds, cpu


def load(db, count):
    """Rows/s of COPY into a staging table."""
    with tempfile.NamedTemporaryFile(prefix="staged") as file:
        os.chmod(file.name, 0o666)
        db.run(f"COPY staged TO '{file.name}' (FORMAT csv)")
        db.run("CREATE TABLE loaded (LIKE staged)")
        db.run("CHECKPOINT")
        started = time.monotonic()
        db.run(f"COPY loaded FROM '{file.name}' (FORMAT csv)")
        seconds = time.monotonic() - started
        db.run("DROP TABLE loaded")
    return count / seconds


def compare(db, case, count, batches, pairs):
    runs = {BATCHES: lambda: plain(db, case, count, batches),
            ONE_STATEMENT: lambda: plain(db, case, count, None),
            STREAM: lambda: stream(db, case, count)}
    rates, cpu, sums = ({name: [] for name in runs} for _ in range(3))
    loads = []
    for _ in range(pairs):
        loads.append(load(db, count))
        for name, measure_one in runs.items():
            rate, seconds = measure_one()
            rates[name].append(rate)
            cpu[name].append(seconds)
            sums[name].append(contenders.checksum(db, "target"))
        say(f"  {case.name}: " + ", ".join(f"{name} {rates[name][-1]:,.0f} rows/s {cpu[name][-1]:.1f} CPU s" for name in runs))
    if len({checksum for of_one in sums.values() for checksum in of_one}) != 1:
        raise RuntimeError(f"{case.name}: the tables differ: {sums}")
    return {"rows_per_second": rates, "cpu_seconds": cpu, "copy": loads}


def measure(directory):
    chosen = [case for case in cases() if case.name.startswith(os.environ.get("ONLY") or "")]
    if not chosen:
        sys.exit(f"ONLY may be the first letters of: {', '.join(case.name for case in cases())}")
    batch = size("BATCH", 250_000)
    limits = {"kafka_ingest.max_batch_messages": batch, "kafka_ingest.max_batch_size": f"{max(32, batch // 3000)}MB"}
    db, broker = start_servers(directory, limits if os.environ.get("BATCH") else None)
    produce(size("MODES_ROWS", 1_000_000), broker)
    db.create_topic_table("events", COLUMNS, name="events")
    count, batches = stage(db, batch)
    say(f"{count} messages; {batches} batches of plain SQL")
    return {"servers": describe(db), "rows": count,
            "cases": {case.name: compare(db, case, count, batches, size("PAIRS", 3)) for case in chosen}}


def with_load(case, name):
    """Rates of plain SQL that has to load its staging table first."""
    return [1 / (1 / rate + 1 / load_rate) for rate, load_rate in zip(case["rows_per_second"][name], case["copy"])]


def _ratios(ones, others):
    return sorted(one / other for one, other in zip(ones, others))


def lines(result):
    for name, case in result["cases"].items():
        rates = case["rows_per_second"]
        for other in rates:
            text = f"{statistics.median(rates[other]):,.0f} rows/s, {statistics.median(case['cpu_seconds'][other]):.1f} CPU s"
            if other != STREAM:
                loaded, loading = _ratios(rates[STREAM], rates[other]), _ratios(rates[STREAM], with_load(case, other))
                text += (f"; the stream {statistics.median(loaded):.2f} times as fast, or {statistics.median(loading):.2f} times when COPY has to "
                         "load the staging table first")
            yield f"{name}: {other}", text


def bars(result):
    """Of plain SQL in batches that are loaded by COPY."""
    for name, case in result["cases"].items():
        yield f"stream, {name}", statistics.median(_ratios(case["rows_per_second"][STREAM], with_load(case, BATCHES)))
