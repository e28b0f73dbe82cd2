"""Mode update without aggregation: insert or update by key, delete by tombstone."""

import json
import os
import signal

import pytest

from expectations import error, values
from harness.processes import wait_until
from upserts import COLUMNS, TARGET, assert_upserted, produce, random_changes, rows, upsert_stream


# --- keys ------------------------------------------------------------------


def test_the_last_message_of_a_key_wins(db, topic):
    upsert_stream(db, topic)
    produce(topic, *((n % 7, {"name": f"v{n}", "amount": n}) for n in range(100)))
    assert_upserted(db, topic)
    produce(topic, (3, {"name": "new", "amount": -1}), (1000, {"name": "more", "amount": 0}))
    assert_upserted(db, topic)


@pytest.mark.parametrize("limit", [None, 1, 7, 500])
def test_tombstones_between_changes(db, topic, limit):
    """The batches' size makes no difference."""
    count = 100 if limit == 1 else 5000
    upsert_stream(db, topic, **({"max_offsets_per_trigger": limit} if limit else {}), start=False)
    produce(topic, *random_changes(count, 300))
    db.call("start_stream")
    assert_upserted(db, topic)


def test_replay_gives_the_same_table(db, topic):
    upsert_stream(db, topic, max_offsets_per_trigger=300)
    produce(topic, *random_changes(3000, 200))
    assert_upserted(db, topic)
    before = rows(db)
    db.call("reset_stream", starting_offsets="earliest")
    assert_upserted(db, topic)
    assert rows(db) == before


def test_kill_9_of_the_worker(db, topic):
    upsert_stream(db, topic, max_offsets_per_trigger=400, start=False)
    produce(topic, *random_changes(40_000, 2000))
    db.call("start_stream")
    for _ in range(4):
        pid = db.worker_pid()
        done = sum(db.next_offsets().values())
        wait_until(lambda: sum(db.next_offsets().values()) > done or done == 40_000)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_up(db))
        db.reconnect()
    assert_upserted(db, topic)


def is_up(db):
    import psycopg
    try:
        db.run("SELECT 1")
        return True
    except psycopg.OperationalError:
        return False


def test_keys_of_several_columns_in_json(db, topic):
    db.create_topic_table(topic, "country text OPTIONS (key 'country', path 'country'), city text OPTIONS (key 'id.city'), "
                                 "people int", key_format="json")
    db.run("CREATE TABLE target (people int, city text, country text, PRIMARY KEY (country, city))")
    for people in (1, 2):
        topic.produce({"country": "fr", "people": people}, key='{"country": "fr", "id": {"city": "Paris"}}')
        topic.produce({"country": "us", "people": people + 10}, key='{"country": "us", "id": {"city": "Paris"}}')
    db.create_stream(mode="update")
    db.process_all_available()
    assert values(db, "SELECT country, city, people FROM target") == [("fr", "Paris", 2), ("us", "Paris", 12)]
    topic.produce(None, key='{"country": "us", "id": {"city": "Paris"}}')
    db.process_all_available()
    assert values(db, "SELECT country, city, people FROM target") == [("fr", "Paris", 2)]


def test_key_columns_other_than_the_primary_key(db, topic):
    upsert_stream(db, topic, key_columns=["id"],
                  target="CREATE TABLE target (row_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, amount numeric, "
                         "name text, id bigint); CREATE UNIQUE INDEX ON target (id)")
    produce(topic, *random_changes(200, 20))
    assert_upserted(db, topic)


def test_raw_keys_in_bytea_and_in_text(db, topic):
    db.create_topic_table(topic, "k bytea OPTIONS (key 'true'), v text", format="text", key_format="bytea")
    db.run("CREATE TABLE target (k bytea PRIMARY KEY, v text)")
    topic.produce("a", key=b"\x00\xff")
    topic.produce("b", key=b"x")
    topic.produce(None, key=b"x")
    db.create_stream(mode="update")
    db.process_all_available()
    assert db.run("SELECT * FROM target") == [(b"\x00\xff", "a")]
    # the metadata column is the message key as well
    db.create_topic_table(topic, "k text OPTIONS (metadata 'key'), v text", name="topic2", format="text")
    db.run("CREATE TABLE target2 (k text PRIMARY KEY, v text)")
    topic.produce("c", key="y")
    topic.produce("c", key="z")
    topic.produce(None, key="y")
    db.create_stream("s2", source="topic2", target="target2", mode="update",
                     starting_offsets=json.dumps({"0": 3, "1": 0, "2": 0}))
    db.process_all_available("s2")
    assert db.run("SELECT * FROM target2") == [("z", "c")]


