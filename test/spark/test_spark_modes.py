"""Queries without event time: the three modes give what Spark gives, batch by batch."""

import pytest

import comparison
from comparison import run_both

COLUMNS = "customer text, amount decimal(12,2), n bigint"
TOTALS = ("SELECT customer, count(*) AS orders, count(n) AS counted, sum(n) AS total, min(n) AS least, "
          "max(amount) AS most, avg(n) AS mean, sum(amount) AS amount FROM topic GROUP BY customer")
TOTALS_TABLE = ("CREATE TABLE target (customer text UNIQUE NULLS NOT DISTINCT, orders bigint, counted bigint, "
                "total numeric, least bigint, most numeric, mean float8, amount numeric)")


def orders(count):
    """Of five customers and of nobody (null), some without a number; the same at every run."""
    for number in range(count):
        mixed = number * 2654435761 % 4294967296
        yield {"customer": None if mixed % 7 == 0 else f"customer {mixed % 5}",
               "amount": f"{mixed % 1000}.{mixed % 89 + 10}", "n": None if mixed % 11 == 0 else mixed % 100}


@pytest.fixture
def order_topic(new_topic):
    topic = new_topic(1)
    topic.produce(*orders(45))
    return topic


def test_append(db, order_topic, spark):
    outcome = run_both(db, spark, order_topic, COLUMNS,
                       "SELECT kafka_offset, upper(customer) AS customer, amount * 2 AS amount FROM topic WHERE n > 40",
                       "CREATE TABLE target (kafka_offset bigint, customer text, amount numeric)")
    comparison.assert_same_batches(outcome)
    comparison.assert_same_append(outcome)


def test_complete(db, order_topic, spark):
    outcome = run_both(db, spark, order_topic, COLUMNS, TOTALS, TOTALS_TABLE, mode="complete")
    assert len(outcome.spark) == 5
    comparison.assert_same_batches(outcome)
    comparison.assert_same_complete(outcome)
    comparison.assert_same_state(outcome)


def test_complete_with_having_order_and_limit(db, order_topic, spark):
    outcome = run_both(db, spark, order_topic, COLUMNS,
                       "SELECT customer, sum(amount) AS revenue FROM topic GROUP BY customer HAVING count(*) > 1 "
                       "ORDER BY sum(amount) DESC LIMIT 3",
                       "CREATE TABLE target (customer text, revenue numeric)",
                       "SELECT customer, sum(amount) AS revenue FROM topic GROUP BY customer HAVING count(*) > 1 "
                       "ORDER BY revenue DESC LIMIT 3", mode="complete", batch_size=7)
    comparison.assert_same_batches(outcome)
    comparison.assert_same_complete(outcome)


def test_complete_without_groups(db, order_topic, spark):
    outcome = run_both(db, spark, order_topic, COLUMNS,
                       "SELECT count(*) AS orders, count(*) FILTER (WHERE n > 50) AS large, sum(amount) AS revenue FROM topic",
                       "CREATE TABLE target (orders bigint, large bigint, revenue numeric)", mode="complete")
    comparison.assert_same_batches(outcome)
    comparison.assert_same_complete(outcome)


def test_complete_by_expressions(db, order_topic, spark):
    outcome = run_both(db, spark, order_topic, COLUMNS,
                       "SELECT n % 10 AS digit, customer IS NULL AS nobody, 2 * sum(n) + count(*) AS mixed FROM topic "
                       "WHERE n IS NOT NULL GROUP BY n % 10, customer IS NULL",
                       "CREATE TABLE target (digit bigint, nobody boolean, mixed numeric)", mode="complete")
    comparison.assert_same_batches(outcome)
    comparison.assert_same_complete(outcome)


def test_update(db, order_topic, spark):
    outcome = run_both(db, spark, order_topic, COLUMNS, TOTALS, TOTALS_TABLE, mode="update", batch_size=4)
    assert len(outcome.spark) == 12
    comparison.assert_same_batches(outcome)
    comparison.assert_same_update(outcome, key=1)
    comparison.assert_same_state(outcome)


def test_update_does_not_write_what_stays_the_same(db, order_topic, spark):
    outcome = run_both(db, spark, order_topic, COLUMNS, "SELECT customer, max(n) AS most FROM topic GROUP BY customer",
                       "CREATE TABLE target (customer text UNIQUE NULLS NOT DISTINCT, most bigint)", mode="update",
                       batch_size=4)
    comparison.assert_same_batches(outcome)
    comparison.assert_same_update(outcome, key=1)
    assert sum(changes.written.total() for changes in outcome.stream) < sum(len(batch.rows) for batch in outcome.spark)


def test_update_of_distinct_rows(db, order_topic, spark):
    outcome = run_both(db, spark, order_topic, COLUMNS, "SELECT DISTINCT customer, n % 3 AS digit FROM topic",
                       "CREATE TABLE target (customer text, digit bigint, UNIQUE NULLS NOT DISTINCT (customer, digit))",
                       mode="update")
    comparison.assert_same_batches(outcome)
    comparison.assert_same_update(outcome, key=2)


def test_update_with_having_differs(db, new_topic, spark):
    """Spark does not tell its sink that HAVING excludes a group it has emitted; a stream takes the row away."""
    topic = new_topic(1)
    topic.produce({"customer": "a", "n": 5}, {"customer": "b", "n": 5}, {"customer": "a", "n": 20}, {"customer": "c", "n": 1})
    outcome = run_both(db, spark, topic, COLUMNS, "SELECT customer, sum(n) AS n FROM topic GROUP BY customer HAVING sum(n) < 10",
                       "CREATE TABLE target (customer text PRIMARY KEY, n numeric)", mode="update", batch_size=2)
    comparison.assert_same_batches(outcome)
    assert sorted(map(tuple, outcome.spark[0].rows)) == [("a", "5"), ("b", "5")]
    assert outcome.spark[1].rows == [["c", "1"]]
    assert sorted(outcome.table) == [("b", "5"), ("c", "1")]


@pytest.mark.parametrize("mode", ["complete", "update"])
def test_partitions_and_aborted_transactions(db, new_topic, spark, mode):
    """Batches share partitions in other ways, but the tables are the same."""
    topic = new_topic(3)
    topic.produce_all({"value": order, "partition": number % 3 if number % 2 else 0}
                      for number, order in enumerate(orders(60)))
    for partition in range(3):
        with topic.transaction(commit=False, transactional_id=f"aborted-{partition}") as produce:
            produce({"customer": "customer 1", "amount": "1000000", "n": 1000000}, partition=partition)
        topic.produce({"customer": "customer 2", "amount": "1.00", "n": partition}, partition=partition)
    outcome = run_both(db, spark, topic, COLUMNS, TOTALS, TOTALS_TABLE, mode=mode, batch_size=9)
    last = {row[0]: tuple(row) for batch in outcome.spark for row in batch.rows}
    assert sorted(outcome.table, key=repr) == sorted(last.values(), key=repr)
    comparison.assert_same_state(outcome)
