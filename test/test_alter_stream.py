"""kafka.alter_stream: what of create_stream's options can be changed, and what a state keeps as it is."""

import pytest

from expectations import error, values

COLUMNS = "id bigint OPTIONS (key 'true'), name text, v int, at timestamptz"
UPSERT = "CREATE TABLE target (id bigint PRIMARY KEY, name text UNIQUE, v int, at timestamptz)"
GROUPS = dict(mode="update", query="SELECT name, count(*) AS n FROM topic GROUP BY name")


def setting(db, name):
    return db.value(f"SELECT {name} FROM kafka.stream")


def message(id, **columns):
    return {"key": str(id), "value": columns}


def test_key_columns(db, topic):
    db.create_topic_table(topic, COLUMNS)
    db.run(UPSERT)
    db.create_stream(mode="update", on_tombstone="ignore")
    topic.produce_all([message(1, name="a", v=1)])
    db.process_all_available()
    db.call("alter_stream", key_columns=["name"])
    topic.produce_all([message(2, name="a", v=2)])
    db.process_all_available()
    assert db.run("SELECT id, name, v FROM target") == [(2, "a", 2)]
    with error('no column "nothing"', "key_columns"):
        db.call("alter_stream", key_columns=["nothing"])
    with error("no usable unique index", hint="CREATE UNIQUE INDEX"):
        db.call("alter_stream", key_columns=["v"])
    with error('contains "id" twice'):
        db.call("alter_stream", key_columns=["id", "id"])
    assert setting(db, "key_columns") == ["name"]
    db.call("alter_stream", key_columns=[])
    assert setting(db, "key_columns") is None
    topic.produce_all([message(2, name="b", v=3)])
    db.process_all_available()
    assert db.run("SELECT id, name, v FROM target") == [(2, "b", 3)]


def test_on_tombstone(db, topic):
    db.create_topic_table(topic, COLUMNS)
    db.run(UPSERT)
    db.create_stream(mode="update")
    topic.produce_all([message(1, name="a"), message(2, name="b")])
    db.process_all_available()
    db.call("alter_stream", on_tombstone="ignore")
    topic.produce(None, key="1")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [1, 2]
    db.call("alter_stream", on_tombstone="delete")
    topic.produce(None, key="2")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [1]
    with error('invalid on_tombstone "keep"', hint='"delete" and "ignore"'):
        db.call("alter_stream", on_tombstone="keep")


def test_version_column(db, topic):
    db.create_topic_table(topic, COLUMNS)
    db.run(UPSERT)
    db.create_stream(mode="update")
    topic.produce_all([message(1, v=5)])
    db.process_all_available()
    db.call("alter_stream", version_column="v")
    topic.produce_all([message(1, v=4)])
    db.process_all_available()
    assert db.column("SELECT v FROM target") == [5]
    with error('version_column "id" is a key column'):
        db.call("alter_stream", version_column="id")
    with error('version_column "nothing"'):
        db.call("alter_stream", version_column="nothing")
    db.call("alter_stream", version_column="")
    assert setting(db, "version_column") is None
    topic.produce_all([message(1, v=3)])
    db.process_all_available()
    assert db.column("SELECT v FROM target") == [3]


