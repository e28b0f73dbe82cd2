"""on_error => 'skip' | 'dead_letter', the error budget, retry, discard and skip_message."""

import os
import signal

import psycopg
import pytest

from expectations import error

GOOD = list(range(1, 101))


def mixed(bad=(13, 50, 99)):
    """A hundred messages of one partition, some of which can't be decoded."""
    return [{"value": b'{"id": "x%d"}' % n if n in bad else {"id": n}, "partition": 0} for n in GOOD]


def letters(db, columns='partition, "offset", error_sqlstate, attempts'):
    return db.run(f'SELECT {columns} FROM kafka.dead_letter ORDER BY topic, partition, "offset"')


def test_dead_letters_hold_the_message(db, topic):
    db.create_tables(topic)
    topic.produce_all([{"value": b'{"id": "bad"}', "key": b"\xffkey", "partition": 1, "timestamp": 1_700_000_000_000,
                        "headers": [("trace", b"\x00\x01"), ("empty", None)]},
                       {"value": {"id": 1}, "partition": 1}])
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    assert db.column("SELECT id FROM target") == [1]
    (letter,) = db.run("""SELECT stream, topic, partition, "offset", "timestamp" = to_timestamp(1700000000), key, value,
        (headers[1]).key, (headers[1]).value, (headers[2]).value, error_sqlstate, error_message, error_detail, attempts,
        first_seen <= now() FROM kafka.dead_letter""")
    assert letter[:10] == ("s", topic.name, 1, 0, True, b"\xffkey", b'{"id": "bad"}', "trace", b"\x00\x01", None)
    assert letter[10] == "22P02" and '"bad"' in letter[11]
    assert 'column "id"' in letter[12] and "offset 0" in letter[12]
    assert letter[13:] == (1, True)
    assert db.next_offsets() == topic.offsets()
    assert db.status().errors == 1


@pytest.mark.parametrize("on_error", ["skip", "dead_letter"])
def test_the_rest_goes_in(db, topic, on_error):
    db.create_tables(topic)
    topic.produce_all(mixed())
    db.create_stream(on_error=on_error)
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [n for n in GOOD if n not in (13, 50, 99)]
    assert [row[1] for row in letters(db)] == ([12, 49, 98] if on_error == "dead_letter" else [])
    assert db.next_offsets() == topic.offsets()
    assert db.status().errors == 3 and db.status().state != "failed"


def test_constraints_follow_on_error(db, topic):
    db.create_tables(topic)
    db.run("ALTER TABLE target ADD CHECK (id % 10 <> 0), ADD PRIMARY KEY (id)")
    db.run("INSERT INTO target VALUES (55)")
    topic.produce_all({"value": {"id": n}, "partition": 0} for n in GOOD)
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [n for n in GOOD if n % 10]
    assert {(row[1], row[2]) for row in letters(db)} == {(n - 1, "23514") for n in range(10, 101, 10)} | {(54, "23505")}
    assert all(f"offset {offset}" in detail for offset, detail in letters(db, '"offset", error_detail'))


def test_first_and_last_and_all(db, topic):
    db.create_tables(topic)
    topic.produce_all(mixed(bad=(1, 100)))
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == list(range(2, 100))
    topic.produce_all(mixed(bad=GOOD))
    db.process_all_available()
    assert db.value("SELECT count(*) FROM target") == 98
    assert len(letters(db)) == 102
    assert db.next_offsets() == topic.offsets()


@pytest.mark.parametrize("budget", ["max_errors", "max_errors_per_batch"])
def test_the_error_budget_stops(db, topic, budget):
    db.create_tables(topic)
    topic.produce_all(mixed())
    db.create_stream(on_error="dead_letter", **{budget: 2})
    failed = db.wait_for_state("failed")
    assert "offset 98" in failed.last_error_detail
    assert f"used up {budget} (2)." in failed.last_error_hint
    assert db.column("SELECT id FROM target ORDER BY id") == [n for n in GOOD if n not in (13, 50, 99, 100)]
    assert len(letters(db)) == 2
    assert db.next_offsets()[0] == 98
    db.call("alter_stream", **{budget: 3})
    db.call("start_stream")
    db.process_all_available()
    assert db.value("SELECT max(id) FROM target") == 100 and len(letters(db)) == 3


