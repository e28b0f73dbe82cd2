"""Kills a worker, and with it the connections of everybody: the postmaster restarts all."""

import os
import signal

import psycopg

from harness.processes import wait_until


def kill_worker(db, name="s", pid=None):
    """kill -9 of the stream's worker, or of the given one; returns when the server has recovered
    and the stream has a worker again."""
    os.kill(pid or db.worker_pid(name), signal.SIGKILL)
    wait_until(lambda: not _alive(db))
    db.reconnect()
    db.worker_pid(name)


def _alive(db):
    try:
        db.connection.execute("SELECT 1")
        return True
    except psycopg.OperationalError:
        return False