def test_equal_keys_are_those_of_the_unique_index(db, topic):
    """char(n) ignores trailing blanks, which the source's text does not."""
    db.create_topic_table(topic, "k text OPTIONS (key 'true'), v int")
    db.run("CREATE TABLE target (k char(5) PRIMARY KEY, v int)")
    topic.produce({"v": 1}, key="a")
    topic.produce({"v": 2}, key="a ")
    topic.produce({"v": 3}, key="b")
    topic.produce(None, key="b  ")
    db.create_stream(mode="update")
    db.process_all_available()
    assert db.run("SELECT * FROM target") == [("a    ", 2)]


# --- queries ---------------------------------------------------------------


def test_the_order_of_messages_survives_a_join(db, topic):
    """Whatever the join does to the order of rows, the last message wins."""
    db.create_topic_table(topic, "id bigint OPTIONS (key 'true'), kind int, v int")
    db.run("CREATE TABLE kinds (kind int, label text)")
    db.run("INSERT INTO kinds SELECT n, 'kind ' || n FROM generate_series(0, 9) n")
    db.run("CREATE TABLE target (id bigint PRIMARY KEY, label text, v int)")
    for setting in ("enable_hashjoin", "enable_nestloop"):
        db.run(f"ALTER DATABASE {db.name} SET {setting} = off")  # sorts both sides by kind
    produce(topic, *((n % 50, {"kind": (n * 7) % 10, "v": n}) for n in range(2000)))
    produce(topic, (49, None))
    db.create_stream(mode="update", query="""
        WITH o AS MATERIALIZED (SELECT id, kind, v FROM topic)
        SELECT o.id, label, v FROM (SELECT * FROM o) o JOIN kinds USING (kind)""")
    db.process_all_available()
    assert db.run("SELECT id, v, label FROM target ORDER BY id") == [
        (n, 1950 + n, f"kind {(1950 + n) * 7 % 10}") for n in range(49)]


def test_a_key_computed_by_the_query(db, topic):
    db.create_topic_table(topic, "k text OPTIONS (key 'true'), v int")
    db.run("CREATE VIEW v AS SELECT split_part(k, '-', 2)::bigint + 1 AS id, v * 2 AS v FROM topic WHERE v > 0")
    db.run("CREATE TABLE target (id int PRIMARY KEY, v int)")
    topic.produce({"v": 1}, key="x-1")
    topic.produce({"v": 2}, key="x-2")
    topic.produce({"v": -1}, key="x-2")
    topic.produce(None, key="x-1")
    db.create_stream(source="v", mode="update")
    db.process_all_available()
    assert db.run("SELECT * FROM target") == [(3, 4)]


def test_defaults_of_missing_fields(db, topic):
    upsert_stream(db, topic, target="CREATE TABLE target (id bigint PRIMARY KEY, name text DEFAULT 'none', "
                                    "amount numeric, made timestamptz DEFAULT now())")
    produce(topic, (1, {"amount": 1}), (2, {"name": None}))
    db.process_all_available()
    assert values(db, "SELECT id, name, made IS NOT NULL FROM target") == [(1, "none", True), (2, None, True)]


# --- what is written -------------------------------------------------------


def row_versions(db):
    return dict(db.run("SELECT id, (xmin::text, ctid::text)::text FROM target"))


