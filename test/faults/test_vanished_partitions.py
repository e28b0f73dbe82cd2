"""Streams are started and stopped while their topic loses partitions: old versions of librdkafka can't end their threads then."""

import random
import threading
import time

from test_recreated_at_once import recreate

LONGEST = 8  # seconds that stop_stream may take; the library is given three


def toggle(db, stream, durations):
    """Stops and starts a running stream; it is stopped at last."""
    with db.connect() as session:
        for call in (*("stop", "start") * 7, "stop"):
            begin = time.monotonic()
            session.execute(f"SELECT kafka.{call}_stream('{stream}')")
            if call == "stop":
                durations.append(time.monotonic() - begin)
            time.sleep(random.random() / 4)  # how far a worker has come is chance


def test_stops_end_in_time(db, new_topic, kafka):
    durations = []
    for number in range(8):
        topic = new_topic(3)
        table = f"topic_{number}"
        db.create_topic_table(topic, "id bigint", name=table)
        topic.produce_sequence(600)
        streams = [f"s_{number}_{i}" for i in range(5)]
        for stream in streams:
            db.run(f"CREATE TABLE {stream} (id bigint)")
            db.create_stream(stream, source=table, target=stream)
        threads = [threading.Thread(target=toggle, args=(db, stream, durations)) for stream in streams]
        for thread in threads:
            thread.start()
        topic.partitions = 1
        recreate(kafka, topic, range(600))
        for thread in threads:
            thread.join()
        for stream in streams:
            db.call("drop_stream", stream)
    assert max(durations) < LONGEST, sorted(durations)[-5:]
