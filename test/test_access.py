"""Who may do what: rights, owners, what the views show, the SQL surface, limits."""

import itertools

import psycopg
import pytest
from psycopg import sql

from expectations import assert_exact, error
from harness.processes import wait_until
from roles import Roles

DENIED = "42501"
WRITES = {"kafka.stream": "name", "kafka.stream_offset": "stream", "kafka.stream_watermark": "stream",
          "kafka.dead_letter": "stream", "kafka.state_key": "secret"}


@pytest.fixture
def roles(db, topic):
    roles = Roles(db, "ingest", "other", "monitor")
    db.create_tables(topic)
    roles.run("GRANT USAGE ON FOREIGN SERVER broker TO {ingest}; GRANT SELECT ON topic TO {ingest};"
              "GRANT INSERT ON target TO {ingest}; GRANT pg_monitor TO {monitor}")
    yield roles
    roles.drop()


def create(roles, **arguments):
    with roles.acting_as("ingest"):
        roles.db.create_stream(**arguments)


# --- who may; what exactly is needed is in test_privileges.py ---------------

def test_privileges_by_membership(roles, topic):
    """Rights that the owner has by another role end with the membership."""
    roles.run("REVOKE INSERT ON target FROM {ingest}; GRANT INSERT ON target TO {other}; GRANT {other} TO {ingest}")
    create(roles)
    topic.produce_sequence(30)
    assert_exact(roles.db, topic)
    roles.run("REVOKE {other} FROM {ingest}")
    topic.produce_sequence(30, first=31)
    assert roles.db.wait_for_state("failed").last_error_sqlstate == DENIED
    assert roles.db.value("SELECT count(*) FROM target") == 30


CALLS = ["SELECT kafka.start_stream('s')", "SELECT kafka.start_stream('s', now())", "SELECT kafka.stop_stream('s')",
         "SELECT kafka.alter_stream('s', on_error => 'skip')", "SELECT kafka.reset_stream('s')",
         "SELECT kafka.drop_stream('s')", "SELECT kafka.process_all_available('s')",
         "SELECT kafka.retry_dead_letters('s')", "SELECT kafka.discard_dead_letters('s')",
         "SELECT kafka.skip_message('s', 't', 0, 0)", "SELECT kafka.explain_stream('s')",
         "SELECT kafka.alter_stream_owner('s', '{other}')"]


def test_only_the_owner_changes_a_stream(roles):
    create(roles, start=False)
    for role, call in itertools.product(("other", "monitor"), CALLS):
        with error('must be owner of stream "s"', sqlstate=DENIED):
            roles.run(call, role)


def test_strangers_learn_nothing_of_tables(roles):
    """A target that the caller may not see is refused like one that he may: he is not the owner."""
    create(roles, start=False)
    roles.run("CREATE SCHEMA hidden; CREATE TABLE hidden.target (id bigint)")
    for target, message in (("target", 'must be owner of stream "s"'), ("hidden.target", "permission denied for schema hidden")):
        with error(message, sqlstate=DENIED):
            roles.run(f"SELECT kafka.alter_stream('s', target => '{target}')", "other")


def test_members_of_the_owner_may_change_it(roles):
    create(roles, start=False)
    roles.run("GRANT {ingest} TO {other}")
    roles.run("SELECT kafka.alter_stream('s', on_error => 'skip')", "other")
    roles.run("SELECT kafka.drop_stream('s')", "other")


def test_what_the_views_show(roles, topic):
    """Owners see theirs, pg_monitor all, others nothing; payloads are for the owner alone."""
    db = roles.db
    topic.produce({"id": 1}, "bad")
    create(roles, on_error="dead_letter")
    db.process_all_available()
    for view in ("stream", "stream_status", "stream_lag", "stream_progress", "stream_offset"):
        seen = {role: len(roles.run(f"SELECT * FROM kafka.{view}", role)) > 0 for role in ("ingest", "other", "monitor")}
        assert seen == {"ingest": True, "other": False, "monitor": True}, view
    for function in ("worker_status", "worker_partitions", "worker_batches"):
        assert roles.run(f"SELECT * FROM kafka.{function}()", "other") == []
    dead = {role: len(roles.run("SELECT * FROM kafka.dead_letter", role)) for role in ("ingest", "other", "monitor")}
    assert dead == {"ingest": 1, "other": 0, "monitor": 0}


