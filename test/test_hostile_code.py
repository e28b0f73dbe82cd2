"""Code of others around a stream gains nothing of its owner's rights."""

import re

import pytest

from expectations import assert_exact, error
from hostile import DENIED, create, marked, roles, start  # noqa: F401


def assert_refused(roles, topic, hostile, message, as_ingest=None):
    """Refused at creation; put there later, it stops the stream, and nothing has leaked."""
    db = roles.db
    topic.produce_sequence(30)
    create(roles)
    db.process_all_available()
    roles.run(hostile, "app")
    topic.produce_sequence(30, first=31)
    status = db.wait_for_state("failed")
    assert status.last_error_sqlstate == DENIED
    assert message in status.last_error, status
    assert "GRANT" in status.last_error_hint
    db.call("drop_stream")
    with error(re.escape(message), hint="GRANT", sqlstate=DENIED):
        create(roles)
    assert db.column("SELECT secret FROM app.stolen") == []
    assert db.column("SELECT extra FROM app.target WHERE extra IS NOT NULL") == []
    assert db.value("SELECT count(*) FROM app.target") == 30


TRIGGER = "CREATE TRIGGER t BEFORE INSERT ON app.target FOR EACH ROW EXECUTE FUNCTION app.steal()"


@pytest.mark.parametrize("hostile, message", [
    (TRIGGER, "function app.steal()"),
    (TRIGGER.replace("BEFORE", "AFTER").replace("ROW", "STATEMENT"), "function app.steal()"),
    ("CREATE TRIGGER t BEFORE INSERT ON app.target FOR EACH ROW WHEN (app.look() <> '') "
     "EXECUTE FUNCTION suppress_redundant_updates_trigger()", "function app.look()"),
    ("ALTER TABLE app.target ALTER extra SET DEFAULT app.look()", "function app.look()"),
    ("ALTER TABLE app.target ALTER extra SET DEFAULT query_to_xml('SELECT * FROM vault', true, true, '')::text",
     "function query_to_xml"),
    ("ALTER TABLE app.target ALTER extra SET DEFAULT current_setting('data_directory')",
     "function current_setting"),
    ("ALTER TABLE app.target ADD CHECK (lo_creat(1) > 0) NOT VALID", "function lo_creat"),
    ("CREATE RULE r AS ON INSERT TO app.target DO ALSO INSERT INTO app.stolen "
     "SELECT umoptions::text FROM pg_user_mappings", "a rule of table"),
    ("ALTER TABLE app.target ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON app.target FOR INSERT WITH CHECK "
     "((SELECT pg_notify('x', max(umoptions::text)) FROM pg_user_mappings) IS NOT NULL)", "a sub-select"),
    ("ALTER TABLE app.target ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON app.target FOR INSERT WITH CHECK "
     "(app.look() <> '')", "function app.look()"),
    ("CREATE DOMAIN app.d AS text CHECK (pg_backend_pid() > 0);"
     "ALTER TABLE app.target ADD hostile app.d", "function pg_backend_pid() in the definition of domain"),
    ("CREATE FUNCTION app.lie(bigint) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT 'x'::text$$;"
     "CREATE INDEX ON app.target (app.lie(id))", "function app.lie(bigint)"),
])
def test_code_of_the_owner_of_the_target(roles, topic, hostile, message):
    assert_refused(roles, topic, hostile, message)


def test_partition_of_the_owner_of_the_target(roles, topic):
    roles.run("DROP TABLE app.target; CREATE TABLE app.target (id bigint, p int, o bigint, extra text) "
              "PARTITION BY LIST (p); CREATE TABLE app.rest PARTITION OF app.target DEFAULT;"
              "GRANT INSERT ON app.target TO {ingest}", "app")
    assert_refused(roles, topic, TRIGGER.replace("app.target", "app.rest"), "function app.steal()")


def test_view_as_the_target(roles, topic):
    roles.run("ALTER TABLE app.target RENAME TO base; CREATE VIEW app.target AS SELECT * FROM app.base;"
              "GRANT INSERT ON app.target TO {ingest}", "app")
    with error('view "target" would run', hint="GRANT", sqlstate=DENIED):
        create(roles)


def test_superuser_is_not_taken_over(roles, topic):
    roles.run(TRIGGER, "app")
    with error("app.steal", sqlstate=DENIED):
        roles.db.create_stream(target="app.target")


