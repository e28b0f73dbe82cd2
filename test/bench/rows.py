"""The rows of the benchmark, the same as CSV for COPY and as JSON in Kafka."""

import time

from confluent_kafka import Producer

PARTITIONS = 4
COLUMNS = ("order_id bigint, customer text, product text, quantity int, price numeric, paid boolean, "
           "ordered_at timestamptz, country text")
_COUNTRIES = ("DE", "FR", "IN", "US", "BR", "JP", "NG")


def _row(number):
    """One row's values as text, without anything random: two runs have the same."""
    mixed = number * 2654435761 % 4294967296
    return (number, f"customer-{mixed % 100000:05d}", f"SKU-{mixed % 9973:04d}", mixed % 9 + 1,
            f"{mixed % 1000}.{mixed % 89 + 10}", "true" if mixed % 3 else "false",
            f"2026-{mixed % 12 + 1:02d}-{mixed % 28 + 1:02d}T{mixed % 24:02d}:{mixed % 60:02d}:"
            f"{mixed // 7 % 60:02d}.{mixed % 1000:03d}Z", _COUNTRIES[mixed % 7])


_JSON = ('{"order_id":%d,"customer":"%s","product":"%s","quantity":%d,"price":%s,"paid":%s,'
         '"ordered_at":"%s","country":"%s"}')
_CSV = "%d,%s,%s,%d,%s,%s,%s,%s\n"


def _producer(address):
    return Producer({"bootstrap.servers": address, "linger.ms": 20, "compression.type": "lz4",
                     "batch.num.messages": 50_000, "batch.size": 900_000,
                     "queue.buffering.max.messages": 1_000_000, "queue.buffering.max.kbytes": 1_000_000})


def produce_again_and_again(count, address, topic, partitions):
    """The first ten thousand rows, as often as it takes: much faster than making each anew."""
    values = [(_JSON % _row(number)).encode() for number in range(1, min(count, 10_000) + 1)]
    produce_values((values[number % len(values)] for number in range(count)), address, topic,
                   lambda number, _value: number % partitions)


def produce_values(values, address, topic, partition_of):
    """partition_of: by the number of a value from 0 on, and the value."""
    producer = _producer(address)
    failed = []

    def delivered(error, _message):
        if error:
            failed.append(error)

    for number, value in enumerate(values):
        while True:
            try:
                producer.produce(topic, value, partition=partition_of(number, value), on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.05)
        if number % 10_000 == 0:
            producer.poll(0)
    if producer.flush(300) or failed:
        raise RuntimeError(f"not produced: {failed[:1]}")


def write_lines(count, path):
    """The messages themselves, a line each."""
    with open(path, "w", encoding="ascii", buffering=1 << 20) as lines:
        for number in range(1, count + 1):
            lines.write(_JSON % _row(number) + "\n")


def produce(count, address, topic, csv_path):
    """Writes the CSV file and the topic; returns what the producer did."""
    producer = _producer(address)
    failed = []

    def delivered(error, _message):
        if error:
            failed.append(error)

    size = 0
    started = time.monotonic()
    with open(csv_path, "w", encoding="ascii", buffering=1 << 20) as csv:
        for number in range(1, count + 1):
            row = _row(number)
            csv.write(_CSV % row)
            value = _JSON % row
            size += len(value)
            while True:
                try:
                    producer.produce(topic, value, partition=number % PARTITIONS, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.05)
            if number % 10_000 == 0:
                producer.poll(0)
    producer.flush(120)
    if failed:
        raise RuntimeError(f"not produced: {failed[0]}")
    seconds = time.monotonic() - started
    return {"rows": count, "bytes_per_message": round(size / count, 1), "rows_per_second": round(count / seconds),
            "seconds": round(seconds, 1), "compression": "lz4"}
