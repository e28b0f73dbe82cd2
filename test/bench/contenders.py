"""What is compared: COPY, a stream, and a consumer written in Python.

Each fills the table of its name and returns what it measured.
"""

import dataclasses
import json
import time

from confluent_kafka import Consumer, TopicPartition

from bench.rows import PARTITIONS
from harness.processes import cpu_seconds


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is filled: a table like the topic table, with indexes or without, and how COPY reads the same rows."""
    topic_table: str = "orders_topic"
    indexes: tuple = ()             # of which {table} is the name
    copy_options: str = "FORMAT csv"


ORDERS = Shape()


def prepare(db, table, shape=ORDERS):
    """An empty table and a server without a checkpoint due."""
    db.run(f"DROP TABLE IF EXISTS {table}")
    db.run(f"CREATE TABLE {table} (LIKE {shape.topic_table})")
    for index in shape.indexes:
        db.run(index.format(table=table))
    db.run("CHECKPOINT")


def copy(db, path, count, shape=ORDERS):
    prepare(db, "by_copy", shape)
    pid = db.value("SELECT pg_backend_pid()")
    cpu = process_usage(pid)["cpu_seconds"]
    started = time.monotonic()
    db.run(f"COPY by_copy FROM '{path}' ({shape.copy_options})")
    return {"rows_per_second": count / (time.monotonic() - started), "cpu_seconds": process_usage(pid)["cpu_seconds"] - cpu}


def stream(db, count, shape=ORDERS):
    """From the commit of create_stream to the commit of the last row."""
    prepare(db, "by_stream", shape)
    db.create_stream("bench", source=shape.topic_table, target="by_stream")
    started = time.monotonic()
    db.process_all_available("bench", timeout="30 min")
    seconds = time.monotonic() - started
    result = {"rows_per_second": count / seconds, **process_usage(db.worker_pid("bench"))}
    db.call("drop_stream", "bench")
    return result


def process_usage(pid):
    """CPU seconds and peak memory of a process so far."""
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.split(":", 1) for line in file)
    return {"cpu_seconds": cpu_seconds(pid),
            "peak_memory_mb": int(status["VmHWM"].split()[0]) / 1024,
            "private_memory_mb": int(status["RssAnon"].split()[0]) / 1024}


def python_consumer(db, address, topic, count):
    """confluent-kafka, json, psycopg's COPY; rows and offsets in one transaction."""
    prepare(db, "by_python")
    db.run("DROP TABLE IF EXISTS python_offset")
    db.run("CREATE TABLE python_offset (partition int PRIMARY KEY, next_offset bigint)")
    cpu = time.process_time()
    started = time.monotonic()
    consumer = Consumer({"bootstrap.servers": address, "group.id": "bench", "enable.auto.commit": False,
                         "auto.offset.reset": "error", "isolation.level": "read_committed",
                         "queued.min.messages": 1_000_000})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    total = 0
    with db.connect(autocommit=False) as connection:
        while total < count:
            messages = consumer.consume(20_000, timeout=1)
            positions = {}
            with connection.cursor().copy("COPY by_python FROM STDIN") as target:
                for message in messages:
                    if message.error():
                        raise RuntimeError(message.error())
                    target.write_row(tuple(json.loads(message.value(), parse_float=str).values()))
                    positions[message.partition()] = message.offset() + 1
            for position in positions.items():
                connection.execute("INSERT INTO python_offset VALUES (%s, %s) ON CONFLICT (partition) "
                                   "DO UPDATE SET next_offset = excluded.next_offset", position)
            connection.commit()
            total += len(messages)
    seconds = time.monotonic() - started
    consumer.close()
    return {"rows_per_second": count / seconds, "cpu_seconds": time.process_time() - cpu}


def checksum(db, table):
    """Rows and a sum over all their values, independent of their order."""
    return db.run(f"SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {table} t")[0]
