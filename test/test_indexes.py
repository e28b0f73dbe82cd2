"""Large batches of append mode insert the entries of indexes in the order of keys: what a scan of each index finds is the table."""

import pytest

from expectations import assert_exact

COLUMNS = "id bigint, name text, v int, p int OPTIONS (metadata 'partition'), o bigint OPTIONS (metadata 'offset')"
TABLE = "CREATE TABLE target (id bigint PRIMARY KEY, name text, v int, p int, o bigint);"
INDEXES = {
    "text": "CREATE INDEX i ON target (name)",
    "descending, nulls first": "CREATE INDEX i ON target (v DESC NULLS FIRST, name)",
    "expression": "CREATE INDEX i ON target (lower(name), (v % 7))",
    "partial": "CREATE INDEX i ON target (v) WHERE v % 2 = 0",
    "included column": "CREATE UNIQUE INDEX i ON target (p, o) INCLUDE (name)",
    "nulls are distinct": "CREATE UNIQUE INDEX i ON target (nullif(v, v))",
    "another access method": "CREATE INDEX i ON target USING hash (name)",
}
COUNT = 12_000


def message(number):
    return {"id": number, "name": None if number % 11 == 0 else f"Name {number * 7919 % 1000}", "v": number % 500}


def produce(topic, numbers):
    topic.produce_all({"value": message(number), "partition": number % 3} for number in numbers)


def assert_a_scan_finds_the_table(db, index):
    """By the index and without it: the same rows, in the same order of keys."""
    keys, predicate = db.run("""
        SELECT string_agg(pg_get_indexdef(indexrelid, n, false) || CASE indoption[n - 1] & 1 WHEN 1 THEN ' DESC' ELSE ' ASC' END
                          || CASE indoption[n - 1] & 2 WHEN 2 THEN ' NULLS FIRST' ELSE ' NULLS LAST' END, ', ' ORDER BY n),
               pg_get_expr(indpred, indrelid)
          FROM pg_index, generate_series(1, indnkeyatts) n WHERE indexrelid = %s::regclass GROUP BY indpred, indrelid""", index)[0]
    columns = keys
    for word in (" ASC", " DESC", " NULLS FIRST", " NULLS LAST"):
        columns = columns.replace(word, "")
    query = f"SELECT ctid::text, {columns} FROM target WHERE {predicate or 'true'} ORDER BY {keys}"
    found = {}
    for name, off in (("index", "seqscan bitmapscan sort"), ("table", "indexscan bitmapscan indexonlyscan")):
        with db.connect() as connection:
            for method in off.split():
                connection.execute(f"SET enable_{method} = off")
            plan = "\n".join(line for line, in connection.execute(f"EXPLAIN {query}"))
            assert (f"Index Scan using {index} " in plan) == (name == "index") and "Incremental" not in plan, plan
            found[name] = connection.execute(query).fetchall()
    assert [row[1:] for row in found["index"]] == [row[1:] for row in found["table"]]
    assert sorted(found["index"], key=repr) == sorted(found["table"], key=repr)


@pytest.mark.parametrize("index", INDEXES)
def test_indexes_agree_with_their_table(db, topic, index):
    db.create_topic_table(topic, COLUMNS)
    db.run(f"{TABLE} {INDEXES[index]}")
    produce(topic, range(COUNT))
    db.create_stream()
    assert_exact(db, topic)
    produce(topic, range(COUNT, 2 * COUNT))  # into indexes that are not empty
    assert_exact(db, topic)
    amcheck = db.create_extension("amcheck")
    for name in ("target_pkey",) if "access method" in index else ("target_pkey", "i"):
        assert_a_scan_finds_the_table(db, name)
        if amcheck:
            db.run("SELECT bt_index_parent_check(%s, true)", name)


@pytest.mark.parametrize("key", ["earlier batch", "same batch"])
def test_a_key_that_comes_twice(db, topic, key):
    """Its message is named, also when the key stands elsewhere in the order of keys."""
    db.create_topic_table(topic, COLUMNS)
    db.run(f"{TABLE} {INDEXES['text']}")
    produce(topic, range(0 if key == "same batch" else 3000, COUNT))
    topic.produce({"id": 4000, "name": "again"}, partition=1)
    produce(topic, range(COUNT, COUNT + 3000))
    if key == "earlier batch":
        db.run("INSERT INTO target SELECT 3005, 'before'")
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    letters = db.run('SELECT partition, "offset", error_sqlstate FROM kafka.dead_letter')
    # of two messages with one key, in whichever order they come, one is kept out
    assert len(letters) == (1 if key == "same batch" else 2)
    assert {state for *_, state in letters} == {"23505"}
    known = {(m.partition(), m.offset()) for m in topic.messages()}
    rows = set(db.run("SELECT p, o FROM target WHERE p IS NOT NULL"))
    assert rows == known - {(p, o) for p, o, _ in letters}
    assert db.next_offsets() == topic.offsets()


def test_the_first_error_stops_with_its_message(db, topic):
    db.create_topic_table(topic, COLUMNS)
    db.run(TABLE + "INSERT INTO target SELECT 5000")
    produce(topic, range(COUNT))
    db.create_stream()
    status = db.wait_for_state("failed")
    assert status.last_error_sqlstate == "23505"
    assert "(id)=(5000)" in status.last_error_detail
    assert f"partition {5000 % 3}, offset {5000 // 3}" in status.last_error_detail


def test_a_function_that_reads_the_target(db, topic):
    """It sees rows before it by the index, too."""
    db.create_topic_table(topic, COLUMNS)
    db.run(TABLE + "CREATE FUNCTION seen(bigint) RETURNS bigint VOLATILE LANGUAGE plpgsql SET enable_seqscan = off AS $$"
           "BEGIN RETURN (SELECT count(*) FROM public.target WHERE id = $1 - 3); END $$")
    produce(topic, range(3000))
    db.create_stream(query="SELECT id, name, seen(id)::int AS v, p, o FROM topic")
    assert_exact(db, topic)
