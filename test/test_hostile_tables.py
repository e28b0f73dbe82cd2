"""Tables and views of others, however a batch comes upon them, gain nothing of the rights of a stream's owner."""

import pytest

from expectations import assert_exact, error
from hostile import DENIED, HARM, assert_stops, create, create_procedure, marked, roles, start  # noqa: F401

# what app may do to its table app.log
HOSTILE = {
    "check": (f"ALTER TABLE app.log ADD CHECK ({HARM}) NOT VALID", 'in the definition of "log" would run'),
    "default": (f"ALTER TABLE app.log ADD extra boolean DEFAULT NULL, ALTER extra SET DEFAULT {HARM}",
                'in the definition of "log" would run'),
    "trigger condition": (f"CREATE TRIGGER t BEFORE INSERT OR UPDATE ON app.log FOR EACH ROW WHEN ({HARM}) "
                          "EXECUTE FUNCTION app.mine()", 'in the definition of "log" would run'),
    "policy": ("ALTER TABLE app.log ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON app.log "
               f"USING ({HARM}) WITH CHECK ({HARM})", 'in the definition of "log" would run'),
    "rule": ("CREATE RULE r AS ON INSERT TO app.log DO ALSO SELECT own.mark()", 'a rule of table "log"'),
    "calls the owner's function": ("ALTER TABLE app.log ADD CHECK (own.mark() IS NOT NULL) NOT VALID",
                                   'function own.mark() in the definition of "log"'),
}


@pytest.fixture
def log(marked):
    """A table of app that ingest writes to."""
    marked.run("CREATE TABLE app.log (id bigint); GRANT ALL ON app.log TO {ingest};"
               "CREATE FUNCTION app.mine() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS 'BEGIN RETURN new; END'", "app")
    return marked


@pytest.mark.parametrize("hostile", HOSTILE)
def test_table_that_a_procedure_writes(log, topic, hostile):
    create_procedure(log, "INSERT INTO app.log SELECT id FROM public.topic")
    assert_stops(log, topic, *HOSTILE[hostile], foreach_batch="own.each(bigint)")
    assert log.db.column("SELECT id FROM app.log") == [1]


@pytest.mark.parametrize("hostile", ["check", "default", "trigger condition", "policy"])
def test_table_behind_the_own_view(log, topic, hostile):
    log.run("CREATE VIEW own.v AS SELECT id FROM app.log", "ingest")
    assert_stops(log, topic, *HOSTILE[hostile], target="own.v", query="SELECT id FROM topic")
    assert log.db.column("SELECT id FROM app.log") == [1]


@pytest.mark.parametrize("hostile", ["check", "trigger condition"])
def test_table_that_a_trusted_trigger_writes(log, topic, hostile):
    log.run("CREATE FUNCTION own.copy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO app.log VALUES (new.id); "
            "RETURN new; END $$; CREATE TRIGGER t BEFORE INSERT ON own.target FOR EACH ROW EXECUTE FUNCTION own.copy()", "ingest")
    assert_stops(log, topic, *HOSTILE[hostile])
    assert log.db.column("SELECT id FROM own.target") == [1]


@pytest.mark.parametrize("statement", ["UPDATE own.parent SET id = id", "DELETE FROM own.parent",
                                       "PERFORM FROM own.parent"])
def test_child_by_inheritance(log, topic, statement):
    """What reaches the children reaches their code."""
    log.run("CREATE TABLE own.parent (id bigint); GRANT ALL ON own.parent TO {app}", "ingest")
    log.run("INSERT INTO app.log VALUES (1)", "app")
    log.run("ALTER TABLE app.log OWNER TO {ingest}; ALTER TABLE app.log INHERIT own.parent; ALTER TABLE app.log OWNER TO {app}")
    log.run("GRANT ALL ON app.log TO {ingest}", "app")
    create_procedure(log, f"PERFORM FROM public.topic; {statement}")
    hostile = {"UPDATE": "check", "DELETE": "trigger condition", "PERFORM": "policy"}[statement.split()[0]]
    command, message = HOSTILE[hostile]
    command = command.replace("INSERT OR UPDATE ON", "DELETE ON")
    if hostile == "policy":
        # PostgreSQL applies the policies of the table that is named
        log.run(command, "app")
        start(log, foreach_batch="own.each(bigint)")
        topic.produce({"id": 1})
        status = log.db.wait_for_state("failed")
        assert message in status.last_error
    else:
        if hostile == "trigger condition":
            log.run("CREATE OR REPLACE FUNCTION app.mine() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS "
                    "'BEGIN RETURN NULL; END'", "app")
        assert_stops(log, topic, command, message, foreach_batch="own.each(bigint)")
    assert log.db.column("SELECT who FROM own.marker") == []


