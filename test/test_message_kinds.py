"""Every kind of message that Kafka can hold becomes the same row, whatever carried it."""

import itertools

import pytest
from confluent_kafka import Producer

from expectations import assert_exact, values

SIZES = [1, 2, 100, 15_900_000]


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_all_codecs_give_the_same_rows(db, new_topic, codec):
    topic = new_topic()
    db.create_tables(topic)
    producer = Producer({"bootstrap.servers": topic.address, "compression.type": codec, "linger.ms": 50})
    topic.produce_all(({"value": {"id": n}, "key": f"k{n}", "headers": [("n", b"%d" % n)]} for n in range(20_000)), producer)
    db.create_stream()
    assert_exact(db, topic)
    assert db.value("SELECT count(*) FROM target") == 20_000


def test_sizes_from_one_byte_to_the_largest(db, new_topic):
    topic = new_topic()
    db.create_topic_table(topic, "value bytea, key bytea OPTIONS (metadata 'key')", format="bytea")
    db.run("CREATE TABLE target (LIKE topic)")
    topic.produce(*(b"v" * size for size in SIZES), key=b"k" * 1000)
    db.create_stream()
    db.process_all_available()
    assert values(db, "SELECT length(value), length(key) FROM target ORDER BY 1") == sorted(
        [(size, 1000) for size in SIZES], key=repr)
    assert db.value("SELECT bool_and(value = convert_to(repeat('v', length(value)), 'UTF8')) FROM target")


def test_keys_headers_and_nothing(db, new_topic):
    topic = new_topic()
    db.create_topic_table(topic, "value text, key bytea OPTIONS (metadata 'key'), headers kafka.header[] OPTIONS "
                                 "(metadata 'headers'), o bigint OPTIONS (metadata 'offset')", format="text")
    db.run("CREATE TABLE target (LIKE topic)")
    keys = [None, b"", b"\x00\xff", "schlüssel".encode()]
    headers = [None, [("", b"")], [(f"h{n}", b"x" * n) for n in range(100)], [("same", b"1"), ("same", None)]]
    kinds = list(itertools.product([None, "", "x"], keys, headers))
    topic.produce_all({"value": value, "key": key, "headers": header} for value, key, header in kinds)
    db.create_stream()
    db.process_all_available()
    rows = db.run("SELECT value, key, (SELECT array_agg(h.key ORDER BY n) FROM unnest(headers) WITH ORDINALITY h (key, value, n)), "
                  "(SELECT array_agg(h.value ORDER BY n) FROM unnest(headers) WITH ORDINALITY h (key, value, n)) "
                  "FROM target ORDER BY o")
    assert len(rows) == len(kinds)
    for (value, key, header), row in zip(kinds, rows):
        assert row == (value, key, header and [name for name, _ in header], header and [content for _, content in header])


def test_create_time_out_of_order(db, new_topic):
    """Rows carry the producer's times; a start timestamp is Kafka's answer: the first offset that is as new."""
    topic = new_topic()
    times = [1_600_000_000_000 + 1000 * n for n in (5, 1, 9, 3, 7, 0, 8)]
    db.create_topic_table(topic, "id bigint, p int OPTIONS (metadata 'partition'), o bigint OPTIONS (metadata 'offset'), "
                                 "at timestamptz OPTIONS (metadata 'timestamp')")
    db.run("CREATE TABLE target (LIKE topic)")
    for number, time in enumerate(times):
        topic.produce({"id": number}, timestamp=time)
    db.create_stream()
    assert_exact(db, topic)
    assert db.column("SELECT (extract(epoch FROM at) * 1000)::bigint FROM target ORDER BY o") == times
    db.call("drop_stream")
    for time in times:
        db.run("TRUNCATE target")
        at = db.value("SELECT to_timestamp(%s / 1000.0)", time)
        db.create_stream(starting_timestamp=at)
        db.process_all_available()
        first = topic.offsets(time)[0]
        assert db.column("SELECT id FROM target ORDER BY id") == list(range(first, len(times)))
        db.call("drop_stream")


def test_interleaved_transactions(db, topic):
    """Two producers' transactions lie between each other in the same partitions; one commits, one aborts."""
    db.create_tables(topic)
    db.create_stream()
    for round_ in range(5):
        base = 1000 * round_
        with topic.transaction(transactional_id=f"{topic.name}-a") as committed:
            with topic.transaction(commit=round_ % 2 == 0, transactional_id=f"{topic.name}-b") as other:
                for number in range(10):
                    committed({"id": base + number}, partition=number % 3)
                    other({"id": base + 500 + number}, partition=number % 3)
                    topic.produce({"id": base + 900 + number}, partition=number % 3)
        topic.wait_for_markers()
        assert_exact(db, topic)
    assert db.value("SELECT count(*) FROM target") == 5 * 20 + 3 * 10


def test_tombstones_null_keys_and_compaction_in_one_topic(db, new_topic):
    topic = new_topic(cleanup_policy="delete")
    db.create_topic_table(topic, "id bigint, key text OPTIONS (metadata 'key'), o bigint OPTIONS (metadata 'offset')",
                          null_value="skip")
    db.run("CREATE TABLE target (LIKE topic)")
    topic.produce_all({"value": None if n % 3 == 0 else {"id": n}, "key": None if n % 2 else f"k{n}"} for n in range(3000))
    db.create_stream(max_offsets_per_trigger=100)
    db.process_all_available()
    assert db.run("SELECT id, key, o FROM target ORDER BY o") == [
        (n, None if n % 2 else f"k{n}", n) for n in range(3000) if n % 3]
    assert db.next_offsets() == topic.offsets()
