"""kill -9 in each of the modes changes nothing in the end result; streams side by side don't deadlock."""

import pytest

from crashes import kill_worker

COLUMNS = "id bigint, k int, v bigint, at timestamptz"
MESSAGES = 3000
KEYS = 37
WINDOW = "date_bin('1 min', at, '2026-01-01 00:00+00')"
GROUPS = "SELECT k, count(*) AS n, sum(v) AS total FROM topic GROUP BY k"
RAW = f"""SELECT n AS id, n % {KEYS} AS k, n * 7 % 101 AS v,
                 '2026-01-01 00:00+00'::timestamptz + n * interval '1 s' AS at
            FROM generate_series(1, {MESSAGES}) n"""
EVENT_TIME = dict(watermark_column="at", watermark_delay="0 s")

# the target, the arguments of create_stream, what must be in the target: over the rows "topic"
MODES = {
    "append": ("id bigint, k int, v bigint, at timestamptz", dict(), "SELECT * FROM topic"),
    "update": ("k int PRIMARY KEY, n bigint, total numeric", dict(mode="update", query=GROUPS), GROUPS),
    "complete": ("k int PRIMARY KEY, n bigint, total numeric", dict(mode="complete", query=GROUPS), GROUPS),
    "upsert": ("k int PRIMARY KEY, id bigint", dict(mode="update", query="SELECT k, id FROM topic"),
               "SELECT DISTINCT ON (k) k, id FROM topic ORDER BY k, id DESC"),
    "window": ("w timestamptz, n bigint", dict(query=f"SELECT {WINDOW} AS w, count(*) AS n FROM topic GROUP BY 1",
                                               **EVENT_TIME),
               f"SELECT {WINDOW}, count(*) FROM topic GROUP BY 1"
               f" HAVING {WINDOW} + interval '1 min' <= (SELECT max(at) FROM topic)"),
    "session": ("k int, s tstzrange, n bigint",
                dict(query="SELECT k, kafka.session_window(at, '10 s') AS s, count(*) AS n FROM topic GROUP BY 1, 2",
                     **EVENT_TIME),
                "SELECT k, tstzrange(at, at + interval '10 s'), 1 FROM topic"
                " WHERE at + interval '10 s' <= (SELECT max(at) FROM topic)"),
    "deduplicate": ("id bigint, at timestamptz", dict(query="SELECT id, at FROM topic", deduplicate_by=["id"],
                                             watermark_column="at", watermark_delay="1 day"),
                    "SELECT id, at FROM topic"),
    "foreach_batch": ("id bigint, k int", dict(foreach_batch="public.write_batch(bigint)"),
                      "SELECT id, k FROM topic"),
}


def send(topic):
    """What RAW says, in order of time in one partition."""
    messages = [{"id": n, "k": n % KEYS, "v": n * 7 % 101, "at": f"2026-01-01 00:{n // 60:02}:{n % 60:02}+00"}
                for n in range(1, MESSAGES + 1)]
    topic.produce(*messages)
    return messages


@pytest.mark.parametrize("mode", MODES)
def test_kill_9(db, new_topic, mode):
    topic = new_topic(1)
    columns, arguments, expected = MODES[mode]
    db.create_topic_table(topic, COLUMNS)
    db.run(f"CREATE TABLE target ({columns})")
    sent = send(topic)
    if mode == "deduplicate":
        topic.produce(*sent[::100])
    if mode == "foreach_batch":
        db.run("CREATE PROCEDURE public.write_batch(batch_id bigint) LANGUAGE sql AS "
               "$$ INSERT INTO public.target (id, k) SELECT id, k FROM public.topic $$")
        db.call("create_stream", source="topic", max_offsets_per_trigger=20, **arguments)
    else:
        db.create_stream(max_offsets_per_trigger=20, **arguments)
    done = "SELECT coalesce(sum(next_offset), 0)::bigint >= {} FROM kafka.stream_offset"
    for share in (100, 800, 1900):
        db.wait_for(done.format(share), True)
        kill_worker(db)
    db.process_all_available()
    assert db.next_offsets() == topic.offsets()
    wanted = f"WITH topic AS ({RAW}) {expected}"
    assert db.value("SELECT count(*) FROM target") == db.value(f"SELECT count(*) FROM ({wanted}) w") > 0
    assert db.run(f"(TABLE target EXCEPT ALL ({wanted})) LIMIT 3") == []


@pytest.mark.parametrize("workers", [1, 3])
def test_streams_into_one_table_do_not_deadlock(db, new_topic, workers):
    """Three streams upsert the same keys, each with the greatest version that it has."""
    db.run("CREATE TABLE target (k int PRIMARY KEY, v bigint)")
    names = ("s1", "s2", "s3")
    for number, name in enumerate(names):
        topic = new_topic(3)
        db.create_topic_table(topic, "k int, v bigint", name=f"topic_{name}")
        # each in another order of keys
        topic.produce(*({"k": n * (7, 11, 13)[number] % 101, "v": 10 * n + number, "partition": n % 3}
                        for n in range(6000)))
        db.create_stream(name, source=f"topic_{name}", mode="update", version_column="v", workers=workers,
                         max_offsets_per_trigger=200, start=False)
    for name in names:
        db.call("start_stream", name)
    for name in names:
        db.process_all_available(name)
        assert db.status(name).restarts == 0
    assert db.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    expected = {}
    for number, factor in enumerate((7, 11, 13)):
        for n in range(6000):
            key = n * factor % 101
            expected[key] = max(expected.get(key, 0), 10 * n + number)
    assert dict(db.run("SELECT k, v FROM target")) == expected


@pytest.mark.timeout(300)
def test_the_state_stays_small_after_many_batches(db, new_topic):
    """Versions of its few rows are pruned as they are made: updates are HOT."""
    topic = new_topic(1)
    db.create_topic_table(topic, "k int, v bigint")
    db.run(f"CREATE TABLE target (k int PRIMARY KEY, n bigint); ALTER DATABASE {db.name} SET synchronous_commit = off")
    topic.produce(*({"k": n % 10, "v": n} for n in range(9000)))
    db.create_stream(query="SELECT k, count(*) AS n FROM topic GROUP BY k", mode="update", max_offsets_per_trigger=1)
    db.wait_for("SELECT sum(n)::int FROM target", 9000, timeout=240)
    assert db.run("SELECT DISTINCT n FROM target") == [(900,)]
    # 9,000 versions of the rows would be more than twice as much
    assert db.value("SELECT pg_relation_size('kafka.stream_1_state')") <= 384 * 1024
    assert db.value("SELECT pg_indexes_size('kafka.stream_1_state')") <= 64 * 1024
    db.wait_for("SELECT n_tup_hot_upd > 0.9 * n_tup_upd AND n_tup_upd > 8000 FROM pg_stat_user_tables"
                " WHERE relid = 'kafka.stream_1_state'::regclass", True)
