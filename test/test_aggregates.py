"""Streams that aggregate: after any sequence of batches, the target is what plain SQL makes of all messages."""

import random

import pytest

from crashes import kill_worker
from expectations import error, values
from harness.processes import wait_until

COLUMNS = "id bigint, customer text, region text, amount numeric, score float8, note text"
CUSTOMERS = ["ada", "bob", "eve", "ünï", "", None]


def orders(count, first=1, seed=1):
    """Messages with nulls, repeated groups, and numbers that a double can't hold."""
    rng = random.Random(seed + first)
    return [{"id": number, "customer": rng.choice(CUSTOMERS), "region": rng.choice(["north", "south"]),
             "amount": rng.choice([None, rng.randrange(-10**20, 10**20) / 4, 0.1, 7]),
             "score": rng.choice([None, 0.5, -2.25, 1e10]), "note": rng.choice(["x", "y", None])}
            for number in range(first, first + count)]


def prepare(db, topic, query, target, mode, **arguments):
    """A stream of small batches, and "history": the same messages as rows."""
    db.create_topic_table(topic, COLUMNS)
    db.run("CREATE TABLE IF NOT EXISTS customers (customer text PRIMARY KEY, country text)")
    db.run("INSERT INTO customers VALUES ('ada', 'uk'), ('bob', 'us') ON CONFLICT DO NOTHING")
    db.run(target)
    db.create_stream(query=query, mode=mode, **{"max_offsets_per_trigger": 40, **arguments})


def produce(topic, messages):
    topic.produce_all({"value": message, "partition": message["id"] % topic.partitions} for message in messages)


def expected(db, query):
    """The query over all messages, by plain SQL: a direct read of the topic."""
    return values(db, query)


def check(db, query, name="s"):
    db.process_all_available(name)
    columns = ", ".join(column.name for column in db.connection.execute(f"SELECT * FROM ({query}) q LIMIT 0").description)
    assert values(db, f"SELECT {columns} FROM target") == expected(db, query)


QUERIES = [
    ("SELECT customer, count(*) AS n, sum(amount) AS total FROM topic GROUP BY customer",
     "CREATE TABLE target (customer text, n bigint, total numeric, UNIQUE NULLS NOT DISTINCT (customer))"),
    ("SELECT customer, region, avg(amount) AS a, min(note) AS lowest, max(id) AS highest FROM topic "
     "WHERE region <> 'nowhere' GROUP BY customer, region",
     "CREATE TABLE target (region text, customer text, lowest text, highest bigint, a numeric, "
     "UNIQUE NULLS NOT DISTINCT (customer, region))"),
    ("SELECT upper(customer) || '!' AS shout, count(amount) FILTER (WHERE region = 'north') + 1 AS n, "
     "coalesce(sum(id) / nullif(count(*), 0), 0) AS mean FROM topic GROUP BY upper(customer) || '!'",
     "CREATE TABLE target (shout text UNIQUE NULLS NOT DISTINCT, n bigint, mean numeric)"),
    ("SELECT customer, bool_or(amount > 5) AS big, bit_and(id) AS bits FROM topic GROUP BY customer "
     "HAVING count(*) % 2 = 0 OR max(id) > 250",
     "CREATE TABLE target (customer text UNIQUE NULLS NOT DISTINCT, big boolean, bits bigint)"),
    ("SELECT c.country, count(*) AS n, sum(t.amount) AS total FROM topic t LEFT JOIN customers c USING (customer) "
     "GROUP BY c.country",
     "CREATE TABLE target (country text UNIQUE NULLS NOT DISTINCT, n bigint, total numeric)"),
    ("SELECT DISTINCT region, note FROM topic",
     "CREATE TABLE target (region text, note text, UNIQUE NULLS NOT DISTINCT (region, note))"),
    ("SELECT id % 7 AS bucket, count(DISTINCT_ignored) AS n FROM (SELECT id, note AS DISTINCT_ignored FROM topic) q "
     "GROUP BY 1",
     "CREATE TABLE target (bucket bigint PRIMARY KEY, n bigint)"),
    ("WITH recent AS (SELECT * FROM topic WHERE id > 3) SELECT region, max(amount) AS highest FROM recent "
     "GROUP BY region",
     "CREATE TABLE target (region text PRIMARY KEY, highest numeric)"),
]


