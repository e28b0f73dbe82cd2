"""Domains, aggregates and casts of others gain nothing of the rights of a stream's owner."""

import pytest

from expectations import error
from hostile import DENIED, HARM, assert_stops, create_procedure, marked, roles, start  # noqa: F401

ARM = f"ALTER DOMAIN app.positive ADD CHECK ({HARM}) NOT VALID"
DOMAIN = 'definition of domain "app.positive" would run'


@pytest.fixture
def domain(marked):
    """A domain of app, of which no harm comes yet."""
    marked.run("CREATE DOMAIN app.positive AS bigint CHECK (VALUE > 0); CREATE TYPE app.pair AS (n app.positive);"
               "CREATE TYPE app.span AS RANGE (subtype = app.positive)", "app")
    return marked


def test_the_harm_is_real(domain):
    """What stops streams below runs in a session of ingest, as PostgreSQL has it."""
    domain.run(ARM, "app")
    domain.run("SELECT 1::app.positive", "ingest")
    assert domain.db.column("SELECT who FROM own.marker") == [domain.names["ingest"]]


@pytest.mark.parametrize("column, query", [
    ("app.positive", "id"), ("app.positive[]", "ARRAY[id]"), ("app.pair", "ROW(id)::app.pair"), ("app.pair[]", "ARRAY[ROW(id)::app.pair]"),
    ("app.span", "app.span(id, NULL)"), ("own.small", "id")])
def test_column_of_the_target(domain, topic, column, query):
    domain.run("CREATE DOMAIN own.small AS app.positive CHECK (VALUE < 1000)", "ingest")
    domain.run(f"ALTER TABLE own.target ADD c {column}", "ingest")
    arguments = {"query": f"SELECT id, {query} AS c FROM topic"}
    assert_stops(domain, topic, ARM, DOMAIN, **arguments)
    domain.db.call("drop_stream")
    with error(DOMAIN, hint="GRANT", sqlstate=DENIED):
        start(domain, **arguments)


@pytest.mark.parametrize("column, value", [
    ("app.positive", 5), ("app.positive[]", [5]), ("app.pair", {"n": 5}), ("app.span", "[5,6)")])
def test_column_of_a_topic_table(domain, topic, column, value):
    domain.run(f"ALTER FOREIGN TABLE topic ADD c {column}; ALTER TABLE own.target ADD c text")
    arguments = {"query": "SELECT id, c::text FROM topic"}
    start(domain, **arguments)
    topic.produce({"id": 1, "c": value})
    domain.db.process_all_available()
    domain.run(ARM, "app")
    topic.produce({"id": 2, "c": value})
    status = domain.db.wait_for_state("failed")
    assert (status.last_error_sqlstate, DOMAIN in status.last_error) == (DENIED, True), status
    assert domain.db.column("SELECT who FROM own.marker") == []
    assert domain.db.column("SELECT id FROM own.target") == [1]


@pytest.mark.parametrize("place", [
    "ALTER TABLE own.target ALTER extra SET DEFAULT 1::app.positive",
    "ALTER TABLE own.target ADD CHECK (id::app.positive > 0)",
    "ALTER TABLE own.target ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
    "CREATE POLICY p ON own.target WITH CHECK (id::app.positive > 0)",
    "CREATE TRIGGER t BEFORE INSERT ON own.target FOR EACH ROW WHEN (new.id::app.positive > 0) "
    "EXECUTE FUNCTION own.keep()"])
def test_cast_in_the_definition_of_the_own_target(domain, topic, place):
    domain.run("ALTER TABLE own.target ADD extra bigint;"
               "CREATE FUNCTION own.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';" + place, "ingest")
    assert_stops(domain, topic, ARM, DOMAIN)


def test_cast_in_the_query(domain, topic):
    assert_stops(domain, topic, ARM, DOMAIN, query="SELECT (id::app.positive)::bigint AS id FROM topic")


def test_default_of_a_domain(domain, topic):
    domain.run("ALTER TABLE own.target ADD c app.positive", "ingest")
    assert_stops(domain, topic, f"ALTER DOMAIN app.positive SET DEFAULT CASE WHEN {HARM} THEN 1 END", DOMAIN)


@pytest.mark.parametrize("declare, body", [
    ("DECLARE n app.positive;", "n := batch_id"),
    ("DECLARE n app.positive[];", "n := '{' || batch_id || '}'"),
    ("DECLARE n bigint;", "n := batch_id::app.positive"),
    ("DECLARE n text;", "n := ('{' || batch_id || '}')::app.positive[]"),
    ("DECLARE n app.pair;", "n := json_populate_record(NULL::app.pair, '{\"n\": 1}')"),
    ("DECLARE n text;", "EXECUTE 'SELECT $1::text::app.positive' USING batch_id INTO n"),
    ("", "INSERT INTO own.numbers SELECT id FROM public.topic"),
])
def test_domain_in_a_procedure(domain, topic, declare, body):
    domain.run("CREATE TABLE own.numbers (n app.positive)", "ingest")
    create_procedure(domain, body + "; PERFORM FROM public.topic", declare)
    assert_stops(domain, topic, ARM, DOMAIN, foreach_batch="own.each(bigint)")


