"""What tests expect: exactly once, and errors that say what is wrong."""

import collections
import contextlib
import json
import re

import psycopg
import pytest


def assert_exact(db, topic, stream="s", target="target", process=True):
    """Rows of the target == committed messages of the topic, and every offset is the end.

    The target has the columns id, p and o (Database.create_tables).
    """
    if process:
        db.process_all_available(stream)
    rows = collections.Counter(db.run(f"SELECT id, p, o FROM {target}"))
    messages = collections.Counter((json.loads(message.value())["id"], message.partition(), message.offset())
                                   for message in topic.messages())
    missing, surplus = messages - rows, rows - messages
    assert not missing, f"{missing.total()} rows are missing: {list(missing)[:3]}"
    assert not surplus, f"{surplus.total()} rows too many: {list(surplus)[:3]}"
    assert db.next_offsets(stream) == topic.offsets()


def assert_another_topic_noticed(db, before):
    """A stream has stopped because its topic is another one; "before" are the rows (id, p, o) of its target until then.

    Of the new topic nothing is written.  Where librdkafka knows no topic ids, it may have read on before it heard of anything: then the
    error says so, and what is written comes from the old position on.
    """
    status = db.status()
    assert status.state == "failed" and status.last_error_sqlstate == "XX001" and "reset_stream" in status.last_error_hint, status
    before = collections.Counter(before)
    rows = collections.Counter(db.run("SELECT id, p, o FROM target"))
    assert not before - rows
    new = rows - before
    assert ("read on before that was noticed" in status.last_error_detail) == bool(new), (status, new)
    if new:
        assert db.value("SELECT every(topic_id IS NULL) FROM kafka.stream_offset")
        ends = collections.Counter()
        for _id, partition, offset in before:
            ends[partition] = max(ends[partition], offset + 1)
        assert all(offset >= ends[partition] for _id, partition, offset in new), new


@contextlib.contextmanager
def error(message, detail=None, hint=None, sqlstate=None):
    """Expects an error whose parts match these regular expressions."""
    with pytest.raises(psycopg.Error) as caught:
        yield caught
    found = caught.value.diag
    shown = (f"{caught.value.sqlstate}: {found.message_primary}\nDETAIL: {found.message_detail}\n"
             f"HINT: {found.message_hint}")
    assert re.search(message, found.message_primary or ""), shown
    assert detail is None or re.search(detail, found.message_detail or ""), shown
    assert hint is None or re.search(hint, found.message_hint or ""), shown
    assert sqlstate is None or caught.value.sqlstate == sqlstate, shown


def values(db, statement):
    """The statement's rows as a sorted list of tuples."""
    return sorted(db.run(statement), key=repr)
