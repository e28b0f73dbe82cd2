"""Mode update with version_column: an older version never overwrites a newer one."""

import random

import pytest

from upserts import upsert_stream

VERSIONED = {"columns": "id bigint OPTIONS (key 'true'), version int, name text",
             "target": "CREATE TABLE target (id bigint PRIMARY KEY, version int, name text)",
             "version_column": "version"}


def versions(db):
    return db.run("SELECT id, version, name FROM target ORDER BY id")


@pytest.mark.parametrize("limit", [1, 1000])
def test_an_older_version_never_overwrites(db, topic, limit):
    upsert_stream(db, topic, max_offsets_per_trigger=limit, start=False, **VERSIONED)
    db.run("INSERT INTO target VALUES (7, NULL, 'old'), (8, 5, 'old'), (9, 5, 'old'), (10, 5, 'old'), (11, 5, 'old')")
    topic.produce_all({"key": str(key), "value": value and {"version": value[0], "name": value[1]}} for key, value in [
        (1, (3, "a")), (1, (2, "b")), (1, (3, "c")), (1, (None, "d")), (1, (1, "e")),
        (2, (None, "a")), (2, (None, "b")),
        (3, (9, "a")), (3, None), (3, (1, "b")),
        (4, (9, "a")), (4, None),
        (7, (1, "new")), (8, (4, "new")), (9, (5, "new")), (10, None), (10, (1, "new")), (11, None)])
    db.call("start_stream")
    db.process_all_available()
    assert versions(db) == [(1, 3, "c"), (2, None, "b"), (3, 1, "b"), (7, 1, "new"), (8, 5, "old"), (9, 5, "new"),
                            (10, 1, "new")]


def test_versions_of_a_key_in_several_partitions(db, topic):
    upsert_stream(db, topic, max_offsets_per_trigger=10, start=False, **VERSIONED)
    generator = random.Random(2)
    changes = [(n % 20, n) for n in range(1000)]
    generator.shuffle(changes)
    topic.produce_all({"key": str(key), "value": {"version": version, "name": f"v{version}"},
                       "partition": generator.randrange(3)} for key, version in changes)
    db.call("start_stream")
    db.process_all_available()
    assert versions(db) == [(n, 980 + n, f"v{980 + n}") for n in range(20)]
    db.call("reset_stream", starting_offsets="earliest")
    db.process_all_available()
    assert versions(db) == [(n, 980 + n, f"v{980 + n}") for n in range(20)]
