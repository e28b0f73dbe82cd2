"""What a batch costs by the size of its stream's state, and what many batches leave behind.

    test/run.sh bench.state

Sizes by environment:

    SMALL_STATE, LARGE_STATE   groups (1000000 and 10000000)
    TOUCHED                    groups that a batch changes (10000)
    ROUNDS                     batches on each of the two, taken in turn (10)
    FULL_PAGE_WRITES           on or off (on): whether WAL has each page whole at its first change
    SMALL_BATCHES              batches of one message (100000); 0 leaves them out
    POSTGRES_VERSION           Debian's, 16 or 18 (Debian's)

States are filled by SQL with kafka.partial_state, as a stream would have made them.
"""

import json
import os
import random
import statistics
import time

from bench.environment import run, say, size, start_servers
from harness.processes import wait_until
from harness.topic import Topic

TABLES = ("kafka.stream_offset", "kafka.stream_watermark", "kafka.stream_%d_state", "public.%s")


def new_stream(db, broker, name, options, **arguments):
    """A stopped stream and its topic."""
    topic = Topic(broker.address, name, 1, broker.admin())
    broker.create_topic(name, 1)
    db.create_topic_table(topic, "id bigint, amount numeric, at timestamptz", name=f"{name}_topic")
    db.run(f"CREATE TABLE {name} ({options})")
    db.create_stream(name, target=name, mode="update", start=False, **arguments)
    return topic


def produce(topic, ids):
    topic.produce_all({"value": b'{"id": %d, "amount": 1.25, "at": "2026-01-01T00:00:%02dZ"}' % (n, i % 60)}
                      for i, n in enumerate(ids))


def stream_id(db, name):
    return db.value("SELECT stream_id FROM kafka.stream WHERE name = %s", name)


def fill(db, name, groups):
    """Puts groups 1 .. into the state and the target, by one message each."""
    started = time.monotonic()
    db.run(f"INSERT INTO kafka.stream_{stream_id(db, name)}_state "
           "SELECT g, kafka.partial_state('count()'), kafka.partial_state('sum(numeric)', 1.25) "
           "FROM generate_series(1, %s) g GROUP BY g ORDER BY g", groups)
    db.run(f"INSERT INTO {name} SELECT g, 1, 1.25 FROM generate_series(1, %s) g", groups)
    db.run(f"VACUUM ANALYZE kafka.stream_{stream_id(db, name)}_state")
    db.run(f"VACUUM ANALYZE {name}")
    return time.monotonic() - started


def one_batch(db, topic, name, groups, touched, rng):
    """Milliseconds of execution and commit of a batch that changes "touched" groups, and its WAL in bytes."""
    produce(topic, rng.sample(range(1, groups + 1), touched))
    before, wal_before = db.run("SELECT max(batch_id), pg_current_wal_insert_lsn() FROM kafka.stream_offset "
                                "WHERE stream = %s", name)[0]
    db.call("start_stream", name)
    db.process_all_available(name, timeout="600 s")
    db.call("stop_stream", name)
    # the queue may have run dry in between: then there are two
    rows_in, rows_out, taken = db.run(
        "SELECT sum(num_input_rows)::int, sum(num_output_rows)::int, "
        "sum((duration_ms->>'execute')::float8 + (duration_ms->>'commit')::float8) "
        "FROM kafka.stream_progress WHERE stream = %s AND batch_id > %s", name, before)[0]
    assert (rows_in, rows_out) == (touched, touched), (rows_in, rows_out)
    return taken, float(db.value("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", wal_before))