@pytest.mark.parametrize("type, good, bad, sqlstate", [
    ("tsquery", "a & b", "a & ", "42601"), ("jsonpath", "$.a", "$.", "42601"), ("regclass", "pg_class", "no_such", "42P01"),
    ("regtype", "int8", "no_such", "42704"), ("regproc", "now", "no_such", "42883"), ("regnamespace", "kafka", "no_such", "3F000"),
    ("regoperator", "+(int4,int4)", "+(int4)", "42P02"), ("aclitem", "=r/postgres", "x" * 70, "42622")])
def test_input_functions_that_speak_of_programming_errors(db, topic, type, good, bad, sqlstate):
    """That a value is no tsquery is the message's fault, although the SQLSTATE is that of a wrong statement."""
    db.create_topic_table(topic, f"id bigint, v {type}")
    db.run(f"CREATE TABLE target (id bigint, v {type})")
    topic.produce_all({"value": {"id": n, "v": bad if n in (4, 7) else good}, "partition": 0} for n in range(10))
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [0, 1, 2, 3, 5, 6, 8, 9]
    assert [(row[0], row[1]) for row in letters(db, '"offset", error_sqlstate')] == [(4, sqlstate), (7, sqlstate)]
    assert db.run("SELECT * FROM kafka.retry_dead_letters('s')") == [(2, 0, 2)]
    db.call("alter_stream", on_error="stop")
    topic.produce_all({"value": {"id": n, "v": bad if n == 12 else good}, "partition": 0} for n in range(10, 15))
    status = db.wait_for_state("failed")
    assert status.last_error_sqlstate == sqlstate and "offset 12" in status.last_error_detail
    assert db.value("SELECT max(id) FROM target") == 11 and db.next_offsets()[0] == 12
    db.run("SELECT kafka.skip_message('s', %s, 0, 12)", topic.name)
    db.call("start_stream")
    db.process_all_available()
    assert db.value("SELECT max(id) FROM target") == 14


def test_such_an_input_function_in_a_batch_of_a_procedure(db, topic):
    db.create_topic_table(topic, "id bigint, v tsquery")
    db.run("CREATE TABLE target (id bigint, v tsquery); CREATE PROCEDURE write_batch(batch bigint) LANGUAGE sql "
           "AS 'INSERT INTO public.target SELECT * FROM public.topic'")
    topic.produce_all({"value": {"id": n, "v": "a &" if n == 4 else "a"}, "partition": 0} for n in range(10))
    db.create_stream(target=None, foreach_batch="public.write_batch(bigint)", on_error="dead_letter")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert [row[0] for row in letters(db, '"offset"')] == [4]


def test_retry_after_the_table_is_mended(db, topic):
    db.create_tables(topic)
    db.run("ALTER TABLE target ADD CONSTRAINT small CHECK (id <= 90)")
    topic.produce_all(mixed(bad=(13,)))
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    assert len(letters(db)) == 11
    assert db.run("SELECT * FROM kafka.retry_dead_letters('s')") == [(11, 0, 11)]
    assert {row[3] for row in letters(db)} == {2}
    db.run("ALTER TABLE target DROP CONSTRAINT small")
    assert db.run("""SELECT * FROM kafka.retry_dead_letters('s', 0, 90)""") == [(1, 1, 0)]
    assert db.run("SELECT * FROM kafka.retry_dead_letters('s')") == [(10, 9, 1)]
    assert db.column("SELECT id FROM target ORDER BY id") == [n for n in GOOD if n != 13]
    assert db.run("SELECT id, p, o FROM target WHERE id = 95") == [(95, 0, 94)]
    assert db.value("SELECT kafka.discard_dead_letters('s')") == 1
    assert letters(db) == []


def test_retry_rolls_back_with_its_transaction(db, topic):
    db.create_tables(topic)
    db.run("ALTER TABLE target ADD CONSTRAINT small CHECK (id <= 90)")
    topic.produce_all(mixed(bad=()))
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    db.run("ALTER TABLE target DROP CONSTRAINT small")
    with db.connect(autocommit=False) as session:
        session.execute("SELECT kafka.retry_dead_letters('s')")
        session.rollback()
    assert len(letters(db)) == 10 and db.value("SELECT count(*) FROM target") == 90


@pytest.mark.parametrize("arguments,name", [
    ("NULL, 't', 0, 0", "stream"), ("'s', NULL, 0, 0", "topic"), ("'s', 't', NULL, 0", "partition"), ("'s', 't', 0, NULL", "offset")])
