"""A missing privilege is named: which one, on what, for whom, with the GRANT that gives it."""

import re

import pytest

from expectations import error, values

ROLE = 'kafka "writer"'
QUOTED = '"kafka ""writer"""'

SERVER = ("USAGE", "FOREIGN SERVER broker", "foreign server broker")
SOURCE = ("SELECT", "public.topic", "foreign table public.topic")
SCHEMA = ("USAGE", "SCHEMA public", "schema public")
WINDOW = dict(watermark_column="at", watermark_delay="1 min")


def on_target(privilege):
    return (privilege, "public.target", "table public.target")


# what is created, what create_stream is given, and what the owner needs besides server, source and schema
MODES = {
    "append": ("CREATE TABLE target (id bigint, n int, at timestamptz)", {}, ["INSERT"]),
    "append, planned": ("CREATE TABLE target (id bigint, n int, at timestamptz)", dict(on_conflict="ignore"), ["INSERT"]),
    "upsert": ("CREATE TABLE target (id bigint PRIMARY KEY, n int, at timestamptz)", dict(mode="update"),
               ["SELECT", "INSERT", "UPDATE", "DELETE"]),
    "upsert without deletes": ("CREATE TABLE target (id bigint PRIMARY KEY, n int, at timestamptz)",
                               dict(mode="update", on_tombstone="ignore"), ["SELECT", "INSERT", "UPDATE"]),
    "update": ("CREATE TABLE target (id bigint PRIMARY KEY, n bigint)",
               dict(mode="update", query="SELECT id, sum(n) AS n FROM topic GROUP BY id"), ["SELECT", "INSERT", "UPDATE"]),
    "update with having": ("CREATE TABLE target (id bigint PRIMARY KEY, n bigint)",
                           dict(mode="update", query="SELECT id, sum(n) AS n FROM topic GROUP BY id HAVING sum(n) > 0"),
                           ["SELECT", "INSERT", "UPDATE", "DELETE"]),
    "complete": ("CREATE TABLE target (id bigint PRIMARY KEY, n bigint)",
                 dict(mode="complete", query="SELECT id, sum(n) AS n FROM topic GROUP BY id"),
                 ["SELECT", "INSERT", "UPDATE", "DELETE"]),
    "windows": ("CREATE TABLE target (at timestamptz, n bigint)",
                dict(query="SELECT at, sum(n) AS n FROM topic GROUP BY at", **WINDOW), ["INSERT"]),
    "deduplicate": ("CREATE TABLE target (id bigint, n int, at timestamptz)", dict(deduplicate_by=["id"], **WINDOW), ["INSERT"]),
}


@pytest.fixture
def role(db):
    """A role without any privilege; the test runs as a superuser."""
    db.run(f"DROP ROLE IF EXISTS {QUOTED}")
    db.run(f"CREATE ROLE {QUOTED}; REVOKE ALL ON SCHEMA public FROM PUBLIC")
    yield ROLE
    db.run("RESET ROLE")
    db.run(f"DROP OWNED BY {QUOTED} CASCADE")
    db.run(f"DROP ROLE {QUOTED}")


def create(db, options):
    """Creates the stream as the role."""
    db.run(f"SET ROLE {QUOTED}")
    try:
        db.create_stream(**options)
    finally:
        db.run("RESET ROLE")


def run_hint(db, hint):
    """Does what a hint says; returns what it grants."""
    grants = re.findall(r"GRANT .*?;", hint)
    for grant in grants:
        db.run(grant)
    return grants


def grant_all(db, needed):
    for privilege, granted_on, _ in needed:
        db.run(f"GRANT {privilege} ON {granted_on} TO {QUOTED}")