def compare_states(db, broker):
    sizes = {"small": size("SMALL_STATE", 1_000_000), "large": size("LARGE_STATE", 10_000_000)}
    touched, rounds = size("TOUCHED", 10_000), size("ROUNDS", 10)
    rng = random.Random(1)
    topics, times, wal = {}, {name: [] for name in sizes}, {name: [] for name in sizes}
    for name, groups in sizes.items():
        topics[name] = new_stream(db, broker, name, "id bigint PRIMARY KEY, n bigint, total numeric",
                                  query=f"SELECT id, count(*) AS n, sum(amount) AS total FROM {name}_topic GROUP BY id",
                                  max_offsets_per_trigger=touched, trigger_interval="1 s")
        say(f"{name}: {groups:,} groups filled in {fill(db, name, groups):.0f} s, state "
            + db.value("SELECT pg_size_pretty(pg_total_relation_size(%s::regclass))", f"kafka.stream_{stream_id(db, name)}_state"))
    db.run("CHECKPOINT")
    for number in range(rounds + 1):
        for name, groups in sizes.items():
            taken, written = one_batch(db, topics[name], name, groups, touched, rng)
            if number > 0:  # the first one plans and warms up
                times[name].append(taken)
                wal[name].append(written)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    for name, groups in sizes.items():
        expected = (1 + rounds) * touched
        assert db.value(f"SELECT sum(n) FROM {name}") == groups + expected
        say(f"{touched:,} groups of {groups:,}: median {medians[name]:.0f} ms, "
            f"from {min(times[name]):.0f} to {max(times[name]):.0f} ms ({medians[name] / touched * 1000:.1f} us per group), "
            f"WAL {statistics.median(wal[name]) / 1e6:.0f} MB")
    say(f"large / small: {medians['large'] / medians['small']:.2f}")
    return {"sizes": sizes, "touched": touched, "times_ms": times, "wal_bytes": wal, "ratio": medians["large"] / medians["small"]}


def small_batches(db, broker):
    count = size("SMALL_BATCHES", 100_000)
    if count == 0:
        return None
    name = "tiny"
    topic = new_stream(db, broker, name, "id bigint, at timestamptz, n bigint, PRIMARY KEY (at, id)",
                       query="SELECT id % 10 AS id, date_bin('1 min', at, '2000-01-01 00:00Z') AS at, count(*) AS n "
                             "FROM tiny_topic GROUP BY 1, 2", watermark_column="at", watermark_delay="1 h",
                       max_offsets_per_trigger=1)
    produce(topic, range(count))
    db.run("SELECT pg_stat_reset()")
    started = time.monotonic()
    db.call("start_stream", name)
    wait_until(lambda: db.next_offsets(name)[0] == count, timeout=3600, interval=1, what=f"{count} batches")
    seconds = time.monotonic() - started
    db.call("stop_stream", name)
    # the worker hands in its counts as it ends
    wait_until(lambda: db.value("SELECT n_tup_upd FROM pg_stat_all_tables WHERE relid = 'kafka.stream_offset'::regclass")
               >= count - 1, what="the statistics are complete")
    result = {"batches": count, "seconds": seconds, "tables": {}}
    for pattern in TABLES:
        table = pattern % (stream_id(db, name) if "%d" in pattern else name) if "%" in pattern else pattern
        updates, hot, bytes_ = db.run("SELECT n_tup_upd, n_tup_hot_upd, pg_total_relation_size(relid) FROM pg_stat_all_tables "
                                      "WHERE relid = %s::regclass", table)[0]
        result["tables"][table] = {"updates": updates, "hot": hot, "bytes": bytes_}
        say(f"{table}: {updates:,} updates, {hot / max(updates, 1):.2%} HOT, {bytes_ / 1024:.0f} kB with indexes")
    say(f"{count:,} batches of one message: {seconds:.0f} s, {seconds / count * 1000:.2f} ms each")
    return result


def measure(directory):
    db, broker = start_servers(directory, {"autovacuum": "on", "full_page_writes": os.environ.get("FULL_PAGE_WRITES") or "on"})
    say(json.dumps({"states": compare_states(db, broker), "small_batches": small_batches(db, broker)}))


if __name__ == "__main__":
    run(measure)
