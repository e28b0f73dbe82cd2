"""The streams of the soak, one of each kind, and what their targets must hold in the end."""

import collections
import contextlib
import datetime
import json

import psycopg
from confluent_kafka import IsolationLevel

from harness.database import Database
from harness.processes import wait_until
from harness.topic import Topic

PARTITIONS = 3

SCHEMA = """
CREATE FOREIGN TABLE events_topic (id bigint, amount numeric, p int OPTIONS (metadata 'partition'),
    o bigint OPTIONS (metadata 'offset')) SERVER broker OPTIONS (topic 'events');
CREATE FOREIGN TABLE keys_topic (k text OPTIONS (key 'true'), v bigint) SERVER broker OPTIONS (topic 'keys');
CREATE FOREIGN TABLE times_topic (at timestamptz, id bigint) SERVER broker OPTIONS (topic 'times');
CREATE TABLE target (id bigint, p int, o bigint);
CREATE TABLE latest (k text PRIMARY KEY, v bigint);
CREATE TABLE totals (g bigint PRIMARY KEY, n bigint, total numeric);
CREATE TABLE board (g bigint PRIMARY KEY, n bigint);
CREATE TABLE windows (start timestamptz, n bigint);
"""

WATERMARK_DELAY = 10  # seconds; the load's disorder is less

STREAMS = {
    "append": dict(target="target", on_error="dead_letter", workers=2,
                   query="SELECT id, p, o FROM events_topic"),
    "upsert": dict(source="keys_topic", target="latest", mode="update"),
    "totals": dict(target="totals", mode="update", on_error="dead_letter",
                   query="SELECT id % 50 AS g, count(*) AS n, sum(amount) AS total FROM events_topic GROUP BY id % 50"),
    "board": dict(target="board", mode="complete", on_error="dead_letter",
                  query="SELECT id % 7 AS g, count(*) AS n FROM events_topic GROUP BY id % 7"),
    "windows": dict(target="windows", watermark_column="at", watermark_delay=f"{WATERMARK_DELAY} s",
                    query="SELECT date_bin('5 s', at, '2000-01-01 00:00+00') AS start, count(*) AS n FROM times_topic "
                          "GROUP BY 1"),
}


def seconds(stamp):
    return datetime.datetime.fromisoformat(stamp).timestamp()


class Streams:
    def __init__(self, cluster, broker):
        self.db = Database(cluster)
        self.broker = broker
        self.topics = {}
        for name, partitions in (("events", PARTITIONS), ("keys", PARTITIONS), ("times", 1)):
            broker.create_topic(name, partitions)
            self.topics[name] = Topic(broker.address, name, partitions, broker.admin())

    def create(self):
        self.db.create_server(self.broker.address, socket_timeout_ms=5000, reconnect_backoff_max_ms=500)
        self.db.run("ALTER SYSTEM SET kafka_ingest.metadata_refresh_interval = '2 s'")
        self.db.run("ALTER SYSTEM SET kafka_ingest.max_restart_delay = '4 s'")
        self.db.run("SELECT pg_reload_conf()")
        self.db.run(SCHEMA)
        for name, options in STREAMS.items():
            self.db.call("create_stream", name, **options)

    def check_states(self):
        """None of the faults may make a stream give up."""
        with contextlib.suppress(psycopg.OperationalError), self.db.connect() as connection:
            failed = connection.execute("SELECT stream, last_error, last_error_detail FROM kafka.stream_status "
                                        "WHERE state = 'failed'").fetchall()
            assert not failed, f"streams have failed: {failed}"

    def wait_until_done(self):
        """A last message closes the windows; all transactions are over; all streams are at the end."""
        self.db.reconnect()
        for topic in self.topics.values():
            wait_until(lambda: topic.offsets() == topic.offsets(isolation_level=IsolationLevel.READ_UNCOMMITTED), timeout=90, interval=0.5,
                       what=f"the end of all transactions of {topic.name}")
        for name in STREAMS:
            self.db.call("start_stream", name)
        for name in STREAMS:
            try:
                self.db.process_all_available(name, timeout="55 s")
            except psycopg.errors.QueryCanceled:
                self.show()
                raise
        self.check_states()

    def show(self):
        """What the streams and their workers say of themselves, for the log of a run that fails."""
        for view in ("kafka.stream_status", "kafka.stream_worker", "kafka.stream_lag",
                     "(SELECT * FROM kafka.stream_progress ORDER BY 1 DESC LIMIT 10)", "pg_stat_activity"):
            for row, in self.db.run(f"SELECT jsonb_strip_nulls(to_jsonb(t)) FROM {view} t"):
                print(view, json.dumps(row), flush=True)

    # --- what must be there ------------------------------------------------

    def compare(self):
        events = self.topics["events"].messages()
        good, bad = [], []
        for message in events:
            try:
                good.append((json.loads(message.value()), message))
            except ValueError:
                bad.append(message)
        counts = {"events": len(events), "bad": len(bad)}

        self._same("rows of append", collections.Counter(self.db.run("SELECT id, p, o FROM target")),
                   collections.Counter((value["id"], message.partition(), message.offset()) for value, message in good))
        letters = {(message.partition(), message.offset()) for message in bad}
        for stream in ("append", "totals", "board"):
            self._same(f"dead letters of {stream}",
                       self.db.run('SELECT partition, "offset" FROM kafka.dead_letter WHERE stream = %s', stream), letters)

        totals, board = collections.defaultdict(lambda: [0, 0]), collections.Counter()
        for value, _ in good:
            total = totals[value["id"] % 50]
            total[0] += 1
            total[1] += value["amount"]
            board[value["id"] % 7] += 1
        self._same("totals", self.db.run("SELECT g, n, total::bigint FROM totals"), {(g, n, t) for g, (n, t) in totals.items()})
        self._same("board", self.db.run("SELECT g, n FROM board"), set(board.items()))

        latest = {}
        for message in self.topics["keys"].messages():  # of one key all are in one partition, in order
            if message.value() is None:
                latest.pop(message.key().decode(), None)
            else:
                latest[message.key().decode()] = json.loads(message.value())["v"]
        self._same("upsert", self.db.run("SELECT k, v FROM latest"), set(latest.items()))
        counts["keys"] = len(latest)

        times = [seconds(json.loads(message.value())["at"]) for message in self.topics["times"].messages()]
        assert times == [] or times[-1] == max(times), "the load's last message closes the windows"
        windows = collections.Counter(int(at // 5 * 5) for at in times)
        closed = {(start, n) for start, n in windows.items() if times and start + 5 <= max(times) - WATERMARK_DELAY}
        self._same("windows", self.db.run("SELECT extract(epoch FROM start)::bigint, n FROM windows"), closed)
        counts["windows"] = len(closed)

        for stream, topic in (("append", "events"), ("upsert", "keys"), ("totals", "events"), ("board", "events"),
                              ("windows", "times")):
            assert self.db.next_offsets(stream) == self.topics[topic].offsets(), f"offsets of {stream}"
        return counts

    @staticmethod
    def _same(what, found, expected):
        found, expected = collections.Counter(found), collections.Counter(expected)
        missing, surplus = expected - found, found - expected
        assert not missing and not surplus, (f"{what}: {missing.total()} missing {list(missing)[:3]}, "
                                             f"{surplus.total()} too many {list(surplus)[:3]}")