@pytest.mark.parametrize("hostile", ["check", "default", "trigger condition"])
def test_partition_of_another_below_the_own_table(log, topic, hostile):
    log.run("CREATE TABLE own.parts (id bigint, extra boolean) PARTITION BY RANGE (id);"
            "CREATE TABLE own.one PARTITION OF own.parts DEFAULT", "ingest")
    log.run("DROP TABLE app.log", "app")
    log.run("ALTER TABLE own.one SET SCHEMA app; ALTER TABLE app.one RENAME TO log; ALTER TABLE app.log OWNER TO {app}")
    command, message = HOSTILE[hostile]
    command = command.replace("ADD extra boolean DEFAULT NULL, ", "")
    assert_stops(log, topic, command, message, target="own.parts", query="SELECT id FROM topic")
    assert log.db.column("SELECT id FROM own.parts") == [1]
    log.db.call("drop_stream")
    with error(message, hint="GRANT", sqlstate=DENIED):
        start(log, target="own.parts", query="SELECT id FROM topic")


def test_view_that_a_procedure_reads_or_writes(log, topic):
    log.run("CREATE VIEW app.v AS SELECT id FROM app.log; GRANT ALL ON app.v TO {ingest}", "app")
    create_procedure(log, "PERFORM FROM app.v, public.topic")
    assert_stops(log, topic, f"CREATE OR REPLACE VIEW app.v AS SELECT id FROM app.log WHERE {HARM}",
                 'in the definition of "v" would run', foreach_batch="own.each(bigint)")
    log.db.call("drop_stream")
    log.run("DROP PROCEDURE own.each", "ingest")
    create_procedure(log, "INSERT INTO app.v SELECT id FROM public.topic")
    start(log, foreach_batch="own.each(bigint)")
    status = log.db.wait_for_state("failed")
    assert (status.last_error_sqlstate, 'view "v" would run' in status.last_error) == (DENIED, True), status


def test_retried_dead_letters_are_watched(log, topic):
    """In a session, too, in which the procedure has been run before."""
    create_procedure(log, "PERFORM 1 / id FROM public.topic; INSERT INTO app.log SELECT id FROM public.topic")
    start(log, foreach_batch="own.each(bigint)", on_error="dead_letter")
    topic.produce({"id": 0})
    log.db.process_all_available()
    log.run("CREATE OR REPLACE PROCEDURE own.each(batch_id bigint) LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM app.inlined(id) FROM public.topic; INSERT INTO app.log SELECT batch_id; END $$", "ingest")
    log.run("CREATE FUNCTION app.inlined(bigint) RETURNS boolean STABLE LANGUAGE sql AS 'SELECT $1 > 0'", "app")
    log.run("CALL own.each(7)", "ingest")
    with error("function app.inlined", hint="GRANT", sqlstate=DENIED):
        log.run("SELECT kafka.retry_dead_letters('s')", "ingest")


def test_honest_tables_of_another(log, topic):
    """Partitions, inheritance, checks that compute, triggers with the rights of their owner."""
    log.run("""ALTER TABLE app.log ADD made timestamptz DEFAULT now(), ADD key double precision DEFAULT random(),
            ADD CHECK (id > 0 AND id < 1000);
        CREATE TRIGGER t BEFORE INSERT OR UPDATE ON app.log FOR EACH ROW WHEN (new.id > 0) EXECUTE FUNCTION app.mine();
        CREATE TABLE app.parts (id bigint, p int, o bigint) PARTITION BY LIST (mod(p, 2));
        CREATE TABLE app.even PARTITION OF app.parts FOR VALUES IN (0);
        CREATE TABLE app.odd PARTITION OF app.parts FOR VALUES IN (1);
        CREATE TABLE app.child () INHERITS (app.log);
        GRANT ALL ON app.parts, app.child TO {ingest}""", "app")
    create_procedure(log, "INSERT INTO app.log SELECT id FROM public.topic; UPDATE app.log SET made = now()")
    start(log, foreach_batch="own.each(bigint)")
    start(log, name="parts", target="app.parts")
    topic.produce_sequence(30)
    assert_exact(log.db, topic, stream="parts", target="app.parts")
    log.db.process_all_available()
    assert log.db.value("SELECT count(*) FROM app.log WHERE made IS NOT NULL") == 30
