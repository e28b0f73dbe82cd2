"""SELECT straight from a topic table: bounded, pushed down, interruptible."""

import threading
import time

import pytest

from expectations import error, values


@pytest.fixture
def filled(db, topic):
    """3 x 1000 messages, one second apart in each partition."""
    db.create_topic_table(topic, """id bigint, p int OPTIONS (metadata 'partition'),
        o bigint OPTIONS (metadata 'offset'), at timestamptz OPTIONS (metadata 'timestamp')""")
    topic.produce_all({"value": b'{"id": %d}' % n, "partition": n % 3,
                       "timestamp": 1_600_000_000_000 + n // 3 * 1000} for n in range(3000))
    return db


def plan(db, condition):
    return "\n".join(db.column(f"EXPLAIN (VERBOSE) SELECT * FROM topic WHERE {condition}"))


def messages_read(db, condition):
    """Rows that the scan itself returned or removed by its filter: what was read from Kafka."""
    tree = db.value(f"EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM topic WHERE {condition}")[0]["Plan"]
    return int(tree["Actual Rows"] + tree.get("Rows Removed by Filter", 0))


def test_everything(filled):
    assert filled.run("SELECT count(*), sum(id)::bigint FROM topic") == [(3000, 2999 * 1500)]


def test_empty_topic(db, topic):
    db.create_topic_table(topic)
    assert db.run("SELECT * FROM topic") == []


@pytest.mark.parametrize("condition, count", [
    ("p = 1", 1000),
    ("p IN (0, 2)", 2000),
    ("p >= 1 AND o < 10", 20),
    ("o >= 990", 30),
    ("o BETWEEN 5 AND 6 AND p = 2", 2),
    ("o = 7", 3),
    ("at >= '2020-09-13 12:43:00+00'", 60),
    ("at < '2020-09-13 12:26:50+00'", 30),
    ("at >= '2020-09-13 12:30:00+00' AND at < '2020-09-13 12:31:00+00'", 180),
    ("p = 7", 0),
    ("o > 5000", 0),
    ("o < 0", 0),
])
def test_conditions_on_metadata(filled, condition, count):
    filled.run("CREATE TEMP TABLE everything AS SELECT * FROM topic")
    expected = values(filled, f"SELECT * FROM everything WHERE {condition}")
    assert len(expected) == count
    assert values(filled, f"SELECT * FROM topic WHERE {condition}") == expected


@pytest.mark.parametrize("condition, most", [
    ("p = 1", 1000),
    ("o >= 990", 30),
    ("p = 1 AND o < 10", 10),
    ("at >= '2020-09-13 12:43:00+00'", 60),
])
def test_conditions_are_pushed_down(filled, condition, most):
    assert messages_read(filled, condition) <= most
    assert plan(filled, condition) != plan(filled, "true")


def test_parameters_and_joins(filled):
    filled.run("CREATE TABLE wanted (p int, o bigint)")
    filled.run("INSERT INTO wanted VALUES (0, 1), (1, 2), (2, 3)")
    assert values(filled, "SELECT t.p, t.o FROM topic t JOIN wanted USING (p, o)") == [(0, 1), (1, 2), (2, 3)]
    assert filled.value("SELECT count(*) FROM topic WHERE o >= %s AND p = %s", 995, 2) == 5
    assert filled.value("SELECT count(*) FROM topic a JOIN topic b USING (p, o)") == 3000


def test_limit_stops_early(filled, topic):
    topic.produce_sequence(200_000, first=10_000)
    limited = []
    for _ in range(3):
        started = time.monotonic()
        assert len(filled.run("SELECT * FROM topic LIMIT 5")) == 5
        limited.append(time.monotonic() - started)
    started = time.monotonic()
    assert filled.value("SELECT count(*) FROM topic") == 203_000
    assert min(limited) < time.monotonic() - started


def test_bounded_by_the_end_at_the_start(filled, topic):
    """A cursor does not see what is produced after it was opened and begun."""
    with filled.connect(autocommit=False) as session:
        session.execute("DECLARE c CURSOR FOR SELECT id FROM topic")
        found = len(session.execute("FETCH 1 FROM c").fetchall())
        topic.produce_sequence(300, first=10_000)
        found += len(session.execute("FETCH ALL FROM c").fetchall())
        session.rollback()
    assert found == 3000
    assert filled.value("SELECT count(*) FROM topic") == 3300


def test_aborted_transactions_are_not_seen(db, topic):
    db.create_topic_table(topic)
    with topic.transaction(commit=False) as produce:
        produce({"id": 1})
    with topic.transaction() as produce:
        produce({"id": 2})
    assert db.column("SELECT id FROM topic") == [2]
    db.run("ALTER SERVER broker OPTIONS (ADD isolation_level 'read_uncommitted')")
    assert sorted(db.column("SELECT id FROM topic")) == [1, 2]


def test_cancel_while_waiting(filled, kafka):
    filled.value("SELECT count(*) FROM topic")
    with filled.connect() as session:
        errors = []

        def select():
            try:
                session.execute("SELECT count(*) FROM topic")
            except Exception as caught:
                errors.append(caught.sqlstate)

        kafka.suspend()
        thread = threading.Thread(target=select)
        thread.start()
        filled.wait_for("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%FROM topic' "
                        "AND state = 'active' AND pid <> pg_backend_pid()", 1)
        started = time.monotonic()
        session.cancel()
        thread.join(20)
        took = time.monotonic() - started
        kafka.resume()
        assert errors == ["57014"]
        assert took < 5


def test_unreachable_broker_is_an_error_in_time(db):
    db.create_server("127.0.0.1:1", name="nowhere", socket_timeout_ms=1000)
    db.run("CREATE FOREIGN TABLE topic (id bigint) SERVER nowhere OPTIONS (topic 'x', format 'json')")
    started = time.monotonic()
    with error("."):
        db.run("SELECT * FROM topic")
    assert time.monotonic() - started < 5


def test_silent_broker_is_an_error_in_time(filled, kafka):
    filled.run("ALTER SERVER broker OPTIONS (ADD socket_timeout_ms '1000')")
    kafka.suspend()
    started = time.monotonic()
    with error("."):
        filled.run("SELECT * FROM topic")
    assert time.monotonic() - started < 10
    kafka.resume()


def test_unknown_topic(db):
    db.create_topic_table("no-such-topic")
    with error("no-such-topic", sqlstate="42704"):
        db.run("SELECT * FROM topic")


def test_undecodable_message_is_located(db, topic):
    db.create_topic_table(topic)
    topic.produce({"id": 1}, {"id": "12x"}, partition=1)
    with error("12x", detail=f'"{topic.name}".*partition 1.*offset 1.*"id"', sqlstate="22P02"):
        db.run("SELECT * FROM topic")


def test_privileges(db, topic):
    db.create_topic_table(topic)
    db.run("DROP ROLE IF EXISTS kafka_nobody")
    db.run("CREATE ROLE kafka_nobody")
    try:
        db.run("SET ROLE kafka_nobody")
        with error("permission denied", sqlstate="42501"):
            db.run("SELECT * FROM topic")
        with error("permission denied", sqlstate="42501"):
            db.run("SELECT * FROM kafka.topic_partitions('topic')")
        with error("permission denied", sqlstate="42501"):
            db.run("SELECT * FROM kafka.offsets_for_timestamp('topic', now())")
    finally:
        db.run("RESET ROLE")
        db.run("DROP ROLE kafka_nobody")


def test_topic_partitions(filled):
    assert filled.run("SELECT * FROM kafka.topic_partitions('topic') ORDER BY 1") == [
        (0, 0, 1000), (1, 0, 1000), (2, 0, 1000)]


def test_a_topic_table_is_read_only(filled):
    for statement in ("INSERT INTO topic VALUES (1)", "UPDATE topic SET id = 1", "DELETE FROM topic"):
        with error("."):
            filled.run(statement)
