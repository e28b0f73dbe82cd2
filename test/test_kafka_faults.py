"""Kafka misbehaves, or just changes: brokers, transactions, partitions, retention."""

import collections
import re
import time

from expectations import assert_exact, error
from harness.processes import wait_until
from observer import Observer


def test_broker_restart(db, topic, kafka):
    db.create_tables(topic)
    topic.produce_sequence(300)
    db.create_stream()
    with Observer(db):
        assert_exact(db, topic)
        kafka.stop()
        kafka.start()
        topic.produce_sequence(300, first=301)
        assert_exact(db, topic)


def test_broker_killed_while_ingesting(db, topic, kafka):
    db.create_tables(topic)
    topic.produce_sequence(60_000)
    db.create_stream(max_offsets_per_trigger=500)
    wait_until(lambda: db.value("SELECT count(*) FROM target") > 0)
    kafka.kill()
    kafka.start()
    assert_exact(db, topic)


def test_broker_suspended(db, topic, kafka):
    db.create_tables(topic)
    topic.produce_sequence(60_000)
    db.create_stream(max_offsets_per_trigger=500)
    wait_until(lambda: db.value("SELECT count(*) FROM target") > 0)
    kafka.suspend()
    # The server's other work goes on, and the worker can be stopped.
    db.call("stop_stream")
    db.call("start_stream")
    kafka.resume()
    assert_exact(db, topic)


def test_broker_away_at_the_start(db, topic, kafka):
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream(start=False)
    kafka.stop()
    db.call("start_stream")
    db.worker_pid()
    kafka.start()
    assert_exact(db, topic)


def test_status_says_that_the_broker_is_away(db, topic, kafka):
    db.create_tables(topic)
    db.create_stream()
    db.process_all_available()
    kafka.stop()
    db.wait_for("SELECT last_error IS NOT NULL FROM kafka.stream_status", True, timeout=60)
    kafka.start()
    topic.produce_sequence(30)
    assert_exact(db, topic)


def assert_not_flooded(postgres, begin, started):
    """Since then each line of librdkafka has come once in 30 s; it takes failures after 0 ms and 2 ms for different ones."""
    lines = re.findall(r"librdkafka, server .*", postgres.log.read_bytes()[begin:].decode())
    of_each = collections.Counter((line.split(" (after ")[0] for line in lines))
    assert of_each and max(of_each.values()) <= 1 + (time.monotonic() - started) // 30, lines


def test_the_log_is_not_flooded_while_the_broker_is_away(db, topic, kafka, postgres):
    """librdkafka tries several times a second; and the stream need not be opened anew, which would take its time."""
    db.create_tables(topic)
    db.create_stream()
    db.process_all_available()
    begin, started = postgres.log.stat().st_size, time.monotonic()
    kafka.stop()
    wait_until(lambda: b"Connection refused" in postgres.log.read_bytes()[begin:], timeout=60)
    kafka.start()
    topic.produce_sequence(30)
    assert_exact(db, topic)
    assert_not_flooded(postgres, begin, started)
    assert b"could not reach" not in postgres.log.read_bytes()[begin:]


def test_the_log_is_not_flooded_by_attempts_to_open_a_stream(db, topic, kafka, postgres):
    """Each has a consumer of its own."""
    db.create_tables(topic)
    db.create_stream()
    db.process_all_available()
    db.call("stop_stream")
    db.run("ALTER SERVER broker OPTIONS (ADD socket_timeout_ms '2000')")
    begin, started = postgres.log.stat().st_size, time.monotonic()
    kafka.stop()
    db.call("start_stream")
    wait_until(lambda: postgres.log.read_bytes()[begin:].count(b"ERROR:  could not reach the Kafka cluster") >= 3, timeout=60)
    kafka.start()
    assert_exact(db, topic)
    assert_not_flooded(postgres, begin, started)


def test_transactions(db, topic):
    db.create_tables(topic)
    db.create_stream()
    with topic.transaction() as produce:
        produce({"id": 1}, {"id": 2})
    with topic.transaction(commit=False) as produce:
        produce({"id": 3})
        produce({"id": 4}, partition=1)
    topic.produce({"id": 5}, partition=1)
    with topic.transaction(commit=False) as produce:
        produce({"id": 6}, partition=2)
    topic.wait_for_markers()
    assert_exact(db, topic)
    assert db.column("SELECT id FROM target ORDER BY id") == [1, 2, 5]


def test_open_transaction(db, topic):
    """Nothing at or after it is read before it ends; no error meanwhile."""
    db.create_tables(topic)
    db.create_stream()
    with topic.transaction() as produce:
        topic.produce({"id": 1})
        produce({"id": 2})
        topic.produce({"id": 3})
        assert_exact(db, topic)
        assert db.column("SELECT id FROM target ORDER BY id") == [1]
        assert db.status().last_error is None
        db.wait_for("SELECT sum(lag)::int FROM kafka.stream_lag", 2)
    topic.wait_for_markers()
    assert_exact(db, topic)
    assert db.column("SELECT id FROM target ORDER BY id") == [1, 2, 3]
    db.wait_for("SELECT sum(lag)::int FROM kafka.stream_lag", 0)


