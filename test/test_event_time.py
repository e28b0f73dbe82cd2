"""Watermarks and windows: what is late, what comes out, and when."""

import pytest

from crashes import kill_worker
from expectations import error, values
from harness.processes import wait_until

COLUMNS = "at timestamptz, customer text, n bigint"
MINUTES = "SELECT date_bin('5 min', at, '2026-01-01 00:00+00') AS window_start, count(*) AS n FROM topic GROUP BY 1"


def at(minute, second=0, **fields):
    return {"at": f"2026-01-01 {12 + minute // 60:02}:{minute % 60:02}:{second:02}+00", **fields}


def create(db, topic, query=MINUTES, target="CREATE TABLE target (window_start timestamptz PRIMARY KEY, n bigint)",
           mode="append", delay="10 min", **arguments):
    db.create_topic_table(topic, COLUMNS)
    db.run("SET timezone = 'UTC'")
    db.run(target)
    db.create_stream(query=query, mode=mode, watermark_column="at", watermark_delay=delay, **arguments)


def send(db, topic, *messages):
    """One batch, and the one without data that follows it."""
    topic.produce(*messages)
    db.process_all_available()


def windows(db):
    return [(start.strftime("%H:%M"), n) for start, n in db.run("SELECT window_start, n FROM target ORDER BY 1, 2")]


def watermark(db):
    return db.value("SELECT to_char(watermark, 'HH24:MI') FROM kafka.stream_watermark")


def test_append_writes_each_window_once(db, new_topic):
    topic = new_topic(1)
    create(db, topic)
    send(db, topic, at(1), at(4, 59), at(5))
    assert windows(db) == [] and watermark(db) == "11:55"
    send(db, topic, at(14, 59))
    assert windows(db) == []
    # 12:05 is reached: [12:00, 12:05) is over, without further messages
    send(db, topic, at(15))
    assert windows(db) == [("12:00", 2)] and watermark(db) == "12:05"
    # a message for it is late, one for a window that is still open is not, though behind the watermark
    send(db, topic, at(2), at(3), at(6), at(16))
    assert windows(db) == [("12:00", 2)]
    assert db.value("SELECT late_rows FROM kafka.stream_watermark") == 2
    send(db, topic, at(60))
    assert windows(db) == [("12:00", 2), ("12:05", 2), ("12:10", 1), ("12:15", 2)]
    assert db.value("SELECT count(*) FROM kafka.stream_1_state") == 1
    assert db.value("SELECT sum(late_rows) FROM kafka.stream_progress") == 2


def test_the_watermark_never_moves_back(db, new_topic):
    topic = new_topic(1)
    create(db, topic)
    send(db, topic, at(30))
    send(db, topic, at(25), at(1))
    assert watermark(db) == "12:20"
    assert db.value("SELECT to_char(max_event_time, 'HH24:MI') FROM kafka.stream_watermark") == "12:30"


def test_messages_without_event_time_are_late(db, new_topic):
    topic = new_topic(1)
    create(db, topic)
    send(db, topic, at(1), {"n": 1}, {"at": None})
    send(db, topic, at(60))
    assert windows(db) == [("12:00", 1)]
    assert db.value("SELECT late_rows FROM kafka.stream_watermark") == 2


def test_update_forgets_silently(db, new_topic):
    topic = new_topic(1)
    create(db, topic, mode="update")
    send(db, topic, at(1), at(2))
    assert windows(db) == [("12:00", 2)]
    send(db, topic, at(30))
    assert windows(db) == [("12:00", 2), ("12:30", 1)]
    assert db.value("SELECT count(*) FROM kafka.stream_1_state") == 1
    send(db, topic, at(3), at(31))
    assert windows(db) == [("12:00", 2), ("12:30", 2)]
    assert db.value("SELECT late_rows FROM kafka.stream_watermark") == 1


def test_complete_drops_nothing(db, new_topic):
    topic = new_topic(1)
    create(db, topic, mode="complete")
    send(db, topic, at(1))
    send(db, topic, at(60))
    send(db, topic, at(2))
    assert windows(db) == [("12:00", 2), ("13:00", 1)]
    assert db.value("SELECT late_rows FROM kafka.stream_watermark") == 0