@pytest.mark.parametrize("changed, message", [
    (dict(key_columns=["name"]), "key_columns has no meaning"),
    (dict(version_column="n"), "version_column has no meaning"),
    (dict(deduplicate_by=["name"]), "deduplicate_by is supported in append mode"),
    (dict(watermark_delay="1 min"), "must be given together"),
    (dict(watermark_column="at"), "must be given together"),
    (dict(watermark_column="name", watermark_delay="1 min"), "is not of type timestamp with time zone"),
    (dict(watermark_column="at", watermark_delay="-1 min"), "must not be negative"),
    (dict(foreach_batch="empty(bigint)"), "has the state of another query"),
    (dict(foreach_batch="empty(bigint)", target="target"), "either a target or foreach_batch"),
    (dict(notify="x" * 64), "invalid channel name"),
    (dict(query="SELECT v AS name, count(*) AS n FROM topic GROUP BY v"), "has the state of another query"),
])
def test_refused_for_an_aggregation(db, topic, changed, message):
    """Nothing is changed, and the stream goes on."""
    db.create_topic_table(topic, COLUMNS)
    db.run("CREATE TABLE target (name text PRIMARY KEY, n bigint)")
    db.run("CREATE PROCEDURE empty(batch_id bigint) LANGUAGE sql BEGIN ATOMIC END")
    db.create_stream(**GROUPS)
    topic.produce({"name": "a"})
    db.process_all_available()
    before = db.run("SELECT * FROM kafka.stream")
    with error(message):
        db.call("alter_stream", **changed)
    assert db.run("SELECT * FROM kafka.stream") == before
    topic.produce({"name": "a"})
    db.process_all_available()
    assert db.run("SELECT * FROM target") == [("a", 2)]


def test_watermark_delay(db, new_topic):
    topic = new_topic(1)
    db.create_topic_table(topic, COLUMNS)
    db.run("CREATE TABLE target (w timestamptz, n bigint)")
    db.create_stream(query="SELECT date_bin('1 min', at, '2000-01-01 00:00Z') AS w, count(*) AS n FROM topic GROUP BY 1",
                     watermark_column="at", watermark_delay="1 h")
    topic.produce({"at": "2026-01-01 00:00:30Z"}, {"at": "2026-01-01 00:05:00Z"})
    db.process_all_available()
    assert db.run("SELECT * FROM target") == []
    # a shorter delay closes what it leaves behind with the next message, a longer one opens nothing again
    db.call("alter_stream", watermark_delay="1 min")
    topic.produce({"at": "2026-01-01 00:05:01Z"})
    db.process_all_available()
    db.wait_for("SELECT count(*) FROM target", 1)
    db.call("alter_stream", watermark_delay="1 day")
    topic.produce({"at": "2026-01-01 00:00:31Z"}, {"at": "2026-01-01 00:05:02Z"})
    db.process_all_available()
    db.call("stop_stream")
    assert db.column("SELECT n FROM target") == [1]
    assert db.value("SELECT late_rows FROM kafka.stream_watermark") == 1
    with error("append mode without a watermark"):
        db.call("alter_stream", watermark_column="")


def test_a_watermark_for_a_stream_that_has_a_state(db, new_topic):
    """The state is that of the same query; from now on what is behind the watermark is forgotten."""
    topic = new_topic(1)
    db.create_topic_table(topic, COLUMNS)
    db.run("CREATE TABLE target (w timestamptz PRIMARY KEY, n bigint)")
    db.create_stream(mode="update", query="SELECT date_bin('1 min', at, '2000-01-01 00:00Z') AS w, count(*) AS n "
                                          "FROM topic GROUP BY 1")
    topic.produce({"at": "2026-01-01 00:00:30Z"}, {"at": "2026-01-01 00:05:00Z"})
    db.process_all_available()
    assert db.value("SELECT count(*) FROM kafka.stream_1_state") == 2
    db.call("alter_stream", watermark_column="at", watermark_delay="1 min")
    topic.produce({"at": "2026-01-01 00:05:30Z"})
    db.process_all_available()
    db.wait_for("SELECT count(*) FROM kafka.stream_1_state", 1)
    db.call("alter_stream", watermark_column="")
    assert (setting(db, "watermark_column"), setting(db, "watermark_delay")) == (None, None)
    assert db.value("SELECT count(*) FROM kafka.stream_watermark") == 0
    topic.produce({"at": "2026-01-01 00:06:30Z"})
    db.process_all_available()
    assert values(db, "SELECT n FROM target") == [(1,), (1,), (2,)]