def test_catalog_is_not_written_by_users(roles):
    create(roles, start=False)
    for role, table in itertools.product(("ingest", "other", "monitor"), WRITES):
        for statement in (f"UPDATE {table} SET {WRITES[table]} = {WRITES[table]}", f"DELETE FROM {table}",
                          f"INSERT INTO {table} DEFAULT VALUES", f"TRUNCATE {table} CASCADE",
                          f"SELECT * FROM {table} FOR UPDATE", f"CREATE TRIGGER t BEFORE INSERT ON {table} "
                          "EXECUTE FUNCTION suppress_redundant_updates_trigger()", f"ALTER TABLE {table} DISABLE ROW "
                          "LEVEL SECURITY", f"DROP TABLE {table}"):
            with error("permission denied|must be owner", sqlstate=DENIED):
                roles.run(statement, role)
    with error("permission denied", sqlstate=DENIED):
        roles.run("SELECT nextval('kafka.stream_stream_id_seq')", "ingest")
    with error("permission denied", sqlstate=DENIED):
        roles.run("SELECT * FROM kafka.state_key", "monitor")
    with error("permission denied", sqlstate=DENIED):
        roles.run("CREATE TABLE kafka.squat (a int)", "ingest")


# --- owners come and go ----------------------------------------------------

def test_owner_with_streams_is_not_dropped(roles, topic):
    db = roles.db
    roles.run("REVOKE ALL ON topic, target FROM {ingest}; GRANT {ingest} TO {other};"
              "REVOKE USAGE ON FOREIGN SERVER broker FROM {ingest}; GRANT USAGE ON FOREIGN SERVER broker TO PUBLIC;"
              "GRANT SELECT ON topic TO PUBLIC; GRANT INSERT ON target TO PUBLIC")
    create(roles)
    with error("cannot be dropped", detail="kafka.stream", sqlstate="2BP01"):
        roles.run("DROP ROLE {ingest}")
    roles.run("SELECT kafka.drop_stream('s')", "ingest")
    roles.run("DROP ROLE {ingest}")
    assert db.value("SELECT count(*) FROM kafka.stream") == 0


def test_stream_changes_hands(roles, topic):
    db = roles.db
    create(roles, query="SELECT * FROM topic")
    topic.produce_sequence(30)
    assert_exact(db, topic)
    with error(".", sqlstate=DENIED):  # not a member of it
        roles.run("SELECT kafka.alter_stream_owner('s', '{other}')", "ingest")
    with error("permission denied", sqlstate=DENIED):  # the new owner lacks the rights
        roles.run("SELECT kafka.alter_stream_owner('s', '{other}')")
    assert db.status().owner == roles.names["ingest"]
    roles.run("GRANT USAGE ON FOREIGN SERVER broker TO {other}; GRANT SELECT ON topic TO {other};"
              "GRANT INSERT ON target TO {other}")
    roles.run("SELECT kafka.alter_stream_owner('s', '{other}')")
    assert db.status().owner == roles.names["other"]
    roles.run("DROP OWNED BY {ingest}; DROP ROLE {ingest}")
    topic.produce_sequence(30, first=31)
    assert_exact(db, topic)
    with error("cannot be dropped", sqlstate="2BP01"):
        roles.run("REVOKE ALL ON topic, target FROM {other}; REVOKE USAGE ON FOREIGN SERVER broker FROM {other};"
                  "DROP ROLE {other}")


