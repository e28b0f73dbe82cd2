"""What a target may be: a table with everything tables have, a view, a foreign table."""

import struct

import pytest

from expectations import assert_exact, error, values


def test_columns_that_the_source_does_not_have_get_their_defaults(db, topic):
    db.create_topic_table(topic)
    db.run("""CREATE TABLE target (number bigint GENERATED ALWAYS AS IDENTITY, id bigint,
              serial_number serial, note text DEFAULT 'none', made timestamptz DEFAULT now(),
              twice bigint GENERATED ALWAYS AS (id * 2) STORED, empty text)""")
    topic.produce_sequence(30)
    db.create_stream()
    db.process_all_available()
    assert values(db, "SELECT id, twice, note, empty FROM target") == sorted(
        ((n, 2 * n, "none", None) for n in range(1, 31)), key=repr)
    assert db.value("SELECT count(DISTINCT number) FROM target") == 30
    assert db.value("SELECT count(DISTINCT serial_number) FROM target") == 30
    assert db.value("SELECT every(made > now() - interval '1 minute') FROM target")


def test_a_missing_field_gets_the_default_and_null_stays_null(db, topic):
    db.create_topic_table(topic, "id bigint, note text, amount numeric")
    db.run("CREATE TABLE target (id bigint, note text DEFAULT 'none', amount numeric DEFAULT 7)")
    topic.produce({"id": 1}, {"id": 2, "note": None}, {"id": 3, "note": "x", "amount": 1})
    db.create_stream()
    db.process_all_available()
    assert values(db, "SELECT id, note, amount::int FROM target") == [(1, "none", 7), (2, None, 7), (3, "x", 1)]


def test_column_order_and_dropped_columns_do_not_matter(db, topic):
    db.create_topic_table(topic, "a int, b text, gone int, c numeric")
    db.run("ALTER FOREIGN TABLE topic DROP COLUMN gone")
    db.run("CREATE TABLE target (old int, c numeric, b text, older int, a int)")
    db.run("ALTER TABLE target DROP COLUMN old, DROP COLUMN older")
    topic.produce({"a": 1, "b": "x", "c": 2.5})
    db.create_stream()
    db.process_all_available()
    assert db.run("SELECT a, b, c::text FROM target") == [(1, "x", "2.5")]


def stored_tuples(db, table):
    """As they stand in the file (see bufpage.h, htup_details.h), without what transactions write into them."""
    db.run("CHECKPOINT")
    file = db.value("SELECT pg_read_binary_file(pg_relation_filepath(%s::regclass))", table)
    tuples = []
    for page in range(0, len(file), 8192):
        lower, = struct.unpack_from("=H", file, page + 12)
        for pointer in range(24, lower, 4):
            item, = struct.unpack_from("=I", file, page + pointer)
            assert item >> 15 & 3 == 1, "not a normal line pointer"
            tuple = file[page + (item & 0x7FFF):][:item >> 17]
            attributes, flags = struct.unpack_from("=HH", tuple, 18)
            tuples.append((attributes & 0x7FF, flags & 7, tuple[22:]))
    return tuples


def test_rows_are_stored_as_by_insert(db, topic):
    """To the byte: every length, alignment and storage that a type may have, with and without NULLs."""
    columns = {"b": "bool", "s": "smallint", "i": "int", "l": "bigint", "r": "real", "d": "float8", "n": "numeric",
               "t": "text", "v": "varchar(40)", "c": "char(5)", "one": '"char"', "y": "bytea", "u": "uuid", "day": "date",
               "at": "timestamptz", "span": "interval", "p": "point", "net": "inet", "name": "name", "mac": "macaddr",
               "j": "jsonb", "plain": "tsquery", "list": "int[]", "time": "timetz", "last": "bool"}
    listed = ", ".join(f'"{name}" {type}' for name, type in columns.items())
    db.create_topic_table(topic, listed)
    for table in ("target", "by_insert"):
        db.run(f"CREATE TABLE {table} (dropped int, {listed})")
        db.run(f"ALTER TABLE {table} DROP COLUMN dropped")
    full = {"b": True, "s": -2, "i": 3, "l": 2 ** 60, "r": 1.5, "d": -0.25, "n": 12345.678, "t": "x", "v": "word", "c": "ab",
            "one": "z", "y": "\\x00ff", "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "day": "2026-11-24",
            "at": "2026-11-24T10:00:00Z", "span": "1 day", "p": "(1,2)", "net": "10.0.0.1", "name": "who",
            "mac": "08:00:2b:01:02:03", "j": {"a": [1, 2]}, "plain": "'p'", "list": [1, 2, 3], "time": "10:00+01", "last": False}
    topic.produce(full, {}, *({name: value for name, value in full.items() if name != left_out} for left_out in columns),
                  *({name: full[name]} for name in columns),
                  *({**full, "t": "é" * length, "plain": f"'{'q' * length}'"} for length in (1, 62, 63, 125, 126, 127, 500)))
    db.create_stream()
    db.process_all_available()
    db.run("INSERT INTO by_insert SELECT * FROM target ORDER BY ctid")
    stored = {table: stored_tuples(db, table) for table in ("target", "by_insert")}
    assert len(stored["target"]) == 2 + 2 * len(columns) + 7
    assert stored["target"] == stored["by_insert"]


