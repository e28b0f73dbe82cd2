"""Where a stream starts: pinned to numbers in the creating transaction."""

import json

import pytest

from expectations import assert_exact, error

HOUR = 3_600_000
EPOCH = 1_600_000_000_000  # milliseconds


def start_offsets(db, **arguments):
    """The offsets that create_stream stores, without reading anything."""
    db.create_stream(start=False, **arguments)
    offsets = db.next_offsets()
    db.call("drop_stream")
    return offsets


def timestamp(milliseconds):
    from datetime import datetime, timedelta, timezone
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=milliseconds)


@pytest.fixture
def dated_topic(topic):
    """Partition 0: 100 messages, one per hour; 1: 50, every other hour; 2: empty."""
    topic.produce_all({"value": {"id": n}, "timestamp": EPOCH + n * HOUR} for n in range(100))
    topic.produce_all({"value": {"id": 100 + n}, "partition": 1, "timestamp": EPOCH + 2 * n * HOUR}
                      for n in range(50))
    return topic


def test_earliest_is_the_default(db, dated_topic):
    db.create_tables(dated_topic)
    assert start_offsets(db) == {0: 0, 1: 0, 2: 0}
    assert start_offsets(db, starting_offsets="earliest") == {0: 0, 1: 0, 2: 0}


def test_latest(db, dated_topic):
    db.create_tables(dated_topic)
    assert start_offsets(db, starting_offsets="latest") == {0: 100, 1: 50, 2: 0}
    db.create_stream(starting_offsets="latest")
    dated_topic.produce({"id": 1000}, {"id": 1001}, partition=2)
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [1000, 1001]


def test_offsets_per_partition(db, dated_topic):
    db.create_tables(dated_topic)
    positions = {"0": 23, "1": -2, "2": -1}
    assert start_offsets(db, starting_offsets=json.dumps(positions)) == {0: 23, 1: 0, 2: 0}
    spark = {dated_topic.name: {"0": -1, "1": 50, "2": 0}}
    assert start_offsets(db, starting_offsets=json.dumps(spark)) == {0: 100, 1: 50, 2: 0}
    db.create_stream(starting_offsets='{"0": 98, "1": -1, "2": -1}')
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [98, 99]


@pytest.mark.parametrize("document, word", [
    ('{"0": 1, "1": 1}', "2"),                      # a partition is missing
    ('{"0": 1, "1": 1, "2": 0, "3": 0}', "3"),      # there is no such partition
    ('{"0": 1.5, "1": 1, "2": 0}', "1.5|0"),
    ('{"0": "1", "1": 1, "2": 0}', "0|1"),
    ('{"0": -3, "1": 1, "2": 0}', "-3|0"),
    ('{"another": {"0": 0, "1": 0, "2": 0}}', "another|topic-"),
    ('{"0": 1', "."),
    ('[1, 2, 3]', "."),
    ('newest', "newest"),
])
def test_wrong_offsets_are_refused(db, dated_topic, document, word):
    db.create_tables(dated_topic)
    with error(".") as caught:
        db.create_stream(starting_offsets=document)
    diagnosis = caught.value.diag
    assert any(part in f"{diagnosis.message_primary} {diagnosis.message_detail}"
               for part in word.split("|")) or word == "."
    assert db.status() is None


@pytest.mark.parametrize("milliseconds", [
    EPOCH - 1000 * HOUR,         # older than everything
    EPOCH + 20 * HOUR,           # equal to a message in both partitions
    EPOCH + 21 * HOUR,           # equal in one, between two messages in the other
    EPOCH + 20 * HOUR + 1,
    EPOCH + 98 * HOUR + 1,       # newer than everything in partition 1
    EPOCH + 1000 * HOUR,         # newer than everything
])
def test_timestamp_is_kafkas_answer(db, dated_topic, milliseconds):
    db.create_tables(dated_topic)
    ends = dated_topic.offsets()
    expected = {partition: ends[partition] if offset < 0 else offset
                for partition, offset in dated_topic.offsets(milliseconds).items()}
    moment = timestamp(milliseconds)
    assert start_offsets(db, starting_timestamp=moment) == expected
    assert dict(db.run("SELECT partition, \"offset\" FROM kafka.offsets_for_timestamp('topic', %s)",
                       moment)) == expected


