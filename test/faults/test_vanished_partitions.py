"""Streams are started and stopped while their topic loses partitions: old versions of librdkafka can't end their threads then."""

import random
import threading
import time

from test_recreated_at_once import recreate

LONGEST = 8  # seconds that stop_stream may take; the library is given three


def toggle(db, stream, stop, durations):
    with db.connect() as session:
        running = True
        while running or not stop.is_set():
            begin = time.monotonic()
            session.execute(f"SELECT kafka.{'stop' if running else 'start'}_stream('{stream}')")
            durations.append(time.monotonic() - begin)
            running = not running
            stop.wait(random.random() / 4)


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
        stop = threading.Event()
        threads = [threading.Thread(target=toggle, args=(db, stream, stop, durations)) for stream in streams]
        for thread in threads:
            thread.start()
        topic.partitions = 1
        recreate(kafka, topic, range(600))
        stop.wait(2)  # so long the streams meet what has become of the topic; how often is chance
        stop.set()
        for thread in threads:
            thread.join()
        for stream in streams:
            db.call("drop_stream", stream)
    assert max(durations) < LONGEST, sorted(durations)[-5:]
