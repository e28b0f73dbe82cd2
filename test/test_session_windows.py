"""kafka.session_window: sessions that grow and join, each written once when it is over."""

import datetime
import random

import pytest

from crashes import kill_worker
from expectations import error, values
from harness.processes import wait_until

COLUMNS = "at timestamptz, customer text, device int, n bigint"
QUERY = ("SELECT kafka.session_window(at, '10 min') AS session, customer, count(*) AS n "
         "FROM topic GROUP BY 1, 2")
TARGET = "CREATE TABLE target (session tstzrange, customer text, n bigint)"


def at(minute, customer=None, second=0, **fields):
    return {"at": f"2026-01-01 {12 + minute // 60:02}:{minute % 60:02}:{second:02}+00", "customer": customer, **fields}


def create(db, topic, query=QUERY, target=TARGET, delay="0 s", **arguments):
    db.create_topic_table(topic, COLUMNS)
    db.run("SET timezone = 'UTC'")
    db.run(target)
    db.create_stream(query=query, **{"watermark_column": "at", "watermark_delay": delay, **arguments})


def send(db, topic, *messages):
    """One batch, and the one without data that follows it."""
    topic.produce(*messages)
    db.process_all_available()


def sessions(db):
    return values(db, "SELECT to_char(lower(session), 'HH24:MI'), to_char(upper(session), 'HH24:MI'), customer, n "
                      "FROM target")


def open_sessions(db):
    return values(db, "SELECT to_char(lower(k2), 'HH24:MI'), to_char(upper(k2), 'HH24:MI'), k1 "
                      "FROM kafka.stream_1_state")


def test_sessions_grow_join_and_come_out_once(db, new_topic):
    topic = new_topic(1)
    create(db, topic, delay="1 h")
    # ten minutes apart are one session, a second more is two
    send(db, topic, at(0, "a"), at(10, "a", 1), at(0, "b"), at(10, "b"), at(0))
    assert open_sessions(db) == [("12:00", "12:10", "a"), ("12:00", "12:10", None), ("12:00", "12:20", "b"),
                                 ("12:10", "12:20", "a")]
    # between two: one session of three; around it: of five
    send(db, topic, at(5, "a"))
    assert ("12:00", "12:20", "a") in open_sessions(db) and len(open_sessions(db)) == 3
    send(db, topic, at(40, "a"), at(60, "a"))
    send(db, topic, at(35, "a"), at(19, "a"), at(28, "a"), at(51, "a"))
    assert open_sessions(db) == [("12:00", "12:10", None), ("12:00", "12:20", "b"), ("12:00", "12:50", "a"),
                                 ("12:51", "13:10", "a")]
    assert sessions(db) == []
    send(db, topic, at(80, "b"))
    assert sessions(db) == [("12:00", "12:10", None, 1), ("12:00", "12:20", "b", 2)]
    send(db, topic, at(300, "z"))
    assert sessions(db) == [("12:00", "12:10", None, 1), ("12:00", "12:20", "b", 2), ("12:00", "12:50", "a", 7),
                            ("12:51", "13:10", "a", 2), ("13:20", "13:30", "b", 1)]
    assert open_sessions(db) == [("17:00", "17:10", "z")]
    assert db.value("SELECT late_rows FROM kafka.stream_watermark") == 0


def test_late_messages(db, new_topic):
    topic = new_topic(1)
    create(db, topic)
    send(db, topic, at(0, "a"), at(30, "a"))
    assert sessions(db) == [("12:00", "12:10", "a", 1)]
    # the watermark is 12:30: what had ended by itself is late, though it would touch what is not
    send(db, topic, at(20, "a"), at(21, "a"), at(19, "a"), at(5, "a"), {"customer": "a"})
    assert open_sessions(db) == [("12:21", "12:40", "a")]
    assert db.value("SELECT late_rows FROM kafka.stream_watermark") == 4
    send(db, topic, at(60, "a"))
    assert sessions(db) == [("12:00", "12:10", "a", 1), ("12:21", "12:40", "a", 2)]
    assert db.value("SELECT sum(late_rows) FROM kafka.stream_progress") == 4


ORACLE = """
    WITH starts AS (
        SELECT *, coalesce(at - lag(at) OVER w > '7 min', true) AS starts FROM events
        WINDOW w AS (PARTITION BY customer, device ORDER BY at)),
    numbered AS (
        SELECT *, count(*) FILTER (WHERE starts) OVER (PARTITION BY customer, device ORDER BY at) AS number
          FROM starts)
    SELECT tstzrange(min(at), max(at) + '7 min') AS session, customer, device, count(*) AS events,
           sum(n) AS total, round(avg(n), 6) AS mean, min(n::text) AS first_text, count(n) FILTER (WHERE n > 50) AS large
      FROM numbered GROUP BY customer, device, number HAVING count(*) <> 2"""


