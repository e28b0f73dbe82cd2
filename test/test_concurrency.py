"""Functions called in two sessions at once, and against a running worker: one after the other, nothing lost, nothing twice."""

import contextlib
import threading

import psycopg
import pytest

from expectations import assert_exact, error
from harness.processes import wait_until

BAD = list(range(10, 101, 10))


class Call(threading.Thread):
    """A statement in a session of its own, at work until result() is asked for."""

    def __init__(self, db, statement, *parameters):
        super().__init__(daemon=True)
        self.connection = db.connect()
        self.pid = self.connection.info.backend_pid
        self._statement, self._parameters = statement, parameters
        self._rows = self._error = None
        self.start()

    def run(self):
        try:
            cursor = self.connection.execute(self._statement, self._parameters or None)
            self._rows = cursor.fetchall() if cursor.description else None
        except psycopg.Error as caught:
            self._error = caught
        finally:
            self.connection.close()

    def wait_until_blocked(self, db):
        """It waits for another session."""
        wait_until(lambda: not self.is_alive() or db.value("SELECT cardinality(pg_blocking_pids(%s)) > 0", self.pid),
                   what=lambda: f"{self._statement} waits for another session")
        assert self.is_alive(), (self._rows, self._error)

    def result(self):
        """Its rows, or its error is raised."""
        self.join(60)
        assert not self.is_alive(), f"{self._statement} hangs"
        if self._error is not None:
            raise self._error
        return self._rows


@contextlib.contextmanager
def session(db):
    """A session with a transaction that the block ends."""
    with db.connect(autocommit=False) as connection:
        yield connection


RETRY = "SELECT retried, succeeded, failed FROM kafka.retry_dead_letters('s')"
DISCARD = "SELECT kafka.discard_dead_letters('s')"


@pytest.fixture
def letters(db, topic):
    """Ten dead letters, whose cause is mended."""
    db.create_tables(topic)
    db.run("ALTER TABLE target ADD CONSTRAINT c CHECK (id % 10 <> 0)")
    topic.produce_sequence(100)
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    db.run("ALTER TABLE target DROP CONSTRAINT c")
    assert db.value("SELECT count(*) FROM kafka.dead_letter") == len(BAD)
    return db


# --- dead letters ----------------------------------------------------------

@pytest.mark.parametrize("commit", [True, False])
def test_retry_and_retry(letters, topic, commit):
    """The second waits for the first and finds what that has left."""
    with session(letters) as first:
        assert first.execute(RETRY).fetchall() == [(10, 10, 0)]
        second = Call(letters, RETRY)
        second.wait_until_blocked(letters)
        first.commit() if commit else first.rollback()
    assert second.result() == [(0, 0, 0) if commit else (10, 10, 0)]
    assert letters.value("SELECT count(*) FROM kafka.dead_letter") == 0
    assert_exact(letters, topic)


@pytest.mark.parametrize("commit", [True, False])
def test_retry_and_discard(letters, topic, commit):
    with session(letters) as first:
        assert first.execute(RETRY).fetchall() == [(10, 10, 0)]
        second = Call(letters, DISCARD)
        second.wait_until_blocked(letters)
        first.commit() if commit else first.rollback()
    assert second.result() == [(0,) if commit else (10,)]
    assert letters.value("SELECT count(*) FROM kafka.dead_letter") == 0
    written = letters.column("SELECT id FROM target WHERE id % 10 = 0 ORDER BY id")
    assert written == (BAD if commit else [])


@pytest.mark.parametrize("commit", [True, False])
def test_discard_and_retry(letters, topic, commit):
    with session(letters) as first:
        assert first.execute(DISCARD).fetchall() == [(10,)]
        second = Call(letters, RETRY)
        second.wait_until_blocked(letters)
        first.commit() if commit else first.rollback()
    assert second.result() == [(0, 0, 0) if commit else (10, 10, 0)]
    assert letters.value("SELECT count(*) FROM kafka.dead_letter") == 0
    assert letters.column("SELECT id FROM target WHERE id % 10 = 0 ORDER BY id") == ([] if commit else BAD)


def test_many_retries_at_once(letters, topic):
    calls = [Call(letters, RETRY if number % 5 else f"{RETRY[:-1]}, %s)", *([] if number % 5 else [number % 3]))
             for number in range(12)]
    results = [call.result()[0] for call in calls]
    assert sum(succeeded for _, succeeded, _ in results) == len(BAD) and all(not failed for *_, failed in results)
    assert letters.value("SELECT count(*) FROM kafka.dead_letter") == 0
    assert_exact(letters, topic)


def test_retry_and_drop(letters):
    with session(letters) as first:
        first.execute(RETRY)
        second = Call(letters, "SELECT kafka.drop_stream('s')")
        second.wait_until_blocked(letters)
        first.commit()
    second.result()
    assert letters.column("SELECT id FROM target WHERE id % 10 = 0 ORDER BY id") == BAD
    with error('"s" does not exist', sqlstate="42704"):
        letters.run(RETRY)


