"""kafka.verify_stream: the checkpoint compared with the topic, and the audit that its result and stream_progress allow."""

import time

import pytest

from expectations import error
from harness.processes import wait_until


def verify(db, columns="*"):
    return db.run(f"SELECT {columns} FROM kafka.verify_stream('s') ORDER BY partition")


def test_running_and_behind(db, topic):
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream()
    db.process_all_available()
    assert verify(db) == [(p, 10, 0, 10, 0, 0, True, None, "ok: up to date") for p in range(3)]
    db.call("stop_stream")
    topic.produce({"id": 31}, {"id": 32}, partition=1)
    assert verify(db)[1] == (1, 10, 0, 12, 2, 0, True, float("inf"), "ok: 2 offset(s) behind")


def test_before_the_first_message(db, topic):
    db.create_tables(topic)
    db.create_stream(start=False)
    assert verify(db) == [(p, 0, 0, 0, 0, 0, True, None, "ok: up to date") for p in range(3)]


def test_retention_risk(db, new_topic):
    now = int(time.time() * 1000)
    hour = 3_600_000
    # segments are not rolled and the newest is never deleted: what is due stays to be looked at
    topic = new_topic(1, retention_ms=48 * hour, segment_ms=1000 * hour)
    db.create_tables(topic)
    topic.produce({"id": 1}, timestamp=now - 10 * hour)
    topic.produce({"id": 2}, timestamp=now)
    db.create_stream(start=False)
    ((hours, verdict),) = verify(db, "retention_hours, verdict")
    assert 37.5 < hours <= 38 and verdict == "ok: 2 offset(s) behind"
    old = new_topic(1, retention_ms=12 * hour, segment_ms=1000 * hour)
    db.create_topic_table(old, name="old_topic")
    old.produce({"id": 1}, timestamp=now - 10 * hour)
    db.create_stream("old", source="old_topic", start=False)
    ((hours, verdict),) = db.run("SELECT retention_hours, verdict FROM kafka.verify_stream('old')")
    assert 1.5 < hours <= 2 and verdict.startswith("at risk: ") and " 2.0 hours" in verdict or " 1.9 hours" in verdict


def test_compacted_topics_have_no_retention(db, new_topic):
    topic = new_topic(1, cleanup_policy="compact", retention_ms=1000)
    db.create_tables(topic)
    topic.produce({"id": 1}, key=b"k")
    db.create_stream(start=False)
    assert verify(db, "retention_hours") == [(float("inf"),)]


def test_gap(db, new_topic, kafka):
    topic = new_topic()
    db.create_tables(topic)
    topic.produce_sequence(100)
    db.create_stream(start=False)
    kafka.delete_records(topic.name, {0: 60})
    assert verify(db) == [(0, 0, 60, 100, 40, 60, True, None, "lost: offsets 0 to 59 are gone")]


@pytest.mark.parametrize("new_messages, partitions", [(2, 3), (90, 3), (30, 2), (30, 4)],
                         ids=["shorter", "longer", "fewer", "more"])
def test_recreated_topic(db, topic, kafka, new_messages, partitions):
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream()
    db.process_all_available()
    db.call("stop_stream")
    kafka.delete_topic(topic.name)
    assert [row[-1].split(":")[0] for row in verify(db)] == ["gone"] * 3
    kafka.create_topic(topic.name, partitions)
    topic.partitions_added(partitions)
    topic.produce_all({"value": {"id": n}, "partition": n % partitions} for n in range(new_messages))
    found = verify(db, "verdict, same_topic")
    words = [row[0].split(":")[0] for row in found]
    # by the topic's id where librdkafka tells it, else by what is in the log
    other = {"another topic", "another log", "truncated or recreated"}
    assert set(words[:min(partitions, 3)]) <= other and True not in [row[1] for row in found]
    assert words[partitions:] == ["gone"] * (3 - partitions)
    assert words[3:] == ["new"] * (partitions - 3)


def test_an_audit_from_rows_and_progress(db, topic):
    """The README's recipe: every offset range of stream_progress has its rows, and its transaction wrote them."""
    db.create_tables(topic)
    topic.produce_sequence(3000)
    db.create_stream(max_offsets_per_trigger=500)
    db.process_all_available()
    assert db.run("""
        SELECT sum(num_output_rows), count(*) > 3, bool_and(num_output_rows = found AND written = found)
          FROM kafka.stream_progress b
          CROSS JOIN LATERAL (SELECT count(*) AS found, count(*) FILTER (WHERE t.xmin::text::bigint = (b.xid::text)::bigint & 4294967295) AS written
                                FROM jsonb_each_text(b.start_offsets) s JOIN jsonb_each_text(b.end_offsets) e USING (key)
                                JOIN target t ON t.p = s.key::int AND t.o >= s.value::bigint AND t.o < e.value::bigint) f""") \
        == [(3000, True, True)]


def test_errors(db, topic, kafka):
    db.create_tables(topic)
    db.create_stream(start=False)
    with error('stream "x" does not exist'):
        db.run("SELECT * FROM kafka.verify_stream('x')")
    with error("must not be null"):
        db.run("SELECT * FROM kafka.verify_stream(NULL)")
    db.run("UPDATE kafka.stream_offset SET cluster_id = 'another'")
    with error("another Kafka cluster", detail='"another"', hint="reset_stream"):
        verify(db)
    db.run("UPDATE kafka.stream_offset SET cluster_id = NULL")
    assert len(verify(db)) == 3
    db.run("ALTER SERVER broker OPTIONS (ADD socket_timeout_ms '1000')")
    kafka.suspend()
    with error("could not reach the Kafka cluster"):
        verify(db)
    kafka.resume()
    db.run("CREATE ROLE kafka_verifier")
    try:
        db.run("SET ROLE kafka_verifier")
        with error("must be owner"):
            verify(db)
    finally:
        db.run("RESET ROLE; DROP ROLE kafka_verifier")


def test_it_works_while_the_stream_runs(db, topic):
    db.create_tables(topic)
    db.create_stream()
    for n in range(5):
        topic.produce_sequence(300)
        assert all(row[0].startswith("ok: ") for row in verify(db, "verdict"))
    db.process_all_available()
    wait_until(lambda: verify(db, "lag") == [(0,)] * 3)
