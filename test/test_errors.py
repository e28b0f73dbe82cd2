"""on_error 'stop': the error says where, no offset moves, and start_stream goes on after the fix."""

import pytest

from expectations import assert_exact, error
from harness.processes import wait_until


def stopped_at(db, topic, offset, column=None):
    """The stream has failed at this message of partition 0; returns its status."""
    status = db.wait_for_state("failed")
    assert topic.name in status.last_error_detail
    assert "partition 0" in status.last_error_detail
    assert f"offset {offset}" in status.last_error_detail
    if column:
        assert f'"{column}"' in status.last_error_detail
    db.wait_for("SELECT pid FROM kafka.stream_status WHERE stream = 's'", None)
    return status


@pytest.mark.parametrize("bad, sqlstate", [
    ('{"id": "12x"}', "22P02"),
    ('{"id": 9223372036854775808}', "22003"),
    ('{"id": 1.5}', None),
    ('{"id": 1', None),
    ('{"id": 1} trailing', None),
    ('[1]', None),
    ('', None),
    (b'{"id": 1, "t": "\xff"}', None),
    ('{"id": 1, "t": "\\u0000"}', None),
])
def test_undecodable_message(db, new_topic, bad, sqlstate):
    topic = new_topic()
    db.create_topic_table(topic, "id bigint, t text")
    db.run("CREATE TABLE target (id bigint, t text)")
    topic.produce({"id": 1}, {"id": 2}, bad, {"id": 4})
    db.create_stream()
    status = stopped_at(db, topic, 2)
    assert sqlstate in (None, status.last_error_sqlstate)
    assert "Correct" in status.last_error_hint and "kafka.skip_message" in status.last_error_hint
    next_offset = db.next_offsets()[0]
    assert next_offset <= 2
    assert db.value("SELECT count(*) FROM target") == next_offset


def test_repair_by_another_query(db, new_topic):
    topic = new_topic()
    db.create_topic_table(topic, "id bigint, n text")
    db.run("CREATE TABLE target (id bigint, n int)")
    topic.produce({"id": 1, "n": "1"}, {"id": 2, "n": "two"}, {"id": 3, "n": "3"})
    db.create_stream(query="SELECT id, n::int FROM topic")
    stopped_at(db, topic, 1)
    db.call("alter_stream", query="SELECT id, CASE WHEN n ~ '^[0-9]+$' THEN n::int END AS n FROM topic")
    db.call("start_stream")
    db.process_all_available()
    assert db.run("SELECT * FROM target ORDER BY id") == [(1, 1), (2, None), (3, 3)]


@pytest.mark.parametrize("constraint, sqlstate", [
    ("CHECK (id <> 50)", "23514"),
    ("EXCLUDE USING btree (id WITH =)", "23P01"),
    ("UNIQUE", "23505"),
])
def test_repair_of_a_constraint(db, new_topic, constraint, sqlstate):
    topic = new_topic()
    db.create_tables(topic)
    db.run(f"ALTER TABLE target ADD CONSTRAINT c {constraint}" + (" (id)" if constraint == "UNIQUE" else ""))
    topic.produce(*({"id": 50 if n == 60 else n} for n in range(100)))
    db.create_stream()
    status = db.wait_for_state("failed")
    assert status.last_error_sqlstate == sqlstate
    assert f"offset {50 if sqlstate == '23514' else 60}" in status.last_error_detail
    next_offset = db.next_offsets()[0]
    assert db.value("SELECT count(*) FROM target") == next_offset
    db.run("ALTER TABLE target DROP CONSTRAINT c")
    db.call("start_stream")
    assert_exact(db, topic)
    assert db.status().last_error is None


def test_not_null_names_the_message(db, new_topic):
    topic = new_topic()
    db.create_topic_table(topic)
    db.run("CREATE TABLE target (id bigint NOT NULL)")
    topic.produce({"id": 1}, {"id": None})
    db.create_stream()
    assert stopped_at(db, topic, 1).last_error_sqlstate == "23502"


def test_process_all_available_reports_the_failure(db, new_topic):
    topic = new_topic()
    db.create_topic_table(topic)
    db.run("CREATE TABLE target (id bigint)")
    db.create_stream()
    db.process_all_available()
    topic.produce("no json")
    with error("."):
        db.process_all_available()
    assert db.status().state == "failed"


def test_failed_stream_stays_failed_after_a_restart(db, new_topic, postgres):
    topic = new_topic()
    db.create_topic_table(topic)
    db.run("CREATE TABLE target (id bigint)")
    topic.produce({"id": 1}, "no json")
    db.create_stream()
    before = stopped_at(db, topic, 1)
    postgres.restart()
    db.reconnect()
    after = db.status()
    assert (after.state, after.pid, after.last_error) == ("failed", None, before.last_error)


def test_lock_timeout_is_retried(db, topic):
    """Not the message's fault: backed off and retried, never a failed stream."""
    db.create_tables(topic)
    db.run(f"ALTER DATABASE {db.name} SET lock_timeout = '100 ms'")
    db.create_stream()
    db.process_all_available()
    with db.connect(autocommit=False, options="-c lock_timeout=0 -c statement_timeout=60s") as session:
        session.execute("LOCK TABLE target")
        topic.produce_sequence(30)
        db.wait_for_state("backing off")
        assert db.status().last_error_sqlstate == "55P03"
        session.rollback()
    assert_exact(db, topic)


def test_deadlock_is_retried(db, new_topic):
    topic = new_topic()
    db.create_tables(topic)
    db.run("""CREATE TABLE other (id int); CREATE FUNCTION lock_other() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN LOCK TABLE public.other IN SHARE MODE; RETURN new; END $$;
        CREATE TRIGGER t BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION lock_other()""")
    db.run(f"ALTER DATABASE {db.name} SET deadlock_timeout = '3 s'")
    db.create_stream()
    db.process_all_available()
    with db.connect(autocommit=False, options="-c deadlock_timeout=60s") as session:
        session.execute("LOCK TABLE other")
        topic.produce_sequence(30)
        db.wait_for("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'other'::regclass", 1)
        session.execute("SET LOCAL lock_timeout = '30 s'")
        session.execute("LOCK TABLE target")  # before the worker looks for a deadlock: it is the victim
        session.commit()
    assert_exact(db, topic)


def test_revoked_privilege(db, topic):
    db.run("DROP ROLE IF EXISTS kafka_reader")
    db.run("CREATE ROLE kafka_reader")
    try:
        db.create_tables(topic)
        db.run("GRANT USAGE ON FOREIGN SERVER broker TO kafka_reader; "
               "GRANT SELECT ON topic TO kafka_reader; GRANT INSERT ON target TO kafka_reader")
        db.run("SET ROLE kafka_reader")
        db.create_stream()
        db.process_all_available()
        db.run("RESET ROLE")
        db.run("REVOKE INSERT ON target FROM kafka_reader")
        topic.produce_sequence(30)
        wait_until(lambda: db.status().last_error_sqlstate == "42501")
        assert db.value("SELECT count(*) FROM target") == 0
        db.run("GRANT INSERT ON target TO kafka_reader")
        db.call("start_stream")
        assert_exact(db, topic)
        db.call("drop_stream")
    finally:
        db.run("RESET ROLE")
        db.run("DROP OWNED BY kafka_reader")
        db.run("DROP ROLE kafka_reader")