@pytest.mark.parametrize("mode", ["update", "complete"])
@pytest.mark.parametrize("number", range(len(QUERIES)))
def test_equals_plain_sql(db, topic, number, mode):
    query, target = QUERIES[number]
    prepare(db, topic, query, target, mode)
    for first in (1, 121, 181):
        produce(topic, orders(120 if first == 1 else 60, first))
        check(db, query)


@pytest.mark.parametrize("mode", ["update", "complete"])
def test_no_group_by(db, topic, mode):
    query = "SELECT count(*) AS n, sum(amount) AS total, max(customer) AS last FROM topic WHERE region = 'north'"
    prepare(db, topic, query, "CREATE TABLE target (n bigint, total numeric, last text)", mode)
    for first in (1, 101):
        produce(topic, orders(100, first))
        check(db, query)
    assert db.value("SELECT count(*) FROM target") == 1


def test_complete_without_a_key_is_a_multiset(db, topic):
    query = "SELECT count(*) / 20 AS rough, min(region) AS region FROM topic GROUP BY customer, note"
    prepare(db, topic, query, "CREATE TABLE target (rough bigint, region varchar(8), point point DEFAULT '(1,2)')",
            "complete")
    produce(topic, orders(200))
    db.process_all_available()
    assert values(db, "SELECT rough, region FROM target") == expected(db, query)
    db.run("DELETE FROM target WHERE ctid = (SELECT min(ctid) FROM target)")
    db.run("INSERT INTO target VALUES (99, 'alien')")
    produce(topic, orders(50, 201))
    db.process_all_available()
    assert values(db, "SELECT rough, region FROM target") == expected(db, query)


def test_leaderboard(db, topic):
    query = ("SELECT customer, sum(id) AS points FROM topic GROUP BY customer, region "
             "ORDER BY sum(id) DESC NULLS LAST, customer LIMIT 3")
    prepare(db, topic, query, "CREATE TABLE target (customer text, points numeric)", "complete")
    for first in (1, 101, 201):
        produce(topic, orders(100, first))
        check(db, query)
    assert db.value("SELECT count(*) FROM target") == 3


def test_unchanged_rows_are_not_written(db, topic):
    for mode in ("update", "complete"):
        name, target = f"s_{mode}", f"target_{mode}"
        db.run(f"CREATE TABLE {target} (customer text PRIMARY KEY, n bigint, note text DEFAULT 'kept')")
        if mode == "update":
            db.create_topic_table(topic, COLUMNS)
        db.create_stream(name, query="SELECT customer, count(*) AS n FROM topic GROUP BY customer", mode=mode,
                         target=target)
    topic.produce(*({"id": n, "customer": f"c{n}"} for n in range(50)))
    for mode in ("update", "complete"):
        db.process_all_available(f"s_{mode}")
        db.run(f"UPDATE target_{mode} SET note = 'mine'")
    before = {mode: dict(db.run(f"SELECT customer, xmin::text FROM target_{mode}")) for mode in ("update", "complete")}
    topic.produce({"id": 100, "customer": "c7"})
    for mode in ("update", "complete"):
        db.process_all_available(f"s_{mode}")
        after = dict(db.run(f"SELECT customer, xmin::text FROM target_{mode}"))
        assert {customer for customer in after if after[customer] != before[mode][customer]} == {"c7"}
        assert db.run(f"SELECT n, note FROM target_{mode} WHERE customer = 'c7'") == [(2, "mine")]


def test_readers_never_see_an_empty_table(db, topic):
    prepare(db, topic, QUERIES[0][0], QUERIES[0][1], "complete", max_offsets_per_trigger=5)
    produce(topic, orders(300))
    wait_until(lambda: db.value("SELECT count(*) FROM target") > 0)
    seen = []
    while db.value("SELECT sum(next_offset) FROM kafka.stream_offset") < 300:
        seen.append(db.value("SELECT count(*) FROM target"))
    assert 0 not in seen
    check(db, QUERIES[0][0])


def test_numerics_keep_their_scale(db, topic):
    query = "SELECT region, max(amount) AS amount FROM topic GROUP BY region"
    prepare(db, topic, query, "CREATE TABLE target (region text PRIMARY KEY, amount numeric)", "complete")
    topic.produce(b'{"region": "a", "amount": 1.0}')
    db.process_all_available()
    assert db.value("SELECT amount::text FROM target") == "1.0"
    topic.produce(b'{"region": "a", "amount": 9007199254740993.000000000000000001}')
    db.process_all_available()
    assert db.value("SELECT amount::text FROM target") == "9007199254740993.000000000000000001"


