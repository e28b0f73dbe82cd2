"""deduplicate_by gives what Spark's dropDuplicatesWithinWatermark gives."""

import random

import pytest

import comparison
from comparison import run_both

COLUMNS = "at timestamptz, id bigint, place text, n bigint"
QUERY = "SELECT at, id, place, n FROM topic"
TABLE = "CREATE TABLE target (at timestamptz, id bigint, place text, n bigint)"


def events(seed, count=100):
    """Few keys (some null), so that they come again before and after they are forgotten; a few far too late."""
    random_number = random.Random(seed)
    for number in range(count):
        minute = number + 60 - random_number.randint(0, 12)
        if number % 23 == 22:
            minute = number % 50
        yield {"at": f"2026-01-01T{12 + minute // 60:02}:{minute % 60:02}:00Z", "id": random_number.choice((1, 2, 3, None)),
               "place": random_number.choice(("x", None)), "n": number}


@pytest.mark.parametrize("seed, keys", [(0, ["id"]), (1, ["id"]), (2, ["id", "place"])])
def test_duplicates(db, new_topic, spark, seed, keys):
    topic = new_topic(1)
    topic.produce(*events(seed))
    outcome = run_both(db, spark, topic, COLUMNS, QUERY, TABLE, watermark=("at", "10 minutes"), deduplicate_by=keys)
    comparison.assert_same_batches(outcome)
    comparison.assert_same_append(outcome)
    comparison.assert_same_late_rows(outcome)
    comparison.assert_same_state(outcome)
    assert any(batch.late_rows for batch in outcome.spark)


def test_one_message_a_batch(db, new_topic, spark):
    """At the borders: a key is forgotten when the watermark reaches its time and the delay."""
    topic = new_topic(1)
    minutes = (0, 0, 9, 10, 10, 20, 9, 10, 11, 20, 30, 21, 20, 30, 40, 40)
    topic.produce(*({"at": f"2026-01-01T12:{minute:02}:00Z", "id": 1, "n": number}
                    for number, minute in enumerate(minutes)))
    outcome = run_both(db, spark, topic, COLUMNS, QUERY, TABLE, batch_size=1, watermark=("at", "10 minutes"),
                       deduplicate_by=["id"])
    comparison.assert_same_batches(outcome)
    comparison.assert_same_append(outcome)
    comparison.assert_same_late_rows(outcome)
    comparison.assert_same_state(outcome)


def test_messages_without_event_time_differ(db, new_topic, spark):
    """Spark takes null for 1970: the row passes, and its key is forgotten at once.  A stream drops and counts it."""
    topic = new_topic(1)
    topic.produce({"id": 1, "n": 1, "at": "2026-01-01T12:00:00Z"}, {"id": 2, "n": 2}, {"id": 2, "n": 3})
    outcome = run_both(db, spark, topic, COLUMNS, QUERY, TABLE, batch_size=1, watermark=("at", "10 minutes"),
                       deduplicate_by=["id"])
    assert [batch.late_rows for batch in outcome.stream][:3] == [0, 1, 1]
    assert [row[3] for batch in outcome.spark for row in batch.rows] == ["1", "2", "3"]
    assert [row[3] for row in outcome.table] == ["1"]