def test_other_keys_and_having(db, new_topic):
    topic = new_topic(1)
    create(db, topic,
           query="SELECT customer, date_bin('1 h', at, '2026-01-01 00:00+00') AS hour, sum(n) AS total FROM topic "
                 "GROUP BY customer, date_bin('1 h', at, '2026-01-01 00:00+00') HAVING sum(n) > 1",
           target="CREATE TABLE target (hour timestamptz, customer text, total numeric)", delay="0 s")
    send(db, topic, at(1, customer="a", n=1), at(2, customer="a", n=1), at(3, customer="b", n=1), at(4, n=5))
    send(db, topic, at(60, customer="z", n=9))
    assert values(db, "SELECT customer, total FROM target") == [("a", 2), (None, 5)]
    assert db.value("SELECT count(*) FROM kafka.stream_1_state") == 1


def test_sliding_windows(db, new_topic):
    topic = new_topic(1)
    create(db, topic,
           query="SELECT lower(w) AS window_start, count(*) AS n FROM topic, "
                 "kafka.sliding_window(at, '10 min', '5 min') AS w GROUP BY w", delay="0 s")
    send(db, topic, at(1), at(6))
    send(db, topic, at(30))
    assert windows(db) == [("11:55", 1), ("12:00", 2), ("12:05", 1)]
    assert db.value("SELECT count(*) FROM kafka.stream_1_state") == 2


def test_no_event_time_is_late_in_sliding_windows_too(db, new_topic):
    topic = new_topic(1)
    create(db, topic,
           query="SELECT lower(w) AS window_start, count(*) AS n FROM topic, "
                 "kafka.sliding_window(at, '10 min', '5 min') AS w GROUP BY w", delay="0 s")
    send(db, topic, at(1), {"at": None}, {"n": 1})
    send(db, topic, at(30), {"at": None})
    assert windows(db) == [("11:55", 1), ("12:00", 1)]
    assert db.value("SELECT late_rows FROM kafka.stream_watermark") == 3
    assert db.value("SELECT count(*) FROM kafka.stream_1_state WHERE k1 IS NULL") == 0


@pytest.mark.parametrize("on_error", ["stop", "dead_letter"])
@pytest.mark.parametrize("remedy", ["target", "having"])
def test_a_window_that_the_target_refuses(db, new_topic, on_error, remedy):
    """No message is to blame: the stream stops, the error has the group and what to do, and either way goes on."""
    topic = new_topic(1)
    create(db, topic, delay="0 s", on_error=on_error,
           target="CREATE TABLE target (window_start timestamptz, n bigint CHECK (n <> 2))")
    send(db, topic, at(1), at(6), at(7), at(9))
    topic.produce(at(12), at(13), at(18), at(30))
    failed = db.wait_for_state("failed")
    assert failed.last_error_sqlstate == "23514"
    assert "2026-01-01 12:10:00+00, 2" in failed.last_error_detail
    assert "window had ended by 2026-01-01 12:30:00" in failed.last_error_detail
    assert "kafka.stream_1_state" in failed.last_error_detail
    assert "HAVING" in failed.last_error_hint
    if remedy == "target":
        db.run("ALTER TABLE target DROP CONSTRAINT target_n_check")
    else:
        db.call("alter_stream", query=MINUTES + " HAVING count(*) <> 2")
    db.call("start_stream")
    db.process_all_available()
    assert windows(db) == [("12:00", 1), ("12:05", 3), *([("12:10", 2)] if remedy == "target" else []), ("12:15", 1)]
    assert db.value("SELECT count(*) FROM kafka.dead_letter") == 0


def test_a_window_that_a_trigger_refuses(db, new_topic):
    """Any error that would be a message's fault elsewhere says the same."""
    topic = new_topic(1)
    create(db, topic, delay="0 s", on_error="dead_letter")
    db.run("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no' USING DETAIL = 'dd'; END $$; "
           "CREATE TRIGGER refuse BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION refuse()")
    send(db, topic, at(1))
    topic.produce(at(30))
    failed = db.wait_for_state("failed")
    assert failed.last_error_sqlstate == "P0001"
    assert failed.last_error_detail.startswith("dd. It is the result of a group whose window had ended by ")
    assert "HAVING" in failed.last_error_hint


@pytest.mark.parametrize("sqlstate, state", [("ZZ999", "failed"), ("40001", "backing off")])
def test_a_window_that_a_trigger_refuses_for_another_reason(db, new_topic, sqlstate, state):
    """There may be no message at all in the batch that writes it."""
    topic = new_topic(1)
    create(db, topic, delay="0 s", on_error="dead_letter")
    db.run("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
           f"RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END $$; "
           "CREATE TRIGGER refuse BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION refuse()")
    send(db, topic, at(1))
    topic.produce(at(30))
    assert db.wait_for_state(state).last_error_sqlstate == sqlstate
    db.run("DROP TRIGGER refuse ON target")
    if state == "failed":
        db.call("start_stream")
    db.process_all_available()
    assert windows(db) == [("12:00", 1)]
    assert db.value("SELECT count(*) FROM kafka.dead_letter") == 0