@pytest.mark.parametrize("mode", MODES)
def test_every_missing_privilege_is_named(db, topic, role, mode):
    target, options, privileges = MODES[mode]
    db.create_topic_table(topic, "id bigint OPTIONS (key 'true'), n int, at timestamptz")
    db.run(target)
    needed = [SERVER, SCHEMA, SOURCE, *map(on_target, privileges)]

    grant_all(db, needed)
    # without USAGE on the schema PostgreSQL itself does not find what the arguments name
    for privilege, granted_on, described in (one for one in needed if one is not SCHEMA):
        db.run(f"REVOKE {privilege} ON {granted_on} FROM {QUOTED}")
        with error(f"permission denied for {described.split()[0]} ",
                   f'^Role "{re.escape(ROLE)}" needs {privilege} on {described}.$',
                   f"^GRANT {privilege} ON {granted_on} TO {re.escape(QUOTED)};$", "42501") as caught:
            create(db, options)
        assert len(run_hint(db, caught.value.diag.message_hint)) == 1
    create(db, options)

    # later: one of them, or each in one of the modes, for a failure takes its time to be believed
    topic.produce({"id": 1, "n": 1, "at": "2026-01-01 00:00Z"}, key="1")
    db.process_all_available()
    revoked = needed if mode == "update with having" else needed[-1:]
    for number, (privilege, granted_on, described) in enumerate(revoked):
        db.run(f"REVOKE {privilege} ON {granted_on} FROM {QUOTED}")
        topic.produce({"id": 2 + number, "n": 1, "at": f"2026-01-01 01:0{number}Z"}, key=str(2 + number))
        status = db.wait_for_state("failed")
        assert status.last_error_sqlstate == "42501"
        assert status.last_error_detail == f'Role "{ROLE}" needs {privilege} on {described}.'
        assert status.last_error_hint == (f"GRANT {privilege} ON {granted_on} TO {QUOTED}; "
                                          "Then kafka.start_stream goes on.")
        # the superuser's privileges are not the owner's
        with error("permission denied", sqlstate="42501"):
            db.call("start_stream")
        run_hint(db, status.last_error_hint)
        db.call("start_stream")
        db.process_all_available()
    # closes the windows before it
    topic.produce({"id": 99, "n": 1, "at": "2026-01-02 00:00Z"}, key="99")
    db.process_all_available()
    db.wait_for("SELECT count(*) FROM target", len(revoked) + 1 + (mode != "windows"))
    db.call("drop_stream")


def test_all_that_is_missing_is_in_one_error(db, topic, role):
    db.create_topic_table(topic, "id bigint OPTIONS (key 'true'), name text")
    db.run("CREATE TABLE target (id bigint PRIMARY KEY, name text)")
    db.run(f"GRANT USAGE ON SCHEMA public TO {QUOTED}; GRANT USAGE ON FOREIGN SERVER broker TO {QUOTED}")
    with error("permission denied", "needs SELECT, INSERT, UPDATE, DELETE on table public.target.*"
                                    "needs SELECT on foreign table public.topic") as caught:
        create(db, dict(mode="update"))
    run_hint(db, caught.value.diag.message_hint)
    create(db, dict(mode="update"))
    db.call("drop_stream")


def test_columns_that_are_not_granted(db, topic, role):
    db.create_topic_table(topic, "id bigint OPTIONS (key 'true'), name text, \"Amount\" int")
    db.run("CREATE TABLE target (id bigint PRIMARY KEY, name text, \"Amount\" int, secret text)")
    db.run(f"GRANT USAGE ON SCHEMA public TO {QUOTED}; GRANT USAGE ON FOREIGN SERVER broker TO {QUOTED}; "
           f"GRANT SELECT (id, \"Amount\") ON topic TO {QUOTED}; GRANT INSERT (name) ON target TO {QUOTED}")
    with error("permission denied for (foreign )?table",
               r'needs INSERT \(id, "Amount"\) on table.*needs SELECT \(name\) on foreign table public.topic') as caught:
        create(db, {})
    run_hint(db, caught.value.diag.message_hint)
    create(db, {})
    topic.produce({"name": "a", "Amount": 1}, key="1")
    db.process_all_available()
    assert db.run('SELECT id, name, "Amount", secret FROM target') == [(1, "a", 1, None)]
    db.call("drop_stream")


def test_the_owner_of_a_view_in_between(db, topic, role):
    """The view's owner needs what the view reads, and the error says so."""
    db.run("DROP ROLE IF EXISTS kafka_viewer; CREATE ROLE kafka_viewer")
    try:
        db.create_topic_table(topic)
        db.run("CREATE TABLE target (id bigint); CREATE VIEW seen AS SELECT id FROM topic; ALTER VIEW seen OWNER TO kafka_viewer")
        db.run(f"GRANT USAGE ON SCHEMA public TO {QUOTED}; GRANT USAGE ON FOREIGN SERVER broker TO {QUOTED}; "
               f"GRANT INSERT ON target TO {QUOTED}")
        with error("permission denied for view seen", rf'Role "{re.escape(ROLE)}" needs SELECT on view public.seen\. '
                                                      r'Role "kafka_viewer" needs SELECT on foreign table public.topic\.') as caught:
            create(db, dict(source="seen"))
        run_hint(db, caught.value.diag.message_hint)
        create(db, dict(source="seen"))
        db.call("drop_stream")
    finally:
        db.run("DROP OWNED BY kafka_viewer CASCADE; DROP ROLE kafka_viewer")