def test_unchanged_rows_are_not_rewritten(db, topic):
    columns = "id bigint OPTIONS (key 'true'), j json, p point, n numeric, a int[]"
    upsert_stream(db, topic, columns, target="CREATE TABLE target (id bigint PRIMARY KEY, j json, p point, n numeric, a int[])")
    row = {"j": {"a": [1, None]}, "p": "(1,2)", "n": "1.0", "a": [1, 2]}
    produce(topic, (1, row), (2, row), (3, {}))
    db.process_all_available()
    before = row_versions(db)
    produce(topic, (1, row), (2, {**row, "n": "1.00"}), (3, {}))
    db.process_all_available()
    after = row_versions(db)
    assert after[1] == before[1] and after[3] == before[3] and after[2] != before[2]
    assert db.value("SELECT n::text FROM target WHERE id = 2") == "1.00"
    db.call("stop_stream")  # a worker's statistics are complete at its end
    db.wait_for("SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'target'", 1)
    progress = db.run("SELECT num_input_rows, num_output_rows FROM kafka.stream_progress ORDER BY batch_id")
    assert sum(count for count, _ in progress) == 6 and sum(count for _, count in progress) == 4


def test_partitions_generated_columns_triggers_and_foreign_keys(db, topic):
    db.run("CREATE TABLE parents (id bigint PRIMARY KEY); INSERT INTO parents SELECT generate_series(0, 99)")
    db.run("CREATE TABLE audit (what text, id bigint)")
    db.run("""CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.audit VALUES (tg_op, coalesce(new.id, old.id)); RETURN NULL; END $$""")
    upsert_stream(db, topic, target="""
        CREATE TABLE target (id bigint REFERENCES parents PRIMARY KEY, name text, amount numeric,
                             twice numeric GENERATED ALWAYS AS (amount * 2) STORED) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF target FOR VALUES FROM (0) TO (50);
        CREATE TABLE high (amount numeric, id bigint NOT NULL, name text, twice numeric GENERATED ALWAYS AS (amount * 2) STORED);
        ALTER TABLE target ATTACH PARTITION high FOR VALUES FROM (50) TO (1000);
        CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON target FOR EACH ROW EXECUTE FUNCTION note()""")
    produce(topic, *((n, {"name": "a", "amount": n}) for n in range(100)))
    assert_upserted(db, topic)
    produce(topic, (1, {"name": "b", "amount": 7}), (60, None), (61, {"name": "a", "amount": 61}))
    assert_upserted(db, topic)
    assert db.value("SELECT twice FROM target WHERE id = 1") == 14
    assert db.run("SELECT what, count(*), max(id) FILTER (WHERE what <> 'INSERT') FROM audit GROUP BY 1 ORDER BY 1") == [
        ("DELETE", 1, 60), ("INSERT", 100, None), ("UPDATE", 1, 1)]
    produce(topic, (500, {"name": "no parent", "amount": 1}))
    status = db.wait_for_state("failed")
    assert status.last_error_sqlstate == "23503"
    assert f'Topic "{topic.name}", partition {500 % 3}, offset' in status.last_error_detail


@pytest.mark.parametrize("action", ["INSTEAD NOTHING", "ALSO INSERT INTO gone VALUES (OLD.id)", "INSTEAD UPDATE target SET name = NULL WHERE id = OLD.id",
                                    "ALSO NOTIFY gone"])
def test_rules_on_delete(db, topic, action):
    """What a tombstone does is the rule's to say."""
    db.run("CREATE TABLE gone (id bigint)")
    upsert_stream(db, topic, start=False)
    db.run(f"CREATE RULE on_delete AS ON DELETE TO target DO {action}")
    produce(topic, *((key, {"name": "x", "amount": key}) for key in range(5)))
    db.call("start_stream")
    db.process_all_available()
    produce(topic, (1, None), (3, None))
    db.process_all_available()
    left = {"INSTEAD NOTHING": [(key, "x", key) for key in range(5)],
            "INSTEAD UPDATE": [(key, None if key in (1, 3) else "x", key) for key in range(5)]}
    assert rows(db) == left.get(" ".join(action.split()[:2]), [(key, "x", key) for key in (0, 2, 4)])
    assert values(db, "SELECT id FROM gone ORDER BY id") == ([(1,), (3,)] if "INSERT" in action else [])
    assert db.next_offsets() == topic.offsets()


