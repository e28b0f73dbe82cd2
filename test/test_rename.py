"""What a stream with a state uses gets other names: the state is known as its own."""

import pytest

from expectations import error

QUERY = "SELECT upper(g) AS g, sum(v) AS total FROM topic GROUP BY upper(g)"
COLUMNS = "id bigint OPTIONS (path 'id'), g text OPTIONS (path 'g'), v bigint OPTIONS (path 'v'), at timestamptz OPTIONS (path 'at')"


@pytest.fixture
def grouped(db, topic):
    """A stream with a sum per group that has taken ("A", 1) in."""
    db.create_topic_table(topic, COLUMNS)
    db.run("CREATE TABLE target (g text PRIMARY KEY, total numeric)")
    db.create_stream(query=QUERY, mode="update")
    topic.produce({"g": "a", "v": 1})
    db.process_all_available()
    return db


def produce(topic, *values):
    topic.produce_all([{"value": value} for value in values])


def state_comments(db):
    return db.column("SELECT col_description('kafka.stream_1_state'::regclass, n) FROM generate_series(1, 2) n")


@pytest.mark.parametrize("rename", [
    "ALTER FOREIGN TABLE topic RENAME COLUMN g TO \"Group\"",
    "ALTER FOREIGN TABLE topic RENAME COLUMN v TO amount",
    "ALTER FOREIGN TABLE topic RENAME TO messages",
    "CREATE SCHEMA other; ALTER FOREIGN TABLE topic SET SCHEMA other",
    "ALTER FOREIGN TABLE topic RENAME COLUMN g TO x; ALTER FOREIGN TABLE topic RENAME COLUMN v TO g; "
    "ALTER FOREIGN TABLE topic RENAME COLUMN x TO v",
])
@pytest.mark.parametrize("running", [True, False])
def test_renamed(grouped, topic, rename, running):
    if not running:
        grouped.call("stop_stream")
    grouped.run(rename)
    produce(topic, {"g": "a", "v": 2}, {"g": "b", "v": 3})
    if not running:
        grouped.call("start_stream")
    grouped.process_all_available()
    assert grouped.run("SELECT * FROM target ORDER BY g") == [("A", 3), ("B", 3)]
    assert grouped.next_offsets() == topic.offsets()


def test_the_comments_follow(grouped, topic):
    assert state_comments(grouped) == ["upper(topic.g)", "sum(topic.v)"]
    grouped.run("ALTER FOREIGN TABLE topic RENAME COLUMN g TO grp; ALTER FOREIGN TABLE topic RENAME COLUMN v TO amount")
    topic.produce({"g": "a", "v": 2})
    grouped.process_all_available()
    assert state_comments(grouped) == ["upper(topic.grp)", "sum(topic.amount)"]
    # names say enough again, as after a restore of a dump
    grouped.call("stop_stream")
    grouped.run("COMMENT ON TABLE kafka.stream_1_state IS 'restored'")
    grouped.call("start_stream")
    topic.produce({"g": "a", "v": 3})
    grouped.process_all_available()
    assert grouped.run("SELECT * FROM target") == [("A", 6)]


def test_a_renamed_function(db, topic):
    db.create_topic_table(topic, COLUMNS)
    db.run("CREATE TABLE target (g text PRIMARY KEY, total numeric);"
           "CREATE FUNCTION f(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT upper($1)$$")
    db.create_stream(query="SELECT f(g) AS g, sum(v) AS total FROM topic GROUP BY f(g)", mode="update")
    topic.produce({"g": "a", "v": 1})
    db.process_all_available()
    db.run("ALTER FUNCTION f(text) RENAME TO \"other name\"")
    topic.produce({"g": "a", "v": 2})
    db.process_all_available()
    assert db.run("SELECT * FROM target") == [("A", 3)]


def test_another_query_after_renaming_is_refused(grouped, topic):
    """Column v is called g, so that the text of the query is that of the state."""
    grouped.call("stop_stream")
    grouped.run("ALTER FOREIGN TABLE topic RENAME COLUMN v TO x; ALTER FOREIGN TABLE topic RENAME COLUMN g TO v;"
                "ALTER FOREIGN TABLE topic RENAME COLUMN x TO g")
    with error("state of another query", detail="The state has", hint="kafka.reset_stream"):
        grouped.call("alter_stream", query="SELECT upper(id::text) AS g, sum(g) AS total FROM topic GROUP BY upper(id::text)")
    # only a filter more
    grouped.call("alter_stream", query="SELECT upper(v) AS g, sum(g) AS total FROM topic WHERE g > 0 GROUP BY upper(v)")
    grouped.call("start_stream")
    produce(topic, {"g": "a", "v": 2}, {"g": "a", "v": -5})
    grouped.process_all_available()
    assert grouped.run("SELECT * FROM target") == [("A", 3)]


def test_a_view_of_the_user(db, topic):
    db.create_topic_table(topic, COLUMNS)
    db.run("CREATE TABLE target (g text PRIMARY KEY, n bigint);"
           "CREATE VIEW counted AS SELECT g, count(*) AS n FROM topic GROUP BY g")
    db.create_stream(source="counted", mode="update")
    topic.produce({"g": "a", "v": 1})
    db.process_all_available()
    db.run("ALTER FOREIGN TABLE topic RENAME COLUMN g TO grp; ALTER VIEW counted RENAME TO counts")
    topic.produce({"g": "a", "v": 1})
    db.process_all_available()
    assert db.run("SELECT * FROM target") == [("a", 2)]
    db.run("CREATE OR REPLACE VIEW counts AS SELECT id::text AS g, count(*) AS n FROM topic GROUP BY id")
    topic.produce({"g": "a", "v": 1})
    status = db.wait_for_state("failed")
    assert "state of another query" in status.last_error
    db.run("CREATE OR REPLACE VIEW counts AS SELECT grp AS g, count(*) AS n FROM topic GROUP BY grp")
    db.call("start_stream")
    db.process_all_available()
    assert db.run("SELECT * FROM target") == [("a", 3)]


def test_the_watermark_stays(db, new_topic):
    topic = new_topic(1)
    db.create_topic_table(topic, COLUMNS)
    db.run("CREATE TABLE target (w timestamptz PRIMARY KEY, n bigint)")
    db.create_stream(query="SELECT date_bin('1 min', at, 'epoch') AS w, count(*) AS n FROM topic GROUP BY 1",
                     mode="append", watermark_column="at", watermark_delay="0")
    produce(topic, {"at": "2024-01-01T00:00:10Z"}, {"at": "2024-01-01T00:05:00Z"})
    db.process_all_available()
    assert db.column("SELECT n FROM target") == [1]
    db.run("ALTER FOREIGN TABLE topic RENAME COLUMN at TO event_time")
    topic.produce({"at": "2024-01-01T00:00:20Z"})
    assert '"at"' in db.wait_for_state("failed").last_error
    db.call("alter_stream", watermark_column="event_time")
    db.call("start_stream")
    topic.produce({"at": "2024-01-01T00:06:00Z"})
    db.process_all_available()
    assert db.column("SELECT n FROM target ORDER BY w") == [1, 1]
    assert db.value("SELECT late_rows FROM kafka.stream_progress ORDER BY late_rows DESC LIMIT 1") == 1