def test_unique_index_with_on_conflict_ignore(db, topic):
    db.create_topic_table(topic)
    db.run("CREATE TABLE target (id bigint PRIMARY KEY)")
    topic.produce_sequence(30)
    topic.produce_sequence(40)
    db.create_stream(on_conflict="ignore")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == list(range(1, 41))
    assert db.next_offsets() == topic.offsets()


def test_unique_index_with_on_conflict_error(db, topic):
    db.create_topic_table(topic)
    db.run("CREATE TABLE target (id bigint PRIMARY KEY)")
    topic.produce({"id": 1}, {"id": 2}, {"id": 1})
    db.create_stream()
    status = db.wait_for_state("failed")
    assert status.last_error_sqlstate == "23505"
    db.call("alter_stream", on_conflict="ignore")
    db.call("start_stream")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [1, 2]


def test_indexes_are_maintained(db, topic):
    db.create_topic_table(topic, "id bigint, name text")
    db.run("CREATE TABLE target (id bigint PRIMARY KEY, name text)")
    db.run("CREATE INDEX ON target (lower(name)) WHERE id > 10")
    topic.produce(*({"id": n, "name": f"Name {n}"} for n in range(100)))
    db.create_stream()
    db.process_all_available()
    db.run("SET enable_seqscan = off")
    assert db.column("SELECT id FROM target WHERE lower(name) = 'name 42' AND id > 10") == [42]
    if db.create_extension("amcheck"):
        db.run("SELECT bt_index_check(indexrelid, true) FROM pg_index WHERE indrelid = 'target'::regclass")


def test_row_and_statement_triggers(db, topic):
    db.create_tables(topic)
    db.run("""CREATE TABLE audit (id bigint);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.audit VALUES (new.id); RETURN NULL; END $$;
        CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF new.id = 13 THEN RETURN NULL; END IF; new.id := new.id + 1000; RETURN new; END $$;
        CREATE FUNCTION count_rows() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.audit SELECT -count(*) FROM fresh; RETURN NULL; END $$;
        CREATE TRIGGER first BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION change();
        CREATE TRIGGER second AFTER INSERT ON target FOR EACH ROW EXECUTE FUNCTION note();
        CREATE TRIGGER third AFTER INSERT ON target REFERENCING NEW TABLE AS fresh
            FOR EACH STATEMENT EXECUTE FUNCTION count_rows()""")
    topic.produce_sequence(30)
    db.create_stream()
    db.process_all_available()
    expected = [n + 1000 for n in range(1, 31) if n != 13]
    assert db.column("SELECT id FROM target ORDER BY id") == expected
    assert db.column("SELECT id FROM audit WHERE id > 0 ORDER BY id") == expected
    assert db.value("SELECT sum(id)::int FROM audit WHERE id <= 0") == -29


def test_foreign_keys(db, topic):
    db.create_topic_table(topic)
    db.run("CREATE TABLE parents (id bigint PRIMARY KEY)")
    db.run("INSERT INTO parents SELECT generate_series(1, 30)")
    db.run("CREATE TABLE target (id bigint REFERENCES parents)")
    topic.produce_sequence(30)
    db.create_stream()
    db.process_all_available()
    topic.produce({"id": 31})
    assert db.wait_for_state("failed").last_error_sqlstate == "23503"
    assert db.value("SELECT count(*) FROM target") == 30


