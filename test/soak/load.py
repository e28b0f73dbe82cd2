"""Producers of the soak: plain and transactional, aborted, killed off by the broker's death."""

import contextlib
import itertools
import random
import threading
import time
import zlib

from confluent_kafka import KafkaException, Producer

KEYS = 200
BASE = 1_700_000_000  # event time of the first message, in seconds
DISORDER = 4          # seconds


class Load:
    """with Load(streams, seed): a thread produces until the end; what was written is for Kafka to say."""

    def __init__(self, streams, seed):
        self._streams = streams
        self._address = streams.broker.address
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._error = None
        self._ids = itertools.count(1)
        self._time = BASE
        self._names = itertools.count(1)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()
        if exception[0] is None:
            self.check()
            self._close_windows()

    def check(self):
        if self._error:
            raise self._error

    def _run(self):
        try:
            while not self._stop.is_set():
                with contextlib.suppress(KafkaException):
                    self._produce_some()
                self._stop.wait(self._random.choice((0, 0.01, 0.1, 0.5)))
        except Exception as error:
            self._error = error

    def _new_producer(self, **options):
        return Producer({"bootstrap.servers": self._address, "linger.ms": 5, "log_level": 0, "enable.idempotence": True,
                         "reconnect.backoff.max.ms": 300, "message.timeout.ms": 60000,
                         "topic.metadata.refresh.interval.ms": 1000, **options})

    def _produce_some(self):
        transactional = self._random.random() < 0.3
        if not transactional:
            producer = self._new_producer()
            self._write(producer)
            producer.flush(60)
            return
        # A name of its own: one that the broker's death leaves open ends by its timeout.
        producer = self._new_producer(**{"transactional.id": f"soak-{next(self._names)}", "transaction.timeout.ms": 8000})
        producer.init_transactions(20)
        producer.begin_transaction()
        self._write(producer)
        if self._random.random() < 0.2:
            time.sleep(self._random.random())
        if self._random.random() < 0.6:
            producer.commit_transaction(20)
        else:
            producer.abort_transaction(20)

    def _write(self, producer):
        r = self._random
        for _ in range(r.choice((1, 10, 100, 1000, 3000))):
            kind = r.random()
            if kind < 0.6:
                partitions = self._streams.topics["events"].partitions
                value = b'{"id": %d, "amount": %d}' % (next(self._ids), r.randint(-1000, 1000))
                if r.random() < 0.002:
                    value = value[:r.randint(0, len(value) - 1)]
                self._send(producer, "events", value, partition=r.randrange(partitions))
            elif kind < 0.9:
                key = b"k%d" % r.randrange(KEYS)
                value = None if r.random() < 0.15 else b'{"v": %d}' % r.getrandbits(60)
                # not the producer's own choice, which changes with the number of partitions
                self._send(producer, "keys", value, key=key, partition=zlib.crc32(key) % 3)
            else:
                self._time += r.random() * 0.05
                self._send(producer, "times", b'{"at": "%s", "id": 1}' % stamp(self._time - r.random() * DISORDER))
        producer.poll(0)

    @staticmethod
    def _send(producer, topic, value, **options):
        while True:
            try:
                producer.produce(topic, value, **options)
                return
            except BufferError:
                producer.poll(0.1)

    def _close_windows(self):
        producer = self._new_producer()
        producer.produce("times", b'{"at": "%s", "id": 1}' % stamp(self._time + 100))
        assert producer.flush(60) == 0


def stamp(seconds):
    return (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03}Z").encode()
