"""Gates: a worker is held at an exact point of its batch, so that a fault meets it there."""

import contextlib

from harness.processes import wait_until

KEY = 4711
FUNCTION = f"""CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock({KEY}); RETURN new; END $$"""

# What a gate is built from; the worker reaches it once in every batch.
PLACES = {
    # at the 50th row of the batch's insert
    "in the batch": "BEFORE INSERT ON target FOR EACH ROW WHEN (new.id = 50)",
    # all rows are written, no offset is
    "after the rows, before the offsets": "BEFORE UPDATE OF next_offset ON kafka.stream_offset FOR EACH STATEMENT",
    # rows and offsets are written, COMMIT is next
    "after the offsets, before the commit": "AFTER UPDATE OF next_offset ON kafka.stream_offset FOR EACH STATEMENT",
}


def build(db, place):
    db.run(FUNCTION)
    db.run(f"CREATE TRIGGER gate {PLACES[place]} EXECUTE FUNCTION wait_at_gate()")


@contextlib.contextmanager
def closed(db):
    """The gate is closed; the connection that is yielded opens it by ending."""
    session = db.connect()
    try:
        session.execute(f"SELECT pg_advisory_lock({KEY})")
        yield session
    finally:
        session.close()


def wait_for_worker(db, name="s"):
    """Returns the pid of the worker that stands at the gate."""
    def waiting():
        pids = db.column(f"SELECT l.pid FROM pg_locks l JOIN kafka.stream_status s USING (pid) WHERE locktype = 'advisory' "
                         f"AND objid = {KEY} AND NOT granted AND s.stream = %s", name)
        return pids and pids[0]
    return wait_until(waiting, what="a worker at the gate")
