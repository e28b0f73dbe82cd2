"""Edges of the output modes: what on_error covers, what DROP EXTENSION takes, arguments of windows."""

import pytest

from expectations import error


@pytest.mark.parametrize("on_error", ["skip", "dead_letter"])
@pytest.mark.parametrize("key", [b"abc", None])
def test_bad_tombstones_follow_on_error(db, topic, on_error, key):
    db.create_topic_table(topic, "k int OPTIONS (key 'true'), v int")
    db.run("CREATE TABLE target (k int PRIMARY KEY, v int)")
    topic.produce_all([{"value": {"v": 1}, "key": b"1"}, {"value": None, "key": key}, {"value": {"v": 2}, "key": b"2"}])
    db.create_stream(mode="update", on_error=on_error)
    db.process_all_available()
    assert db.run("SELECT * FROM target ORDER BY k") == [(1, 1), (2, 2)]
    assert db.value("SELECT count(*) FROM kafka.dead_letter") == (1 if on_error == "dead_letter" else 0)
    assert db.status().errors == 1
    assert db.next_offsets() == topic.offsets()


def test_a_tombstone_that_a_foreign_key_refuses(db, topic):
    db.create_topic_table(topic, "k int OPTIONS (key 'true'), v int")
    db.run("CREATE TABLE target (k int PRIMARY KEY, v int); INSERT INTO target VALUES (1, 0);"
           "CREATE TABLE child (k int REFERENCES target); INSERT INTO child VALUES (1)")
    topic.produce_all([{"value": None, "key": b"1"}, {"value": {"v": 2}, "key": b"2"}])
    db.create_stream(mode="update", on_error="dead_letter")
    db.process_all_available()
    assert db.run("SELECT * FROM target ORDER BY k") == [(1, 0), (2, 2)]
    assert db.column("SELECT error_sqlstate FROM kafka.dead_letter") == ["23503"]


def test_drop_extension_takes_states_along(db, topic, kafka):
    db.create_topic_table(topic, "id bigint, g text")
    db.run("CREATE TABLE target (g text PRIMARY KEY, n bigint)")
    topic.produce({"id": 1, "g": "a"})
    db.create_stream(query="SELECT g, count(*) AS n FROM topic GROUP BY g", mode="update")
    db.process_all_available()
    db.run("SET client_min_messages = error")
    db.run("DROP EXTENSION kafka_ingest CASCADE")
    assert db.run("SELECT * FROM target") == [("a", 1)]
    db.run("CREATE EXTENSION kafka_ingest")
    assert db.value("SELECT count(*) FROM kafka.stream_status") == 0


def test_reset_makes_a_dropped_state_anew(db, topic):
    db.create_topic_table(topic, "id bigint, g text")
    db.run("CREATE TABLE target (g text PRIMARY KEY, n bigint)")
    topic.produce({"id": 1, "g": "a"})
    db.create_stream(query="SELECT g, count(*) AS n FROM topic GROUP BY g", mode="update")
    db.process_all_available()
    db.call("stop_stream")
    db.run("DROP TABLE kafka.stream_1_state")
    db.call("reset_stream")
    db.call("start_stream")
    db.process_all_available()
    assert db.run("SELECT * FROM target") == [("a", 1)]


@pytest.mark.parametrize("window, message, hint", [
    ("date_bin('5 min', at, now())", "needs a window", "constant interval"),
    ("date_bin('1 month', at, '2000-01-01 00:00+00')", "must not contain months", "'7 days'"),
    ("date_bin('0 s', at, '2000-01-01 00:00+00')", "must be greater than zero", "'5 min'"),
    ("kafka.sliding_window(at, '5 min', '10 min')", "must not be greater than its size", "at most 00:05:00"),
    ("kafka.sliding_window(at, '5 min', '-1 min')", "must be greater than zero", "'5 min'"),
    ("kafka.sliding_window(at, '1 month', '1 min')", "must not contain months", "'7 days'"),
    ("kafka.sliding_window(at, '1 day', '1 us')", "too small", "longer slide"),
])
def test_arguments_of_windows_are_checked_at_creation(db, topic, window, message, hint):
    db.create_topic_table(topic, "id bigint, at timestamptz")
    db.run("CREATE TABLE target (w text, n bigint)")
    if "sliding" in window:
        query = f"SELECT w::text AS w, count(*) AS n FROM topic, {window} AS w GROUP BY w"
    else:
        query = f"SELECT {window}::text AS w, count(*) AS n FROM topic GROUP BY {window}"
    with error(message, hint=hint):
        db.create_stream(query=query, watermark_column="at", watermark_delay="1 min", start=False)
    with error("must not be negative", hint="late"):
        db.create_stream(query=query, watermark_column="at", watermark_delay="-1 min", start=False)