def test_a_column_too_narrow_is_an_error(db, topic):
    prepare(db, topic, "SELECT region, max(note) AS note FROM topic GROUP BY region",
            "CREATE TABLE target (region text PRIMARY KEY, note varchar(3))", "complete")
    topic.produce({"region": "a", "note": "abcd"})
    assert "value too long" in db.wait_for_state("failed").last_error
    assert db.value("SELECT count(*) FROM target") == 0


def test_partitioned_target_and_default_columns(db, topic):
    query = "SELECT region, customer, count(*) AS n FROM topic GROUP BY region, customer HAVING count(*) % 3 > 0"
    prepare(db, topic, query, """
        CREATE TABLE target (id int GENERATED ALWAYS AS IDENTITY, customer text, region text, n bigint,
            twice bigint GENERATED ALWAYS AS (n * 2) STORED, UNIQUE NULLS NOT DISTINCT (region, customer))
        PARTITION BY LIST (region);
        CREATE TABLE north PARTITION OF target FOR VALUES IN ('north');
        CREATE TABLE south PARTITION OF target FOR VALUES IN ('south')""", "update")
    for first in (1, 201):
        produce(topic, orders(200, first))
        db.process_all_available()
        assert values(db, "SELECT region, customer, n FROM target") == expected(db, query)


def test_triggers_of_the_target_run(db, topic):
    db.run("CREATE TABLE seen (what text, customer text)")
    db.run("""CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.seen VALUES (tg_op, coalesce(new.customer, old.customer)); RETURN coalesce(new, old); END $$""")
    prepare(db, topic, "SELECT customer, count(*) AS n FROM topic GROUP BY customer HAVING count(*) < 3",
            "CREATE TABLE target (customer text PRIMARY KEY, n bigint); CREATE TRIGGER note AFTER INSERT OR UPDATE OR "
            "DELETE ON target FOR EACH ROW EXECUTE FUNCTION note()", "update")
    for number in range(3):
        topic.produce({"id": number, "customer": "ada"})
        db.process_all_available()
    assert [what for what, _ in db.run("SELECT * FROM seen")] == ["INSERT", "UPDATE", "DELETE"]


@pytest.mark.parametrize("mode", ["update", "complete"])
def test_kill_9_changes_nothing(db, topic, mode):
    query, target = QUERIES[3]
    prepare(db, topic, query, target, mode, max_offsets_per_trigger=20)
    produce(topic, orders(4000))
    for _ in range(3):
        position = db.value("SELECT sum(next_offset) FROM kafka.stream_offset")
        wait_until(lambda: db.value("SELECT sum(next_offset) FROM kafka.stream_offset") > position
                   or position >= 4000)
        kill_worker(db)
    check(db, query)


def test_a_bad_message_rolls_its_state_back(db, topic):
    """The batch is halved until the bad message stands alone; nothing is counted twice."""
    prepare(db, topic, "SELECT region, count(*) AS n, sum(1 / id) AS s FROM topic GROUP BY region",
            "CREATE TABLE target (region text PRIMARY KEY, n bigint, s numeric)", "update", max_offsets_per_trigger=100)
    topic.produce(*({"id": n, "region": "a"} for n in (1, 2, 3, 4, 5, 0, 6, 7)))
    assert "division by zero" in db.wait_for_state("failed").last_error
    assert db.run("SELECT region, n FROM target") == [("a", 5)]


def test_reset_forgets_the_state(db, topic):
    query, target = QUERIES[0]
    prepare(db, topic, query, target, "complete")
    produce(topic, orders(100))
    check(db, query)
    db.call("reset_stream")
    check(db, query)
    db.call("stop_stream")
    db.call("drop_stream")
    assert db.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'stream%state'") == 0


def test_filters_may_change_but_groups_may_not(db, topic):
    query, target = QUERIES[0]
    prepare(db, topic, query, target, "update")
    produce(topic, orders(60))
    check(db, query)
    for changed in ("SELECT customer, count(*) AS n, max(amount) AS total FROM topic GROUP BY customer",
                    "SELECT lower(customer) AS customer, count(*) AS n, sum(amount) AS total FROM topic GROUP BY 1",
                    "SELECT customer, id AS n, amount AS total FROM topic"):
        with error("state of another query", detail="state has|nothing for the state", hint="reset_stream",
                   sqlstate="55000"):
            db.call("alter_stream", query=changed)
    db.call("alter_stream", query="SELECT customer, count(*) AS n, sum(amount) AS total FROM topic "
                                  "WHERE id <= 60 GROUP BY customer")
    produce(topic, orders(40, 61))
    db.process_all_available()
    assert values(db, "SELECT * FROM target") == expected(
        db, "SELECT customer, count(*) AS n, sum(amount) AS total FROM topic WHERE id <= 60 GROUP BY customer")
    # after a reset anything goes
    db.call("stop_stream")
    db.call("reset_stream")
    db.run("TRUNCATE target")
    changed = "SELECT customer, count(*) AS n, max(amount) AS total FROM topic GROUP BY customer"
    db.call("alter_stream", query=changed)
    db.call("start_stream")
    check(db, changed)


