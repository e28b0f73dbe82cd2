"""fail_on_data_loss => false: what Kafka has lost is counted and logged, and the stream goes on with what is there."""

import collections
import os
import signal
import threading

import pytest
from confluent_kafka import KafkaException

from expectations import assert_exact, error
from harness.processes import suspend, wait_until


def losses(db):
    """What stream_progress shows: (start_offsets, end_offsets, lost_offsets), oldest first."""
    return db.run("""SELECT start_offsets, end_offsets, lost_offsets FROM kafka.stream_progress
                      WHERE lost_offsets > 0 ORDER BY batch_id""")


def wait_for_ids(db, ids, timeout=60):
    """The target has these ids, each once."""
    expected = sorted(ids)
    db.wait_for(f"SELECT count(*) >= {len(expected)} FROM target", timeout=timeout)
    assert db.column("SELECT id FROM target ORDER BY id") == expected


def test_it_is_on_by_default_and_can_be_altered(db, topic):
    db.create_tables(topic)
    db.create_stream(start=False)
    assert db.value("SELECT fail_on_data_loss FROM kafka.stream") is True
    db.call("alter_stream", fail_on_data_loss=False)
    assert db.value("SELECT fail_on_data_loss FROM kafka.stream") is False
    db.call("alter_stream", max_offsets_per_trigger=10)
    assert db.value("SELECT fail_on_data_loss FROM kafka.stream") is False
    status = db.status()
    assert (status.lost_offsets, status.data_loss_at) == (0, None)


def test_retention_passed_the_checkpoint_before_the_start(db, new_topic, kafka, postgres):
    topic = new_topic(2)
    db.create_tables(topic)
    topic.produce_sequence(200)
    db.create_stream(start=False, fail_on_data_loss=False)
    kafka.delete_records(topic.name, {0: 60})
    db.call("start_stream")
    assert_exact(db, topic)
    assert db.value("SELECT count(*) FROM target") == 140
    status = db.status()
    assert status.lost_offsets == 60 and status.data_loss_at is not None
    assert db.run("SELECT partition, lost_offsets FROM kafka.stream_offset ORDER BY 1") == [(0, 60), (1, 0)]
    assert losses(db) == [({"0": 0}, {"0": 60}, 60)]
    assert db.value("SELECT bool_and(xid IS NOT NULL) FROM kafka.stream_progress")
    log = postgres.log.read_text(errors="replace")
    assert f"has lost offsets 0 to 59 of partition 0 of topic \"{topic.name}\"" in log
    # and again: the counts add up
    db.call("stop_stream")
    topic.produce_sequence(200, first=201)
    kafka.delete_records(topic.name, {0: 150})
    db.call("start_stream")
    assert_exact_rest(db, topic)
    assert db.status().lost_offsets == 60 + 50


def assert_exact_rest(db, topic):
    """All that is still in the topic is in the target, and nothing is there twice."""
    db.process_all_available()
    rows = collections.Counter(db.run("SELECT p, o FROM target"))
    there = {(message.partition(), message.offset()) for message in topic.messages()}
    assert there <= set(rows) and set(rows.values()) <= {1}
    assert db.next_offsets() == topic.offsets()


def test_a_failed_stream_goes_on_when_told_to(db, new_topic, kafka):
    topic = new_topic()
    db.create_tables(topic)
    topic.produce_sequence(100)
    db.create_stream(start=False)
    kafka.delete_records(topic.name, {0: 60})
    db.call("start_stream")
    failed = db.wait_for_state("failed", timeout=60)
    assert "60 offset(s) are lost" in failed.last_error_detail
    assert "fail_on_data_loss" in failed.last_error_hint and "reset_stream" in failed.last_error_hint
    db.call("alter_stream", fail_on_data_loss=False)
    db.call("start_stream")
    assert_exact(db, topic)
    assert db.status().lost_offsets == 60