def test_transactions_with_available_now(db, topic):
    """A partition whose end is markers and aborted data is done nevertheless."""
    db.create_tables(topic)
    with topic.transaction(commit=False) as produce:
        produce({"id": 1}, {"id": 2})
    topic.wait_for_markers()
    db.create_stream(trigger="available_now")
    db.wait_for_state("stopped")
    assert db.next_offsets() == topic.offsets()
    assert db.value("SELECT count(*) FROM target") == 0


def test_new_partitions_are_read_from_their_beginning(db, topic, kafka):
    db.create_tables(topic)
    db.create_stream(starting_offsets="latest")
    db.process_all_available()
    kafka.add_partitions(topic.name, 5)
    topic.partitions_added(5)
    topic.produce_sequence(50)
    db.wait_for("SELECT count(*) FROM kafka.stream_offset", 5, timeout=60)
    assert_exact(db, topic)


def test_partitions_added_while_stopped(db, topic, kafka):
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream()
    db.process_all_available()
    db.call("stop_stream")
    kafka.add_partitions(topic.name, 4)
    topic.partitions_added(4)
    topic.produce_sequence(40, first=31)
    db.call("start_stream")
    assert_exact(db, topic)


def test_deleted_topic_is_reported(db, new_topic, kafka):
    topic = new_topic()
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream()
    db.process_all_available()
    kafka.delete_topic(topic.name)
    db.wait_for("SELECT last_error IS NOT NULL FROM kafka.stream_status", True, timeout=60)
    assert topic.name in str(db.status())


def test_retention_passed_the_checkpoint(db, new_topic, kafka):
    """The range that is gone is named; nothing is skipped in silence."""
    topic = new_topic()
    db.create_tables(topic)
    topic.produce_sequence(100)
    db.create_stream(start=False)
    kafka.delete_records(topic.name, {0: 60})
    db.call("start_stream")
    status = db.wait_for_state("failed", timeout=60)
    text = f"{status.last_error} {status.last_error_detail}"
    assert "60" in text and topic.name in text
    assert db.value("SELECT count(*) FROM target") == 0
    db.call("reset_stream")
    db.call("start_stream")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == list(range(61, 101))


def test_compacted_topic(db, new_topic):
    """Gaps in the offsets: next_offset is a position, not a count."""
    topic = new_topic(cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.01",
                      max_compaction_lag_ms="100")
    db.create_tables(topic)
    for number in range(10):
        topic.produce({"id": number}, key=f"key {number % 3}")
        segment_end = time.monotonic() + 0.15
        wait_until(lambda: time.monotonic() > segment_end, what="the segment's end")
    # nothing more is removed then: the newest of each key, and the last segment
    wait_until(lambda: len(topic.messages()) == 4, timeout=60, interval=0.15, what="compaction")
    db.create_stream()
    assert_exact(db, topic)
    assert db.column("SELECT o FROM target ORDER BY o") == [6, 7, 8, 9]


def test_producers_at_work(db, topic):
    """Messages come in while batches are committed; a snapshot is always consistent."""
    db.create_tables(topic)
    db.create_stream()
    with Observer(db):
        with topic.producing(500):
            db.wait_for("SELECT count(*) > 20000 FROM target")
        assert_exact(db, topic)


def test_fetching_goes_on_when_the_queue_has_been_full(db, topic):
    """librdkafka before 2.2 sleeps up to a second whenever its queue is full: here 200 times."""
    db.run("ALTER SERVER broker OPTIONS (ADD queued_max_messages_kbytes '100', ADD fetch_message_max_bytes '50000')")
    db.create_tables(topic)
    padding = "x" * 1000
    topic.produce_all({"value": {"id": number, "padding": padding}, "partition": number % 3}
                      for number in range(20_000))
    db.create_stream()
    assert_exact(db, topic)


def test_unreachable_broker_is_an_error_in_time(db):
    db.create_server("127.0.0.1:1", name="nowhere", socket_timeout_ms=1000)
    db.run("CREATE FOREIGN TABLE topic (id bigint) SERVER nowhere OPTIONS (topic 'x', format 'json')")
    db.run("CREATE TABLE target (id bigint)")
    with error("."):
        db.create_stream()


def test_waiting_for_an_unreachable_broker_ends_in_time(db, topic, kafka):
    """A look-up would take longer (socket_timeout_ms) than the caller is willing to wait."""
    db.create_tables(topic)
    db.run("ALTER SERVER broker OPTIONS (ADD socket_timeout_ms '30000')")
    db.create_stream()
    db.process_all_available()
    kafka.suspend()
    begin = time.monotonic()
    with error("could not reach the Kafka cluster"):
        db.run("SELECT kafka.process_all_available('s', '2 s')")
    assert time.monotonic() - begin < 20
    kafka.resume()
    assert_exact(db, topic)
