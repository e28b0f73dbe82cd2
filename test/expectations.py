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