def test_reassign_owned_and_drop_owned(roles, topic):
    """The stream stops with a message that says so, and can be given to somebody."""
    db = roles.db
    topic.produce_sequence(30)
    create(roles, query="SELECT * FROM topic")
    assert_exact(db, topic)
    roles.run("REASSIGN OWNED BY {ingest} TO {other}")
    topic.produce_sequence(30, first=31)
    status = db.wait_for_state("failed")
    assert "the query of stream \"s\" belongs to role" in status.last_error
    assert "alter_stream_owner" in status.last_error_hint
    roles.run("DROP OWNED BY {ingest}; DROP ROLE {ingest}")
    with error("owner of stream \"s\" does not exist", hint="alter_stream_owner"):
        db.call("start_stream")
    assert db.value("SELECT count(*) FROM target") == 30
    roles.run("GRANT USAGE ON FOREIGN SERVER broker TO {other}; GRANT SELECT ON topic TO {other};"
              "GRANT INSERT ON target TO {other}; SELECT kafka.alter_stream_owner('s', '{other}')")
    db.call("start_stream")
    assert_exact(db, topic)


def test_owner_dropped_under_a_running_stream(roles, topic):
    """By DROP OWNED, which is said to take everything."""
    db = roles.db
    roles.run("GRANT SELECT ON topic TO PUBLIC; GRANT INSERT ON target TO PUBLIC;"
              "GRANT USAGE ON FOREIGN SERVER broker TO PUBLIC")
    create(roles)
    topic.produce_sequence(30)
    assert_exact(db, topic)
    roles.run("DROP OWNED BY {ingest}; DROP ROLE {ingest}")
    topic.produce_sequence(30, first=31)
    assert "owner of stream" in db.wait_for_state("failed").last_error
    assert db.value("SELECT count(*) FROM target") == 30
    db.call("drop_stream")


# --- row security ----------------------------------------------------------

@pytest.mark.parametrize("arguments", [{}, {"mode": "update"}])
def test_row_security_that_binds_the_owner_of_the_table(db, topic, arguments):
    """FORCE: policies apply to the table's owner, who owns the stream as well."""
    roles = Roles(db, "app")
    try:
        db.create_topic_table(topic, "id bigint OPTIONS (key 'true', path 'id')")
        roles.run("CREATE SCHEMA app AUTHORIZATION {app}; GRANT USAGE ON FOREIGN SERVER broker TO {app};"
                  "GRANT SELECT ON topic TO {app}")
        roles.run("CREATE TABLE app.target (id bigint PRIMARY KEY); ALTER TABLE app.target ENABLE ROW LEVEL SECURITY;"
                  "ALTER TABLE app.target FORCE ROW LEVEL SECURITY; CREATE POLICY p ON app.target USING (id < 5)", "app")
        with roles.acting_as("app"):
            db.create_stream(target="app.target", **arguments)
        topic.produce({"id": 1}, {"id": 4})
        db.process_all_available()
        topic.produce({"id": 5})
        status = db.wait_for_state("failed")
        assert (status.last_error_sqlstate, "row-level security" in status.last_error) == (DENIED, True)
        assert db.column("SELECT id FROM app.target ORDER BY id") == [1, 4]
    finally:
        roles.drop()


# --- the SQL surface -------------------------------------------------------

def functions(db):
    """Name and argument types of those written in C that SQL can call."""
    return db.run("""SELECT proname, proargtypes::regtype[]::text[] FROM pg_proc JOIN pg_language l ON l.oid = prolang
                      WHERE pronamespace = 'kafka'::regnamespace AND lanname = 'c' AND prokind = 'f'
                        AND NOT 'internal'::regtype = ANY (proargtypes) AND proname NOT LIKE '%handler'""")


