"""Rows of the target are found by one walk over the key's index where a batch has many of its keys, and one by one where it has few."""

import collections
import random
import threading
import uuid

import pytest

from upserts import assert_upserted, in_the_way, produce, upsert_stream

# columns of the key, the index on it, and the key of a number as JSON has it
KEYS = {
    "bigint": ("a bigint", "a", lambda n: {"a": n - 2**62}),
    "descending": ("a int", "a DESC", lambda n: {"a": n}),
    "text": ("a text", "a", lambda n: {"a": f"{n * 7919 % 100003}-é"}),
    "text, ICU": ('a text COLLATE "en-x-icu"', "a", lambda n: {"a": f"{'aAäbB-'[n % 6]}{n * 7919 % 100003}"}),
    "another collation": ('a text COLLATE "en-x-icu"', 'a COLLATE "C"', lambda n: {"a": f"{'aAäbB-'[n % 6]}{n}"}),
    "text_pattern_ops": ("a text", "a text_pattern_ops", lambda n: {"a": f"{n}{'x' * (n % 90)}"}),
    "name": ("a name", "a", lambda n: {"a": f"n{n}"}),
    "numeric": ("a numeric", "a", lambda n: {"a": f"{n % 7 - 3}{n:07d}.{n % 3}"}),
    "float": ("a float8", "a", lambda n: {"a": [n / 8, "NaN", "-Infinity"][n % 500 if n % 500 < 3 else 0]}),
    "uuid": ("a uuid", "a", lambda n: {"a": str(uuid.uuid5(uuid.NAMESPACE_OID, str(n)))}),
    "timestamptz": ("a timestamptz", "a DESC NULLS LAST", lambda n: {"a": f"20{n % 90 + 10}-03-01 00:00:{n // 90 % 60:02d}.{n // 5400:03d}+00"}),
    "bytea": ("a bytea", "a", lambda n: {"a": f"\\x{n * 7919 % 100003:08x}"}),
    "array": ("a int[]", "a", lambda n: {"a": f"{{{n % 50},{n // 50}}}"}),
    "range": ("a int4range", "a", lambda n: {"a": f"[{n},{n + 3})"}),
    "two columns": ("a int, b text", "a, b", lambda n: {"a": n % 11, "b": f"{n}"}),
    "two columns, few of each": ("a int, b text", "b DESC, a", lambda n: {"a": n % 2, "b": f"{n // 2}"}),
    "three columns, as they come": ("a int, b text, c date", "c, a DESC, b", lambda n: {"a": n % 5, "b": f"{n // 5 % 40}", "c": f"2026-01-{n // 200 % 28 + 1:02d}"}),
}


@pytest.mark.parametrize("kind", KEYS)
def test_any_key(db, new_topic, kind):
    """Dense and sparse batches in turn, between changes of another session: the last message of each key is its row."""
    columns, index, key = KEYS[kind]
    if not db.value("SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'en-x-icu')"):
        columns = columns.replace("en-x-icu", "POSIX")
    topic = new_topic(1)
    names = [column.split()[0] for column in columns.split(", ")]
    db.create_topic_table(topic, f"{columns}, v bigint")
    db.run(f"CREATE TABLE target ({columns}, v bigint)")
    for name in names:
        db.run(f"ALTER TABLE target ALTER {name} SET NOT NULL")
    db.run(f"CREATE UNIQUE INDEX ON target ({index})")
    db.create_stream(mode="update", key_columns=names)
    rng = random.Random(kind)
    for low, high, count in ((0, 3000, 4000), (0, 20000, 60), (2000, 9000, 6000), (0, 9000, 1), (0, 20000, 300), (8000, 9000, 5000), (0, 12000, 6000)):
        messages = [{**key(rng.randrange(low, high)), "v": rng.randrange(10**6)} for _ in range(count)]
        db.run("DELETE FROM target WHERE v % 5 = 0; UPDATE target SET v = v + 1 WHERE v % 7 = 0")
        before = {identity(row): row for row in as_text(db, names)}
        topic.produce_all({"value": message} for message in messages)
        db.process_all_available()
        db.run("CREATE TEMP TABLE wanted (LIKE target)")
        last = {tuple(message[name] for name in names): message for message in messages}
        with db.connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO wanted VALUES ({', '.join(['%s'] * (len(names) + 1))})",
                               [[str(value) for value in message.values()] for message in last.values()])
        wanted = {**before, **{identity(row): row for row in as_text(db, names, "wanted")}}
        db.run("DROP TABLE wanted")
        assert collections.Counter(as_text(db, names)) == collections.Counter(wanted.values())
    # the index and the table have the same
    db.run("SET enable_seqscan = off")
    by_index = as_text(db, names)
    db.run("SET enable_seqscan = on; SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off")
    assert collections.Counter(as_text(db, names)) == collections.Counter(by_index)


def as_text(db, names, table="target"):
    return db.run(f"SELECT {', '.join(f'{name}::text' for name in names)}, v FROM {table}")


def identity(row):
    return row[:-1]


