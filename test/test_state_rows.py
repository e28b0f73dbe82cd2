"""kafka.stream_progress says how many rows the state has, without counting them in every batch."""

import pytest

WINDOW = dict(watermark_column="at", watermark_delay="10 s")
STREAMS = {
    "update": dict(mode="update", query="SELECT k, count(*) AS n FROM topic GROUP BY k"),
    "update with having": dict(mode="update", query="SELECT k, count(*) AS n FROM topic GROUP BY k HAVING count(*) % 2 = 1"),
    "update, windows": dict(mode="update", query="SELECT at AS k, count(*) AS n FROM topic GROUP BY at", **WINDOW),
    "one group": dict(mode="update", query="SELECT 1 AS k, count(*) AS n FROM topic"),
    "complete": dict(mode="complete", query="SELECT k, count(*) AS n FROM topic GROUP BY k ORDER BY k LIMIT 5"),
    "distinct": dict(mode="complete", query="SELECT DISTINCT k FROM topic"),
    "windows": dict(query="SELECT date_bin('1 s', at, '2000-01-01 00:00Z') AS k, count(*) AS n FROM topic GROUP BY 1", **WINDOW),
    "sliding windows": dict(query="SELECT lower(w) AS k, count(*) AS n "
                                  "FROM topic, kafka.sliding_window(at, '20 s', '5 s') w GROUP BY w", **WINDOW),
    "sessions": dict(query="SELECT kafka.session_window(at, '2 s')::text AS k, count(*) AS n FROM topic "
                           "GROUP BY kafka.session_window(at, '2 s')", **WINDOW),
    "deduplicate": dict(query="SELECT k::text AS k, at FROM topic", deduplicate_by=["k"], **WINDOW),
}


def produce(topic, first, count, keys=17):
    topic.produce_all({"value": {"k": n * 7 % keys, "at": f"2026-01-01 {n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}Z"}}
                      for n in range(first, first + count) if n % 11 > 3)


def assert_counted(db):
    """The last batch's progress, the checkpoint and the table agree."""
    db.process_all_available()
    # the batch without data that closes windows may still come
    db.wait_for("SELECT (SELECT state_rows FROM kafka.stream_progress ORDER BY batch_id DESC LIMIT 1) "
                "= (SELECT count(*) FROM kafka.stream_1_state)")
    rows = db.value("SELECT count(*) FROM kafka.stream_1_state")
    assert db.value("SELECT sum(state_rows) FROM kafka.stream_offset") == rows
    return rows


@pytest.mark.parametrize("name", STREAMS)
def test_state_rows(db, new_topic, name):
    options = STREAMS[name]
    topic = new_topic(1)
    db.create_topic_table(topic, "k int, at timestamptz")
    if "watermark_column" in options:
        db.run("CREATE TABLE target (k text, n bigint, at timestamptz)" if name != "update, windows" else
               "CREATE TABLE target (k timestamptz PRIMARY KEY, n bigint)")
    else:
        db.run("CREATE TABLE target (k int PRIMARY KEY, n bigint)")
    db.create_stream(max_offsets_per_trigger=40, **options)
    produce(topic, 0, 300)
    assert assert_counted(db) > 0
    produce(topic, 300, 100, keys=40)
    assert_counted(db)
    # the count survives the worker, and goes down with the state
    db.call("stop_stream")
    db.call("start_stream")
    produce(topic, 1000, 20)
    assert_counted(db)
    with db.connect(autocommit=False) as session:  # the worker starts at its commit
        session.execute("SELECT kafka.reset_stream('s')")
        assert session.execute("SELECT sum(state_rows) FROM kafka.stream_offset").fetchone() == (0,)
        session.commit()
    assert_counted(db)


def test_a_batch_that_fails_counts_nothing(db, new_topic):
    topic = new_topic(1)
    db.create_topic_table(topic, "k int, v int")
    db.run("CREATE TABLE target (k int PRIMARY KEY, n bigint)")
    db.create_stream(mode="update", on_error="dead_letter",
                     query="SELECT k, sum(100 / v) AS n FROM topic GROUP BY k")
    topic.produce(*({"k": n, "v": n % 4} for n in range(20)))
    assert assert_counted(db) == 15
    # a dead letter that succeeds later is a row of the state
    db.run("UPDATE kafka.dead_letter SET value = replace(convert_from(value, 'UTF8'), '\"v\": 0', '\"v\": 1')::bytea")
    assert db.run("SELECT succeeded FROM kafka.retry_dead_letters('s')") == [(5,)]
    assert db.value("SELECT count(*) FROM kafka.stream_1_state") == 20
    topic.produce({"k": 100, "v": 1})
    assert assert_counted(db) == 21


def test_streams_without_a_state_have_none(db, topic):
    db.create_tables(topic)
    topic.produce({"id": 1})
    db.create_stream()
    db.process_all_available()
    assert db.column("SELECT DISTINCT state_rows FROM kafka.stream_progress") == [None]


def test_event_times_of_a_batch(db, new_topic):
    topic = new_topic(1)
    db.create_topic_table(topic, "k int, at timestamptz")
    db.run("CREATE TABLE target (k timestamptz UNIQUE NULLS NOT DISTINCT, n bigint)")
    topic.produce({"k": 1, "at": "2026-01-01 00:00:20Z"}, {"k": 1, "at": "2026-01-01 00:00:05Z"}, {"k": 1})
    db.create_stream(**STREAMS["update, windows"])
    db.process_all_available()
    assert db.run("SELECT (event_time->>'min')::timestamptz = '2026-01-01 00:00:05Z', "
                  "(event_time->>'max')::timestamptz = '2026-01-01 00:00:20Z', "
                  "(event_time->>'watermark')::timestamptz = '2026-01-01 00:00:10Z' "
                  "FROM kafka.stream_progress ORDER BY batch_id LIMIT 1") == [(True, True, True)]