@pytest.mark.parametrize("fail", [False, True])
def test_retention_passes_a_running_stream(db, new_topic, kafka, fail):
    topic = new_topic()
    db.create_tables(topic)
    topic.produce_sequence(10)
    db.create_stream(fail_on_data_loss=fail)
    db.process_all_available()
    worker = db.worker_pid()
    suspend(worker)  # its fetch is under way: it may get what comes next
    try:
        for first in range(11, 111, 10):
            topic.produce_sequence(10, first=first)
        kafka.delete_records(topic.name, {0: 90})
    finally:
        os.kill(worker, signal.SIGCONT)
    if fail:
        failed = db.wait_for_state("failed", timeout=60)
        assert "the log starts at 90" in failed.last_error_detail
        db.call("alter_stream", fail_on_data_loss=False)
        db.call("start_stream")
    db.process_all_available()
    rows = db.column("SELECT o FROM target ORDER BY o")
    assert len(losses(db)) == 1, rows
    ((start, end, lost),) = losses(db)
    assert end["0"] == 90 and lost == 90 - start["0"] == db.status().lost_offsets
    assert rows == [*range(start["0"]), *range(90, 110)]
    assert db.status().pid != 0 and db.next_offsets() == topic.offsets()


def test_available_now_with_everything_lost(db, new_topic, kafka):
    topic = new_topic()
    db.create_tables(topic)
    topic.produce_sequence(100)
    db.create_stream(start=False, trigger="available_now", fail_on_data_loss=False)
    db.call("start_stream")
    db.wait_for_state("stopped")
    db.call("reset_stream")
    kafka.delete_records(topic.name, {0: 100})
    db.call("start_stream")
    db.wait_for_state("stopped")
    assert db.status().lost_offsets == 100 and db.next_offsets() == {0: 100}


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("new_messages, partitions, workers",
                         [(0, 3, 1), (6, 3, 1), (90, 3, 1), (30, 2, 1), (30, 4, 1), (30, 1, 2)],
                         ids=["empty", "shorter", "longer", "fewer", "more", "none-for-a-worker"])
def test_recreated_topic(db, topic, kafka, postgres, running, new_messages, partitions, workers):
    begin = postgres.log.stat().st_size
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream(fail_on_data_loss=False, workers=workers)
    db.process_all_available()
    if not running:
        db.call("stop_stream")
    kafka.delete_topic(topic.name)
    if not running:
        db.call("start_stream")
    # before that, fetches may fail while the broker deletes it
    status = db.wait_for_error("is not there", timeout=60)
    assert topic.name in status.last_error and "is not there" in status.last_error
    assert "waits for it" in status.last_error_hint and status.retry_at is not None
    kafka.create_topic(topic.name, partitions)
    topic.partitions_added(partitions)
    topic.produce_all({"value": {"id": n}, "partition": n % partitions} for n in range(1000, 1000 + new_messages))
    wait_for_ids(db, [*range(1, 31), *range(1000, 1000 + new_messages)])
    db.wait_for("SELECT state FROM kafka.stream_status", "idle", timeout=60)
    topic.produce_all({"value": {"id": n}, "partition": n % partitions} for n in range(2000, 2012))
    wait_for_ids(db, [*range(1, 31), *range(1000, 1000 + new_messages), *range(2000, 2012)])
    db.wait_for("SELECT count(*) FROM kafka.stream_offset", partitions, timeout=60)
    assert db.next_offsets() == topic.offsets()
    assert db.status().messages == 42 + new_messages
    assert db.status().data_loss_at is not None
    assert b"unexpected" not in postgres.log.read_bytes()[begin:]


def test_unread_messages_of_a_deleted_topic_are_counted(db, new_topic, kafka):
    topic = new_topic()
    db.create_tables(topic)
    topic.produce_sequence(100)
    db.create_stream(max_offsets_per_trigger=20, trigger_interval="1 hour", fail_on_data_loss=False)
    db.wait_for("SELECT count(*) FROM target", 20)
    db.call("stop_stream")
    kafka.recreate_topic(topic)
    topic.produce_all({"value": {"id": n}} for n in range(500, 505))
    db.call("alter_stream", trigger_interval="0 s")
    db.call("start_stream")
    wait_for_ids(db, [*range(1, 21), *range(500, 505)])
    assert db.status().lost_offsets == 80