def test_a_bad_row_is_blamed_alone(db, topic):
    upsert_stream(db, topic, start=False,
                  target="CREATE TABLE target (id bigint PRIMARY KEY, name text, amount numeric CHECK (amount <> 13))")
    topic.produce_all({"key": str(n), "value": {"name": "x", "amount": n}} for n in range(100))
    db.call("start_stream")
    status = db.wait_for_state("failed")
    assert status.last_error_sqlstate == "23514"
    assert f'Topic "{topic.name}", partition 0, offset 13.' in status.last_error_detail
    assert [row[0] for row in rows(db)] == list(range(13))


def test_row_level_security(db, topic):
    db.run("DROP ROLE IF EXISTS kafka_upserter")
    db.run("CREATE ROLE kafka_upserter")
    try:
        db.create_topic_table(topic, COLUMNS)
        db.run(TARGET)
        db.run("INSERT INTO target VALUES (100, 'of others', 0)")
        db.run("ALTER TABLE target ENABLE ROW LEVEL SECURITY")
        db.run("CREATE POLICY small ON target TO kafka_upserter USING (id < 50)")
        db.run("GRANT USAGE ON FOREIGN SERVER broker TO kafka_upserter; GRANT SELECT ON topic TO kafka_upserter")
        db.run("GRANT SELECT, INSERT, UPDATE, DELETE ON target TO kafka_upserter")
        db.run("SET ROLE kafka_upserter")
        db.create_stream(mode="update")
        produce(topic, (1, {"name": "x", "amount": 1}), (1, {"name": "y", "amount": 1}), (100, None))
        db.process_all_available()
        produce(topic, (60, {"name": "x", "amount": 1}))
        status = db.wait_for_state("failed")
        assert status.last_error_sqlstate == "42501"
        assert status.last_error_hint.count("kafka.start_stream") == 1
        db.call("drop_stream")
    finally:
        db.run("RESET ROLE")
        db.run("DROP OWNED BY kafka_upserter")
        db.run("DROP ROLE kafka_upserter")
    assert [key for key, _, _ in rows(db)] == [1, 100]


# --- tombstones ------------------------------------------------------------


def test_ignored_tombstones(db, topic):
    upsert_stream(db, topic, on_tombstone="ignore", columns="id bigint, name text, amount numeric",
                  topic_options={"null_value": "error"})
    topic.produce({"id": 1, "name": "a", "amount": 1}, None, {"id": 2, "name": "b", "amount": 2})
    db.process_all_available()
    assert [row[0] for row in rows(db)] == [1, 2]


def failure(db, topic, sqlstate, message, detail, hint):
    status = db.wait_for_state("failed")
    assert status.last_error_sqlstate == sqlstate, status
    assert message in status.last_error and detail in status.last_error_detail, status
    assert hint in status.last_error_hint, status


def test_tombstone_without_key(db, topic):
    upsert_stream(db, topic, start=False)
    topic.produce_all({"key": str(n), "value": {"name": "x", "amount": n}} for n in range(5))
    topic.produce(None)
    db.call("start_stream")
    failure(db, topic, "22004", "tombstone has no key", "partition 0, offset 5", "on_tombstone")
    assert len(rows(db)) == 5


def test_tombstone_whose_key_is_no_key(db, topic):
    upsert_stream(db, topic)
    topic.produce(None, key="x1")
    failure(db, topic, "22P02", 'bigint: "x1"', 'partition 0, offset 0, column "id"', "producer")


def test_tombstone_of_a_topic_table_without_key_columns(db, topic):
    upsert_stream(db, topic, columns="id bigint, name text, amount numeric")
    topic.produce({"id": 1, "name": "a", "amount": 1})
    topic.produce(None, key="1")
    failure(db, topic, "22004", "tombstone", 'Column "id" of topic table "topic"', '"key"')
    assert "offset 1" in db.status().last_error_detail
    db.run("ALTER FOREIGN TABLE topic ALTER COLUMN id OPTIONS (ADD key 'true')")
    db.call("start_stream")
    db.process_all_available()
    assert rows(db) == []


