"""Queries with event time: windows close, rows are late and states are forgotten when Spark's are, batch by batch."""

import datetime
import random

import pytest

import comparison
from comparison import run_both

COLUMNS = "at timestamptz, customer text, n bigint"
TUMBLING = ("SELECT window_start, count(*) AS n, sum(n) AS total FROM "
            "(SELECT date_bin('5 min', at, '1970-01-01 00:00+00') AS window_start, n FROM topic) t GROUP BY window_start")
SPARK_TUMBLING = ("SELECT window.start AS window_start, count(*) AS n, sum(n) AS total FROM topic "
                  "GROUP BY window(at, '5 minutes')")
TUMBLING_TABLE = "CREATE TABLE target (window_start timestamptz PRIMARY KEY, n bigint, total numeric)"
WATERMARK = ("at", "10 minutes")


def at(minute, second=0, **fields):
    """A message with a time after noon."""
    time = datetime.datetime(2026, 1, 1, 12) + datetime.timedelta(minutes=minute, seconds=second)
    return {"at": time.isoformat() + "Z", **fields}


def events(seed, count=80, jitter=15):
    """Events that come up to jitter minutes out of order; some are at least an hour late, each in a window of its own.

    The last is the newest, so that the last batch moves the watermark.
    """
    random_number = random.Random(seed)
    late = 0
    for number in range(count):
        minute, second = number * 2 + 600 - random_number.randint(0, jitter), random_number.choice((0, 0, 30, 59))
        if number > 45 and number % 9 == 0:
            late += 1
            minute = late * 31
        yield at(minute, second, customer=random_number.choice(("a", "b", None)), n=number)
    yield at(count * 2 + 600, customer="c", n=count)


@pytest.mark.parametrize("seed, batch_size", [(0, 7), (1, 20), (2, 20)])
def test_append_tumbling(db, new_topic, spark, seed, batch_size):
    topic = new_topic(1)
    topic.produce(*events(seed))
    outcome = run_both(db, spark, topic, COLUMNS, TUMBLING, TUMBLING_TABLE, SPARK_TUMBLING, batch_size=batch_size,
                       watermark=WATERMARK)
    comparison.assert_same_batches(outcome)
    comparison.assert_same_append(outcome)
    comparison.assert_same_late_rows(outcome)
    comparison.assert_same_state(outcome)
    assert any(batch.late_rows for batch in outcome.spark)
    # the last batch has no data, and closes windows
    assert outcome.spark[-1].input_rows == 0 and outcome.spark[-1].rows


def test_append_by_window_and_customer_with_having(db, new_topic, spark):
    topic = new_topic(1)
    topic.produce(*events(5))
    outcome = run_both(db, spark, topic, COLUMNS,
                       "SELECT date_bin('30 min', at, '1970-01-01 00:00+00') AS window_start, customer, count(*) AS n "
                       "FROM topic GROUP BY 1, 2 HAVING count(*) > 2",
                       "CREATE TABLE target (window_start timestamptz, customer text, n bigint)",
                       "SELECT window.start, customer, count(*) AS n FROM topic GROUP BY window(at, '30 minutes'), customer "
                       "HAVING count(*) > 2", watermark=("at", "5 minutes"))
    comparison.assert_same_batches(outcome)
    comparison.assert_same_append(outcome)
    comparison.assert_same_late_rows(outcome)
    comparison.assert_same_state(outcome)


@pytest.mark.parametrize("size, slide", [(10, 5), (7, 3)])
def test_append_sliding(db, new_topic, spark, size, slide):
    topic = new_topic(1)
    topic.produce(*events(1))
    outcome = run_both(db, spark, topic, COLUMNS,
                       "SELECT lower(w) AS window_start, upper(w) AS window_end, count(*) AS n FROM topic, "
                       f"kafka.sliding_window(at, '{size} min', '{slide} min') AS w GROUP BY w",
                       "CREATE TABLE target (window_start timestamptz, window_end timestamptz, n bigint)",
                       "SELECT window.start, window.end, count(*) AS n FROM topic "
                       f"GROUP BY window(at, '{size} minutes', '{slide} minutes')", watermark=WATERMARK)
    comparison.assert_same_batches(outcome)
    comparison.assert_same_append(outcome)
    comparison.assert_same_late_rows(outcome)
    comparison.assert_same_state(outcome)


@pytest.mark.parametrize("seed", range(3))
def test_append_sessions(db, new_topic, spark, seed):
    topic = new_topic(1)
    topic.produce(*events(seed))
    outcome = run_both(db, spark, topic, COLUMNS,
                       "SELECT lower(kafka.session_window(at, '6 min')) AS session_start, "
                       "upper(kafka.session_window(at, '6 min')) AS session_end, customer, count(*) AS n, sum(n) AS total "
                       "FROM topic GROUP BY kafka.session_window(at, '6 min'), customer",
                       "CREATE TABLE target (session_start timestamptz, session_end timestamptz, customer text, n bigint, "
                       "total numeric)",
                       "SELECT session_window.start, session_window.end, customer, count(*) AS n, sum(n) AS total FROM topic "
                       "GROUP BY session_window(at, '6 minutes'), customer", watermark=WATERMARK)
    comparison.assert_same_batches(outcome)
    comparison.assert_same_append(outcome)
    comparison.assert_same_late_rows(outcome)
    comparison.assert_same_state(outcome)


def test_append_by_the_time_itself(db, new_topic, spark):
    topic = new_topic(1)
    topic.produce(*events(3))
    query = "SELECT at, count(*) AS n FROM topic GROUP BY at"
    outcome = run_both(db, spark, topic, COLUMNS, query, "CREATE TABLE target (at timestamptz, n bigint)",
                       watermark=WATERMARK)
    comparison.assert_same_batches(outcome)
    comparison.assert_same_append(outcome)
    comparison.assert_same_late_rows(outcome)
    comparison.assert_same_state(outcome)