def test_skip_message_of_null(db, arguments, name):
    with error(f'argument "{name}" must not be null', sqlstate="22004"):
        db.run(f"SELECT kafka.skip_message({arguments})")


def test_skip_message_is_exact(db, topic):
    db.create_tables(topic)
    topic.produce_all(mixed(bad=(13, 14)))
    db.create_stream()
    db.wait_for_state("failed")
    with error("does not stand at offset 13", hint="stream_offset"):
        db.run("SELECT kafka.skip_message('s', %s, 0, 13)", topic.name)
    db.run("SELECT kafka.skip_message('s', %s, 0, 12)", topic.name)
    with error("does not stand at offset 12"):
        db.run("SELECT kafka.skip_message('s', %s, 0, 12)", topic.name)
    db.call("start_stream")
    assert "offset 13" in db.wait_for_state("failed").last_error_detail
    db.run("SELECT kafka.skip_message('s', %s, 0, 13)", topic.name)
    db.call("start_stream")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [n for n in GOOD if n not in (13, 14)]
    with error("is running"):
        db.run("SELECT kafka.skip_message('s', %s, 0, 100)", topic.name)
    # what is not there yet can't be skipped: the next message would be lost
    db.call("stop_stream")
    with error("no message at offset 100", detail="its end, offset 100", sqlstate="22023"):
        db.run("SELECT kafka.skip_message('s', %s, 0, 100)", topic.name)
    with error("no message at offset 0"):
        db.run("SELECT kafka.skip_message('s', %s, 1, 0)", topic.name)
    topic.produce({"id": 101, "partition": 0})
    db.call("start_stream")
    db.process_all_available()
    assert 101 in db.column("SELECT id FROM target")


def test_errors_of_the_environment_are_no_dead_letters(db, topic):
    db.create_tables(topic)
    db.run(f"ALTER DATABASE {db.name} SET lock_timeout = '100 ms'")
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    with db.connect(autocommit=False, options="-c lock_timeout=0 -c statement_timeout=60s") as session:
        session.execute("LOCK TABLE target")
        topic.produce_sequence(30)
        assert db.wait_for_state("backing off").last_error_sqlstate == "55P03"
    db.process_all_available()
    assert letters(db) == [] and db.value("SELECT count(*) FROM target") == 30


def test_a_reset_counts_another_attempt(db, topic):
    db.create_tables(topic)
    topic.produce_all(mixed())
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    db.run("TRUNCATE target")
    db.call("reset_stream")
    db.process_all_available()
    assert {row[3] for row in letters(db)} == {2} and len(letters(db)) == 3


def test_only_the_owner_sees_and_acts(db, topic):
    db.run("DROP ROLE IF EXISTS kafka_stranger")
    db.create_tables(topic)
    topic.produce_all(mixed())
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    db.run("CREATE ROLE kafka_stranger")
    try:
        db.run("SET ROLE kafka_stranger")
        assert letters(db) == []
        for call in ("retry_dead_letters('s')", "discard_dead_letters('s')", "skip_message('s', 't', 0, 1)"):
            with error("must be owner"):
                db.run(f"SELECT kafka.{call}")
        with error("permission denied"):
            db.run("DELETE FROM kafka.dead_letter")
    finally:
        db.run("RESET ROLE")
        db.run("DROP ROLE kafka_stranger")


def test_kill_9_while_rejecting(db, topic):
    """Rows, dead letters and offsets stay in step."""
    db.create_tables(topic)
    bad = set(range(0, 20_000, 20))
    topic.produce_all({"value": b"{" if n in bad else {"id": n}, "partition": n % 3} for n in range(20_000))
    db.create_stream(on_error="dead_letter", max_offsets_per_trigger=500)
    for rows in (1000, 8000, 15000):
        db.wait_for(f"SELECT count(*) >= {rows} FROM target")
        session = db.connection
        os.kill(db.worker_pid(), signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):  # the postmaster restarts everything
            session.execute("SELECT pg_sleep(60)")
        db.reconnect()
    db.process_all_available(timeout="60 s")
    assert db.value("SELECT count(*) = count(DISTINCT id) AND count(*) = 19000 FROM target")
    assert db.value("SELECT count(*) FROM kafka.dead_letter") == 1000
    assert db.next_offsets() == topic.offsets()