def test_rows_that_others_insert_meanwhile(db, topic):
    """They are there when the stream comes to insert them, though not when its walk came by."""
    upsert_stream(db, topic, start=False)
    keys = random.Random(1).sample(range(200_000), 120_000)
    produce(topic, *((key, {"name": "stream", "amount": key}) for key in keys))
    done = threading.Event()

    def insert():
        with db.connect() as session:
            rng = random.Random(2)
            while not done.is_set():
                session.execute("INSERT INTO target SELECT g, 'other', 0 FROM generate_series(%s::bigint, %s) g ON CONFLICT DO NOTHING",
                                (low := rng.randrange(200_000), low + 3))

    other = threading.Thread(target=insert)
    other.start()
    try:
        db.call("start_stream")
        db.process_all_available()
    finally:
        done.set()
        other.join()
    db.run("DELETE FROM target WHERE name = 'other'")
    assert_upserted(db, topic)


def test_no_page_of_the_index_is_kept_while_a_row_is_waited_for(db, topic):
    upsert_stream(db, topic)
    produce(topic, *((key, {"name": "old", "amount": key}) for key in range(3000)))
    assert_upserted(db, topic)
    db.run("UPDATE target SET amount = -1 WHERE id % 3 = 0")
    changes = [(key, {"name": "new", "amount": key}) for key in range(3000)]
    with in_the_way(db, topic, "SELECT 1 FROM target WHERE id = 1500 FOR UPDATE", *changes) as other:
        with db.connect() as session:
            session.execute("SET statement_timeout = '20s'")
            session.execute("VACUUM (INDEX_CLEANUP ON) target")
        other.execute("COMMIT")
    assert_upserted(db, topic)


def test_a_second_unique_index(db, topic):
    """An insertion waits for others in it, and takes their place or fails by what they do."""
    upsert_stream(db, topic, target="CREATE TABLE target (id bigint PRIMARY KEY, name text, amount numeric UNIQUE)")
    produce(topic, *((key, {"name": "old", "amount": key}) for key in range(0, 2000, 2)))
    assert_upserted(db, topic)
    with in_the_way(db, topic, "INSERT INTO target VALUES (-1, 'other', 1001)", *((key, {"name": "new", "amount": key}) for key in range(2000))) as other:
        other.execute("ROLLBACK")
    assert_upserted(db, topic)


@pytest.mark.parametrize("mode, other_order", [("update", False), ("update", True), ("complete", False)])
@pytest.mark.parametrize("keys", [{"id % 40000": "bigint"}, {"(id % 40000)::text": "text"}, {"id % 7": "bigint", "(id % 40000)::numeric": "numeric"},
                                  {"nullif(id % 2, 1)": "bigint", "nullif((id % 40000)::text, '77')": "text"}], ids=", ".join)
def test_nearly_as_many_groups_as_messages(db, topic, mode, other_order, keys):
    """Groups that a hash table has no room for, and groups that are looked up one after the other."""
    names = [f"k{n}" for n in range(len(keys))]
    query = (f"SELECT {', '.join(f'{key} AS {name}' for key, name in zip(keys, names))}, count(*) AS n, sum(amount) AS total, max(amount) AS largest "
             f"FROM topic GROUP BY {', '.join(keys)}")
    db.create_topic_table(topic, "id bigint, amount numeric")
    db.run(f"CREATE TABLE target ({', '.join(f'{name} {type}' for name, type in zip(names, keys.values()))}, n bigint, total numeric, largest numeric, "
           f"UNIQUE NULLS NOT DISTINCT ({', '.join(names)}))")
    if other_order:
        db.run(f"ALTER TABLE target DROP CONSTRAINT target_{'_'.join(names)}_key; "
               f"CREATE UNIQUE INDEX ON target ({', '.join(f'{name} DESC' for name in reversed(names))}) NULLS NOT DISTINCT")
    db.create_stream(query=query, mode=mode, max_offsets_per_trigger=20_000)
    rng = random.Random(1)
    with db.connect(autocommit=False) as session:
        session.execute("LOCK TABLE target")  # until there is enough for full batches
        topic.produce_all({"value": {"id": rng.randrange(10**9), "amount": rng.randrange(1000)}, "partition": n % topic.partitions}
                          for n in range(90_000))
        session.commit()
    db.process_all_available(timeout="120 s")
    assert db.value("SELECT count(*) FROM kafka.stream_progress WHERE num_input_rows > 15000") >= 3
    differences = f"((TABLE target EXCEPT ALL {query}) UNION ALL ({query} EXCEPT ALL TABLE target)) d"
    assert db.value(f"SELECT count(*) FROM {differences}") == 0


def test_a_bad_message_among_many_groups(db, topic):
    """It is found where messages are sorted before they are grouped, too."""
    db.create_topic_table(topic, "id bigint, amount numeric")
    db.run("CREATE TABLE target (id bigint PRIMARY KEY, n bigint, total numeric)")
    db.create_stream(query="SELECT id, count(*) AS n, sum(100 / amount) AS total FROM topic GROUP BY id", mode="update", on_error="dead_letter",
                     max_offsets_per_trigger=20_000)
    topic.produce_all({"value": {"id": n, "amount": 0 if n == 51_234 else 5}, "partition": n % topic.partitions} for n in range(70_000))
    db.process_all_available(timeout="120 s")
    (letter,) = db.run("SELECT partition, error_sqlstate FROM kafka.dead_letter")
    assert letter == (51_234 % topic.partitions, "22012")
    assert db.value("SELECT count(*) FROM target WHERE n = 1 AND total = 20") == 69_999
    assert db.next_offsets() == topic.offsets()