def test_what_computes_only_is_welcome(roles, topic):
    """A table as everybody has it, of another owner."""
    roles.run("""CREATE SEQUENCE app.numbers; GRANT USAGE ON app.numbers TO {ingest};
        ALTER TABLE app.target ADD number bigint DEFAULT nextval('app.numbers'), ADD made timestamptz DEFAULT now(),
            ADD key uuid DEFAULT gen_random_uuid(), ADD day date DEFAULT CURRENT_DATE, ADD who text DEFAULT CURRENT_USER,
            ADD twice bigint GENERATED ALWAYS AS (id * 2) STORED, ADD CHECK (id > 0 AND lower('A') = 'a'),
            ALTER extra SET DEFAULT 'x' || upper('y'), ADD PRIMARY KEY (id);
        CREATE INDEX ON app.target (lower(extra)) WHERE id > 10;
        ALTER TABLE app.target ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON app.target FOR INSERT TO {ingest} WITH CHECK (id < 1000 AND who = CURRENT_USER)""", "app")
    create(roles)
    topic.produce_sequence(30)
    assert_exact(roles.db, topic, target="app.target")
    assert roles.db.value("SELECT count(DISTINCT number) FROM app.target WHERE twice = 2 * id AND extra = 'xY'") == 30


def test_security_definer_trigger(roles, topic):
    """It has the rights of its owner, and is looked at again whenever it is called."""
    db = roles.db
    roles.run("CREATE FUNCTION app.mark() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS "
              "$$ BEGIN new.extra := current_user; RETURN new; END $$", "app")
    roles.run(TRIGGER.replace("steal", "mark"), "app")
    create(roles)
    topic.produce_sequence(30)
    db.process_all_available()
    assert db.column("SELECT DISTINCT extra FROM app.target") == [roles.names["app"]]
    roles.run("ALTER FUNCTION app.mark() SECURITY INVOKER", "app")
    topic.produce_sequence(30, first=31)
    assert "app.mark()" in db.wait_for_state("failed").last_error
    assert db.value("SELECT count(*) FROM app.target") == 30


def test_owner_of_the_target_has_the_rights(roles, topic):
    """A member of the stream's owner gains nothing by a trigger."""
    roles.run("GRANT {ingest} TO {app}")
    roles.run(TRIGGER, "app")
    create(roles)
    topic.produce_sequence(3)
    roles.db.process_all_available()
    assert roles.db.value("SELECT count(*) FROM app.target") == 3
    roles.run("REVOKE {ingest} FROM {app}; DELETE FROM app.stolen")
    topic.produce_sequence(3, first=4)
    assert "app.steal()" in roles.db.wait_for_state("failed").last_error
    assert roles.db.column("SELECT secret FROM app.stolen") == []


def test_function_called_by_trusted_code(roles, topic):
    """Found when it is called, however deep."""
    roles.run("CREATE FUNCTION public.harmless() RETURNS trigger LANGUAGE plpgsql AS "
              "$$ BEGIN new.extra := app.look(); RETURN new; END $$;"
              "ALTER TABLE app.target OWNER TO postgres;"
              "CREATE TRIGGER t BEFORE INSERT ON app.target FOR EACH ROW EXECUTE FUNCTION public.harmless()")
    create(roles)
    topic.produce_sequence(3)
    status = roles.db.wait_for_state("failed")
    assert (status.last_error_sqlstate, "app.look()" in status.last_error) == (DENIED, True)
    assert roles.db.value("SELECT count(*) FROM app.target") == 0


def test_query_with_a_function_or_view_of_another(roles, topic):
    roles.run("CREATE VIEW app.v AS SELECT id, p, o FROM public.topic WHERE query_to_xml('SELECT 1', true, true, '') "
              "IS NOT NULL; GRANT SELECT ON app.v TO {ingest}", "app")
    with error('function query_to_xml.* in the definition of "v" would run', hint="GRANT", sqlstate=DENIED):
        create(roles, source="app.v")
    with error("function app.look", hint="SECURITY DEFINER", sqlstate=DENIED):
        create(roles, query="SELECT id, p, o, app.look() AS extra FROM topic")
    with error('definition of "v" would run', sqlstate=DENIED):
        create(roles, query="SELECT v.* FROM (SELECT * FROM app.v) v")
    roles.run("CREATE VIEW app.w AS SELECT 1 AS id FROM pg_user_mappings; GRANT SELECT ON app.w TO {ingest}", "app")
    for place in ("WITH w AS (SELECT id FROM app.w) SELECT t.id, t.p, t.o FROM topic t JOIN w USING (id)",
                  "SELECT id, p, o FROM topic WHERE id IN (SELECT id FROM app.w)",
                  "SELECT id, p, o, (SELECT max(id) FROM app.w)::text AS extra FROM topic"):
        with error('"pg_user_mappings" in the definition of "w" would run', sqlstate=DENIED):
            create(roles, query=place)
    roles.run("CREATE OR REPLACE VIEW app.w AS SELECT 1 AS id", "app")
    create(roles, query="SELECT id, p, o FROM topic WHERE id IN (SELECT id FROM app.w)")
    topic.produce_sequence(3)
    roles.db.process_all_available()
    assert roles.db.column("SELECT id FROM app.target") == [1]
    roles.run("CREATE OR REPLACE VIEW app.w AS SELECT 1 AS id FROM pg_user_mappings WHERE umoptions IS NOT NULL", "app")
    topic.produce_sequence(3)
    assert roles.db.wait_for_state("failed").last_error_sqlstate == DENIED