def test_sequences_and_functions(db, topic, role):
    """A serial column needs its sequence, and a query its functions."""
    db.create_topic_table(topic)
    db.run("CREATE TABLE target (number serial, id bigint)")
    db.run("CREATE FUNCTION twice(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN $1 * 2; "
           "REVOKE EXECUTE ON FUNCTION twice FROM PUBLIC")
    db.run(f"GRANT USAGE ON SCHEMA public TO {QUOTED}; GRANT USAGE ON FOREIGN SERVER broker TO {QUOTED}; "
           f"GRANT SELECT ON topic TO {QUOTED}; GRANT INSERT ON target TO {QUOTED}")
    options = dict(query="SELECT twice(id) AS id FROM topic")
    with error("permission denied for sequence target_number_seq",
               r"USAGE on sequence public.target_number_seq\. .* EXECUTE on function public.twice\(bigint\)",
               r"GRANT USAGE ON SEQUENCE .*; GRANT EXECUTE ON FUNCTION ") as caught:
        create(db, options)
    run_hint(db, caught.value.diag.message_hint)
    create(db, options)
    topic.produce({"id": 1}, {"id": 2})
    db.process_all_available()
    assert values(db, "SELECT id FROM target") == [(2,), (4,)]
    db.call("drop_stream")


def test_foreach_batch(db, topic, role):
    db.create_topic_table(topic)
    db.run("CREATE TABLE target (id bigint)")
    db.run("CREATE PROCEDURE write(batch_id bigint) LANGUAGE sql BEGIN ATOMIC INSERT INTO target SELECT id FROM topic; END; "
           "REVOKE EXECUTE ON PROCEDURE write FROM PUBLIC")
    db.run(f"GRANT USAGE ON SCHEMA public TO {QUOTED}")
    needed = [SERVER, SOURCE, ("EXECUTE", "PROCEDURE public.write(bigint)", "procedure public.write(bigint)")]
    options = dict(target=None, foreach_batch="write(bigint)")
    for privilege, granted_on, described in needed:
        with error(f"permission denied for {described.split()[0]} ",
                   f"needs {privilege} on {re.escape(described)}", f"GRANT {privilege} ON {re.escape(granted_on)} TO") as caught:
            create(db, options)
        run_hint(db, caught.value.diag.message_hint)
    create(db, options)
    # what the procedure does is its own: PostgreSQL's error, and whom it is about
    topic.produce({"id": 1})
    status = db.wait_for_state("failed")
    assert status.last_error == "permission denied for table target"
    assert "runs as its owner" in status.last_error_hint
    db.run(f"GRANT INSERT ON target TO {QUOTED}")
    db.call("start_stream")
    db.process_all_available()
    db.run(f"REVOKE EXECUTE ON PROCEDURE write FROM {QUOTED}")
    topic.produce({"id": 2})
    assert "needs EXECUTE on procedure" in db.wait_for_state("failed").last_error_detail
    db.call("drop_stream")


def test_membership_that_is_revoked(db, topic, role):
    """No table changes, and no plan is made anew: privileges are looked at in every batch."""
    db.run("DROP ROLE IF EXISTS kafka_writers; CREATE ROLE kafka_writers")
    try:
        db.create_topic_table(topic)
        db.run("CREATE TABLE target (id bigint)")
        db.run("GRANT USAGE ON SCHEMA public TO PUBLIC; GRANT USAGE ON FOREIGN SERVER broker TO PUBLIC; "
               "GRANT SELECT ON topic TO kafka_writers; GRANT INSERT ON target TO kafka_writers")
        db.run(f"GRANT kafka_writers TO {QUOTED}")
        create(db, {})
        topic.produce({"id": 1})
        db.process_all_available()
        db.run(f"REVOKE kafka_writers FROM {QUOTED}")
        topic.produce({"id": 2})
        status = db.wait_for_state("failed")
        assert "needs SELECT on foreign table public.topic" in status.last_error_detail
        assert "needs INSERT on table public.target" in status.last_error_detail
        assert db.column("SELECT id FROM target") == [1]
        db.call("drop_stream")
    finally:
        db.run("DROP OWNED BY kafka_writers; DROP ROLE kafka_writers")