def test_partitioned_table(db, topic):
    db.create_topic_table(topic, "id bigint, p int OPTIONS (metadata 'partition'), "
                                 "o bigint OPTIONS (metadata 'offset')")
    db.run("""CREATE TABLE target (o bigint, id bigint, p int) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF target FOR VALUES FROM (0) TO (500);
        CREATE TABLE high (p int, gone int, id bigint, o bigint) PARTITION BY LIST (p);
        ALTER TABLE high DROP COLUMN gone;
        CREATE TABLE high_rest PARTITION OF high DEFAULT;
        ALTER TABLE target ATTACH PARTITION high FOR VALUES FROM (500) TO (1000)""")
    topic.produce_sequence(999)
    db.create_stream()
    assert_exact(db, topic)
    assert db.run("SELECT tableoid::regclass::text, count(*) FROM target GROUP BY 1 ORDER BY 1") == [
        ("high_rest", 500), ("low", 499)]
    topic.produce({"id": 1000})
    assert db.wait_for_state("failed").last_error_sqlstate == "23514"
    db.run("CREATE TABLE higher PARTITION OF target FOR VALUES FROM (1000) TO (2000)")
    db.call("start_stream")
    assert_exact(db, topic)


def test_view_with_instead_of_trigger(db, topic):
    db.create_topic_table(topic)
    db.run("""CREATE TABLE base (id bigint, via text);
        CREATE VIEW target AS SELECT id FROM base;
        CREATE FUNCTION insert_base() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.base VALUES (new.id, 'trigger'); RETURN new; END $$;
        CREATE TRIGGER instead INSTEAD OF INSERT ON target FOR EACH ROW EXECUTE FUNCTION insert_base()""")
    topic.produce_sequence(30)
    db.create_stream()
    db.process_all_available()
    assert db.run("SELECT via, count(*), sum(id)::int FROM base GROUP BY via") == [("trigger", 30, 465)]


def test_updatable_view(db, topic):
    db.create_topic_table(topic)
    db.run("CREATE TABLE base (id bigint CHECK (id < 1000), via text DEFAULT 'view')")
    db.run("CREATE VIEW target AS SELECT id FROM base WHERE id < 500 WITH CHECK OPTION")
    topic.produce_sequence(30)
    db.create_stream()
    db.process_all_available()
    assert db.run("SELECT via, count(*) FROM base GROUP BY via") == [("view", 30)]


def test_rewrite_rule(db, topic):
    db.create_topic_table(topic)
    db.run("CREATE TABLE target (id bigint); CREATE TABLE copy (id bigint)")
    db.run("CREATE RULE also AS ON INSERT TO target DO ALSO INSERT INTO copy VALUES (new.id)")
    topic.produce_sequence(30)
    db.create_stream()
    db.process_all_available()
    assert db.value("SELECT count(*) FROM target") == 30


def test_foreign_table(db, topic, postgres):
    db.create_topic_table(topic)
    db.run("CREATE TABLE base (id bigint)")
    if not db.create_extension("postgres_fdw"):
        pytest.skip("this PostgreSQL has no postgres_fdw")
    db.run(f"""CREATE SERVER loopback FOREIGN DATA WRAPPER postgres_fdw
            OPTIONS (host '{postgres.directory}', port '{postgres.port}', dbname '{db.name}');
        CREATE USER MAPPING FOR CURRENT_USER SERVER loopback;
        CREATE FOREIGN TABLE target (id bigint) SERVER loopback OPTIONS (table_name 'base')""")
    topic.produce_sequence(300)
    db.create_stream()
    db.process_all_available()
    assert db.value("SELECT count(*) FROM base") == 300


def test_row_level_security_of_another_owner(db, topic):
    """The stream runs as its owner, policies apply to it as to any user."""
    db.run("DROP ROLE IF EXISTS kafka_loader")
    db.run("CREATE ROLE kafka_loader")
    try:
        db.create_tables(topic)
        db.run("ALTER TABLE target ENABLE ROW LEVEL SECURITY")
        db.run("CREATE POLICY small ON target FOR INSERT TO kafka_loader WITH CHECK (id < 5)")
        db.run("GRANT USAGE ON FOREIGN SERVER broker TO kafka_loader")
        db.run("GRANT SELECT ON topic TO kafka_loader; GRANT INSERT ON target TO kafka_loader")
        db.run("SET ROLE kafka_loader")
        topic.produce({"id": 1})
        db.create_stream()
        db.process_all_available()
        topic.produce({"id": 5})
        assert db.wait_for_state("failed").last_error_sqlstate == "42501"
        db.call("drop_stream")
    finally:
        db.run("RESET ROLE")
        db.run("DROP OWNED BY kafka_loader")
        db.run("DROP ROLE kafka_loader")
    assert db.column("SELECT id FROM target") == [1]


def test_system_catalogs_and_sequences_are_no_targets(db, topic):
    db.create_topic_table(topic)
    db.run("CREATE SEQUENCE numbers; CREATE VIEW total AS SELECT count(*) AS id FROM pg_class")
    for target in ("numbers", "total", "topic", "pg_class"):
        with error("."):
            db.create_stream(target=target)