def test_a_watermark_without_a_window_changes_nothing(db, new_topic):
    """As in Spark: accepted, no message is late, no state is forgotten."""
    topic = new_topic(1)
    with db.notices() as notices:
        create(db, topic, mode="update", delay="0 s", query="SELECT customer, count(*) AS n FROM topic GROUP BY customer",
               target="CREATE TABLE target (customer text PRIMARY KEY, n bigint)")
    assert [(notice.message_primary, "date_bin()" in notice.message_hint) for notice in notices
            if "watermark" in notice.message_primary] == [
        ('watermark of stream "s" has nothing to close', True)]
    send(db, topic, at(1, customer="a"))
    send(db, topic, at(600, customer="b"))
    send(db, topic, at(1, customer="a"), {"customer": "b"})
    assert db.run("SELECT customer, n FROM target ORDER BY 1") == [("a", 2), ("b", 2)]
    assert db.value("SELECT count(*) FROM kafka.stream_1_state") == 2
    assert db.value("SELECT late_rows FROM kafka.stream_watermark") == 0


def test_sliding_window_function(db):
    db.run("SET timezone = 'UTC'")
    assert db.column("SELECT w::text FROM kafka.sliding_window('2026-01-01 00:12', '10 min', '5 min') w") == [
        '["2026-01-01 00:05:00+00","2026-01-01 00:15:00+00")', '["2026-01-01 00:10:00+00","2026-01-01 00:20:00+00")']
    # size not a multiple of slide; before the origin; exactly at a start
    for moment in ("1969-12-31 23:59:59.999999", "1970-01-01 00:00", "2026-03-29 01:30", "2026-06-01 11:07:30"):
        found = db.column(f"SELECT w::text FROM kafka.sliding_window('{moment}+00', '7 min', '3 min') w")
        assert found == db.column(f"""
            SELECT tstzrange(s, s + '7 min')::text FROM generate_series(
                date_bin('3 min', '{moment}+00'::timestamptz, '1970-01-01 00:00+00') - interval '9 min',
                '{moment}+00'::timestamptz, '3 min') s WHERE tstzrange(s, s + '7 min') @> '{moment}+00'::timestamptz""")
    with error("months"):
        db.run("SELECT kafka.sliding_window(now(), '1 month', '1 day')")
    with error("slide of a window must not be greater"):
        db.run("SELECT kafka.sliding_window(now(), '1 min', '1 h')")
    assert db.column("SELECT kafka.sliding_window(NULL, '1 min', '1 min')") == [None]
    for moment in ("infinity", "-infinity", "294276-12-31 23:59:59+00"):
        for window in (f"sliding_window('{moment}', '10 min', '3 min')", f"session_window('{moment}', '10 min')"):
            with error("belongs to no window", detail="finite", hint="isfinite", sqlstate="22008"):
                db.run(f"SELECT kafka.{window}")


