"""From produce() to a row that another session sees, at a trickle; part of make bench.

The broker's acknowledgement to the producer is measured beside it: what it takes is no worker's time.

test/run.sh bench.latency: at several rates, alone and while another stream works off a backlog, beside
what the disk needs for a commit.  By environment:

    OBSERVER (poll)    poll: a session looks for new rows again and again, and takes half a core for it; commit: the time at
                       which PostgreSQL committed each row is read afterwards: what nobody looks at costs nothing, but
                       the flush of the commit is still to come at that time
    RATES (100 1000)   messages/s
    SECONDS (20)       length of a measurement
    ROUNDS (3)         of each
    ROWS (2000000)     messages of the backlog, which is read again and again
    POSTGRES_VERSION   Debian's, 16 or 18 (Debian's)

An argument is the path of an installation to use instead of building one.
"""

import contextlib
import os
import sys
import threading
import time

from confluent_kafka import Producer

from bench import rows
from bench.environment import run, say, size, start_servers
from harness.processes import wait_until

POLL_INTERVAL = 0.0005  # seconds
WARM_UP = 10            # seconds, at the same rate: a broker that has just started compiles its code first
COMMITS = 1000


def measure(db, broker, messages_per_second, seconds, name="trickle"):
    """Returns percentiles in milliseconds; the observer polls, with its own connection."""
    broker.create_topic(name, 1)
    db.create_topic_table(name, name=f"{name}_topic")
    db.run(f"CREATE TABLE {name} (id bigint)")
    db.create_stream(name, source=f"{name}_topic", target=name)
    db.process_all_available(name)

    count = messages_per_second * seconds
    polls = (os.environ.get("OBSERVER") or "poll") == "poll"
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
    db.call("drop_stream", name)
    if len(seen) < count:
        raise RuntimeError(f"only {len(seen)} of {count} messages became visible")
    broker = percentiles((acknowledged[number] - sent[number]) * 1000 for number in range(count))
    return {"messages": count, "messages_per_second": messages_per_second,
            **{f"{name}_ms": value for name, value in percentiles(value * 1000 for value in seen.values()).items()},
            "max_ms": round(max(seen.values()) * 1000, 2), "broker_ms": broker}


def percentiles(milliseconds):
    ordered = sorted(milliseconds)
    return {f"p{percent}": round(ordered[len(ordered) * percent // 100], 2) for percent in (50, 90, 99)}


def commit_times(db):
    """Milliseconds that a transaction of one row takes, from another session's view."""
    db.run("CREATE TABLE IF NOT EXISTS one_row (id int)")
    taken = []
    for number in range(COMMITS):
        started = time.perf_counter()
        db.run("INSERT INTO one_row VALUES (%s)", number)
        taken.append((time.perf_counter() - started) * 1000)
    return percentiles(taken)


@contextlib.contextmanager
def backlog(db, count):
    """Within it, another stream works off a backlog, again and again."""
    done = threading.Event()

    def work():
        with db.connect() as connection:
            while not done.is_set():
                connection.execute("DROP TABLE IF EXISTS orders")
                connection.execute("CREATE TABLE orders (LIKE orders_topic)")
                connection.execute("SELECT kafka.create_stream('backlog', source => 'orders_topic', target => 'orders')")
                wait_until(lambda: done.is_set() or connection.execute(
                    "SELECT sum(next_offset) FROM kafka.stream_offset WHERE stream = 'backlog'").fetchone()[0] == count,
                    timeout=600, interval=0.02, what="the backlog is worked off")
                connection.execute("SELECT kafka.drop_stream('backlog')")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def main(directory):
    count, seconds = size("ROWS", 2_000_000), size("SECONDS", 20)
    db, broker = start_servers(directory, {"track_commit_timestamp": "on"}, installed=sys.argv[1] if len(sys.argv) > 1 else None)
    db.create_topic_table("orders", rows.COLUMNS, name="orders_topic")
    broker.create_topic("orders", rows.PARTITIONS)
    rows.produce_again_and_again(count, broker.address, "orders", rows.PARTITIONS)
    for rate in map(int, (os.environ.get("RATES") or "100 1000").split()):
        for number in range(size("ROUNDS", 3)):
            for behind in (False, True):
                commits = commit_times(db)
                name = f"trickle_{rate}_{number}_{'behind' if behind else 'alone'}"
                with backlog(db, count) if behind else contextlib.nullcontext():
                    result = measure(db, broker, rate, seconds, name)
                say(f"{rate}/s{', beside a backlog' if behind else ''}: p50 {result['p50_ms']} ms, p90 {result['p90_ms']} ms, "
                    f"p99 {result['p99_ms']} ms, max {result['max_ms']} ms; the broker's acknowledgement: {result['broker_ms']} ms; "
                    f"a commit of one row: {commits} ms")


if __name__ == "__main__":
    run(main)
