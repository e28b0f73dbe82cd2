"""What dead letters, process_all_available and skip_message make of a log that is not the one that was read."""

import pytest

from expectations import error


def letters(db):
    return db.run('SELECT "offset", value, attempts FROM kafka.dead_letter ORDER BY 1')


@pytest.fixture
def bad(db, new_topic):
    """A topic of one partition whose first message is a dead letter, and whose second is in the target."""
    topic = new_topic(1)
    db.create_tables(topic)
    topic.produce_all([{"value": b'{"id": "old"}'}, {"value": {"id": 1}}])
    db.create_stream(on_error="dead_letter", fail_on_data_loss=False)
    db.process_all_available()
    assert letters(db) == [(0, b'{"id": "old"}', 1)]
    return topic


@pytest.mark.parametrize("how", ["retry", "discard"])
def test_two_messages_at_one_place(db, bad, kafka, how):
    """A letter is never taken for that of another message: neither is lost, and the stream says what to do."""
    db.call("stop_stream")
    kafka.recreate_topic(bad)
    bad.produce_all([{"value": b'{"id": "new"}'}])
    db.call("start_stream")
    status = db.wait_for_state("failed", timeout=60)
    assert status.last_error_sqlstate == "55000" and "another message" in status.last_error
    assert "offset 0" in status.last_error_detail and '"new"' in status.last_error_detail
    assert "discard_dead_letters" in status.last_error_hint
    assert letters(db) == [(0, b'{"id": "old"}', 1)]
    assert db.column("SELECT id FROM target") == [1]
    if how == "discard":
        db.run("SELECT kafka.discard_dead_letters('s')")
    else:
        db.run("ALTER FOREIGN TABLE topic ALTER id TYPE text; ALTER TABLE target ALTER id TYPE text")
        db.call("stop_stream")
        assert db.run("SELECT * FROM kafka.retry_dead_letters('s')") == [(1, 1, 0)]
    db.call("start_stream")
    bad.produce_all([{"value": {"id": 2}}])
    db.process_all_available()
    if how == "discard":
        assert letters(db) == [(0, b'{"id": "new"}', 1)]
        assert db.column("SELECT id FROM target ORDER BY id") == [1, 2]
    else:
        assert letters(db) == []
        assert db.column("SELECT id FROM target ORDER BY id") == ["1", "2", "new", "old"]
    assert db.next_offsets() == bad.offsets()


def test_letters_are_told_of(db, bad):
    with db.notices() as notices:
        db.call("reset_stream")
    assert [notice.message_primary for notice in notices] == ['stream "s" keeps 1 dead letter(s)']
    db.process_all_available()
    assert letters(db) == [(0, b'{"id": "old"}', 2)]
    with db.notices() as notices:
        db.call("drop_stream")
    assert [notice.message_primary for notice in notices] == ['stream "s" had 1 dead letter(s), which are gone with it']


@pytest.mark.parametrize("fails", [True, False])
def test_process_all_available_of_a_shorter_log(db, new_topic, kafka, fails):
    topic = new_topic(1)
    db.create_tables(topic)
    topic.produce_sequence(100)
    db.create_stream(fail_on_data_loss=fails)
    db.process_all_available()
    db.call("stop_stream")
    kafka.recreate_topic(topic)
    topic.produce_all({"value": {"id": n}} for n in range(500, 503))
    db.call("start_stream")
    if fails:
        with error("is not the one|ends at offset|lost"):
            db.process_all_available()
        assert db.value("SELECT count(*) FROM target") == 100
    else:
        db.process_all_available()
        assert db.column("SELECT id FROM target WHERE id >= 500 ORDER BY id") == [500, 501, 502]


def test_what_is_deleted_is_no_message_to_skip(db, new_topic, kafka):
    topic = new_topic(1)
    db.create_tables(topic)
    topic.produce_sequence(10)
    db.create_stream(start=False)
    kafka.delete_records(topic.name, {0: 5})
    with error("no message at offset 0", detail="starts at offset 5", hint="verify_stream"):
        db.run("SELECT kafka.skip_message('s', %s, 0, 0)", topic.name)
    assert db.next_offsets() == {0: 0}
