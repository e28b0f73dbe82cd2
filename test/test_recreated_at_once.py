"""A topic that is deleted, created and filled within a tenth of a second: a librdkafka without topic ids doesn't hear of it, and reads on.

That is noticed by the first message that was read, when the library asks about the topic the next time, and at every start.
"""

import json

import pytest
from confluent_kafka import Producer

from expectations import assert_another_topic_noticed, assert_exact
from harness.processes import wait_until

OLD = 9


def recreate(kafka, topic, messages):
    """The messages go to all partitions."""
    producer = Producer({"bootstrap.servers": kafka.address, "linger.ms": 0})
    kafka.recreate_topic_at_once(topic)
    for number in messages:
        for partition in range(topic.partitions):
            producer.produce(topic.name, json.dumps({"id": number}), partition=partition)
    assert producer.flush(30) == 0


def is_read(db, new_topic, partitions=1, **options):
    topic = new_topic(partitions)
    db.create_tables(topic)
    topic.produce_sequence(OLD * partitions)
    db.create_stream(**options)
    db.process_all_available()
    return topic


def new_rows(db):
    """The producer may send messages in another order: their offsets say nothing about their ids."""
    return db.column("SELECT id FROM target WHERE id >= 100 ORDER BY id")


@pytest.mark.parametrize("partitions, limit", [(1, None), (2, None), (2, 4)])
def test_a_running_stream_stops(db, new_topic, kafka, partitions, limit):
    """What it may have written by then are messages from the old position on."""
    topic = is_read(db, new_topic, partitions, max_offsets_per_trigger=limit)
    for length in (OLD + 1, OLD + 30, OLD + 60):
        before = db.run("SELECT id, p, o FROM target")
        recreate(kafka, topic, range(100, 100 + length))
        assert topic.name in db.wait_for_state("failed", timeout=60).last_error
        assert_another_topic_noticed(db, before)
        # a new start notices it as well
        db.call("start_stream")
        assert "is not the one" in db.wait_for_state("failed", timeout=60).last_error
        db.run("TRUNCATE target")
        kafka.recreate_topic(topic)
        topic.produce_sequence(OLD * partitions)
        db.call("reset_stream")
        db.call("start_stream")
        db.process_all_available()
        assert_exact(db, topic)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_start_notices_it(db, new_topic, kafka, workers):
    topic = is_read(db, new_topic, 3, workers=workers)
    recreate(kafka, topic, range(100, 140))
    db.call("stop_stream")
    assert db.column("SELECT same_topic FROM kafka.verify_stream('s')") == [False] * 3
    if db.status().state != "failed":
        db.call("start_stream")
    assert topic.name in db.wait_for_state("failed", timeout=60).last_error


def test_a_stream_that_goes_on(db, new_topic, kafka):
    """From the start of the new topic: nothing is passed over, and what was read on by mistake comes once more."""
    topic = is_read(db, new_topic, 2, fail_on_data_loss=False)
    recreate(kafka, topic, range(100, 140))
    wait_until(lambda: set(range(100, 140)) == set(new_rows(db)), timeout=60)
    db.process_all_available()
    assert db.next_offsets() == topic.offsets()
    assert db.status().data_loss_at is not None
    assert db.value("SELECT every(o >= 9) IS NOT FALSE FROM (SELECT p, o FROM target WHERE id >= 100 GROUP BY 1, 2 HAVING count(*) > 1) twice")


def test_the_only_message_was_left_out(db, new_topic, kafka):
    topic = new_topic(1)
    db.create_tables(topic)
    topic.produce(b"bad")
    db.create_stream()
    db.wait_for_state("failed")
    db.run("SELECT kafka.skip_message('s', %s, 0, 0)", topic.name)
    recreate(kafka, topic, range(100, 140))
    assert db.column("SELECT same_topic FROM kafka.verify_stream('s')") == [False]
    db.call("start_stream")
    assert "is not the one" in db.wait_for_state("failed", timeout=60).last_error
    assert new_rows(db) == []


def first_offset(db):
    return db.value("SELECT first_offset FROM kafka.stream_offset")


def test_the_first_message_is_kept_until_it_is_gone(db, new_topic, kafka):
    topic = is_read(db, new_topic)
    assert first_offset(db) == OLD - 1
    for number in (1, 2):
        topic.produce_sequence(OLD, first=100 * number)
        db.process_all_available()
    assert first_offset(db) == OLD - 1
    kafka.delete_records(topic.name, {0: OLD + 3})
    db.call("stop_stream")
    assert db.column("SELECT verdict FROM kafka.verify_stream('s')") == ["ok: up to date"]
    db.call("start_stream")
    topic.produce_sequence(OLD, first=300)
    db.process_all_available()
    assert first_offset(db) == 4 * OLD - 1
    assert db.value("SELECT count(*) FROM target") == 4 * OLD


def test_what_is_deleted_under_a_running_stream(db, new_topic, kafka):
    """Each second the topic is looked at: a first message that is gone means nothing, and nothing is read twice for it."""
    with db.server_setting("kafka_ingest.metadata_refresh_interval", "1"):
        topic = is_read(db, new_topic)
        with topic.producing(50):
            for total in (2, 3, 4):
                rows = db.value("SELECT count(*) FROM target")
                db.wait_for(f"SELECT count(*) > {rows + 500} FROM target", timeout=60)
                kafka.delete_records(topic.name, {0: rows})
                kafka.add_partitions(topic.name, total)
                db.wait_for("SELECT count(*) FROM kafka.stream_offset", total)
        db.process_all_available()
    assert db.next_offsets()[0] == topic.offsets()[0]
    assert db.column("SELECT o FROM target WHERE p = 0 ORDER BY o") == list(range(topic.offsets()[0]))
