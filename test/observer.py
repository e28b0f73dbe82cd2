"""Looks at rows and offsets in single snapshots while others kill and restart things."""

import threading

import psycopg


class Observer:
    """with Observer(db) as observer: ...; it compares from the first moment to the last.

    The topic's offsets are dense: in every snapshot, a partition's rows in
    "target" (create_tables) must be exactly the offsets below next_offset.
    """

    def __init__(self, db, stream="s"):
        self.snapshots = 0
        self.mistakes = []
        self._db = db
        self._stream = stream
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()
        if exception[0] is None:
            assert not self.mistakes, self.mistakes[0]
            assert self.snapshots > 0

    def _watch(self):
        while not self._stop.is_set() and not self.mistakes:
            try:
                with self._db.connect(autocommit=False) as connection:
                    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                    while not self._stop.is_set() and not self.mistakes:
                        self._compare(connection)
            except psycopg.OperationalError:
                self._stop.wait(0.02)  # the server restarts

    def _compare(self, connection):
        offsets = dict(connection.execute(
            "SELECT partition, next_offset FROM kafka.stream_offset WHERE stream = %s", [self._stream]).fetchall())
        rows = {partition: (count, highest) for partition, count, highest in connection.execute(
            "SELECT p, count(*), max(o) FROM target GROUP BY p").fetchall()}
        connection.rollback()
        self.snapshots += 1
        for partition, next_offset in offsets.items():
            expected = (next_offset, next_offset - 1) if next_offset else (0, None)
            found = rows.get(partition, (0, None))
            if found != expected:
                self.mistakes.append(f"partition {partition}: next_offset {next_offset}, but {found[0]} rows, "
                                     f"the last at offset {found[1]}")
