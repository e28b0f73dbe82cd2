"""Other sessions write rows of the target while a stream in mode update does."""

import random
import threading

import pytest

from harness.processes import wait_until
from upserts import assert_upserted, in_the_way, produce, rows, upsert_stream

# ON CONFLICT needs the first index; rows must also find their way into the second
TARGET = "CREATE TABLE target (id bigint PRIMARY KEY, name text, amount numeric); CREATE INDEX ON target (name, amount)"


def assert_indexes_agree(db):
    """Every row is found by each index, and by a scan of the table."""
    by_scan = db.run("SELECT id, name, amount FROM target ORDER BY id")
    with db.connection.transaction():
        db.run("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off")
        assert db.run("SELECT id, name, amount FROM target ORDER BY id") == by_scan
        assert sorted(db.run("SELECT id, name, amount FROM target ORDER BY name, amount")) == by_scan


@pytest.fixture
def stream(db, topic):
    """A stream, caught up, with rows 1 to 20 in its target."""
    upsert_stream(db, topic, target=TARGET)
    produce(topic, *((key, {"name": "old", "amount": key}) for key in range(1, 21)))
    assert_upserted(db, topic)


@pytest.mark.usefixtures("stream")
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize("statement", [
    "INSERT INTO target VALUES (100, 'other', 0)",
    "UPDATE target SET name = 'other' WHERE id = 10",
    "UPDATE target SET id = 100 WHERE id = 10",
    "DELETE FROM target WHERE id = 10",
    "SELECT 1 FROM target WHERE id = 10 FOR UPDATE",
    "SELECT 1 FROM target WHERE id = 10 FOR SHARE",
], ids=lambda statement: statement.replace(" ", "_")[:30])
def test_waits_for_whoever_is_at_a_row(db, topic, statement, end):
    """The stream's row comes after the other session's, whatever became of that."""
    with in_the_way(db, topic, statement, *((key, {"name": "new", "amount": -key}) for key in (1, 10, 20, 100))) as other:
        other.execute(end)
    assert_upserted(db, topic)
    assert_indexes_agree(db)


@pytest.mark.usefixtures("stream")
def test_a_lock_for_foreign_keys_is_in_nobodys_way(db, topic):
    with db.connect() as other:
        other.execute("BEGIN; SELECT 1 FROM target WHERE id = 10 FOR KEY SHARE")
        produce(topic, (10, {"name": "new", "amount": -10}))
        assert_upserted(db, topic)
        other.execute("COMMIT")


@pytest.mark.usefixtures("stream")
def test_vacuum_does_not_wait_for_a_stream_that_waits(db, topic):
    """It needs every page of the index for itself."""
    produce(topic, *((key, {"name": "more", "amount": key}) for key in range(100, 5000)))
    assert_upserted(db, topic)
    with in_the_way(db, topic, "SELECT 1 FROM target WHERE id = 10 FOR UPDATE", (10, {"name": "new", "amount": -10})) as other:
        db.run("DELETE FROM target WHERE id > 2000")
        db.run("VACUUM (INDEX_CLEANUP ON) target")
        other.execute("COMMIT")
    wait_until(lambda: (10, "new", -10) in rows(db), what="the stream goes on")


@pytest.mark.usefixtures("stream")
def test_a_stream_that_waits_can_be_stopped(db, topic):
    with in_the_way(db, topic, "UPDATE target SET name = 'other' WHERE id = 10", (10, {"name": "new", "amount": -10})) as other:
        db.call("stop_stream")
        other.execute("COMMIT")
    assert (10, "other", 10) in rows(db)
    db.call("start_stream")
    assert_upserted(db, topic)


def test_while_others_write_the_same_keys(db, topic):
    """Whatever they do, nothing fails, and once they are done each key is as its last message says."""
    upsert_stream(db, topic, target=TARGET, max_offsets_per_trigger=500)
    done = threading.Event()
    problems = []

    def disturb(seed):
        chosen = random.Random(seed)
        try:
            with db.connect() as other:
                while not done.is_set():
                    key = chosen.randrange(400)
                    other.execute(chosen.choice((
                        "INSERT INTO target VALUES (%s, 'other', 0) ON CONFLICT DO NOTHING",
                        "UPDATE target SET name = 'other' WHERE id = %s",
                        "UPDATE target SET amount = amount + 1 WHERE id = %s",
                        "DELETE FROM target WHERE id = %s")), [key])
        except Exception as problem:  # pylint: disable=broad-except
            problems.append(problem)

    threads = [threading.Thread(target=disturb, args=[seed]) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):
            produce(topic, *((key, {"name": f"{number}", "amount": number}) for key in range(400)))
            db.process_all_available()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not problems
    assert db.value("SELECT restarts FROM kafka.stream_status WHERE stream = 's'") == 0
    assert_indexes_agree(db)
    produce(topic, *((key, {"name": "last", "amount": key}) for key in range(400)))
    assert_upserted(db, topic)
    assert_indexes_agree(db)


@pytest.mark.parametrize("index", ["b DESC, a", "a DESC, b"])
def test_upserts_and_an_aggregation_in_one_table(db, new_topic, index):
    """Both write in the order of the index: they wait for each other, and no more."""
    topic = new_topic(1)
    db.create_topic_table(topic, "a int, b int, v bigint")
    db.run(f"CREATE TABLE target (a int NOT NULL, b int NOT NULL, v bigint, n bigint); CREATE UNIQUE INDEX ON target ({index})")
    db.create_stream("upserts", query="SELECT a, b, v FROM topic", mode="update", key_columns=["a", "b"], max_offsets_per_trigger=5000, start=False)
    db.create_stream("counts", query="SELECT a, b, count(*) AS n FROM topic GROUP BY a, b", mode="update", max_offsets_per_trigger=6000, start=False)
    generator = random.Random(1)
    topic.produce_all({"value": {"a": generator.randrange(80), "b": generator.randrange(60), "v": number}} for number in range(60_000))
    for stream in ("upserts", "counts"):
        db.call("start_stream", stream)
    for stream in ("upserts", "counts"):
        db.process_all_available(stream, timeout="60 s")
    wanted = "SELECT a, b, (array_agg(v ORDER BY o DESC))[1], count(*) FROM all_messages GROUP BY a, b"
    db.create_topic_table(topic, "a int, b int, v bigint, o bigint OPTIONS (metadata 'offset')", name="all_messages")
    assert db.run(f"(TABLE target EXCEPT ALL {wanted}) UNION ALL ({wanted} EXCEPT ALL TABLE target)") == []
    assert [db.status(stream).last_error for stream in ("upserts", "counts")] == [None, None]
