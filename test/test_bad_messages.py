"""What finding a bad message costs: attempts are counted by sequences, which no rollback takes back."""

import math

import pytest

MESSAGES = 6000


def messages(bad, value):
    return ({"value": value(n) if n in bad else {"id": n, "n": n}, "partition": 0} for n in range(MESSAGES))


def create_tables(db, topic, constraint="CHECK (n >= 0)", extra=""):
    db.create_topic_table(topic, "id bigint, n bigint")
    db.run(f"""CREATE SEQUENCE rows; CREATE SEQUENCE statements;
        CREATE TABLE target (id bigint, n bigint, tried bigint DEFAULT nextval('rows'), {constraint}); {extra}""")


COUNT_STATEMENTS = """CREATE FUNCTION count_statement() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM nextval('public.statements'); RETURN NULL; END $$;
    CREATE TRIGGER count_statement BEFORE INSERT ON target EXECUTE FUNCTION count_statement()"""

KINDS = {
    "check": ("CHECK (n >= 0)", lambda n: {"id": n, "n": -1}),
    "unique": ("UNIQUE (id)", lambda n: {"id": n - 1, "n": n}),
    "decode": ("CHECK (n >= 0)", lambda n: b'{"id": "x"}'),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["buffered", "planned"])
def test_scattered_bad_messages_are_left_out_at_little_cost(db, new_topic, kind, path):
    topic = new_topic()
    constraint, value = KINDS[kind]
    bad = set(range(50, MESSAGES, 1000)) | {MESSAGES - 1}
    create_tables(db, topic, constraint, COUNT_STATEMENTS if path == "planned" else "")
    topic.produce_all(messages(bad, value))
    db.create_stream(on_error="dead_letter")
    db.process_all_available(timeout="60 s")
    assert db.column("SELECT id FROM target ORDER BY id") == [n for n in range(MESSAGES) if n not in bad]
    assert set(db.column('SELECT "offset" FROM kafka.dead_letter')) == bad
    # at most the whole batch once in vain, then parts of which each bad message spoils one
    assert db.value("SELECT last_value FROM rows") <= 2 * MESSAGES + len(bad) * 2 * 256
    if path == "planned":
        assert db.value("SELECT last_value FROM statements") <= MESSAGES / 256 + 4 + len(bad) * 4


@pytest.mark.parametrize("mode", ["upsert", "procedure"])
def test_attempts_are_bounded_where_rows_are_gathered_first(db, new_topic, mode):
    topic = new_topic()
    bad = {10, 2000, 2001, 5000}
    if mode == "upsert":
        create_tables(db, topic, "PRIMARY KEY (id), CHECK (n >= 0)", COUNT_STATEMENTS)
        stream = {"mode": "update", "key_columns": ["id"]}
        # the whole batch once, parts of 256, and halves of a part
        bound = 1 + MESSAGES / 256 + len(bad) * (math.log2(256) + 3)
    else:
        create_tables(db, topic, extra="""
            CREATE PROCEDURE write_rows(batch_id bigint) LANGUAGE plpgsql AS $$ BEGIN
                PERFORM nextval('public.statements');
                INSERT INTO public.target (id, n) SELECT id, n FROM public.topic ORDER BY n DESC; END $$""")
        stream = {"foreach_batch": "write_rows(bigint)", "target": None}
        # halves of the batch
        bound = 1 + len(bad) * (math.log2(MESSAGES) + 4)
    topic.produce_all(messages(bad, KINDS["check"][1]))
    db.create_stream(on_error="dead_letter", **stream)
    db.process_all_available(timeout="60 s")
    assert db.column("SELECT id FROM target ORDER BY id") == [n for n in range(MESSAGES) if n not in bad]
    assert set(db.column('SELECT "offset" FROM kafka.dead_letter')) == bad
    assert db.value("SELECT last_value FROM statements") <= bound


def test_a_part_sees_what_the_parts_before_it_wrote(db, new_topic):
    """A query that reads its own target gives the same in parts as message by message."""
    topic = new_topic()
    create_tables(db, topic)
    db.create_stream(on_error="dead_letter", query="""SELECT t.id, t.n FROM topic t
        WHERE NOT EXISTS (SELECT FROM target x WHERE x.id = t.id)""", start=False)
    topic.produce_all({"value": {"id": n % 1000, "n": -1 if n == 5 else n}, "partition": 0} for n in range(3000))
    db.call("start_stream")
    db.process_all_available()
    # within a part of 256 the query does not see its own rows, and no id comes twice in one
    assert db.value("SELECT count(*) = count(DISTINCT id) AND count(*) = 1000 FROM target")
    assert db.run("SELECT n FROM target WHERE id = 5") == [(1005,)]


def test_the_budget_ends_a_careful_run(db, new_topic):
    topic = new_topic()
    create_tables(db, topic)
    bad = set(range(100, MESSAGES, 100))
    topic.produce_all(messages(bad, KINDS["check"][1]))
    db.create_stream(on_error="skip", max_errors=7)
    failed = db.wait_for_state("failed", timeout=60)
    assert failed.last_error_sqlstate == "23514" and "offset 800" in failed.last_error_detail
    assert db.value("SELECT count(*) FROM target") == 800 - 7 and db.next_offsets() == {0: 800}
    assert db.status().errors == 7