def test_the_state_belongs_to_the_owner(db, topic):
    db.run("DROP ROLE IF EXISTS kafka_analyst")
    db.run("CREATE ROLE kafka_analyst")
    try:
        db.run("GRANT USAGE ON FOREIGN SERVER broker TO kafka_analyst")
        db.run("GRANT CREATE ON SCHEMA public TO kafka_analyst")
        db.run("SET ROLE kafka_analyst")
        query, target = QUERIES[0]
        prepare(db, topic, query, target, "update")
        produce(topic, orders(60))
        db.process_all_available()
        assert values(db, "SELECT * FROM target") == expected(db, query)
        assert db.value("SELECT count(*) FROM kafka.stream_1_state") == len(CUSTOMERS)
        db.call("reset_stream")
        db.call("drop_stream")
    finally:
        db.run("RESET ROLE")
        db.run("DROP OWNED BY kafka_analyst CASCADE")
        db.run("DROP ROLE kafka_analyst")


def test_two_streams_into_one_target(db, new_topic):
    db.run("CREATE TABLE target (k bigint PRIMARY KEY, a bigint, b bigint)")
    for number, column in enumerate("ab"):
        topic = new_topic(1)
        db.create_topic_table(topic, "id bigint", name=f"topic{number}")
        topic.produce_all({"value": {"id": n * 7919 % 50}} for n in range(5000))
        db.create_stream(f"s{number}", query=f"SELECT count(*) AS {column}, id AS k FROM topic{number} GROUP BY id",
                         mode="update", max_offsets_per_trigger=100)
    for number in range(2):
        db.process_all_available(f"s{number}")
    assert db.run("SELECT a, b, count(*) FROM target GROUP BY a, b") == [(100, 100, 50)]


@pytest.mark.parametrize("query", [
    "SELECT word, count(*) AS n FROM topic, unnest(string_to_array(customer || ' ' || region, ' ')) AS word GROUP BY word",
    "SELECT unnest(ARRAY[region, note]) AS word, count(*) AS n FROM topic GROUP BY 1",
    "WITH q (a, b) AS (SELECT customer, region FROM topic), r AS (SELECT country FROM customers) "
    "SELECT b || r.country AS word, count(*) AS n FROM q, r GROUP BY b || r.country",
    "SELECT min(c.country) AS word, count(*) FILTER (WHERE EXISTS (SELECT FROM customers x WHERE x.customer = t.customer)) "
    "AS n FROM topic t JOIN customers c ON true GROUP BY c.customer"])
def test_unusual_queries(db, topic, query):
    prepare(db, topic, query, "CREATE TABLE target (word text, n bigint)", "complete")
    for first in (1, 101):
        produce(topic, orders(100, first))
        check(db, query)


@pytest.mark.parametrize("mode, query, target", [
    ("update", "SELECT 1 AS id, count(*) AS n FROM topic", "CREATE TABLE target (id int PRIMARY KEY, n bigint)"),
    ("complete", "SELECT 1 AS id, count(*) AS n FROM topic", "CREATE TABLE target (id int PRIMARY KEY, n bigint)"),
    # what is unique is another column than what is grouped by
    ("complete", "SELECT customer, max(amount) AS n FROM topic GROUP BY customer ORDER BY max(amount) DESC, customer LIMIT 1",
     "CREATE TABLE target (customer text, n numeric, only_one bool DEFAULT true PRIMARY KEY)"),
    ("complete", "SELECT customer, max(amount) AS n FROM topic GROUP BY customer ORDER BY max(amount) DESC, customer LIMIT 1",
     "CREATE TABLE target (customer text PRIMARY KEY, n numeric, only_one bool DEFAULT true UNIQUE)")])
def test_rows_take_each_others_place_in_a_unique_index(db, topic, mode, query, target):
    prepare(db, topic, query, target, mode)
    for first in range(1, 300, 30):
        produce(topic, orders(30, first))
        db.process_all_available()
        assert len(db.run("SELECT * FROM target")) == 1


