"""Many partitions, long backlogs, slow targets: the worker's memory stays within its bound."""

import pytest

import gates
from expectations import assert_exact
from harness.processes import wait_until

MEGABYTE = 1024 * 1024
FETCHED_AHEAD = 16     # MB: queued_max_messages_kbytes below
ONE_FETCH = 16         # MB: fetch_max_bytes below
BATCH = 64             # MB: the default of kafka_ingest.max_batch_size
BASE = 60              # MB: the process itself, librdkafka's bookkeeping, what malloc keeps
BATCH_OVERHEAD = 100   # bytes: of each message in a batch


def private_memory(pid):
    """MB that the process has for itself."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("Private_Dirty", "Private_Clean"))) / 1024


def test_a_thousand_partitions(db, new_topic):
    topic = new_topic(1000)
    db.create_tables(topic)
    topic.produce_sequence(20_000)
    db.create_stream()
    db.process_all_available(timeout="120 s")
    assert_exact(db, topic)
    assert db.value("SELECT count(*) FROM kafka.stream_offset") == 1000
    assert db.value("SELECT count(*) FROM kafka.stream_lag") == 1000
    assert private_memory(db.worker_pid()) < BASE + FETCHED_AHEAD + ONE_FETCH + BATCH
    topic.produce_sequence(1000, first=20_001)
    assert_exact(db, topic)


def test_partitions_added_by_the_hundred(db, new_topic, kafka, postgres):
    topic = new_topic(10)
    db.create_tables(topic)
    db.create_stream()
    with db.server_setting("kafka_ingest.metadata_refresh_interval", "1 s"):
        for total in (100, 300):
            kafka.add_partitions(topic.name, total)
            topic.partitions_added(total)
            topic.produce_sequence(2 * total, first=total)
            db.wait_for("SELECT count(*) FROM kafka.stream_offset", total, timeout=60)
            assert_exact(db, topic)


@pytest.mark.parametrize("size, count", [(1_000, 300_000), (1_000_000, 300)])
def test_a_consumer_slower_than_the_producer(db, new_topic, size, count):
    """300 MB wait in Kafka while the worker is held in a batch."""
    topic = new_topic()
    db.run(f"ALTER SERVER broker OPTIONS (ADD queued_max_messages_kbytes '{FETCHED_AHEAD * 1024}', "
           f"ADD fetch_max_bytes '{ONE_FETCH * MEGABYTE}')")
    db.create_tables(topic)
    gates.build(db, "in the batch")
    filler = b" " * (size - 20)
    topic.produce_all({"value": b'{"id": %d}%s' % (number, filler)} for number in range(count))
    most = 0

    def measure():
        nonlocal most
        most = max(most, private_memory(pid))
        return most

    with gates.closed(db):
        db.create_stream()
        pid = gates.wait_for_worker(db)
        # It fetches ahead until it may not any more.
        seen = [0.0]

        def fetches_no_more():
            seen.append(measure())
            return len(seen) > 20 and seen[-1] - seen[-20] < 1
        wait_until(fetches_no_more, interval=0.1, timeout=60)
    wait_until(lambda: measure() and db.value("SELECT count(*) FROM target") == count, timeout=120, interval=0.05)
    bound = BASE + FETCHED_AHEAD + ONE_FETCH + BATCH * (1 + BATCH_OVERHEAD / size)
    assert most < bound, f"{most:.0f} MB; the bound is {bound:.0f} MB"
    assert_exact(db, topic)
