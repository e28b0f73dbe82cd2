"""Start positions mean what they mean in Spark."""

import json

import psycopg
import pytest

from comparison import rows_of, run_stream, spark_columns
from peers.spark import SparkError

COLUMNS = "id bigint"
QUERY = "SELECT id, kafka_partition, kafka_offset FROM topic"
TABLE = "CREATE TABLE target (id bigint, kafka_partition int, kafka_offset bigint)"
HOUR_MS = 3_600_000
START_MS = 1_767_265_200_000


@pytest.fixture
def hourly_topic(new_topic):
    """Three partitions with 10, 5 and 0 messages, an hour apart."""
    topic = new_topic(3)
    for number in range(10):
        topic.produce({"id": number}, partition=0, timestamp=START_MS + number * HOUR_MS)
        if number % 2:
            topic.produce({"id": 100 + number}, partition=1, timestamp=START_MS + number * HOUR_MS)
    return topic


def run_both(db, spark, topic, starting, **arguments):
    """Returns the rows of Spark and of the stream."""
    batches = spark.run(topic, spark_columns(COLUMNS), QUERY, batch_size=4, starting=starting)
    run_stream(db, topic, COLUMNS, QUERY, TABLE, max_offsets_per_trigger=4, **arguments)
    return rows_of(row for batch in batches for row in batch.rows), rows_of(db.run("SELECT * FROM target"))


@pytest.mark.parametrize("offsets", [(3, -2, -1), (-2, 5, 0), (-1, -1, -2), (10, 1, -2)])
def test_offsets(db, hourly_topic, spark, offsets):
    document = json.dumps({hourly_topic.name: {str(number): offset for number, offset in enumerate(offsets)}})
    from_spark, from_stream = run_both(db, spark, hourly_topic, {"startingOffsets": document}, starting_offsets=document)
    assert from_stream == from_spark


def test_offsets_that_leave_out_a_partition(db, hourly_topic, spark):
    document = json.dumps({hourly_topic.name: {"0": 3, "1": 0}})
    with pytest.raises(SparkError, match="TopicPartitions"):
        spark.run(hourly_topic, COLUMNS, QUERY, starting={"startingOffsets": document})
    with pytest.raises(psycopg.Error, match="partition"):
        run_stream(db, hourly_topic, COLUMNS, QUERY, TABLE, starting_offsets=document)


@pytest.mark.parametrize("milliseconds", [0, 3 * HOUR_MS, 3 * HOUR_MS + 1, 9 * HOUR_MS, 9 * HOUR_MS + 1])
def test_timestamp(db, hourly_topic, spark, milliseconds):
    """Also where a partition has no message that late: it starts at its end."""
    from_spark, from_stream = run_both(
        db, spark, hourly_topic, {"startingTimestamp": START_MS + milliseconds,
                                  "startingOffsetsByTimestampStrategy": "latest"},
        starting_timestamp=f"{db.value('SELECT to_timestamp(%s::numeric / 1000)', START_MS + milliseconds)}")
    assert from_stream == from_spark


def test_timestamps_per_partition(db, hourly_topic, spark):
    times = {"0": START_MS + 2 * HOUR_MS, "1": START_MS + 8 * HOUR_MS, "2": START_MS}
    from_spark, from_stream = run_both(
        db, spark, hourly_topic, {"startingOffsetsByTimestamp": json.dumps({hourly_topic.name: times}),
                                  "startingOffsetsByTimestampStrategy": "latest"},
        starting_offsets_by_timestamp=json.dumps(times))
    assert from_stream == from_spark and from_spark


def test_timestamp_that_no_message_has(db, hourly_topic, spark):
    """With the strategy "error", Spark's default."""
    with pytest.raises(SparkError):
        spark.run(hourly_topic, COLUMNS, QUERY, starting={"startingTimestamp": START_MS + 20 * HOUR_MS})
    with pytest.raises(psycopg.Error, match="no message"):
        run_stream(db, hourly_topic, COLUMNS, QUERY, TABLE, starting_timestamp="2030-01-01 00:00+00",
                   starting_timestamp_strategy="error")