def test_deduplicate_by(db, new_topic):
    topic = new_topic(1)
    db.create_topic_table(topic, COLUMNS)
    db.run("CREATE TABLE target (name text, v int, at timestamptz)")
    db.create_stream(query="SELECT name, v, at FROM topic", deduplicate_by=["name"], watermark_column="at", watermark_delay="1 h")
    # without a state it may change
    db.call("alter_stream", deduplicate_by=["name", "v"])
    at = "2026-01-01 00:00Z"
    topic.produce({"name": "a", "v": 1, "at": at}, {"name": "a", "v": 2, "at": at}, {"name": "a", "v": 1, "at": at})
    db.process_all_available()
    assert values(db, "SELECT name, v FROM target") == [("a", 1), ("a", 2)]
    for other in (["name"], [], ["v", "name"]):
        with error("has the state of another query", detail=None if other else "nothing for the state", hint="reset_stream"):
            db.call("alter_stream", deduplicate_by=other, **({"watermark_column": ""} if not other else {}))
    db.call("stop_stream")
    db.call("reset_stream")
    db.call("alter_stream", deduplicate_by=[], watermark_column="")
    assert db.value("SELECT to_regclass('kafka.stream_1_state')") is None
    db.run("TRUNCATE target")
    db.call("start_stream")
    db.process_all_available()
    assert values(db, "SELECT name, v FROM target") == [("a", 1), ("a", 1), ("a", 2)]


def test_foreach_batch_and_target(db, topic):
    db.create_topic_table(topic)
    db.run("CREATE TABLE target (id bigint); CREATE TABLE twice (id bigint)")
    db.run("CREATE PROCEDURE write_twice(batch_id bigint) LANGUAGE sql BEGIN ATOMIC "
           "INSERT INTO twice SELECT id * 2 FROM topic; END")
    db.run("CREATE PROCEDURE write_thrice(batch_id bigint) LANGUAGE sql BEGIN ATOMIC "
           "INSERT INTO twice SELECT id * 3 FROM topic; END")
    db.create_stream()
    for number, change in enumerate([dict(foreach_batch="write_twice(bigint)"), dict(foreach_batch="write_thrice(bigint)"),
                                     dict(target="target")], 1):
        db.call("alter_stream", **change)
        topic.produce({"id": number})
        db.process_all_available()
    assert (values(db, "SELECT id FROM twice"), values(db, "SELECT id FROM target")) == ([(2,), (6,)], [(3,)])
    with error("needs a procedure"):
        db.call("alter_stream", foreach_batch="now()")


def test_notify(db, topic):
    db.create_topic_table(topic)
    db.run("CREATE TABLE target (id bigint)")
    db.create_stream()
    db.call("alter_stream", notify="news")
    with db.connect() as listener:
        listener.execute("LISTEN news")
        topic.produce({"id": 1})
        assert '"stream": "s"' in next(listener.notifies(timeout=30)).payload
    db.call("alter_stream", notify="")
    assert setting(db, "notify") is None


def test_another_target_for_groups_that_are_there(db, topic):
    """Only what changes is written there, and alter_stream says so."""
    db.create_topic_table(topic, COLUMNS)
    db.run("CREATE TABLE target (name text PRIMARY KEY, n bigint); CREATE TABLE other (LIKE target INCLUDING ALL)")
    db.create_stream(**GROUPS)
    topic.produce({"name": "a"}, {"name": "b"})
    db.process_all_available()
    with db.notices() as notices:
        db.call("alter_stream", target="other")
    assert [notice.message_primary for notice in notices] == ['target "other" gets the groups that change from now on']
    topic.produce({"name": "a"})
    db.process_all_available()
    assert db.run("SELECT * FROM other") == [("a", 2)]


def test_a_limit_of_errors_without_a_policy(db, topic):
    db.create_tables(topic)
    with db.notices() as notices:
        db.create_stream(max_errors=7, start=False)
        db.call("alter_stream", max_errors_per_batch=3)
        db.call("alter_stream", max_errors=0)
        db.call("alter_stream", on_error="skip", max_errors=9)
    assert [notice.message_primary for notice in notices] == ['a limit of errors means nothing while on_error is "stop"'] * 2