def test_drop_and_retry(letters):
    """Nobody writes for a stream that is gone."""
    with session(letters) as first:
        first.execute("SELECT kafka.drop_stream('s')")
        calls = [Call(letters, RETRY), Call(letters, DISCARD)]
        for call in calls:
            call.wait_until_blocked(letters)
        first.commit()
    for call in calls:
        with error('"s" does not exist', sqlstate="42704"):
            call.result()
    assert letters.value("SELECT count(*) FROM target WHERE id % 10 = 0") == 0


def test_retry_while_the_worker_writes(letters, topic):
    topic.produce_sequence(20_000, first=101)
    calls = [Call(letters, RETRY) for _ in range(4)]
    assert sum(call.result()[0][1] for call in calls) == len(BAD)
    assert_exact(letters, topic)


# --- skip_message ----------------------------------------------------------

def test_skip_message_of_a_stream_at_work(db, topic):
    """It is refused, or exactly one message is left out and counted."""
    db.create_tables(topic)
    topic.produce_sequence(30_000)
    db.create_stream(max_offsets_per_trigger=300)
    for _ in range(20):
        partition, offset = db.run("SELECT partition, next_offset FROM kafka.stream_offset ORDER BY random() LIMIT 1")[0]
        with error('stream "s" is running', sqlstate="55000"):
            db.run("SELECT kafka.skip_message('s', %s, %s, %s)", topic.name, partition, offset)
    assert_exact(db, topic)
    assert db.status().errors == 0


@pytest.mark.parametrize("commit", [True, False])
def test_skip_message_twice(db, new_topic, commit):
    topic = new_topic()
    db.create_tables(topic)
    topic.produce({"id": 1}, "bad", {"id": 3})
    db.create_stream()
    db.wait_for_state("failed")
    skip = "SELECT kafka.skip_message('s', %s, 0, 1)"
    with session(db) as first:
        first.execute(skip, [topic.name])
        second = Call(db, skip, topic.name)
        second.wait_until_blocked(db)
        start = Call(db, "SELECT kafka.start_stream('s')")
        start.wait_until_blocked(db)
        first.commit() if commit else first.rollback()
    if commit:
        with error("does not stand at offset 1", sqlstate="22023"):
            second.result()
    else:
        second.result()
    start.result()
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [1, 3]
    assert db.status().errors == 1 and db.next_offsets() == topic.offsets()


# --- definitions -----------------------------------------------------------

CREATE = "SELECT kafka.create_stream('s', source => 'topic', target => 'target')"
ALTER = "SELECT kafka.alter_stream('s', max_offsets_per_trigger => 7)"
DROP = "SELECT kafka.drop_stream('s')"
RESET = "SELECT kafka.reset_stream('s', starting_offsets => 'earliest')"


@pytest.mark.parametrize("commit", [True, False])
def test_create_and_create(db, topic, commit):
    db.create_tables(topic)
    topic.produce_sequence(30)
    with session(db) as first:
        first.execute(CREATE)
        second = Call(db, CREATE)
        second.wait_until_blocked(db)
        first.commit() if commit else first.rollback()
    if commit:
        with error('stream "s" already exists', sqlstate="42710"):
            second.result()
    else:
        second.result()
    assert_exact(db, topic)
    assert db.column("SELECT name FROM kafka.stream") == ["s"]


@pytest.mark.parametrize("second", [ALTER, RESET, DROP, "SELECT kafka.stop_stream('s')",
                                    "SELECT kafka.alter_stream_owner('s', current_user::regrole)"])
@pytest.mark.parametrize("commit", [True, False])
def test_drop_and_anything_else(db, topic, second, commit):
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream()
    db.process_all_available()
    if second == RESET:
        db.run("TRUNCATE target")
    with session(db) as first:
        first.execute(DROP)
        call = Call(db, second)
        call.wait_until_blocked(db)
        first.commit() if commit else first.rollback()
    if commit:
        with error('"s" does not exist', sqlstate="42704"):
            call.result()
        assert db.value("SELECT count(*) FROM kafka.stream_offset") == 0
        db.wait_for("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kafka_ingest s'", 0)
        return
    call.result()
    if second == DROP:
        assert db.status() is None
        return
    topic.produce_sequence(30, first=31)
    db.call("start_stream")
    assert_exact(db, topic)


def test_start_of_a_running_stream_that_is_dropped(db, topic):
    """It runs: there is nothing to wait for.  The drop comes after that."""
    db.create_tables(topic)
    db.create_stream()
    db.process_all_available()
    with session(db) as first:
        first.execute(DROP)
        Call(db, "SELECT kafka.start_stream('s')").result()
        first.commit()
    assert db.status() is None
    db.wait_for("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kafka_ingest s'", 0)


@pytest.mark.parametrize("second", [ALTER, RESET, "SELECT kafka.stop_stream('s')"])
def test_drop_and_create_anew(db, topic, second):
    """Who has waited for a stream finds the one of its name that is there now."""
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream()
    db.process_all_available()
    with session(db) as first:
        first.execute(DROP)
        first.execute("TRUNCATE target")
        first.execute(CREATE)
        call = Call(db, second)
        call.wait_until_blocked(db)
        first.commit()
    call.result()
    if "stop" in second:
        assert db.status().state == "stopped" and db.status().pid is None
        db.call("start_stream")
    if second == RESET:  # the new stream may have written already
        db.call("stop_stream")
        db.run("TRUNCATE target")
        db.run(RESET)
        db.call("start_stream")
    assert_exact(db, topic)


