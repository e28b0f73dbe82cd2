"""The memory of a worker stays within the README's formula, whatever waits in the topic."""

import pytest

from harness.database import Database
from harness.processes import wait_until

MB = 1024 * 1024
QUEUE, FETCH, BATCH = 16 * MB, 8 * MB, 8 * MB
BASE = 60 * MB


def private_memory(pid):
    """Bytes that are the process's own: shared buffers and libraries don't count."""
    with open(f"/proc/{pid}/status") as status:
        (kilobytes,) = (line.split()[1] for line in status if line.startswith("RssAnon:"))
    return int(kilobytes) * 1024


def bound(largest_message, partitions):
    """README, "Memory": all of it with one broker."""
    return BASE + QUEUE + BATCH + 3 * max(FETCH, largest_message) + 4 * largest_message + partitions * 50_000


@pytest.mark.parametrize("largest, partitions", [(10 * MB, 200), (1 * MB, 3)])
def test_a_backlog_larger_than_the_bound(new_cluster, new_topic, kafka, largest, partitions):
    cluster = new_cluster({"kafka_ingest.max_batch_size": f"{BATCH // 1024}kB"}).start()
    db = Database(cluster)
    db.create_server(kafka.address, queued_max_messages_kbytes=QUEUE // 1024, fetch_max_bytes=FETCH)
    topic = new_topic(partitions)
    db.create_topic_table(topic, "id bigint, body text")
    db.run("CREATE TABLE target (id bigint, body text); ALTER TABLE target ALTER body SET STORAGE EXTERNAL")
    sizes = [largest - 1000 if n % 50 == 0 else MB // 2 for n in range(20 + 2 * bound(largest, partitions) // MB)]
    topic.produce_all({"value": b'{"id": %d, "body": "%s"}' % (n, b"x" * size), "partition": n % partitions}
                      for n, size in enumerate(sizes))
    assert sum(sizes) > bound(largest, partitions)
    db.create_stream()
    pid, highest = db.worker_pid(), 0

    def done():
        nonlocal highest
        highest = max(highest, private_memory(pid))
        return db.status().messages == len(sizes)

    wait_until(done, timeout=120, interval=0.02)
    print(f"{len(sizes)} messages of up to {largest} bytes in {partitions} partitions, {sum(sizes) // MB} MB: "
          f"{highest // MB} MB of {bound(largest, partitions) // MB} MB")
    assert highest < bound(largest, partitions)
    assert db.run("SELECT count(*), sum(length(body)) FROM target") == [(len(sizes), sum(sizes))]