@pytest.mark.parametrize("seed", range(2))
def test_update(db, new_topic, spark, seed):
    topic = new_topic(1)
    topic.produce(*events(seed))
    outcome = run_both(db, spark, topic, COLUMNS, TUMBLING, TUMBLING_TABLE, SPARK_TUMBLING, mode="update",
                       watermark=WATERMARK)
    comparison.assert_same_batches(outcome)
    comparison.assert_same_update(outcome, key=1)
    comparison.assert_same_late_rows(outcome)
    comparison.assert_same_state(outcome)
    assert any(batch.late_rows for batch in outcome.spark)


def test_complete_keeps_all(db, new_topic, spark):
    topic = new_topic(1)
    topic.produce(*events(4))
    outcome = run_both(db, spark, topic, COLUMNS, TUMBLING, TUMBLING_TABLE, SPARK_TUMBLING, mode="complete",
                       watermark=WATERMARK)
    comparison.assert_same_batches(outcome)
    comparison.assert_same_complete(outcome)
    comparison.assert_same_late_rows(outcome)
    comparison.assert_same_state(outcome)
    assert not any(batch.late_rows for batch in outcome.spark)


def test_borders(db, new_topic, spark):
    """Times at, just before and just after ends of windows and the watermark, one message a batch."""
    topic = new_topic(1)
    topic.produce(at(0), at(4, 59), at(5), at(14, 59), at(0), at(15), at(4, 59), at(4, 59), at(5), at(19, 59), at(20),
                  at(9, 59), at(20), at(9, 59), at(5), at(10), at(45), at(34), at(35), at(34, 59), at(30))
    outcome = run_both(db, spark, topic, COLUMNS, TUMBLING, TUMBLING_TABLE, SPARK_TUMBLING, batch_size=1,
                       watermark=WATERMARK)
    comparison.assert_same_batches(outcome)
    comparison.assert_same_append(outcome)
    comparison.assert_same_late_rows(outcome)
    comparison.assert_same_state(outcome)


# --- where a stream differs on purpose: README, "Differences from Spark" ---

def test_late_rows_are_counted_as_messages(db, new_topic, spark):
    """Spark counts what its partial aggregation has left of them."""
    topic = new_topic(1)
    topic.produce(at(60), at(61), at(62), at(62), at(62), at(62), at(0), at(1), at(7))
    outcome = run_both(db, spark, topic, COLUMNS, TUMBLING, TUMBLING_TABLE, SPARK_TUMBLING, batch_size=3,
                       watermark=("at", "0 seconds"))
    comparison.assert_same_batches(outcome)
    comparison.assert_same_append(outcome)
    assert [batch.late_rows for batch in outcome.stream] == [0, 0, 3]
    assert [batch.late_rows for batch in outcome.spark] == [0, 0, 2]


def test_the_watermark_has_microseconds(db, new_topic, spark):
    """Spark cuts it to milliseconds: windows close a little later."""
    topic = new_topic(1)
    topic.produce({"at": "2026-01-01T12:00:00.123456Z", "n": 1}, {"at": "2026-01-01T12:00:10.999999Z", "n": 2})
    outcome = run_both(db, spark, topic, COLUMNS, TUMBLING, TUMBLING_TABLE, SPARK_TUMBLING, batch_size=1,
                       watermark=("at", "0 seconds"))
    assert outcome.spark[-1].watermark == "2026-01-01 12:00:10.999000"
    assert outcome.stream[-1].watermark == "2026-01-01 12:00:10.999999"
    comparison.assert_same_append(outcome)


def test_messages_without_event_time(db, new_topic, spark):
    """window() filters them out; in SQL a null is a group, which in append mode would never be done."""
    messages = [at(0), {"n": 1}, {"at": None, "n": 2}, at(30)]
    for mode in ("append", "update"):
        topic = new_topic(1)
        topic.produce(*messages)
        db.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        outcome = run_both(db, spark, topic, COLUMNS, TUMBLING,
                           "CREATE TABLE target (window_start timestamptz UNIQUE NULLS NOT DISTINCT, n bigint, total numeric)",
                           SPARK_TUMBLING, mode=mode, watermark=WATERMARK)
        comparison.assert_same_batches(outcome)
        nobody = (None, "2", "3")
        if mode == "append":
            comparison.assert_same_append(outcome)
            assert sum(changes.late_rows for changes in outcome.stream) == 2
        else:
            assert outcome.table[nobody] == 1
            emitted = [tuple(row) for batch in outcome.spark for row in batch.rows]
            assert nobody not in emitted and set(outcome.table) - {nobody} == set(emitted)
        db.call("drop_stream")


def test_all_messages_move_the_watermark(db, new_topic, spark):
    """Spark's optimiser moves a WHERE without the event time below the watermark: what it leaves out doesn't count."""
    topic = new_topic(1)
    topic.produce(at(0, customer="a"), at(60, customer="b"), at(1, customer="a"), at(2, customer="a"))
    outcome = run_both(db, spark, topic, COLUMNS, TUMBLING.replace("FROM topic", "FROM topic WHERE customer = 'a'"),
                       TUMBLING_TABLE, SPARK_TUMBLING.replace("FROM topic", "FROM topic WHERE customer = 'a'"), batch_size=1,
                       watermark=("at", "0 seconds"))
    assert outcome.spark[-1].watermark == "2026-01-01 12:02:00.000000"
    assert outcome.stream[-1].watermark == "2026-01-01 13:00:00.000000"