def test_every_function_called_with_nulls(db):
    """All NULL, each NULL alone: an error or NULL, and the server lives."""
    started = db.value("SELECT pg_postmaster_start_time()")
    called = 0
    for function, types in functions(db):
        for nulls in itertools.chain([range(len(types))], ([n] for n in range(len(types)))):
            arguments = ", ".join(f"NULL::{_concrete(type)}" if number in nulls else _value(_concrete(type))
                                  for number, type in enumerate(types))
            called += 1
            try:
                db.run(f"SELECT * FROM kafka.{function}({arguments})")
            except psycopg.Error as problem:
                assert problem.sqlstate != "XX000" and problem.sqlstate[:2] not in ("57", "08"), (function, problem)
    assert called > 50
    assert db.value("SELECT pg_postmaster_start_time()") == started


def _concrete(type):
    return {"anyelement": "int", '"any"': "int"}.get(type, type)


def _value(type):
    values = {"text": "'x'", "regclass": "'pg_class'::regclass", "regprocedure": "'now()'::regprocedure",
              "timestamp with time zone": "now()", "interval": "'1 s'::interval", "boolean": "true",
              "text[]": "'{x}'::text[]", "bytea": r"'\x00'::bytea", "regrole": "'postgres'::regrole",
              "tstzrange": "'empty'::tstzrange"}
    return values.get(type, f"'1'::{type}")


RELATIONS = ["pg_class", "pg_class_oid_index", "pg_toast.pg_toast_1255", "numbers", "v", "m", "composite", "part",
             "elsewhere", "nowhere", "0", "4294967295"]


def test_wrong_kinds_of_relations(db, topic):
    db.create_tables(topic)
    db.run("""CREATE SEQUENCE numbers; CREATE VIEW v AS SELECT 1 AS id; CREATE MATERIALIZED VIEW m AS SELECT 1 AS id;
        CREATE TYPE composite AS (id bigint); CREATE TABLE part (id bigint) PARTITION BY LIST (id);
        CREATE FUNCTION handler() RETURNS fdw_handler LANGUAGE c AS '$libdir/kafka_ingest', 'kafka_topic_scan_handler';
        CREATE FOREIGN DATA WRAPPER another HANDLER handler; CREATE SERVER another FOREIGN DATA WRAPPER another;
        CREATE FOREIGN TABLE elsewhere (id bigint) SERVER another;
        CREATE FOREIGN DATA WRAPPER unhandled; CREATE SERVER unhandled FOREIGN DATA WRAPPER unhandled;
        CREATE FOREIGN TABLE nowhere (id bigint) SERVER unhandled""")
    for relation in RELATIONS:
        argument = f"{relation}::regclass" if relation.isdigit() else f"'{relation}'::regclass"
        for call in (f"kafka.create_stream('s', source => {argument}, target => 'target')",
                     f"kafka.create_stream('s', source => 'topic', target => {argument})",
                     f"kafka.topic_partitions({argument})", f"kafka.offsets_for_timestamp({argument}, now())"):
            with pytest.raises(psycopg.Error) as caught:
                db.run(f"SELECT {call}")
            assert caught.value.sqlstate not in ("XX000", "57P01"), (call, caught.value)


NAMES = [""" a"b'c\n%s%d%n\\x$$;-- """, "x" * 63, "ünïcödé 表; DROP TABLE target"]