@pytest.mark.parametrize("mode, having", [("update", ""), ("update", "HAVING count(*) % 2 = 0"), ("complete", ""),
                                          ("complete", "ORDER BY count(*) DESC, customer, note LIMIT 4")])
@pytest.mark.parametrize("constraint", ["UNIQUE NULLS NOT DISTINCT (customer, note)", "PRIMARY KEY (customer, note)"])
def test_a_target_with_another_collation(db, topic, mode, having, constraint):
    """Groups are compared with rows of the target by the target's collations, whatever the query's are."""
    query = ("SELECT customer, note, count(*) AS n, max(note) AS last FROM topic WHERE customer IS NOT NULL AND "
             f"note IS NOT NULL GROUP BY customer, note {having}")
    if constraint.startswith("UNIQUE"):
        query = query.replace("customer IS NOT NULL AND note IS NOT NULL", "true")
    prepare(db, topic, query, 'CREATE TABLE target (customer text COLLATE "C", note varchar COLLATE "POSIX", n bigint, '
            f'last text COLLATE "C", {constraint})', mode)
    for first in (1, 101):
        produce(topic, orders(100, first))
        check(db, query)


@pytest.mark.parametrize("index", ["customer", 'customer COLLATE "C"', "customer text_pattern_ops", "customer DESC NULLS FIRST"])
def test_complete_mode_over_any_unique_index(db, topic, index):
    query = "SELECT customer, count(*) AS n FROM topic WHERE customer IS NOT NULL GROUP BY customer"
    prepare(db, topic, query, f"CREATE TABLE target (customer text NOT NULL, n bigint); CREATE UNIQUE INDEX ON target ({index})", "complete")
    for first in (1, 101, 201):
        produce(topic, orders(100, first))
        check(db, query)
        db.run("INSERT INTO target VALUES ('nobody', 0); DELETE FROM target WHERE customer = (SELECT min(customer) FROM target); UPDATE target SET n = n + 1 WHERE n % 2 = 0")


@pytest.mark.parametrize("index", ["customer", 'customer COLLATE "POSIX"', "customer text_pattern_ops", "customer DESC"])
def test_complete_mode_leaves_other_columns_alone(db, topic, index):
    """A row that changes is updated, whatever order its unique index has."""
    query = "SELECT customer, count(*) AS n FROM topic WHERE customer IS NOT NULL GROUP BY customer"
    prepare(db, topic, query, f"CREATE TABLE target (customer text NOT NULL, n bigint, note text DEFAULT 'new'); CREATE UNIQUE INDEX ON target ({index})",
            "complete")
    produce(topic, orders(100))
    check(db, query)
    db.run("UPDATE target SET note = 'mine'")
    produce(topic, orders(100, 101))
    check(db, query)
    assert set(db.column("SELECT note FROM target")) == {"mine"}


def test_complete_mode_over_a_table_with_children(db, topic):
    """Their rows are the target's too, and no index of the parent keeps keys apart from them."""
    query = "SELECT customer, count(*) AS n FROM topic WHERE customer IS NOT NULL GROUP BY customer"
    prepare(db, topic, query, "CREATE TABLE target (customer text PRIMARY KEY, n bigint); CREATE TABLE child () INHERITS (target)", "complete")
    for first in (1, 101, 201):
        produce(topic, orders(100, first))
        check(db, query)
        db.run("INSERT INTO child SELECT customer, -n FROM target; INSERT INTO child VALUES ('nobody', 0); UPDATE ONLY target SET n = n + 1 WHERE n % 2 = 0")


@pytest.mark.parametrize("mode", ["update", "complete"])
def test_a_target_with_rules_is_refused(db, topic, mode):
    with error("target \"target\" has rules", detail="rewrite the statements", hint="triggers", sqlstate="0A000"):
        prepare(db, topic, "SELECT customer, count(*) AS n FROM topic GROUP BY customer",
                "CREATE TABLE target (customer text PRIMARY KEY, n bigint); "
                "CREATE RULE r AS ON DELETE TO target DO ALSO NOTIFY gone", mode)


@pytest.mark.parametrize("mode", ["update", "complete"])
def test_on_conflict_is_refused(db, topic, mode):
    with error("mode \"append\" only", detail="there already is changed", hint="Leave it out", sqlstate="22023"):
        prepare(db, topic, *QUERIES[0], mode, on_conflict="ignore")
