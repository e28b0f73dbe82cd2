"""Limits against accidents: a message that is larger than what the server's options allow."""

from expectations import assert_exact, error


def test_a_message_larger_than_receive_message_max_bytes(db, new_topic):
    topic = new_topic(1, **{"max.message.bytes": 10_000_000})
    db.run("ALTER SERVER broker OPTIONS (ADD fetch_max_bytes '1000000', ADD receive_message_max_bytes '1000512')")
    db.create_tables(topic)
    topic.produce_sequence(5)
    db.create_stream()
    assert_exact(db, topic)
    topic.produce({"id": 6, "padding": "x" * 3_000_000}, {"id": 7})
    status = db.wait_for_state("failed", timeout=60)
    assert topic.name in status.last_error and status.last_error_sqlstate == "XX001"
    assert "1000512" in status.last_error_detail and "-1" not in status.last_error_detail
    assert "raise receive_message_max_bytes" in status.last_error_hint
    assert db.next_offsets() == {0: 5}
    with error("could not read a message", detail="1000512", hint="raise receive_message_max_bytes"):
        db.run("SELECT id FROM topic")
    db.run("ALTER SERVER broker OPTIONS (SET receive_message_max_bytes '10000000')")
    db.call("start_stream")
    assert_exact(db, topic)