def test_alter_and_retry(letters, topic):
    """The dead letters go where the stream writes now."""
    letters.run("CREATE TABLE other (LIKE target)")
    with session(letters) as first:
        first.execute("SELECT kafka.alter_stream('s', target => 'other')")
        second = Call(letters, RETRY)
        second.wait_until_blocked(letters)
        first.commit()
    assert second.result() == [(10, 10, 0)]
    assert letters.column("SELECT id FROM other ORDER BY id") == BAD
    assert letters.value("SELECT count(*) FROM target") == 90


@pytest.mark.parametrize("first", [ALTER, RESET])
@pytest.mark.parametrize("second", [ALTER, RESET, DROP])
def test_change_and_change(db, topic, first, second):
    db.create_tables(topic)
    db.create_stream()
    db.process_all_available()
    with session(db) as one:
        one.execute(first)
        call = Call(db, second)
        call.wait_until_blocked(db)
        one.commit()
    call.result()
    if second == DROP:
        assert db.status() is None
        return
    topic.produce_sequence(30)
    assert_exact(db, topic)


def test_everything_at_once(db, topic):
    """Whoever wins: no error but those that say what has happened, no deadlock, and a stream that is whole."""
    db.create_tables(topic)
    topic.produce_sequence(300)
    db.run("CREATE TABLE outcome (statement text, sqlstate text, message text)")
    expected = {"42704": "does not exist", "42710": "already exists"}
    statements = [CREATE, DROP, ALTER, "SELECT kafka.start_stream('s')", "SELECT kafka.stop_stream('s')", RETRY, CREATE, DROP]

    def work(statement, mistakes):
        with db.connect() as connection:
            for _ in range(8):
                try:
                    connection.execute(statement)
                except psycopg.Error as caught:
                    message = caught.diag.message_primary
                    if expected.get(caught.sqlstate, "\n") not in message:
                        mistakes.append(f"{statement}: {caught.sqlstate}: {message}")

    mistakes = []
    threads = [threading.Thread(target=work, args=(statement, mistakes), daemon=True) for statement in statements]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a session hangs"
    assert not mistakes, mistakes
    db.run("SELECT kafka.drop_stream('s', true)")
    db.run("TRUNCATE target")
    db.create_stream()
    assert_exact(db, topic)


# --- the extension ---------------------------------------------------------

@pytest.mark.parametrize("drop", ["DROP EXTENSION kafka_ingest CASCADE",
                                  "DROP EXTENSION kafka_ingest CASCADE; DROP TABLE target",
                                  "DROP TABLE target; DROP EXTENSION kafka_ingest CASCADE"])
@pytest.mark.parametrize("query", [None, "SELECT id, p, o FROM topic"])
def test_drop_extension_under_load(db, topic, kafka, drop, query):
    db.create_tables(topic)
    topic.produce_sequence(30_000)
    db.create_stream(max_offsets_per_trigger=300, **({"query": query} if query else {}))
    wait_until(lambda: db.value("SELECT count(*) FROM target") > 0)
    pid = db.worker_pid()
    Call(db, drop).result()
    db.wait_for(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} OR application_name = 'kafka_ingest s'", 0)
    if "TABLE" in drop:
        db.run("CREATE TABLE target (id bigint, p int, o bigint)")
    rows = db.run("SELECT p, count(*), max(o) + 1 FROM target GROUP BY p")
    assert all(count == end for _, count, end in rows), "whole batches, each once"
    db.run("CREATE EXTENSION kafka_ingest; TRUNCATE target")
    db.create_server(kafka.address)
    db.create_topic_table(topic, "id bigint, p int OPTIONS (metadata 'partition'), o bigint OPTIONS (metadata 'offset')")
    db.create_stream()
    assert_exact(db, topic)


def test_drop_extension_while_a_worker_opens(db, topic):
    """It waits for the target, and holds nothing of the extension that its dropper needs."""
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream()
    db.process_all_available()
    before = db.worker_pid()
    # were it a deadlock, the dropper would be the victim
    db.run(f"ALTER DATABASE {db.name} SET deadlock_timeout = '60 s'")
    with session(db) as first:
        first.execute("SET deadlock_timeout = '100 ms'; DROP TABLE target")
        db.run("SELECT pg_terminate_backend(%s)", before)
        wait_until(lambda: db.value("SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND pid <> %s "
                                    "AND application_name = 'kafka_ingest s'", before), what="another worker that waits")
        first.execute("DROP EXTENSION kafka_ingest CASCADE")
        first.commit()
    db.wait_for("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kafka_ingest s'", 0)


def test_drop_extension_that_is_rolled_back(db, topic):
    db.create_tables(topic)
    db.create_stream()
    db.process_all_available()
    with session(db) as first:
        first.execute("DROP EXTENSION kafka_ingest CASCADE")
        topic.produce_sequence(300)
        first.rollback()
    assert_exact(db, topic)