@pytest.mark.parametrize("mode", ["append", "update", "aggregate"])
@pytest.mark.parametrize("name", NAMES)
def test_hostile_names(db, new_topic, name, mode):
    """Everything that has a name has this one: schema, tables, column, server, stream, role."""
    topic = new_topic(1)
    quoted = sql.Identifier(name).as_string(db.connection)
    literal = sql.Literal(name).as_string(db.connection)
    role = sql.Identifier(name[:40] + db.name).as_string(db.connection)
    run = lambda text: db.connection.execute(text.replace("{}", quoted))
    run("ALTER SERVER broker RENAME TO {}")
    run("CREATE SCHEMA {}")
    run("CREATE FOREIGN TABLE {}.\"t\" ({} bigint OPTIONS (key 'true', path 'id')) SERVER {} "
        f"OPTIONS (topic '{topic.name}')")
    run("CREATE TABLE {}.{} ({} bigint PRIMARY KEY)" if mode != "aggregate" else
        "CREATE TABLE {}.{} ({} bigint PRIMARY KEY, n bigint)")
    run(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA {{}} TO {role}; GRANT USAGE ON FOREIGN SERVER {{}} TO {role};"
        f"GRANT SELECT ON {{}}.t TO {role}; GRANT ALL ON {{}}.{{}} TO {role}; SET ROLE {role}")
    try:
        source = ("query => 'SELECT {0}, count(*) AS n FROM {0}.t GROUP BY {0}'".format(quoted.replace("'", "''"))
                  if mode == "aggregate" else "source => '{}.t'".format(quoted.replace("'", "''")))
        target = "{0}.{0}".format(quoted.replace("'", "''"))
        db.connection.execute(f"SELECT kafka.create_stream({literal}, {source}, target => '{target}', "
                              f"mode => '{'append' if mode == 'append' else 'update'}', notify => {literal})")
        topic.produce({"id": 1}, {"id": 2})
        db.process_all_available(name)
        assert run("SELECT {} FROM {}.{} ORDER BY 1").fetchall() == [(1,), (2,)]
        db.call("explain_stream", name)
        topic.produce("bad")
        assert topic.name in db.wait_for_state("failed", name=name).last_error_detail
        db.call("alter_stream", name, on_error="dead_letter")
        db.call("start_stream", name)
        db.process_all_available(name)
        assert db.value("SELECT stream FROM kafka.dead_letter") == name
        db.call("reset_stream", name)
        db.call("drop_stream", name)
    finally:
        db.connection.execute("RESET ROLE")
        db.connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


TAMPERED = [
    ("owner = (SELECT oid FROM pg_roles WHERE rolname = '{other}')", "failed"), ("owner = 4294967", "failed"),
    ("source = 'pg_class'::regclass", "failed"), ("source = 4294967", "failed"),
    ("target = 'pg_class'::regclass", "failed"), ("target = 'kafka.stream'::regclass", "failed"),
    ("target = 4294967", "failed"), ("mode = 'complete'", "failed"), ("mode = 'update'", "failed"),
    ("target = NULL, foreach_batch = 'now()'::regprocedure", "failed"),
    ("target = NULL, foreach_batch = 4294967", "failed"), ("watermark_column = 'x', watermark_delay = '1 s'", "failed"),
    ("deduplicate_by = '{{x}}'", "failed"), ("key_columns = '{{nothing}}', mode = 'update'", "failed"),
    ("target = 0", "failed"), ("source = 0", "failed"),
    ("query_view = true", "idle"), ("enabled = false", "stopped"), ("started_in_database = 1", "stopped")]


@pytest.mark.timeout(600)
def test_tampered_catalog_row(roles, topic):
    """A superuser has changed the definition: the worker believes none of it."""
    db = roles.db
    topic.produce_sequence(30)
    started = db.value("SELECT pg_postmaster_start_time()")
    for change, state in TAMPERED:
        db.run("TRUNCATE target")
        create(roles)
        assert_exact(db, topic)
        pid = db.worker_pid()
        roles.run(f"UPDATE kafka.stream SET {change}")
        db.run("SELECT pg_terminate_backend(%s)", pid)
        status = db.wait_for_state(state)
        if state == "failed":
            assert status.last_error_sqlstate not in ("XX000", None), (change, status)
        wait_until(lambda: db.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid) == 0)
        assert db.value("SELECT count(*) FROM target") == 30, change
        db.call("drop_stream")
    assert db.value("SELECT pg_postmaster_start_time()") == started


