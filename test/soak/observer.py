"""Compares rows, dead letters and offsets in single snapshots while faults are injected."""

import threading

import psycopg

# Every stream's rows and letters are as many as the messages that its checkpoint has counted.
CHECKS = {
    "append": """SELECT (SELECT count(*) FROM target) + (SELECT count(*) FROM kafka.dead_letter WHERE stream = 'append'),
                        (SELECT coalesce(sum(message_count), 0) FROM kafka.stream_offset WHERE stream = 'append')""",
    "totals": """SELECT (SELECT coalesce(sum(n), 0) FROM totals) + (SELECT count(*) FROM kafka.dead_letter WHERE stream = 'totals'),
                        (SELECT coalesce(sum(message_count), 0) FROM kafka.stream_offset WHERE stream = 'totals')""",
    "board": """SELECT (SELECT coalesce(sum(n), 0) FROM board) + (SELECT count(*) FROM kafka.dead_letter WHERE stream = 'board'),
                       (SELECT coalesce(sum(message_count), 0) FROM kafka.stream_offset WHERE stream = 'board')""",
    "offsets of append": """SELECT count(*), 0 FROM (SELECT p, max(o) AS o FROM target GROUP BY p) t JOIN kafka.stream_offset s
                            ON s.stream = 'append' AND s.partition = t.p WHERE t.o >= s.next_offset""",
}


class Observer:
    def __init__(self, streams):
        self.snapshots = 0
        self._db = streams.db
        self._mistake = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()

    def check(self):
        assert self._mistake is None, self._mistake

    def _watch(self):
        while not self._stop.is_set() and not self._mistake:
            try:
                with self._db.connect(autocommit=False) as connection:
                    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                    while not self._stop.is_set() and not self._mistake:
                        # before the snapshot: to an older one a table is empty that ALTER TABLE has rewritten
                        connection.execute("LOCK TABLE target, totals, board IN ACCESS SHARE MODE")
                        for name, query in CHECKS.items():
                            found, expected = connection.execute(query).fetchone()
                            if found != expected:
                                self._mistake = f"{name}: {found} in the tables, {expected} by the checkpoint"
                        connection.rollback()
                        self.snapshots += 1
                        self._stop.wait(0.2)
            except (psycopg.OperationalError, psycopg.errors.InternalError_, psycopg.errors.QueryCanceled):
                self._stop.wait(0.05)  # the server restarts, or a table is being rewritten
