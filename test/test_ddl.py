"""DDL on what a running stream uses: nobody hangs, the stream follows or says why not."""

import pytest

from expectations import assert_exact, error
from harness.processes import wait_until


@pytest.fixture
def busy(db, topic):
    """A database with a stream at work in small batches."""
    db.create_tables(topic)
    topic.produce_sequence(30_000)
    db.create_stream(max_offsets_per_trigger=500)
    wait_until(lambda: db.value("SELECT count(*) FROM target") > 0)
    return db


def test_add_column(busy, topic):
    busy.run("ALTER TABLE target ADD COLUMN note text DEFAULT 'none'")
    assert_exact(busy, topic)
    assert busy.column("SELECT DISTINCT note FROM target") == ["none"]


def test_create_and_drop_index(busy, topic):
    busy.run("CREATE INDEX i ON target (id)")
    busy.run("CREATE INDEX CONCURRENTLY j ON target (o)")
    busy.run("DROP INDEX i")
    assert_exact(busy, topic)


def test_vacuum_full_and_truncate(busy, topic):
    busy.run("VACUUM FULL target")
    assert_exact(busy, topic)
    busy.run("TRUNCATE target")
    topic.produce({"id": -1})
    busy.process_all_available()
    assert busy.column("SELECT id FROM target") == [-1]


def test_retype_column(busy, topic):
    busy.run("ALTER TABLE target ALTER COLUMN id TYPE numeric")
    assert_exact(busy, topic)


def test_rename_target(busy, topic):
    busy.run("ALTER TABLE target RENAME TO renamed")
    assert_exact(busy, topic, target="renamed")


def test_dropped_column_stops_with_its_name(busy, topic):
    busy.run("ALTER TABLE target DROP COLUMN id")
    status = busy.wait_for_state("failed", "backing off")
    assert '"id"' in f"{status.last_error} {status.last_error_detail}"
    before = busy.value("SELECT count(*) FROM target")
    assert before == busy.value("SELECT sum(next_offset) FROM kafka.stream_offset")
    busy.run("ALTER TABLE target ADD COLUMN id bigint")
    busy.call("start_stream")
    busy.process_all_available()
    assert busy.value("SELECT count(*) FROM target") == 30_000
    assert busy.value("SELECT count(id) FROM target") == 30_000 - before


def test_dropped_target(busy):
    busy.run("DROP TABLE target")
    status = busy.wait_for_state("failed", "backing off")
    assert status.last_error
    busy.run("CREATE TABLE target (LIKE topic)")
    position = busy.value("SELECT sum(next_offset)::int FROM kafka.stream_offset")
    busy.call("alter_stream", target="target")
    busy.call("start_stream")
    busy.process_all_available()
    assert busy.value("SELECT count(*) FROM target") == 30_000 - position


def test_topic_table_of_a_query_cannot_be_dropped(db, topic):
    db.create_tables(topic)
    db.create_stream(query="SELECT * FROM topic")
    with error("depend", sqlstate="2BP01"):
        db.run("DROP FOREIGN TABLE topic")


def test_dropped_topic_table_of_a_source(busy):
    busy.run("DROP FOREIGN TABLE topic")
    assert busy.wait_for_state("failed", "backing off").last_error
    for call in ("process_all_available", "retry_dead_letters", "verify_stream"):
        with error('source of stream "s" does not exist', hint="starting_offsets", sqlstate="42P01"):
            busy.run(f"SELECT kafka.{call}('s')")


def test_altered_server_is_followed(busy, topic, kafka):
    busy.run("ALTER SERVER broker OPTIONS (SET bootstrap_servers '127.0.0.1:1', ADD socket_timeout_ms '1000')")
    topic.produce_sequence(30, first=40_001)
    busy.run(f"ALTER SERVER broker OPTIONS (SET bootstrap_servers '{kafka.address}')")
    assert_exact(busy, topic)


def test_dropped_owner_is_refused(db, topic):
    db.run("DROP ROLE IF EXISTS kafka_leaver")
    db.run("CREATE ROLE kafka_leaver")
    db.create_tables(topic)
    db.run("GRANT USAGE ON FOREIGN SERVER broker TO kafka_leaver; "
           "GRANT SELECT ON topic TO kafka_leaver; GRANT INSERT ON target TO kafka_leaver")
    db.run("SET ROLE kafka_leaver")
    db.create_stream()
    db.run("RESET ROLE")
    with error("cannot be dropped", sqlstate="2BP01"):
        db.run("DROP ROLE kafka_leaver")
    db.call("drop_stream")
    db.run("DROP OWNED BY kafka_leaver")
    db.run("DROP ROLE kafka_leaver")