UNDONE = ["ALTER mode DROP NOT NULL; UPDATE kafka.stream SET mode = NULL",
          "ALTER on_error DROP NOT NULL; UPDATE kafka.stream SET on_error = NULL",
          "DROP CONSTRAINT stream_mode_check; UPDATE kafka.stream SET mode = 'nonsense'",
          "DROP CONSTRAINT stream_workers_check; UPDATE kafka.stream SET workers = 2000000000",
          "DROP CONSTRAINT stream_workers_check; UPDATE kafka.stream SET workers = 0",
          "ALTER workers DROP NOT NULL; UPDATE kafka.stream SET workers = NULL"]


@pytest.mark.parametrize("change", UNDONE)
def test_tampered_catalog_row_without_constraints(roles, topic, change):
    """A superuser has taken the constraints away, too: an error, of that stream alone."""
    db = roles.db
    started = db.value("SELECT pg_postmaster_start_time()")
    create(roles, start=False)
    db.create_stream("other")
    db.run(f"ALTER TABLE kafka.stream {change} WHERE name = 's'")
    for call in ("start_stream", "stop_stream", "explain_stream", "verify_stream", "drop_stream"):
        with error("a row of kafka.stream is damaged", hint="Correct it", sqlstate="55000"):
            db.call(call)
    db.run("SELECT * FROM kafka.stream_status")
    topic.produce_sequence(30)
    db.process_all_available("other")
    assert db.value("SELECT count(*) FROM target") == 30
    db.run("DELETE FROM kafka.stream WHERE name = 's'")
    assert db.value("SELECT pg_postmaster_start_time()") == started


def test_tampered_counters(roles, topic):
    """The status comes out, whatever stands there."""
    create(roles, start=False)
    for number in (2 ** 63 - 1, -2 ** 63):
        roles.run("DELETE FROM kafka.stream_offset")
        roles.run("INSERT INTO kafka.stream_offset (stream, topic, partition, next_offset, message_count, byte_count, error_count, "
                  f"lost_offsets) SELECT 's', 't', p, 0, {number}, {number}, {number}, {number} FROM generate_series(0, 1) AS p")
        assert roles.db.run("SELECT messages, bytes, errors, lost_offsets FROM kafka.stream_status") == [(number,) * 4]


SQUATTERS = [
    "CREATE SCHEMA kafka AUTHORIZATION {app}",
    "CREATE SCHEMA kafka; CREATE TABLE kafka.stream (a int)",
    "CREATE SCHEMA kafka; CREATE FUNCTION kafka.create_stream(text) RETURNS text LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA kafka; CREATE TYPE kafka.header AS (key text)",
    "CREATE SCHEMA kafka; CREATE OPERATOR kafka.= (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)"]