def test_restarts_agree(db, new_topic):
    """kill -9 with windows open, and before the batch without data."""
    topic = new_topic(1)
    create(db, topic, max_offsets_per_trigger=20)
    topic.produce(*(at(n // 10) for n in range(3000)))
    for _ in range(3):
        position = db.value("SELECT sum(next_offset) FROM kafka.stream_offset")
        wait_until(lambda: position >= 3000
                   or db.value("SELECT sum(next_offset) FROM kafka.stream_offset") > position)
        kill_worker(db)
    db.process_all_available()
    assert {n for _, n in windows(db)} == {50}
    # 12:00 + 299 minutes, less ten: 16:49, so that 16:40 is the last one that is over
    assert windows(db)[-1][0] == "16:40"
    assert len(windows(db)) == 57
    assert db.value("SELECT late_rows FROM kafka.stream_watermark") == 0


def test_available_now_closes_windows(db, new_topic):
    topic = new_topic(1)
    topic.produce(at(1), at(2), at(60))
    create(db, topic, trigger="available_now")
    db.wait_for_state("stopped")
    assert windows(db) == [("12:00", 2)]


def test_reset_forgets_the_watermark(db, new_topic):
    topic = new_topic(1)
    create(db, topic)
    send(db, topic, at(1), at(60))
    db.run("TRUNCATE target")
    db.call("reset_stream")
    db.process_all_available()
    assert windows(db) == [("12:00", 1)]
    assert db.value("SELECT late_rows FROM kafka.stream_watermark") == 0


@pytest.mark.parametrize("query", [
    "SELECT window_start, count(*) AS n FROM (SELECT date_bin('5 min', at, '2026-01-01 00:00+00') AS window_start "
    "FROM topic) q GROUP BY window_start",
    "WITH q AS (SELECT at AS moment FROM topic WHERE n IS NULL) "
    "SELECT date_bin('5 min', moment, '2026-01-01 00:00+00') AS window_start, count(*) AS n FROM q GROUP BY 1",
    "SELECT at AS window_start, count(*) AS n FROM topic GROUP BY at"])
def test_windows_are_recognised(db, new_topic, query):
    topic = new_topic(1)
    create(db, topic, query=query, delay="0 s")
    send(db, topic, at(5), at(60))
    assert ("12:05", 1) in windows(db)


def test_refusals(db, new_topic):
    topic = new_topic(1)
    with error("needs a window on the watermark column", detail="passed its end", hint="date_bin", sqlstate="0A000"):
        create(db, topic, query="SELECT customer, count(*) AS n FROM topic GROUP BY customer",
               target="CREATE TABLE target (customer text, n bigint)")
    def create_more(**arguments):
        db.create_stream(query=MINUTES, target="windows", watermark_delay="1 min", **arguments)
    db.run("CREATE TABLE windows (window_start timestamptz, n bigint)")
    with error('"missing" does not exist', detail="Topic table", sqlstate="42703"):
        create_more(watermark_column="missing")
    with error("not of type timestamp with time zone", detail="text", hint="epoch", sqlstate="42804"):
        create_more(watermark_column="customer")


def deduplicate(db, topic, **arguments):
    db.create_topic_table(topic, COLUMNS)
    db.run("CREATE TABLE target (LIKE topic)")
    db.create_stream(watermark_column="at", watermark_delay="10 min", deduplicate_by=["customer", "n"], **arguments)


def test_deduplicate_within_watermark(db, new_topic):
    topic = new_topic(1)
    deduplicate(db, topic)
    send(db, topic, at(1, n=1), at(2, n=1), at(3, n=2), at(3, customer="a", n=1))
    send(db, topic, at(5, n=1), at(6, n=3))
    found = "SELECT to_char(at AT TIME ZONE 'UTC', 'HH24:MI'), customer, n FROM target"
    assert values(db, found) == [("12:01", None, 1), ("12:03", "a", 1), ("12:03", None, 2), ("12:06", None, 3)]
    # the watermark is 12:50: all keys but the last are forgotten, what is behind is dropped
    send(db, topic, at(60, n=4))
    assert db.value("SELECT count(*) FROM kafka.stream_1_state") == 1
    send(db, topic, at(55, n=1), at(6, n=9))
    assert [row for row in values(db, found) if row[0] > "12:06"] == [("12:55", None, 1), ("13:00", None, 4)]
    assert db.value("SELECT late_rows FROM kafka.stream_watermark") == 1


def test_deduplicate_with_a_query_and_restarts(db, new_topic):
    topic = new_topic(1)
    db.run("CREATE TABLE moments (moment timestamptz, arrival bigint)")
    db.create_topic_table(topic, COLUMNS)
    db.create_stream(query="SELECT at AS moment, n * 2 AS arrival FROM topic WHERE n > 0", target="moments",
                     watermark_column="at", watermark_delay="1 h", deduplicate_by=["arrival"],
                     max_offsets_per_trigger=50)
    topic.produce(*(at(n // 100, n=n % 700) for n in range(2000)))
    for _ in range(2):
        kill_worker(db)
    db.process_all_available()
    assert db.run("SELECT count(*), count(DISTINCT arrival), sum(arrival) FROM moments") == [(699, 699, 699 * 700)]


def test_deduplicate_refusals(db, new_topic):
    topic = new_topic(1)
    deduplicate(db, topic, start=False)
    def refused(message, **arguments):
        with error(message, detail=".", hint="."):
            db.create_stream("other", **{"watermark_column": "at", "watermark_delay": "1 min",
                                         "deduplicate_by": ["n"], "start": False, **arguments})
    refused("needs a watermark", watermark_column=None, watermark_delay=None)
    refused("append mode without aggregation", mode="update")
    refused('column "missing" of deduplicate_by', deduplicate_by=["missing"])
    refused("must select the watermark column", query="SELECT n FROM topic")