def test_domain_that_calls_functions_of_the_owner(domain, topic):
    """They are trusted, but not when a stranger calls them."""
    create_procedure(domain, "n := batch_id; PERFORM own.harmless()", "DECLARE n app.positive;")
    domain.run("CREATE FUNCTION own.harmless() RETURNS tsquery LANGUAGE sql AS $$SELECT 'a'::tsquery$$", "ingest")
    assert_stops(domain, topic, "ALTER DOMAIN app.positive ADD CHECK (own.mark() IS NOT NULL) NOT VALID", DOMAIN,
                 foreach_batch="own.each(bigint)")
    # a domain nobody uses harms nobody whose code calls the same function
    domain.run("ALTER DOMAIN app.positive DROP CONSTRAINT positive_check1;"
               "CREATE DOMAIN app.other AS int CHECK (own.harmless() IS NOT NULL)", "app")
    domain.db.call("start_stream")
    domain.db.process_all_available()


def test_aggregate_of_another(marked, topic):
    create_procedure(marked, "PERFORM own.total()")
    marked.run("CREATE FUNCTION own.total() RETURNS void LANGUAGE plpgsql AS 'BEGIN END'", "ingest")
    marked.run("CREATE AGGREGATE app.rewrite(text) (SFUNC = ts_rewrite, STYPE = tsquery, INITCOND = 'a')", "app")
    start(marked, foreach_batch="own.each(bigint)")
    topic.produce({"id": 1})
    marked.db.process_all_available()
    marked.run("CREATE OR REPLACE FUNCTION own.total() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN "
               "PERFORM app.rewrite($$SELECT own.mark(), 'b'::tsquery$$); END $f$", "ingest")
    topic.produce({"id": 2})
    status = marked.db.wait_for_state("failed")
    assert (status.last_error_sqlstate, "function app.rewrite" in status.last_error) == (DENIED, True), status
    assert marked.db.column("SELECT who FROM own.marker") == []


def test_inlined_function_of_another(marked, topic):
    """The body of an SQL function does not take the place of its call."""
    marked.run(f"CREATE FUNCTION app.inlined(bigint) RETURNS boolean LANGUAGE sql AS 'SELECT $1 > 0';"
               f"CREATE FUNCTION app.rows() RETURNS TABLE (id bigint) STABLE LANGUAGE sql AS 'SELECT 1::bigint'", "app")
    for body in ("PERFORM FROM public.topic WHERE app.inlined(id)", "PERFORM FROM app.rows()"):
        create_procedure(marked, body)
        start(marked, foreach_batch="own.each(bigint)")
        topic.produce({"id": 1})
        status = marked.db.wait_for_state("failed")
        assert (status.last_error_sqlstate, "function app." in status.last_error) == (DENIED, True), status
        marked.db.call("drop_stream")
        marked.run("DROP PROCEDURE own.each", "ingest")


def test_function_of_another_for_parallel_workers(marked, topic):
    """Workers would not know whom to trust; there are none."""
    marked.run("CREATE FUNCTION app.safe(bigint) RETURNS boolean PARALLEL SAFE LANGUAGE plpgsql AS 'BEGIN RETURN true; END'",
               "app")
    marked.run("CREATE TABLE own.big AS SELECT generate_series(1, 50000) AS id", "ingest")
    create_procedure(marked, "PERFORM FROM public.topic; SELECT count(*) INTO n FROM own.big WHERE app.safe(id)",
                     "DECLARE n bigint;")
    for setting in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size", "parallel_leader_participation"):
        marked.run(f"ALTER PROCEDURE own.each SET {setting} = 0", "ingest")
    start(marked, foreach_batch="own.each(bigint)")
    topic.produce({"id": 1})
    status = marked.db.wait_for_state("failed")
    assert (status.last_error_sqlstate, "function app.safe" in status.last_error) == (DENIED, True), status


def test_honest_domains_of_another(domain, topic):
    """What only computes is welcome everywhere; a domain with code is, where it is not used."""
    domain.run(f"CREATE DOMAIN app.unused AS text CHECK ({HARM}); CREATE DOMAIN app.made AS timestamptz "
               "DEFAULT clock_timestamp() CHECK (VALUE > '2000-01-01')", "app")
    domain.run("ALTER TABLE own.target ADD n app.positive, ADD made app.made, ADD pairs app.pair[]", "ingest")
    domain.run("ALTER FOREIGN TABLE topic ADD n app.positive, ADD pairs app.pair[]")
    create_procedure(domain, "x := batch_id; INSERT INTO own.target SELECT id, p, o, n, now(), pairs FROM public.topic;"
                             "PERFORM pg_notify('x', 'y'), nextval('own.s'), random()", "DECLARE x app.positive;")
    domain.run("CREATE SEQUENCE own.s", "ingest")
    start(domain)
    start(domain, name="procedure", foreach_batch="own.each(bigint)")
    topic.produce({"id": 1, "n": 1, "pairs": [{"n": 1}]})
    for stream in ("s", "procedure"):
        domain.db.process_all_available(stream)
    assert domain.db.column("SELECT n FROM own.target WHERE made IS NOT NULL AND (pairs[1]).n = 1") == [1, 1]