def test_schema_with_something_in_it(empty_db):
    role = f"{empty_db.name}_app"
    empty_db.run(f"CREATE ROLE {role}")
    try:
        for squatter in SQUATTERS:
            empty_db.run(squatter.format(app=role))
            with error('schema "kafka" exists', hint="Rename or drop it"):
                empty_db.run("CREATE EXTENSION kafka_ingest")
            empty_db.run("DROP SCHEMA kafka CASCADE")
    finally:
        empty_db.run(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_installation_with_a_hostile_search_path(empty_db):
    """Functions, operators and casts of another that would fit better are not picked up."""
    db = empty_db
    db.run("""CREATE SCHEMA trap; CREATE TABLE trap.sprung (what text);
        CREATE FUNCTION trap.spring(text, text) RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO trap.sprung VALUES ($1); RETURN true; END $$;
        CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.spring);
        CREATE OPERATOR trap.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.spring);
        CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO trap.sprung VALUES ('now'); RETURN pg_catalog.now(); END $$;
        CREATE FUNCTION trap.octet_length(text) RETURNS int LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO trap.sprung VALUES ('length'); RETURN 1; END $$;
        CREATE FUNCTION trap.sum(bigint) RETURNS numeric LANGUAGE sql AS 'SELECT 0.0'""")
    db.run("SET search_path = trap, pg_catalog, public")
    db.run("CREATE EXTENSION kafka_ingest")
    assert db.value("SELECT count(*) FROM pg_depend d JOIN pg_proc p ON d.refobjid = p.oid AND d.refclassid = "
                    "'pg_proc'::regclass WHERE p.pronamespace = 'trap'::regnamespace AND d.classid <> "
                    "'pg_operator'::regclass") == 0
    db.run("SELECT * FROM kafka.stream_status")
    db.run("RESET search_path")
    assert db.run("SELECT * FROM trap.sprung") == []


def test_no_function_runs_with_other_rights(db):
    assert db.column("SELECT proname FROM pg_proc WHERE pronamespace = 'kafka'::regnamespace AND prosecdef") == []
    for view in db.column("SELECT relname FROM pg_class WHERE relnamespace = 'kafka'::regnamespace AND relkind = 'v'"):
        assert "security_invoker=true" in db.value(
            "SELECT reloptions FROM pg_class WHERE oid = ('kafka.' || quote_ident(%s))::regclass", view), view


# --- limits ----------------------------------------------------------------

def test_workers_per_role(roles, topic):
    db = roles.db
    with db.server_setting("kafka_ingest.max_stream_workers_per_role", "2"):
        db.wait_for("SELECT current_setting('kafka_ingest.max_stream_workers_per_role')", "2")
        create(roles, name="one")
        create(roles, name="two")
        with error('role ".*" may have 2 worker', hint="max_stream_workers_per_role", sqlstate="53400"):
            create(roles, name="three")
        create(roles, name="three", start=False)
        roles.run("SELECT kafka.stop_stream('one')", "ingest")
        roles.run("SELECT kafka.start_stream('three')", "ingest")
        with error("may have 2 worker", sqlstate="53400"):
            roles.run("SELECT kafka.start_stream('one')", "ingest")
        db.create_stream("superuser")  # not limited
        with db.connect(autocommit=False) as session:
            session.execute("SELECT kafka.stop_stream('two')")
            session.execute(f"SET ROLE {roles.names['ingest']}")
            session.execute("SELECT kafka.start_stream('one')")
            session.rollback()
        assert db.status("one").state == "stopped"


# --- secrets ---------------------------------------------------------------

def test_secrets_are_shown_nowhere(postgres, roles, topic):
    """With everything logged: only the statement that sets the secret has it."""
    db = roles.db
    secret = "mapping-Secret"
    start = postgres.log.stat().st_size
    with db.server_setting("log_min_messages", "debug5"):
        roles.run(f"CREATE USER MAPPING FOR {{ingest}} SERVER broker OPTIONS (ssl_key_password '{secret}')")
        topic.produce({"id": 1}, "bad")
        create(roles, on_error="dead_letter", query="SELECT * FROM topic")
        db.process_all_available()
        shown = [str(roles.run(f"SELECT * FROM {view}", role)) for role in ("ingest", "other", "monitor", None)
                 for view in ("kafka.stream", "kafka.stream_status", "kafka.stream_lag", "kafka.stream_progress",
                              "kafka.stream_offset", "kafka.dead_letter", "pg_stat_activity",
                              "kafka.worker_status()")]
        shown += [str(roles.run(statement, "ingest")) for statement in (
            "EXPLAIN (VERBOSE) SELECT * FROM topic", "SELECT kafka.explain_stream('s')")]
        shown += [str(roles.run("SELECT * FROM pg_user_mappings", role)) for role in ("other", "monitor")]
        roles.run("ALTER USER MAPPING FOR {ingest} SERVER broker OPTIONS (ADD ssl_key_pem 'other-Secret')")
        topic.produce({"id": 2})
        db.process_all_available()
        shown.append(str(db.status()))
        assert "Secret" not in "".join(shown)
        # pg_user_mappings is PostgreSQL's: the user himself sees his own
        assert secret in str(roles.run("SELECT * FROM pg_user_mappings", "ingest"))
    log = postgres.log.read_bytes()[start:].decode(errors="replace")
    assert "Secret" not in "".join(line for line in log.splitlines() if "USER MAPPING" not in line)