def test_null_key(db, topic):
    upsert_stream(db, topic)
    topic.produce({"name": "a", "amount": 1}, key="1")
    topic.produce({"name": "a", "amount": 1})
    failure(db, topic, "23502", 'key column "id" is null', 'partition 0, offset 1, column "id"', "without a key")
    assert len(rows(db)) == 1


# --- several writers -------------------------------------------------------


def test_parallel_streams_into_one_table_do_not_deadlock(db, topic, new_topic):
    upsert_stream(db, topic, max_offsets_per_trigger=300, start=False)
    other = new_topic(3)
    db.create_topic_table(other, COLUMNS, name="topic2")
    db.create_stream("s2", source="topic2", mode="update", max_offsets_per_trigger=300, start=False)
    produce(topic, *random_changes(20_000, 200, seed=1))
    produce(other, *random_changes(20_000, 200, seed=2))
    for name in ("s", "s2"):
        db.call("start_stream", name)
    for name in ("s", "s2"):
        db.process_all_available(name)
        assert db.status(name).restarts == 0
    assert db.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


# --- definitions -----------------------------------------------------------


def test_what_is_refused(db, topic, postgres):
    db.create_topic_table(topic, COLUMNS)
    db.run("""CREATE TABLE no_key (id bigint, name text, amount numeric);
        CREATE TABLE other_key (id bigint, name text, amount numeric, x int PRIMARY KEY);
        CREATE TABLE partial (id bigint, name text, amount numeric); CREATE UNIQUE INDEX ON partial (id) WHERE id > 0;
        CREATE TABLE deferred (id bigint PRIMARY KEY DEFERRABLE, name text, amount numeric);
        CREATE TABLE expression (id bigint, name text, amount numeric); CREATE UNIQUE INDEX ON expression ((id + 1));
        CREATE TABLE ruled (id bigint PRIMARY KEY, name text, amount numeric);
        CREATE RULE r AS ON INSERT TO ruled DO ALSO INSERT INTO no_key VALUES (new.id);
        CREATE VIEW view AS SELECT * FROM no_key;
        CREATE TABLE good (id bigint PRIMARY KEY, name text, amount numeric)""")

    def refused(target, message, sqlstate, detail=None, hint=None, **options):
        with error(message, detail, hint, sqlstate):
            db.create_stream(target=target, **{"mode": "update", **options})

    refused("no_key", "has no key", "42P16", "primary key", "key_columns")
    refused("no_key", "no usable unique index", "42P10", "exactly these", "CREATE UNIQUE INDEX ON public.no_key", key_columns=["id"])
    refused("no_key", 'no column "nonsense"', "42703", key_columns=["nonsense"])
    refused("good", "no usable unique index", "42P10", key_columns=["id", "name"])
    refused("other_key", 'key column "x".*not produced by the source', "42703")
    refused("partial", "no usable unique index", "42P10", "is partial", key_columns=["id"])
    refused("deferred", "no usable unique index", "42P10", "is deferrable")
    refused("expression", "no usable unique index", "42P10", key_columns=["id"])
    refused("view", "is a view", "42809")
    refused("ruled", "rule", "0A000")
    refused("good", 'version_column "nonsense"', "42703", version_column="nonsense")
    refused("good", "is a key column", "22023", version_column="id")
    refused("good", "on_conflict", "22023", on_conflict="ignore")
    refused("good", "key_columns is for mode", "22023", mode="append", key_columns=["id"])
    refused("good", "version_column is for mode", "22023", mode="append", version_column="amount")
    refused("good", "on_tombstone is for mode", "22023", mode="append", on_tombstone="ignore")

    db.run("""CREATE FOREIGN DATA WRAPPER another; CREATE SERVER another FOREIGN DATA WRAPPER another;
        CREATE FOREIGN TABLE remote (id bigint, name text, amount numeric) SERVER another""")
    refused("remote", "is a foreign table", "42809", key_columns=["id"])
    db.create_topic_table(topic, "id bigint, p point", name="points")
    db.run("CREATE TABLE points_target (id bigint PRIMARY KEY, p point)")
    refused("points_target", "has no order", "42883", source="points", version_column="p")