@pytest.mark.parametrize("seed", [1, 2])
def test_random_messages_in_random_batches(db, new_topic, seed):
    """Against the same in plain SQL over all messages, with kill -9 in between."""
    topic = new_topic(1)
    chosen = random.Random(seed)
    start = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.timezone.utc)
    # whole minutes, so that many are exactly a gap apart; out of order by less than the delay
    minutes = sorted(((number // 4 + chosen.randrange(100), number) for number in range(4000)),
                     key=lambda pair: pair[1])
    events = [(start + datetime.timedelta(minutes=minute), chosen.choice(["a", "b", "c", None]),
               chosen.choice([1, 2, 3, None]), chosen.choice([None, *range(100)])) for minute, _ in minutes]
    end = start + datetime.timedelta(days=30)
    events.append((end, "end", 0, 0))
    create(db, topic, delay="101 min", max_offsets_per_trigger=chosen.choice([37, 211]),
           query="SELECT kafka.session_window(at, '7 min') AS session, customer, device, count(*) AS events, "
                 "sum(n) AS total, round(avg(n), 6) AS mean, min(n::text) AS first_text, "
                 "count(n) FILTER (WHERE n > 50) AS large FROM topic GROUP BY 1, 2, 3 HAVING count(*) <> 2",
           target="CREATE TABLE target (session tstzrange, customer text, device int, events bigint, total numeric, "
                  "mean numeric, first_text text, large bigint)")
    topic.produce_all({"value": {"at": moment.isoformat(), "customer": customer, "device": device, "n": n}}
                      for moment, customer, device, n in events)
    for _ in range(2):
        position = db.value("SELECT sum(next_offset) FROM kafka.stream_offset")
        wait_until(lambda: position >= len(events)
                   or db.value("SELECT sum(next_offset) FROM kafka.stream_offset") > position)
        kill_worker(db)
    db.process_all_available()

    db.run("CREATE TABLE events (at timestamptz, customer text, device int, n bigint)")
    with db.connection.cursor() as cursor, cursor.copy("COPY events FROM STDIN") as copy:
        for event in events:
            copy.write_row(event)
    assert db.value("SELECT late_rows FROM kafka.stream_watermark") == 0
    db.run(f"CREATE TABLE expected AS {ORACLE}")
    db.run("DELETE FROM expected WHERE customer = 'end'")
    assert db.value("SELECT count(*) FROM expected") > 500
    assert db.run("TABLE target EXCEPT ALL TABLE expected") == []
    assert db.run("TABLE expected EXCEPT ALL TABLE target") == []
    assert db.value("SELECT count(*) FROM kafka.stream_1_state") == 1


@pytest.mark.parametrize("query, expected", [
    # no other key; no aggregate; below, with a filter; the range taken apart
    ("SELECT kafka.session_window(at, '10 min') AS session, count(*) AS n FROM topic GROUP BY 1", 2),
    ("SELECT DISTINCT kafka.session_window(at, '10 min') AS session, customer FROM topic", None),
    ("SELECT session, count(*) AS n FROM (SELECT kafka.session_window(at, '10 min') AS session FROM topic "
     "WHERE n IS NULL) q GROUP BY session", 2),
    ("SELECT tstzrange(lower(s), upper(s)) AS session, count(*) AS n FROM topic, "
     "kafka.session_window(at, '10 min') AS s GROUP BY s", 2),
    # more keys than have their nulls looked up by index
    ("SELECT kafka.session_window(at, '10 min') AS session, customer, count(*) AS n FROM topic "
     "GROUP BY 1, 2, device, n, device + 1, n + 1", 2)])
def test_queries(db, new_topic, query, expected):
    topic = new_topic(1)
    create(db, topic, query=query)
    send(db, topic, at(1))
    send(db, topic, at(6))
    send(db, topic, at(60))
    assert sessions(db) == [("12:01", "12:16", None, expected)]


def test_a_gap_of_the_message(db, new_topic):
    """Gaps may differ; sessions that are inside of others don't cut them short."""
    topic = new_topic(1)
    create(db, topic, query=QUERY.replace("'10 min'", "n * interval '1 min'"), delay="1 h")
    send(db, topic, at(0, n=60), at(5, n=1), at(50, n=2), at(61, n=3))
    send(db, topic, at(200, n=1))
    assert sessions(db) == [("12:00", "13:00", None, 3), ("13:01", "13:04", None, 1)]


def test_the_function(db):
    db.run("SET timezone = 'UTC'")
    assert db.value("SELECT kafka.session_window('2026-01-01 00:00', '1 day')::text") == (
        '["2026-01-01 00:00:00+00","2026-01-02 00:00:00+00")')
    assert db.value("SELECT kafka.session_window(NULL, '1 min')") is None
    with error("gap of a window must not contain months", sqlstate="0A000"):
        db.run("SELECT kafka.session_window(now(), '1 month')")
    with error("gap of a window must be greater than zero", sqlstate="22023"):
        db.run("SELECT kafka.session_window(now(), '0')")
    for moment in ("infinity", "294276-12-31 23:59:59+00"):
        with error("belongs to no window", sqlstate="22008", hint="isfinite"):
            db.run(f"SELECT kafka.session_window('{moment}', '1 min')")


def test_refusals(db, new_topic):
    topic = new_topic(1)
    create(db, topic, start=False)
    def refused(message, detail, hint, query=QUERY, **arguments):
        with error(message, detail=detail, hint=hint, sqlstate="0A000"):
            db.create_stream("other", query=query, start=False, **arguments)
    watermark = {"watermark_column": "at", "watermark_delay": "1 min"}
    for mode in ("update", "complete"):
        for arguments in ({}, watermark):
            refused("session windows are supported in append mode only", "join two", "append", mode=mode, **arguments)
    refused("append mode without a watermark", ".", "watermark_column")
    refused("grouping by", "one kind", 'session_window\\("at", gap\\)', **watermark,
            query="SELECT lower(kafka.session_window(at, '1 min')) AS session, at, count(*) AS n FROM topic GROUP BY 1, 2")
    refused("grouping by", "one kind", "itself, once", **watermark,
            query="SELECT kafka.session_window(at, '1 min') AS session, kafka.session_window(at, '2 min') AS s2, "
                  "count(*) AS n FROM topic GROUP BY 1, 2")
    refused("grouping by", "one kind", "session_window", **watermark,
            query="SELECT kafka.session_window(now(), '1 min') AS session, at FROM topic GROUP BY 1, 2")