def test_joined_table_with_policies_of_another(roles, topic):
    roles.run("CREATE TABLE app.lookup (id bigint); GRANT SELECT ON app.lookup TO {ingest};"
              "ALTER TABLE app.lookup ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON app.lookup USING (id > 0);"
              "INSERT INTO app.lookup SELECT generate_series(1, 30)", "app")
    create(roles, query="SELECT t.* FROM topic t JOIN app.lookup USING (id)")
    topic.produce_sequence(30)
    assert_exact(roles.db, topic, target="app.target")
    roles.run("CREATE POLICY q ON app.lookup USING (lo_from_bytea(0, (SELECT umoptions::text::bytea "
              "FROM pg_user_mappings LIMIT 1)) IS NOT NULL)", "app")
    topic.produce_sequence(30)
    assert roles.db.wait_for_state("failed").last_error_sqlstate == DENIED


def test_topic_table_of_another(roles, topic):
    roles.run(f"""GRANT USAGE ON FOREIGN SERVER broker TO {{app}}; SET ROLE {{app}};
        CREATE FOREIGN TABLE app.topic (id bigint, p int, o bigint, extra text DEFAULT app.look())
            SERVER broker OPTIONS (topic '{topic.name}');
        GRANT SELECT ON app.topic TO {{ingest}}; RESET ROLE""")
    with error("app.look", sqlstate=DENIED):
        create(roles, source="app.topic")
    roles.run("ALTER FOREIGN TABLE app.topic ALTER extra SET DEFAULT 'none'", "app")
    create(roles, source="app.topic")
    topic.produce_sequence(3)
    roles.db.process_all_available()
    assert roles.db.value("SELECT count(*) FROM app.target WHERE extra = 'none'") == 3


def test_procedure_of_another(roles, topic):
    roles.run("CREATE PROCEDURE app.each(batch_id bigint) LANGUAGE sql AS "
              "'INSERT INTO app.stolen SELECT secret FROM public.vault'", "app")
    with error("function app.each.bigint", hint="SECURITY DEFINER", sqlstate=DENIED):
        with roles.acting_as("ingest"):
            roles.db.call("create_stream", source="topic", foreach_batch="app.each(bigint)")


def test_operators_in_a_hostile_search_path(roles, topic):
    """Names of a query are resolved once, by the caller; the worker's search_path is empty."""
    db = roles.db
    roles.run("""CREATE FUNCTION app.greater(bigint, int) RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO app.stolen SELECT secret FROM public.vault; RETURN true; END $$;
        CREATE OPERATOR app.> (LEFTARG = bigint, RIGHTARG = int, FUNCTION = app.greater);
        CREATE FUNCTION app.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT app.look(); SELECT pg_catalog.now()'""",
              "app")
    db.run(f"ALTER DATABASE {db.name} SET search_path = app, pg_catalog, public")
    roles.run("ALTER ROLE {ingest} SET search_path = app, pg_catalog, public")
    create(roles, query="SELECT id, p, o FROM topic WHERE id > 0")
    topic.produce_sequence(30)
    assert_exact(db, topic, target="app.target")
    db.run("SET search_path = app, pg_catalog, public")
    try:
        with error("function greater.bigint,integer", sqlstate=DENIED):
            create(roles, name="t", query="SELECT id, p, o FROM public.topic WHERE id > 0")
        for view in ("stream_status", "stream_lag", "stream_progress", "stream_offset"):
            db.run(f"SELECT * FROM kafka.{view}")
        db.call("stop_stream")
        db.call("start_stream")
    finally:
        db.run("RESET search_path")
    assert db.column("SELECT secret FROM app.stolen") == []


def test_constants_of_types_with_code(roles, topic):
    """A constant calls its type's input function, and a domain's check with it, as who writes it: never as us."""
    roles.run("GRANT USAGE ON FOREIGN SERVER broker TO {app}")
    roles.run("""CREATE TABLE app.seen (who text); GRANT INSERT ON app.seen TO PUBLIC;
        CREATE FUNCTION app.note(text) RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO app.seen VALUES (current_user); RETURN true; END $$;
        CREATE DOMAIN app.noted AS text CHECK (app.note(VALUE)); CREATE TYPE app.pair AS (a app.noted)""", "app")
    for constant in ("'{x}'::app.noted[]", "'(x)'::app.pair"):
        create(roles, role="app", query=f"SELECT id, p, o, ({constant})::text AS extra FROM topic")
        with roles.acting_as("app"):
            roles.db.call("alter_stream", query=f"SELECT id, p, o, ({constant})::text AS extra FROM topic")
        topic.produce({"id": 1})
        roles.db.process_all_available()
        roles.db.call("drop_stream")
    assert set(roles.db.column("SELECT who FROM app.seen")) == {roles.names["app"]}
    assert roles.db.column("SELECT DISTINCT extra FROM app.target ORDER BY 1") == ["(x)", "{x}"]