def test_missing_privileges_are_named(db, topic):
    db.run("DROP ROLE IF EXISTS kafka_upserter")
    db.run("CREATE ROLE kafka_upserter")
    try:
        db.create_topic_table(topic, COLUMNS)
        db.run(TARGET)
        db.run("GRANT USAGE ON FOREIGN SERVER broker TO kafka_upserter; GRANT SELECT ON topic TO kafka_upserter")
        granted = ["INSERT", "SELECT", "UPDATE", "DELETE"]
        for missing in granted:
            db.run("REVOKE ALL ON target FROM kafka_upserter")
            db.run(f"GRANT {', '.join(name for name in granted if name != missing)} ON target TO kafka_upserter")
            db.run("SET ROLE kafka_upserter")
            with error("permission denied for table target", f"needs {missing} on table public.target", f"GRANT {missing} ON public.target", "42501"):
                db.create_stream(mode="update", start=False)
            db.run("RESET ROLE")
        # without deletes, and with the columns' own privileges
        db.run("REVOKE ALL ON target FROM kafka_upserter")
        db.run("GRANT SELECT, INSERT, UPDATE (name, amount) ON target TO kafka_upserter")
        db.run("SET ROLE kafka_upserter")
        db.create_stream(mode="update", on_tombstone="ignore", start=False)
        db.call("drop_stream")
    finally:
        db.run("RESET ROLE")
        db.run("DROP OWNED BY kafka_upserter")
        db.run("DROP ROLE kafka_upserter")


def test_the_target_changes_while_the_stream_runs(db, topic):
    upsert_stream(db, topic)
    produce(topic, (1, {"name": "a", "amount": 1}))
    assert_upserted(db, topic)
    db.run("ALTER TABLE target DROP CONSTRAINT target_pkey; CREATE UNIQUE INDEX again ON target (id); "
           "ALTER TABLE target ADD PRIMARY KEY USING INDEX again")
    produce(topic, (1, {"name": "b", "amount": 1}), (2, {"name": "c", "amount": 1}))
    assert_upserted(db, topic)
    db.run("ALTER TABLE target DROP CONSTRAINT again")
    produce(topic, (2, {"name": "d", "amount": 1}))
    assert db.wait_for_state("failed").last_error_sqlstate == "42P16"
    db.run("ALTER TABLE target ADD PRIMARY KEY (id)")
    db.call("start_stream")
    assert_upserted(db, topic)


def test_explain(db, topic):
    upsert_stream(db, topic)
    text = "\n".join(db.column("SELECT kafka.explain_stream('s')"))
    assert 'upsert by key (id), index "target_pkey"' in text
    assert "ON CONFLICT (id) DO UPDATE SET" in text and "DELETE FROM public.target" in text


def test_change_data_capture(db, topic):
    """The README's example."""
    db.create_topic_table(topic, """id bigint OPTIONS (key 'id'), name text OPTIONS (path 'after.name'),
        country text OPTIONS (path 'after.country'), op text""", name="customers_topic", key_format="json")
    db.run("CREATE TABLE customers (id bigint PRIMARY KEY, name text, country text, updated_at timestamptz DEFAULT now())")
    db.create_stream("customers", mode="update", target="customers",
                     query="SELECT id, name, country FROM customers_topic WHERE op <> 'd'")

    def assert_after(key, value, *expected):
        topic.produce(value, key=json.dumps({"id": key}), partition=key)
        db.process_all_available("customers")
        assert values(db, "SELECT id, name, country FROM customers") == sorted(expected)

    assert_after(1, {"op": "c", "after": {"name": "Ann", "country": "fr"}}, (1, "Ann", "fr"))
    inserted_at = db.value("SELECT updated_at FROM customers")
    assert_after(2, {"op": "c", "after": {"name": "Bob", "country": "us"}}, (1, "Ann", "fr"), (2, "Bob", "us"))
    assert_after(1, {"op": "u", "after": {"name": "Ann", "country": "de"}}, (1, "Ann", "de"), (2, "Bob", "us"))
    assert_after(2, {"op": "d", "after": None}, (1, "Ann", "de"), (2, "Bob", "us"))
    assert_after(2, None, (1, "Ann", "de"))
    assert db.value("SELECT updated_at FROM customers") == inserted_at