def test_process_all_available_of_a_log_that_becomes_shorter(db, new_topic, kafka):
    """What it waited for will never come: it waits for what there is instead."""
    topic = new_topic()
    db.create_tables(topic)
    topic.produce_sequence(100)
    db.create_stream(max_offsets_per_trigger=20, trigger_interval="5 s", fail_on_data_loss=False)
    db.wait_for("SELECT count(*) > 0 FROM target", True)
    failures = []

    def wait_for_all():
        with db.connect() as session:
            try:
                session.execute("SELECT kafka.process_all_available('s', '60 s')")
            except Exception as problem:
                failures.append(problem)

    waiting = threading.Thread(target=wait_for_all)
    waiting.start()
    db.wait_for("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT kafka.process_all_available%' "
                "AND wait_event_type IS NOT NULL AND pid <> pg_backend_pid()", 1)
    kafka.recreate_topic(topic)
    topic.produce_all({"value": {"id": n}} for n in range(500, 505))
    waiting.join()
    assert failures == []
    assert db.column("SELECT id FROM target WHERE id >= 500 ORDER BY id") == [*range(500, 505)]
    assert db.value("SELECT count(*) FROM target WHERE id < 500") < 100


def truncate_log(kafka, topic, size):
    """Cuts the log of partition 0 off while the broker is down, as an unclean failure of a cluster does."""
    (directory,) = kafka.directory.glob(f"data/{topic.name}-0")
    for index in (*directory.glob("*.index"), *directory.glob("*.timeindex")):
        index.unlink()
    os.truncate(next(directory.glob("*.log")), size)


def end_of(topic):
    try:
        return topic.offsets()[0]
    except KafkaException:  # the broker is not ready yet
        return None


def log_size(kafka, topic):
    (log,) = kafka.directory.glob(f"data/{topic.name}-0/*.log")
    return log.stat().st_size


def stop_behind_twenty_messages(db, new_topic, kafka, **options):
    """A stopped stream that has read 20 messages: returns its topic, and the size of the log after the first 10."""
    topic = new_topic()
    db.create_tables(topic)
    topic.produce_sequence(10)
    size = log_size(kafka, topic)
    topic.produce_sequence(10, first=11)
    db.create_stream(**options)
    db.process_all_available()
    db.call("stop_stream")
    return topic, size


@pytest.mark.parametrize("fail", [False, True])
def test_truncated_log(db, new_topic, kafka, fail):
    topic, size = stop_behind_twenty_messages(db, new_topic, kafka, fail_on_data_loss=fail)
    kafka.stop()
    truncate_log(kafka, topic, size)
    kafka.start()
    wait_until(lambda: end_of(topic) == 10, timeout=60, what="the log is cut off")
    db.call("start_stream")
    if fail:
        failed = db.wait_for_state("failed", timeout=60)
        assert "the stream is at offset 20, but the log ends at 10" in failed.last_error_detail
        return
    db.wait_for("SELECT data_loss_at IS NOT NULL FROM kafka.stream_status", timeout=60)
    topic.partitions_added(1)
    topic.produce_sequence(5, first=101)
    db.process_all_available(timeout="60 s")
    known = db.value("SELECT topic_id IS NOT NULL FROM kafka.stream_offset")
    # an older library does not tell the topic from a new one, and what is there is read again
    again = [] if known else [*range(1, 11)]
    assert db.column("SELECT id FROM target ORDER BY id") == sorted([*range(1, 21), *again, *range(101, 106)])


def errors_logged(postgres, text):
    """How often the server has logged an error with this message or detail."""
    return sum(text in line for line in postgres.log.read_text(errors="replace").splitlines()
               if " ERROR: " in line or " DETAIL: " in line)


