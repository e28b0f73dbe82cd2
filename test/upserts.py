"""Streams that insert or update by key, changes for them, and what must come of these."""

import contextlib
import json
import random

from harness.processes import wait_until

COLUMNS = "id bigint OPTIONS (key 'true'), name text, amount numeric"
TARGET = "CREATE TABLE target (id bigint PRIMARY KEY, name text, amount numeric)"


def upsert_stream(db, topic, columns=COLUMNS, target=TARGET, topic_options=None, **options):
    db.create_topic_table(topic, columns, **(topic_options or {}))
    db.run(target)
    db.create_stream(mode="update", **options)


def produce(topic, *changes):
    """Writes (key, value) pairs, a key always into the same partition."""
    topic.produce_all({"key": str(key), "value": value, "partition": hash(key) % topic.partitions}
                      for key, value in changes)


def expected(topic):
    """What is left when every message sets or deletes its key, read back from Kafka."""
    rows = {}
    for message in topic.messages():
        if message.value() is None:
            rows.pop(message.key(), None)
        else:
            rows[message.key()] = json.loads(message.value())
    return sorted((int(key), row["name"], row["amount"]) for key, row in rows.items())


def rows(db):
    return [(key, name, int(amount)) for key, name, amount in
            db.run("SELECT id, name, amount FROM target ORDER BY id")]


def assert_upserted(db, topic):
    db.process_all_available()
    assert rows(db) == expected(topic)
    assert db.next_offsets() == topic.offsets()


def random_changes(count, keys, deletes=0.2, seed=1):
    generator = random.Random(seed)
    for number in range(count):
        key = generator.randrange(keys)
        delete = generator.random() < deletes
        yield key, None if delete else {"name": f"v{number}", "amount": number}


@contextlib.contextmanager
def in_the_way(db, topic, statement, *changes):
    """Another session, whose open transaction has run the statement, and for which the stream waits with these changes."""
    with db.connect() as other:
        other.execute("BEGIN")
        other.execute(statement)
        produce(topic, *changes)
        wait_until(lambda: other.info.backend_pid in db.value("SELECT pg_blocking_pids(%s)", db.worker_pid()),
                   what="the stream waits for the other session")
        yield other
