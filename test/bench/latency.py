"""A part of make bench: from produce() to the commit of the row, at a trickle, alone and beside another stream's backlog.

What no worker can help is measured beside it, at the same time: the broker's acknowledgement to the producer,
and the commits of another session that writes one row 20 times a second, which wait for the disk as the worker's do.

By environment:

    OBSERVER (commit)  commit: the time at which PostgreSQL committed each row is read afterwards: what nobody looks at
                       costs nothing, but the flush of the commit is still to come at that time; poll: a session looks for
                       new rows again and again, and takes half a core for it
    RATES (100 1000)   messages/s
    SECONDS (30)       length of a measurement
    ROUNDS (1)         of each
    ROWS (2000000)     messages of the backlog, which is read again and again
"""

import contextlib
import os
import threading
import time

from confluent_kafka import Producer

from bench import rows
from bench.environment import describe, say, size, start_servers
from harness.processes import beside, wait_until

POLL_INTERVAL = 0.0005  # seconds
WARM_UP = 10            # seconds, at the same rate: a broker that has just started compiles its code first
COMMIT_INTERVAL = 0.05  # seconds, of the other session


def measure_rate(db, broker, messages_per_second, seconds, name):
    """Returns percentiles in milliseconds."""
    broker.create_topic(name, 1)
    db.create_topic_table(name, name=f"{name}_topic")
    db.run(f"CREATE TABLE {name} (id bigint)")
    db.create_stream(name, source=f"{name}_topic", target=name)
    db.process_all_available(name)

    count = messages_per_second * seconds
    polls = os.environ.get("OBSERVER") == "poll"
    sent = [0.0] * count
    sent_at = [0.0] * count     # of the clock that PostgreSQL reads
    acknowledged = [0.0] * count
    done = threading.Event()

    def acknowledge(number):
        def callback(error, message):
            if number >= 0:
                acknowledged[number] = time.perf_counter()
        return callback

    def produce():
        producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 0})
        start = time.perf_counter() + WARM_UP
        commits.start_at(start)
        for number in range(-WARM_UP * messages_per_second, count):
            while (left := start + number / messages_per_second - time.perf_counter()) > 0:
                producer.poll(left) if left > 0.001 else done.wait(left)
            if number >= 0:
                sent[number] = time.perf_counter()
                sent_at[number] = time.time()
            producer.produce(name, b'{"id": %d}' % number, on_delivery=acknowledge(number))
            producer.poll(0)
        producer.flush(30)

    seen = {}
    commits = Commits(db)
    thread = threading.Thread(target=produce)
    thread.start()
    give_up = time.monotonic() + WARM_UP + seconds + 60
    if not polls:
        thread.join()
        wait_until(lambda: db.value(f"SELECT count(*) FROM {name} WHERE id >= 0") == count, timeout=60, what="all are committed")
        seen = {number: float(committed) - sent_at[number] for number, committed in
                db.run(f"SELECT id, extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM {name} WHERE id >= 0")}
    with db.connect() as observer:
        while len(seen) < count and time.monotonic() < give_up:
            rows = observer.execute(f"SELECT id FROM {name} WHERE id >= %s", [len(seen)]).fetchall()
            now = time.perf_counter()
            for number, in rows:
                seen[number] = now - sent[number]
            done.wait(POLL_INTERVAL)
    thread.join()
    commits.stop()
    db.call("drop_stream", name)
    if len(seen) < count:
        raise RuntimeError(f"only {len(seen)} of {count} messages became visible")
    broker = percentiles((acknowledged[number] - sent[number]) * 1000 for number in range(count))
    return {"messages": count, "messages_per_second": messages_per_second,
            **{f"{name}_ms": value for name, value in percentiles(value * 1000 for value in seen.values()).items()},
            "broker_ms": broker, "commit_ms": commits.percentiles()}


def percentiles(milliseconds):
    ordered = sorted(milliseconds)
    return {f"p{percent}": round(ordered[len(ordered) * percent // 100], 2) for percent in (50, 90, 99)} | {
        "max": round(ordered[-1], 2)}


class Commits:
    """Another session's commits of one row each, from a time on until stopped."""

    def __init__(self, db):
        db.run("CREATE TABLE IF NOT EXISTS one_row (id int)")
        self._db = db
        self._taken = []
        self._done = threading.Event()
        self._thread = None

    def start_at(self, start):
        """start: of time.perf_counter()"""
        self._thread = threading.Thread(target=self._work, args=[start])
        self._thread.start()

    def _work(self, start):
        with self._db.connect() as connection:
            self._done.wait(max(start - time.perf_counter(), 0))
            while not self._done.is_set():
                started = time.perf_counter()
                connection.execute("INSERT INTO one_row VALUES (1)")
                self._taken.append((time.perf_counter() - started) * 1000)
                self._done.wait(COMMIT_INTERVAL)

    def stop(self):
        self._done.set()
        self._thread.join()

    def percentiles(self):
        return percentiles(self._taken)


@contextlib.contextmanager
def backlog(db, count):
    """Within it, another stream works off a backlog, again and again."""
    def work(done):
        with db.connect() as connection:
            while not done.is_set():
                connection.execute("DROP TABLE IF EXISTS orders")
                connection.execute("CREATE TABLE orders (LIKE orders_topic)")
                connection.execute("SELECT kafka.create_stream('backlog', source => 'orders_topic', target => 'orders')")
                wait_until(lambda: done.is_set() or connection.execute(
                    "SELECT sum(next_offset) FROM kafka.stream_offset WHERE stream = 'backlog'").fetchone()[0] == count,
                    timeout=600, interval=0.02, what="the backlog is worked off")
                connection.execute("SELECT kafka.drop_stream('backlog')")

    with beside(work):
        yield


def measure(directory):
    count = size("ROWS", 2_000_000)
    db, broker = start_servers(directory, {"track_commit_timestamp": "on"})
    db.create_topic_table("orders", rows.COLUMNS, name="orders_topic")
    broker.create_topic("orders", rows.PARTITIONS)
    rows.produce_again_and_again(count, broker.address, "orders", rows.PARTITIONS)
    os.sync()  # what was written so far is not to be waited for in the middle
    result = {"servers": describe(db), "backlog": count, "trickles": []}
    for rate in map(int, (os.environ.get("RATES") or "100 1000").split()):
        for number in range(size("ROUNDS", 1)):
            for behind in (False, True):
                name = f"trickle_{rate}_{number}_{'behind' if behind else 'alone'}"
                with backlog(db, count) if behind else contextlib.nullcontext():
                    trickle = {"beside_backlog": behind, **measure_rate(db, broker, rate, size("SECONDS", 30), name)}
                result["trickles"].append(trickle)
                say(": ".join(line_of(trickle)))
    return result


def line_of(trickle):
    own = {name: trickle[f"{name}_ms"] for name in trickle["broker_ms"]}
    return f"{trickle['messages_per_second']}/s{', beside a backlog' if trickle['beside_backlog'] else ''}", "; ".join(
        what + ", ".join(f"{name} {value}" for name, value in figures.items()) + " ms" for what, figures in (
            ("", own), ("the broker's acknowledgement ", trickle["broker_ms"]),
            ("a commit of another session ", trickle["commit_ms"])))


def lines(result):
    return map(line_of, result["trickles"])
