"""The network between the worker and the brokers: slow, silent, cut in the middle of an answer."""

import time

import pytest

from expectations import assert_exact
from harness.processes import wait_until
from observer import Observer
from proxy import Proxy


@pytest.fixture
def proxied(db, topic, kafka):
    """A stream that reaches Kafka through a proxy, which is returned."""
    with Proxy(kafka) as proxy:
        db.run(f"ALTER SERVER broker OPTIONS (SET bootstrap_servers '{proxy.address}', ADD socket_timeout_ms '2000', "
               "ADD reconnect_backoff_ms '20', ADD reconnect_backoff_max_ms '200')")
        db.create_tables(topic)
        yield proxy
        db.call("drop_stream")


def test_connections_reset_in_the_middle_of_an_answer(db, topic, proxied):
    topic.produce_sequence(20_000)
    db.create_stream(max_offsets_per_trigger=2000, start=False)
    assert proxied.connections > 0
    with Observer(db):
        for reset_after in (100_000, 30_001, 7, 250_000):
            proxied.reset_after, before = reset_after, proxied.resets
            db.call("start_stream")  # the first time; it runs afterwards
            topic.produce_sequence(3000, first=100_000 + reset_after)
            wait_until(lambda: proxied.resets >= before + 2, what="resets")
        proxied.reset_after = None
        assert_exact(db, topic)


def test_slow_broker(db, topic, proxied):
    """Answers trickle in; what has come is not fetched again and again."""
    db.run("ALTER SERVER broker OPTIONS (SET socket_timeout_ms '10000')")
    db.create_stream()
    db.process_all_available()
    proxied.bytes_per_second = 50_000
    topic.produce_sequence(3_000)
    with Observer(db):
        assert_exact(db, topic)


def test_silent_network(db, topic, proxied):
    """Connections stand, nothing comes: the status says so, the worker can be stopped, and all is read afterwards."""
    db.create_stream()
    topic.produce_sequence(30)
    db.process_all_available()
    proxied.passing = False
    topic.produce_sequence(30, first=31)
    wait_until(lambda: db.status().last_error is not None, timeout=60)
    started = time.monotonic()
    db.call("stop_stream")
    assert time.monotonic() - started < 5
    proxied.passing = True
    db.call("start_stream")
    assert_exact(db, topic)