@pytest.mark.parametrize("disarm", [
    "PERFORM kafka.explain_stream('own')",
    "BEGIN PERFORM kafka.alter_stream('own', key_columns => ARRAY['nothing']); EXCEPTION WHEN OTHERS THEN NULL; END"])
def test_another_stream_within_a_batch(roles, topic, disarm):
    """What is done about another stream does not end the watch over this one."""
    roles.run("GRANT USAGE ON FOREIGN SERVER broker TO {app}")
    roles.run(f"""CREATE TABLE app.own (id bigint, p int, o bigint);
        CREATE FUNCTION app.keep(text) RETURNS void SECURITY DEFINER LANGUAGE sql AS 'INSERT INTO app.stolen VALUES ($1)';
        CREATE FUNCTION app.later() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS $$
        BEGIN PERFORM app.keep(secret) FROM public.vault; RETURN new; EXCEPTION WHEN insufficient_privilege THEN RETURN new; END $$;
        CREATE FUNCTION app.first() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS $$
        BEGIN {disarm}; ALTER FUNCTION app.later() SECURITY INVOKER; RETURN new; END $$;
        CREATE TRIGGER a BEFORE INSERT ON app.target FOR EACH ROW EXECUTE FUNCTION app.first();
        CREATE TRIGGER b BEFORE INSERT ON app.target FOR EACH ROW EXECUTE FUNCTION app.later()""", "app")
    with roles.acting_as("app"):
        roles.db.create_stream("own", target="app.own", start=False)
    create(roles)
    topic.produce({"id": 1})
    status = roles.db.wait_for_state("failed")
    assert (status.last_error_sqlstate, "app.later()" in status.last_error) == (DENIED, True)
    assert roles.db.column("SELECT secret FROM app.stolen") == []


@pytest.mark.parametrize("clause", ["", "SET work_mem = '1MB'", "SET search_path = app"])
def test_settings_end_with_the_function(marked, topic, clause):
    """Names in the owner's procedure mean what they mean without the functions of others."""
    marked.run(f"""CREATE TABLE app.log (who text); GRANT INSERT ON app.log TO PUBLIC;
        CREATE FUNCTION app.change() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql {clause} AS $$
        BEGIN
            PERFORM pg_catalog.set_config('search_path', 'app', false);
            SET datestyle TO German;
            RETURN new;
        END $$""", "app")
    marked.run(TRIGGER.replace("steal", "change"), "app")
    marked.run("""CREATE TABLE own.log (who text); CREATE TABLE own.dates (d date);
        CREATE PROCEDURE own.each(batch_id bigint) LANGUAGE plpgsql SET search_path = own AS $$
        BEGIN
            INSERT INTO app.target SELECT id, p, o FROM public.topic;
            INSERT INTO log SELECT secret FROM public.vault;
            INSERT INTO dates VALUES ('01/02/2026'::text::date);
        END $$""", "ingest")
    start(marked, source="topic", foreach_batch="own.each(bigint)")
    for number in range(3):
        topic.produce({"id": number})
        marked.db.process_all_available()
    assert marked.db.column("SELECT id FROM app.target ORDER BY id") == [0, 1, 2]
    assert marked.db.column("SELECT who FROM app.log") == []
    assert marked.db.value("SELECT count(*) FROM own.log") == 3
    assert marked.db.column("SELECT DISTINCT d::text FROM own.dates") == ["2026-01-02"]


def test_settings_end_with_the_batch(roles, topic):
    """What code of others sets is not what the next batch runs with."""
    roles.run("""CREATE FUNCTION app.change() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS $$
        BEGIN
            new.extra := current_setting('search_path') || current_setting('datestyle') || current_setting('lock_timeout');
            PERFORM set_config('search_path', 'app', false), set_config('datestyle', 'German', false),
                    set_config('lock_timeout', '7', false);
            RETURN new;
        END $$""", "app")
    roles.run(TRIGGER.replace("steal", "change"), "app")
    create(roles)
    for number in range(3):
        topic.produce({"id": number})
        roles.db.process_all_available()
    assert roles.db.column("SELECT DISTINCT extra FROM app.target") == ["ISO, MDY0"]
