"""test/run.sh bench.bad_messages: what bad messages cost with on_error => 'dead_letter'.

One append stream over the same number of messages: all good, then with bad ones scattered that can't be decoded, that violate
a CHECK, a unique index, or raise an error in a trigger; the last two against a clean run into the same kind of table.
Sizes by environment: ROWS (1000000), BAD (1000), POSTGRES_VERSION (Debian's)."""

import statistics
import time

from bench.environment import run, say, size, start_servers
from harness.topic import Topic

PARTITIONS = 4
OPTIONS = {"plain": "", "check": ", CHECK (amount >= 0)", "unique": ", UNIQUE (id)", "trigger": "", "upsert": ", PRIMARY KEY (id), CHECK (amount >= 0)"}
TRIGGER = """CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN IF new.amount < 0 THEN RAISE EXCEPTION 'negative'; END IF; RETURN new; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION refuse()"""


def produce(topic, count, bad, kind):
    step = max(count // bad, 1) if bad else count + 1

    def value(n):
        is_bad = bad and n % step == step // 2
        if is_bad and kind == "decode":
            return b'{"id": %d, "amount": "x", "name": "customer %d"}' % (n, n % 1000)
        return b'{"id": %d, "amount": %d, "name": "customer %d"}' % (
            n - step + step // 2 if is_bad and kind == "unique" else n, -1 if is_bad and kind != "unique" else n % 777, n % 1000)

    topic.produce_all({"value": value(n), "partition": n % PARTITIONS} for n in range(count))


def ingest(db, topic, kind):
    """Seconds from the start of the stream to its end."""
    db.run("DROP FOREIGN TABLE IF EXISTS topic CASCADE; DROP TABLE IF EXISTS target")
    db.create_topic_table(topic, "id bigint, amount int, name text")
    db.run(f"CREATE TABLE target (id bigint, amount int, name text{OPTIONS[kind]})")
    if kind == "trigger":
        db.run(TRIGGER)
    db.create_stream(on_error="dead_letter", start=False, trigger="available_now",
                     mode="update" if kind == "upsert" else "append")
    db.run("CHECKPOINT")
    started = time.monotonic()
    db.call("start_stream")
    db.wait_for_state("stopped", "failed", timeout=600)
    seconds = time.monotonic() - started
    status = db.status()
    rows, letters = db.value("SELECT count(*) FROM target"), db.value("SELECT count(*) FROM kafka.dead_letter")
    db.call("drop_stream")
    return seconds, rows, letters, status


def measure(directory):
    count, bad = size("ROWS", 1_000_000), size("BAD", 1000)
    db, broker = start_servers(directory)
    topics = {}
    for name in ("clean", "decode", "unique", "negative"):
        topics[name] = Topic(broker.address, name, PARTITIONS, broker.admin())
        broker.create_topic(name, PARTITIONS)
        produce(topics[name], count, 0 if name == "clean" else bad, name)
    say(f"{count} messages, {bad} bad; librdkafka {db.value('SELECT kafka.library_version()')}")
    for kind, table, topic in (("can't be decoded", "plain", "decode"), ("CHECK", "check", "negative"),
                               ("unique index", "unique", "unique"), ("trigger", "trigger", "negative"),
                               ("CHECK, upsert", "upsert", "negative")):
        ratios = []
        for _ in range(size("PAIRS", 2)):
            clean, rows, letters, _ = ingest(db, topics["clean"], table)
            assert (rows, letters) == (count, 0), (rows, letters)
            seconds, rows, letters, status = ingest(db, topics[topic], table)
            assert (rows, letters) == (count - bad, bad), (rows, letters, status)
            ratios.append(seconds / clean)
        say(f"{kind:20} clean {clean:6.2f} s, with bad ones {seconds:6.2f} s, ratio {statistics.median(ratios):.2f}"
            f" ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    run(measure)