def test_somebody_elses_data_corrupted_confirms_no_loss(db, new_topic, kafka, postgres):
    """A damaged table of the user has the SQLSTATE of a loss; the loss itself is still looked at twice."""
    topic = new_topic()
    db.create_tables(topic)
    db.run("""CREATE TABLE damaged (d bool); INSERT INTO damaged VALUES (true);
              CREATE FUNCTION read_damaged() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
              BEGIN
                  IF new.id > 20 AND EXISTS (SELECT FROM damaged) THEN
                      RAISE EXCEPTION 'damaged' USING ERRCODE = 'data_corrupted';
                  END IF;
                  RETURN new;
              END $$;
              CREATE TRIGGER damaged BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION read_damaged()""")
    topic.produce_sequence(20)
    db.create_stream(fail_on_data_loss=False)
    db.process_all_available()
    topic.produce_sequence(1, first=21)
    with db.connect(autocommit=False) as session:
        status = db.wait_for_state("backing off", timeout=60)
        session.execute("LOCK TABLE kafka.stream")  # the next attempt waits for this
        assert status.last_error == "damaged"
        session.execute("TRUNCATE damaged")
        kafka.recreate_topic(topic)
        topic.produce_sequence(5, first=100)
        session.commit()
    wait_for_ids(db, [*range(1, 21), *range(100, 105)])
    assert db.status().data_loss_at is not None
    names = f'topic "{topic.name}" '
    assert errors_logged(postgres, f"{names}has lost") + errors_logged(postgres, f"{names}is not the one") == 2


def test_a_loss_that_was_none_confirms_no_other(db, new_topic, kafka, postgres):
    """After a good start every loss must be seen as often as the first."""
    topic, size = stop_behind_twenty_messages(db, new_topic, kafka, fail_on_data_loss=False)
    # stands in for a cluster that shows a loss only for a while
    db.run("UPDATE kafka.stream_offset SET next_offset = 50")
    db.call("start_stream")
    with db.connect(autocommit=False) as session:
        db.wait_for_state("backing off", timeout=60)
        session.execute("LOCK TABLE kafka.stream")
        session.execute("UPDATE kafka.stream_offset SET next_offset = 20")
        session.commit()
    db.wait_for_state("idle", timeout=60)
    lost = f'topic "{topic.name}" has lost'
    assert errors_logged(postgres, lost) == 2 and db.status().lost_offsets == 0
    kafka.stop()
    truncate_log(kafka, topic, size)
    kafka.start()
    db.wait_for("SELECT data_loss_at IS NOT NULL FROM kafka.stream_status", timeout=90)
    assert errors_logged(postgres, lost) >= 4


def test_another_cluster_is_never_gone_on_with(db, new_topic):
    topic = new_topic()
    db.create_tables(topic)
    topic.produce_sequence(10)
    db.create_stream(fail_on_data_loss=False)
    db.process_all_available()
    db.call("stop_stream")
    db.run("UPDATE kafka.stream_offset SET cluster_id = 'another'")
    db.call("start_stream")
    failed = db.wait_for_state("failed", timeout=60)
    assert "another Kafka cluster" in failed.last_error and "another" in failed.last_error_detail
    assert db.value("SELECT count(*) FROM target") == 10


def test_a_position_moves_only_from_where_it_was(db, new_topic, kafka):
    """A reset between the look at the log and the move wins."""
    topic = new_topic()
    db.create_tables(topic)
    topic.produce_sequence(100)
    db.create_stream(start=False, fail_on_data_loss=False)
    kafka.delete_records(topic.name, {0: 60})
    db.run("BEGIN")
    db.call("start_stream")
    kafka.suspend()
    db.run("COMMIT")
    with db.connect(autocommit=False) as session:
        # the worker's move waits for this row, and then finds another position
        session.execute("UPDATE kafka.stream_offset SET next_offset = 70")
        kafka.resume()
        db.wait_for("SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'kafka_ingest %'"
                    " AND wait_event_type = 'Lock'", timeout=60)
        session.commit()
    db.process_all_available()
    assert db.column("SELECT o FROM target ORDER BY o") == list(range(70, 100))
    assert db.status().lost_offsets == 0


def test_null_is_the_default(db, new_topic):
    topic = new_topic()
    db.create_tables(topic)
    db.create_stream(start=False, fail_on_data_loss=None)
    assert db.value("SELECT fail_on_data_loss FROM kafka.stream") is True
    with error("invalid input syntax for type boolean"):
        db.run("SELECT kafka.alter_stream('s', fail_on_data_loss => 'perhaps')")
