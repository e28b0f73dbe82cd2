"""From produce() to a row that another session sees, at a trickle."""

import threading
import time

from confluent_kafka import Producer

POLL_INTERVAL = 0.0005  # seconds


def measure(db, broker, messages_per_second, seconds):
    """Returns percentiles in milliseconds; the observer polls, with its own connection."""
    broker.create_topic("trickle", 1)
    db.create_topic_table("trickle", name="trickle_topic")
    db.run("CREATE TABLE trickle (id bigint)")
    db.create_stream("trickle", source="trickle_topic", target="trickle")
    db.process_all_available("trickle")

    count = messages_per_second * seconds
    sent = [0.0] * count
    done = threading.Event()

    def produce():
        producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 0})
        start = time.perf_counter()
        for number in range(count):
            done.wait(max(0.0, start + number / messages_per_second - time.perf_counter()))
            sent[number] = time.perf_counter()
            producer.produce("trickle", b'{"id": %d}' % number)
            producer.poll(0)
        producer.flush(30)

    seen = {}
    thread = threading.Thread(target=produce)
    thread.start()
    give_up = time.monotonic() + seconds + 60
    with db.connect() as observer:
        while len(seen) < count and time.monotonic() < give_up:
            rows = observer.execute("SELECT id FROM trickle WHERE id >= %s", [len(seen)]).fetchall()
            now = time.perf_counter()
            for number, in rows:
                seen[number] = now - sent[number]
            done.wait(POLL_INTERVAL)
    thread.join()
    db.call("drop_stream", "trickle")
    if len(seen) < count:
        raise RuntimeError(f"only {len(seen)} of {count} messages became visible")
    ordered = sorted(seen.values())
    return {"messages": count, "messages_per_second": messages_per_second,
            **{f"p{percent}_ms": round(ordered[min(count - 1, count * percent // 100)] * 1000, 2)
               for percent in (50, 90, 99)}, "max_ms": round(ordered[-1] * 1000, 2)}
