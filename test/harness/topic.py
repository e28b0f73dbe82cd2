"""A topic of the private Kafka as a test sees it: produce to it, read it back."""

import contextlib
import itertools
import json

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from harness.processes import beside, wait_until


class Topic:
    def __init__(self, address, name, partitions, admin=None):
        """admin: the broker's AdminClient, for offsets and messages."""
        self.address = address
        self.admin = admin
        self.name = name
        self.partitions = partitions
        self._producer = None

    def _new_producer(self, **options):
        # what is produced at once is one batch of Kafka's, as far as it fits: flush() does not wait for more
        return Producer({"bootstrap.servers": self.address, "linger.ms": 200, "log_level": 2,
                         "queue.buffering.max.messages": 2_000_000, "message.max.bytes": 16_000_000,
                         "enable.idempotence": True, "reconnect.backoff.max.ms": 500, **options})

    def produce(self, *values, partition=0, key=None, timestamp=None, headers=None):
        """Writes messages and waits for the acknowledgement.

        A value is bytes, text, None (a tombstone) or anything that becomes JSON;
        timestamp is in milliseconds.
        """
        self.produce_all({"value": value, "partition": partition, "key": key, "timestamp": timestamp,
                          "headers": headers} for value in values)

    def produce_all(self, messages, producer=None):
        """Writes messages given as the arguments of produce; fast for many."""
        producer = producer or self._shared_producer()
        errors = []

        def delivered(error, _message):
            if error:
                errors.append(error)

        for message in messages:
            options = {name: value for name, value in message.items() if value is not None}
            options["value"] = _as_bytes(message["value"])
            options.setdefault("partition", 0)
            while True:
                try:
                    producer.produce(self.name, on_delivery=delivered, **options)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        left = producer.flush(60)
        assert not errors and not left, f"not produced: {left} left, errors {errors[:3]}"

    def _shared_producer(self):
        self._producer = self._producer or self._new_producer()
        return self._producer

    def partitions_added(self, total):
        """After Broker.add_partitions: a producer that knew the topic before does not see them yet."""
        self.partitions = total
        self._producer = None

    def produce_sequence(self, count, first=1):
        """Writes {"id": first ...}, round robin over the partitions."""
        self.produce_all({"value": b'{"id": %d}' % number, "partition": number % self.partitions}
                         for number in range(first, first + count))

    @contextlib.contextmanager
    def producing(self, count):
        """Until it ends, another thread writes the sequence 1 ..., so many messages at a time."""
        def produce(stop):
            for first in itertools.count(1, count):
                if stop.is_set():
                    return
                self.produce_sequence(count, first=first)

        with beside(produce):
            yield

    @contextlib.contextmanager
    def transaction(self, commit=True, transactional_id=None, timeout_ms=60000):
        """A Kafka transaction: yields produce(value, partition=0); then commits or aborts."""
        producer = self._new_producer(**{"transactional.id": transactional_id or f"test-{self.name}",
                                         "transaction.timeout.ms": timeout_ms})
        producer.init_transactions(30)
        producer.begin_transaction()

        def produce(*values, partition=0):
            self.produce_all(({"value": value, "partition": partition} for value in values), producer)

        yield produce
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)

    def wait_for_markers(self):
        """Kafka writes a transaction's markers after it has answered the producer: until then it is open for readers."""
        wait_until(lambda: self.offsets() == self.offsets(isolation_level=IsolationLevel.READ_UNCOMMITTED),
                   what="the end of all transactions")

    def offsets(self, timestamp=OffsetSpec.latest(), isolation_level=IsolationLevel.READ_COMMITTED):
        """Per partition, Kafka's answer: the end (read_committed), or for a timestamp in ms."""
        spec = OffsetSpec.for_timestamp(timestamp) if isinstance(timestamp, int) else timestamp
        request = {TopicPartition(self.name, partition): spec for partition in range(self.partitions)}

        def answer():
            futures = self.admin.list_offsets(request, request_timeout=30, isolation_level=isolation_level)
            try:
                return {place.partition: future.result().offset for place, future in futures.items()}
            except KafkaException as error:
                # the client has not heard yet that the broker was started anew; of leader epochs it never hears
                if error.args[0].code() == KafkaError.FENCED_LEADER_EPOCH:
                    self.admin = AdminClient({"bootstrap.servers": self.address})
                elif not error.args[0].retriable():
                    raise
                return None

        return wait_until(answer, what=f"offsets of {self.name}")

    def messages(self):
        """All committed messages, as Kafka's own client reads them."""
        ends = self.offsets()
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "oracle",
                             "isolation.level": "read_committed", "enable.auto.commit": False,
                             "enable.partition.eof": True, "auto.offset.reset": "error",
                             "fetch.message.max.bytes": 16_000_000})
        found, open_partitions = [], set(ends)
        starts = self.offsets(OffsetSpec.earliest())
        consumer.assign([TopicPartition(self.name, partition, starts[partition]) for partition in ends])
        try:
            while open_partitions:
                for message in consumer.consume(10000, timeout=0.1):
                    if not message.error():
                        found.append(message)
                    elif message.error().code() == -191:  # _PARTITION_EOF
                        open_partitions.discard(message.partition())
                    else:
                        raise RuntimeError(message.error())
        finally:
            consumer.close()
        return found


def _as_bytes(value):
    if value is None or isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode()
