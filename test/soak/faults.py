"""The faults of the soak."""

import collections
import contextlib
import os
import signal
import time

import psycopg

from soak.streams import STREAMS


class Faults:
    def __init__(self, streams, broker, cluster, numbers):
        self.counts = collections.Counter()
        self._streams = streams
        self._db = streams.db
        self._broker = broker
        self._cluster = cluster
        self._random = numbers
        self._faults = {
            self.kill_worker: 6, self.terminate_worker: 4, self.cancel_batch: 4, self.terminate_launcher: 1,
            self.restart_immediately: 2, self.restart_fast: 2,
            self.kill_broker: 2, self.suspend_broker: 3, self.restart_broker: 1,
            self.stop_and_start: 6, self.alter: 4, self.add_partition: 1,
            self.add_and_drop_column: 2, self.index: 2, self.vacuum_full: 2, self.retype: 1, self.lock_target: 3,
            self.alter_server: 1, self.nothing: 4,
        }

    def inject_one(self):
        fault, = self._random.choices(list(self._faults), list(self._faults.values()))
        stream = self._random.choice(list(STREAMS))
        pause, number = self._random.uniform(0.1, 2), self._random.random()
        self.counts[fault.__name__] += 1
        print(f"{time.strftime('%H:%M:%S')} {fault.__name__} ({stream})", flush=True)
        # Another fault may still be at work: what can't be done now is not done.
        with contextlib.suppress(psycopg.OperationalError, psycopg.errors.ObjectInUse, psycopg.errors.InternalError_):
            fault(stream, number)
        time.sleep(pause)

    def mend(self):
        """All is as it was."""
        self._broker.ensure_running()
        if not self._cluster.process.is_running():
            self._cluster.start()
        self._db.reconnect()
        for stream in STREAMS:
            self._run("SELECT kafka.alter_stream(%s, max_offsets_per_trigger => 0, trigger_interval => '0')", stream)

    def _run(self, statement, *parameters):
        """A connection of its own, as any of the others may just have been killed."""
        with self._db.connect() as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else None

    def _pid(self, stream):
        rows = self._run("SELECT pid FROM kafka.stream_status WHERE stream = %s AND pid IS NOT NULL", stream)
        return rows[0][0] if rows else None

    @staticmethod
    def _target(stream):
        return STREAMS[stream]["target"]

    # --- processes ---------------------------------------------------------

    def kill_worker(self, stream, number):
        pid = self._pid(stream)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def terminate_worker(self, stream, number):
        self._run("SELECT pg_terminate_backend(%s)", self._pid(stream))

    def cancel_batch(self, stream, number):
        self._run("SELECT pg_cancel_backend(%s)", self._pid(stream))

    def terminate_launcher(self, stream, number):
        self._run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type ~ 'kafka.*launcher'")

    def restart_immediately(self, stream, number):
        self._cluster.restart("immediate")

    def restart_fast(self, stream, number):
        # PostgreSQL itself may take its time when it is told to stop in the middle of crash recovery.
        self._db.reconnect(60)
        seconds = self._cluster.stop("fast")
        self._cluster.start()
        assert seconds < 20, f"a fast stop took {seconds:.0f} s"

    # --- Kafka -------------------------------------------------------------

    def kill_broker(self, stream, number):
        self._broker.kill()
        time.sleep(3 * number)
        self._broker.start()

    def suspend_broker(self, stream, number):
        self._broker.suspend()
        time.sleep(6 * number)
        self._broker.resume()

    def restart_broker(self, stream, number):
        self._broker.stop()
        self._broker.start()

    def add_partition(self, stream, number):
        topic = self._streams.topics["events"]
        if topic.partitions < 12:
            self._broker.add_partitions("events", topic.partitions + 1)
            topic.partitions_added(topic.partitions + 1)

    # --- streams -----------------------------------------------------------

    def stop_and_start(self, stream, number):
        try:
            self._run("SELECT kafka.stop_stream(%s)", stream)
            time.sleep(number)
        finally:
            self._start(stream)

    def _start(self, stream):
        deadline = time.monotonic() + 60
        while True:
            try:
                self._run("SELECT kafka.start_stream(%s)", stream)
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def alter(self, stream, number):
        self._run("SELECT kafka.alter_stream(%s, max_offsets_per_trigger => %s, trigger_interval => %s)", stream,
                  int(number * 5) and int(10 ** (4 * number)), f"{int(number * 10) % 3 * 100} ms")

    def alter_server(self, stream, number):
        self._run(f"ALTER SERVER broker OPTIONS (SET socket_timeout_ms '{4000 + int(number * 2000)}')")

    # --- the tables --------------------------------------------------------

    def add_and_drop_column(self, stream, number):
        target = self._target(stream)
        self._run(f"ALTER TABLE {target} ADD COLUMN extra int DEFAULT 7")
        time.sleep(number)
        self._run(f"ALTER TABLE {target} DROP COLUMN extra")

    def index(self, stream, number):
        target = self._target(stream)
        self._run(f"CREATE INDEX IF NOT EXISTS extra_{target} ON {target} ({ {'target': 'id', 'latest': 'v'}.get(target, 'n') })")
        time.sleep(number)
        self._run(f"DROP INDEX IF EXISTS extra_{target}")

    def vacuum_full(self, stream, number):
        self._run(f"VACUUM FULL {self._target(stream)}")
        self._run("VACUUM FULL kafka.stream_offset")

    def retype(self, stream, number):
        self._run(f"ALTER TABLE target ALTER COLUMN id TYPE {'numeric' if number < 0.5 else 'bigint'}")

    def lock_target(self, stream, number):
        with self._db.connect(autocommit=False) as connection:
            connection.execute(f"LOCK TABLE {self._target(stream)}")
            time.sleep(2 * number)

    def nothing(self, stream, number):
        time.sleep(number)