def test_rows_are_those_since_the_timestamp(db, dated_topic):
    db.create_tables(dated_topic)
    db.create_stream(starting_timestamp=timestamp(EPOCH + 50 * HOUR))
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [*range(50, 100), *range(125, 150)]


def test_microseconds_round_up(db, dated_topic):
    """Kafka knows milliseconds: a message just before the moment must not be read."""
    from datetime import timedelta
    db.create_tables(dated_topic)
    moment = timestamp(EPOCH + 20 * HOUR) + timedelta(microseconds=1)
    assert start_offsets(db, starting_timestamp=moment)[0] == 21


def test_timestamp_strategy(db, dated_topic, postgres):
    db.create_tables(dated_topic)
    moment = timestamp(EPOCH + 98 * HOUR + 1)  # partition 0 has a later message, 1 and 2 have none
    with error("partition [12]", hint="latest"):
        db.create_stream(starting_timestamp=moment, starting_timestamp_strategy="error")
    assert db.status() is None
    notices = []
    db.connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    assert start_offsets(db, starting_timestamp=moment,
                         starting_timestamp_strategy="latest") == {0: 99, 1: 50, 2: 0}
    assert notices, "a partition without a later message is reported"


def test_timestamps_per_partition(db, dated_topic):
    db.create_tables(dated_topic)
    document = json.dumps({"0": EPOCH + 10 * HOUR, "1": EPOCH + 10 * HOUR, "2": EPOCH})
    assert start_offsets(db, starting_offsets_by_timestamp=document) == {0: 10, 1: 5, 2: 0}
    with error("."):
        db.create_stream(starting_offsets_by_timestamp=json.dumps({"0": EPOCH}))


def test_precedence(db, dated_topic):
    db.create_tables(dated_topic)
    by_timestamp = json.dumps({"0": EPOCH, "1": EPOCH, "2": EPOCH})
    assert start_offsets(db, starting_timestamp=timestamp(EPOCH + HOUR), starting_offsets="latest",
                         starting_offsets_by_timestamp=by_timestamp)[0] == 1
    assert start_offsets(db, starting_offsets="latest", starting_offsets_by_timestamp=by_timestamp)[0] == 0


def test_latest_is_pinned_although_nothing_arrives(db, dated_topic):
    """What is written between create_stream and a first start is not skipped."""
    db.create_tables(dated_topic)
    db.create_stream(starting_offsets="latest", start=False)
    dated_topic.produce({"id": 500}, partition=0)
    dated_topic.produce({"id": 501}, partition=2)
    db.call("start_stream")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [500, 501]


def test_restart_ignores_start_options(db, dated_topic):
    db.create_tables(dated_topic)
    db.create_stream(starting_offsets="latest")
    dated_topic.produce({"id": 500})
    db.process_all_available()
    db.call("stop_stream")
    dated_topic.produce({"id": 501})
    db.call("start_stream")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [500, 501]


def test_start_from_timestamp_rewinds(db, dated_topic):
    db.create_tables(dated_topic)
    db.create_stream()
    db.process_all_available()
    db.call("stop_stream")
    db.run("TRUNCATE target")
    db.call("start_stream", from_timestamp=timestamp(EPOCH + 90 * HOUR))
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [*range(90, 100), *range(145, 150)]


def test_reset_stream(db, dated_topic):
    db.create_tables(dated_topic)
    db.create_stream()
    db.process_all_available()
    db.call("stop_stream")
    db.run("TRUNCATE target")
    db.call("reset_stream", starting_offsets='{"0": 99, "1": -1, "2": -2}')
    assert db.next_offsets() == {0: 99, 1: 50, 2: 0}
    db.call("start_stream")
    db.process_all_available()
    assert db.column("SELECT id FROM target") == [99]
    db.call("stop_stream")
    db.run("TRUNCATE target")
    db.call("reset_stream")
    db.call("start_stream")
    assert_exact(db, dated_topic)


def test_failed_lookup_stores_nothing(db, dated_topic, kafka):
    db.create_tables(dated_topic)
    db.run("ALTER SERVER broker OPTIONS (ADD socket_timeout_ms '2000')")
    kafka.suspend()
    with error("."):
        db.create_stream(starting_timestamp=timestamp(EPOCH))
    kafka.resume()
    assert db.status() is None
    assert db.value("SELECT count(*) FROM kafka.stream_offset") == 0
