"""Two roles around a stream: one that has something to lose, and one that wants it."""

import pytest

from roles import Roles

DENIED = "42501"


@pytest.fixture
def roles(db, topic):
    """ingest owns the stream and has a secret; app owns the target and wants it."""
    roles = Roles(db, "ingest", "app")
    db.create_topic_table(topic, "id bigint, p int OPTIONS (metadata 'partition'), "
                                 "o bigint OPTIONS (metadata 'offset')")
    roles.run("""
        CREATE SCHEMA app AUTHORIZATION {app};
        GRANT USAGE ON SCHEMA app TO {ingest};
        GRANT USAGE ON FOREIGN SERVER broker TO {ingest};
        CREATE USER MAPPING FOR {ingest} SERVER broker OPTIONS (ssl_key_password 'mapping-Secret');
        GRANT SELECT ON topic TO {ingest}, {app};
        CREATE TABLE public.vault (secret text);
        INSERT INTO vault VALUES ('vault-Secret');
        GRANT SELECT ON vault TO {ingest}""")
    roles.run("""
        CREATE TABLE app.target (id bigint, p int, o bigint, extra text);
        CREATE TABLE app.stolen (secret text);
        GRANT INSERT ON app.target, app.stolen TO {ingest};
        GRANT SELECT ON app.stolen TO PUBLIC;
        CREATE FUNCTION app.steal() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO app.stolen SELECT secret FROM public.vault;
            INSERT INTO app.stolen SELECT umoptions::text FROM pg_catalog.pg_user_mappings;
            RETURN new;
        END $$;
        CREATE FUNCTION app.look() RETURNS text LANGUAGE sql AS 'SELECT secret FROM public.vault'""", "app")
    yield roles
    roles.drop()


def create(roles, role="ingest", **arguments):
    with roles.acting_as(role):
        roles.db.create_stream(target="app.target", **arguments)


# runs a query with the rights of whoever makes it run, and any user may call it
HARM = "ts_rewrite('a', 'SELECT own.mark(), ''b''::tsquery') IS NOT NULL"


@pytest.fixture
def marked(roles):
    """ingest has a schema "own", and own.mark() writes where only ingest can."""
    roles.run("CREATE SCHEMA own AUTHORIZATION {ingest}; GRANT USAGE ON SCHEMA own TO {app}")
    roles.run("""
        CREATE TABLE own.marker (who text);
        CREATE TABLE own.target (id bigint, p int, o bigint);
        CREATE FUNCTION own.mark() RETURNS tsquery LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO own.marker VALUES (current_user); RETURN 'a'; END $$""", "ingest")
    yield roles


def create_procedure(roles, body, declare=""):
    """own.each(bigint), a procedure of ingest."""
    with roles.acting_as("ingest"):
        roles.db.run(f"CREATE PROCEDURE own.each(batch_id bigint) LANGUAGE plpgsql AS $$ {declare} BEGIN {body}; END $$")


def start(roles, **arguments):
    """A stream of ingest into own.target, or as the arguments say."""
    if "foreach_batch" not in arguments:
        arguments.setdefault("target", "own.target")
    if "query" not in arguments:
        arguments.setdefault("source", "topic")
    with roles.acting_as("ingest"):
        roles.db.call("create_stream", **arguments)


def assert_stops(roles, topic, hostile, message, **arguments):
    """The stream runs until app does what is hostile; then it stops, and nothing has been run."""
    db = roles.db
    start(roles, **arguments)
    topic.produce({"id": 1})
    db.process_all_available()
    roles.run(hostile, "app")
    topic.produce({"id": 2})
    status = db.wait_for_state("failed")
    assert (status.last_error_sqlstate, message in status.last_error) == (DENIED, True), status
    assert "GRANT" in status.last_error_hint
    assert db.column("SELECT who FROM own.marker") == []
