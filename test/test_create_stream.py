"""create_stream: a source or a query, what it refuses, and when it takes effect."""

import time

from expectations import assert_exact, error, values


def test_source_into_table(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(1000)
    db.create_stream()
    assert_exact(db, topic)
    topic.produce_sequence(1000, first=1001)
    assert_exact(db, topic)


def test_hundred_thousand_messages(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(100_000)
    db.create_stream()
    assert_exact(db, topic)


def test_query_filters_and_reshapes(db, topic):
    db.create_topic_table(topic, "id bigint, customer text, amount numeric")
    db.run("CREATE TABLE target (id bigint, cents bigint)")
    topic.produce(*({"id": n, "customer": "a", "amount": n / 2} for n in range(1, 101)))
    db.create_stream(query="SELECT id, (amount * 100)::bigint AS cents FROM topic WHERE amount > 40")
    db.process_all_available()
    assert values(db, "SELECT * FROM target") == values(
        db, "SELECT n::bigint, n * 50::bigint FROM generate_series(81, 100) n")
    assert db.next_offsets() == topic.offsets()


def test_query_joins_an_ordinary_table(db, topic):
    db.create_topic_table(topic, "id bigint, customer text")
    db.run("CREATE TABLE customers (customer text PRIMARY KEY, region text)")
    db.run("INSERT INTO customers VALUES ('ada', 'north'), ('bob', 'south')")
    db.run("CREATE TABLE target (id bigint, region text)")
    db.create_stream(query="SELECT o.id, c.region FROM topic o JOIN customers c USING (customer)")
    topic.produce({"id": 1, "customer": "ada"}, {"id": 2, "customer": "bob"}, {"id": 3, "customer": "eve"})
    db.process_all_available()
    assert values(db, "SELECT * FROM target") == [(1, "north"), (2, "south")]
    db.run("INSERT INTO customers VALUES ('eve', 'east')")
    topic.produce({"id": 4, "customer": "eve"})
    db.process_all_available()
    assert values(db, "SELECT * FROM target") == [(1, "north"), (2, "south"), (4, "east")]


def test_source_may_be_a_view(db, topic):
    db.create_tables(topic)
    db.run("CREATE VIEW recent AS SELECT * FROM topic")
    topic.produce_sequence(30)
    db.create_stream(source="recent")
    assert_exact(db, topic)


def test_names_are_resolved_at_creation(db, topic):
    """Neither search_path nor quoting matters to the worker."""
    db.run('CREATE SCHEMA "my schema"')
    db.create_topic_table(topic, "id bigint", name="topic")
    db.run('CREATE TABLE "my schema"."Target % table" (id bigint)')
    db.run('SET search_path = "my schema", public')
    db.create_stream("it's \"s\" %s", query="SELECT id FROM topic", target='"Target % table"')
    topic.produce_sequence(10)
    db.process_all_available("it's \"s\" %s")
    assert db.value('SELECT count(*) FROM "my schema"."Target % table"') == 10


def test_several_streams_read_one_topic(db, topic):
    db.create_tables(topic)
    db.run("CREATE TABLE other (LIKE target)")
    topic.produce_sequence(300)
    db.create_stream("first")
    db.create_stream("second", target="other")
    assert_exact(db, topic, "first")
    assert_exact(db, topic, "second", target="other")


def test_streams_in_two_databases(db, topic, postgres, kafka):
    from harness.database import Database
    second = Database(postgres)
    try:
        for database in (db, second):
            if database is second:
                second.create_server(kafka.address)
            database.create_tables(topic)
            database.create_stream()
        topic.produce_sequence(300)
        for database in (db, second):
            assert_exact(database, topic)
    finally:
        second.drop()


def test_worker_starts_within_a_second_of_commit(db, topic):
    """The best of three: other programs are at work beside it."""
    db.create_tables(topic)
    topic.produce_sequence(3)
    times = []
    for _ in range(3):
        with db.connect(autocommit=False) as session:
            session.execute("SELECT kafka.create_stream('s', source => 'topic', target => 'target')")
            session.commit()
            committed = time.monotonic()
        db.wait_for("SELECT count(*) FROM target", 3)
        times.append(time.monotonic() - committed)
        db.call("drop_stream")
        db.run("TRUNCATE target")
    assert min(times) < 1


def test_rollback_leaves_nothing(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(30)
    with db.connect(autocommit=False) as session:
        session.execute("SELECT kafka.create_stream('s', query => 'SELECT * FROM topic', target => 'target')")
        session.rollback()
    assert db.status() is None
    assert db.value("SELECT count(*) FROM kafka.stream_offset") == 0
    db.create_stream()
    assert_exact(db, topic)


def test_start_false_waits_for_start_stream(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream(start=False)
    assert db.status().state == "stopped"
    assert db.status().pid is None
    db.call("start_stream")
    assert_exact(db, topic)


def test_privileges_are_checked(db, topic):
    db.create_tables(topic)
    db.run("DROP ROLE IF EXISTS kafka_nobody")
    db.run("CREATE ROLE kafka_nobody")
    try:
        db.run("SET ROLE kafka_nobody")
        with error("permission denied", sqlstate="42501"):
            db.create_stream()
    finally:
        db.run("RESET ROLE")
        db.run("DROP ROLE kafka_nobody")


def test_mismatched_columns_are_named(db, topic):
    db.create_topic_table(topic, "id bigint, surplus text")
    db.run("CREATE TABLE target (id bigint)")
    with error("column", detail="surplus"):
        db.create_stream()
    db.run("CREATE TABLE wrong_type (id bigint, surplus point)")
    with error("column|type", detail="surplus"):
        db.create_stream(target="wrong_type")


def test_a_name_is_used_once(db, topic):
    db.create_tables(topic)
    db.create_stream(start=False)
    with error('"s" already exists', sqlstate="42710"):
        db.create_stream(start=False)


def test_append_refuses_what_it_cannot_do(db, topic):
    db.create_topic_table(topic, "id bigint, customer text")
    db.run("CREATE TABLE target (id bigint)")
    for query, word in (("SELECT count(*) AS id FROM topic", "aggreg"),
                        ("SELECT DISTINCT id FROM topic", "DISTINCT"),
                        ("SELECT id FROM topic ORDER BY id", "ORDER BY"),
                        ("SELECT id FROM topic LIMIT 1", "LIMIT"),
                        ("SELECT row_number() OVER () AS id FROM topic", "window"),
                        ("SELECT id FROM topic UNION ALL SELECT 1", "UNION"),
                        ("SELECT 1::bigint AS id", "topic table")):
        with error(".") as caught:
            db.create_stream(query=query)
        diagnosis = caught.value.diag
        text = f"{diagnosis.message_primary} {diagnosis.message_detail} {diagnosis.message_hint}"
        assert word.lower() in text.lower(), (query, text)
    assert db.value("SELECT count(*) FROM kafka.stream") == 0


def test_arguments_are_checked(db, topic):
    db.create_tables(topic)
    for arguments in ({"mode": "upsert"}, {"on_conflict": "replace"}, {"on_error": "panic"},
                      {"trigger": "sometimes"}, {"max_offsets_per_trigger": -1},
                      {"query": "SELECT 1", "source": "topic"}, {"target": None},
                      {"trigger_interval": "-1 s"}):
        with error("."):
            db.create_stream(**arguments)


def test_source_must_be_a_topic_table(db, topic):
    db.create_tables(topic)
    with error("target", sqlstate="42809"):
        db.create_stream(source="target")


def test_unknown_topic_is_an_error(db, kafka):
    db.create_topic_table("no-such-topic")
    db.run("CREATE TABLE target (id bigint)")
    with error("no-such-topic"):
        db.create_stream()
