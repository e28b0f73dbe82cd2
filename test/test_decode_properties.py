"""The decoder against PostgreSQL itself: generated JSON and generated values.

Whatever the decoder converts without an input function must be what the input
function gives, to the bit, and it must accept the JSON that PostgreSQL accepts.
The oracle is computed by the same server. Needs no broker.
"""
import json
import random

import pytest

TRIES = """
CREATE FUNCTION pg_temp.image(r anyelement) RETURNS text LANGUAGE sql AS
    $$ SELECT encode(record_send(r), 'hex') $$;

CREATE FUNCTION pg_temp.decoded(message bytea) RETURNS text LANGUAGE plpgsql AS $$
DECLARE r property_topic;
BEGIN
    r := kafka.decode_message(NULL::property_topic, message);
    RETURN pg_temp.image(r) || ' ' || pg_column_size(ROW(r.v));
EXCEPTION WHEN OTHERS THEN
    RETURN 'error ' || SQLSTATE;
END $$;

CREATE FUNCTION pg_temp.input(value text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE r property_row;
BEGIN
    r.v := value;
    RETURN pg_temp.image(r) || ' ' || pg_column_size(ROW(r.v));
EXCEPTION WHEN OTHERS THEN
    RETURN 'error ' || SQLSTATE;
END $$;

CREATE FUNCTION pg_temp.populated(message bytea) RETURNS text LANGUAGE plpgsql AS $$
DECLARE r property_row;
BEGIN
    r := json_populate_record(NULL::property_row, convert_from(message, 'UTF8')::json);
    RETURN pg_temp.image(r) || ' ' || pg_column_size(ROW(r.v));
EXCEPTION WHEN OTHERS THEN
    RETURN 'error';
END $$;

CREATE FUNCTION pg_temp.is_json_object(message bytea) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN json_typeof(convert_from(message, 'UTF8')::json) = 'object';
EXCEPTION WHEN OTHERS THEN
    RETURN false;
END $$;
"""


@pytest.fixture(autouse=True)
def seeded(request):
    """The same messages in every run, or others: pytest --seed=1."""
    random.seed(f"{request.node.name} {request.config.getoption('--seed')}")


@pytest.fixture
def database(connection):
    connection.rollback()
    cursor = connection.cursor()
    cursor.execute("CREATE EXTENSION IF NOT EXISTS kafka_ingest")
    cursor.execute("CREATE SERVER property_server FOREIGN DATA WRAPPER kafka "
                   "OPTIONS (bootstrap_servers 'localhost:9092')")
    cursor.execute("SET timezone = 'America/New_York'")
    cursor.execute("SET datestyle = 'SQL, DMY'")
    yield cursor
    if not connection.autocommit:
        connection.rollback()
    else:
        cursor.execute("DROP SERVER property_server CASCADE")


def declare(cursor, column_type):
    cursor.execute("DROP FOREIGN TABLE IF EXISTS property_topic")
    cursor.execute("DROP TABLE IF EXISTS property_row CASCADE")
    cursor.execute(f"CREATE FOREIGN TABLE property_topic (v {column_type}) "
                   "SERVER property_server OPTIONS (topic 'properties')")
    cursor.execute(f"CREATE TABLE property_row (v {column_type})")
    cursor.execute(TRIES.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))


def digits(low, high):
    return "".join(random.choices("0123456789", k=random.randint(low, high)))


def integer_text():
    edges = [2 ** 15, 2 ** 31, 2 ** 53, 2 ** 63, 10 ** 17, 10 ** 18, 10 ** 19, 0]
    if random.random() < 0.4:
        return str(random.choice((1, -1)) * random.choice(edges) + random.randint(-2, 2))
    return random.choice(("", "", "-", "+", " ", "--")) + digits(0, 20) + random.choice(("", "", "", " ", "x", ".0", "e2"))


def decimal_text():
    text = random.choice(("", "", "", "-", "+")) + random.choice((digits(1, 5), digits(1, 20), "0", "0000", "10000", "99999999"))
    text += random.choice(("", "." + digits(0, 5), "." + digits(1, 20), ".0", ".0000", ".00010000", ".5000"))
    return text + random.choice(("", "", "", "", "", "e" + str(random.randint(-30, 30)), " ", "x"))


def time_text():
    year = random.choice((f"{random.randint(0, 9999):04}", "2024", "1900", "2000", "0001", str(random.randint(1, 99999))))
    text = f"{year}-{random.randint(0, 13):02}-{random.choice((1, 28, 29, 30, 31, 32, random.randint(0, 40))):02}"
    if random.random() < 0.15:
        return text
    text += random.choice("TT  t") + f"{random.choice((0, 12, 23, 24, 25)):02}:{random.choice((0, 59, 60)):02}:{random.choice((0, 59, 60, 61)):02}"
    text += random.choice(("", "", "." + digits(0, 7), "." + digits(1, 6), ".000", ".999999", ".9999999"))
    zone = f"{random.choice('+-')}{random.randint(0, 16):02}"
    return text + random.choice(("", "Z", "z", zone, zone + ":30", zone + "30", zone + ":59", zone + ":60", zone + ":5", " UTC", " " + zone))


def uuid_text():
    text = "".join(random.choices("0123456789abcdefABCDEF", k=32))
    text = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
    if random.random() < 0.3:
        at = random.randrange(len(text))
        text = text[:at] + random.choice(("", "-", "g", "{")) + text[at + random.randint(0, 1):]
    return text


def plain_text():
    return "".join(random.choices("ab ä€😀\"\\/\n\t0", k=random.randint(0, 20)))


def spelled(text):
    """A JSON string; sometimes escaped more than it must be."""
    escaped = json.dumps(text, ensure_ascii=random.random() < 0.5)
    if random.random() < 0.2:
        escaped = '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 128 else json.dumps(c)[1:-1] for c in text) + '"'
    return escaped


SCALARS = [("smallint", integer_text), ("integer", integer_text), ("bigint", integer_text),
           ("numeric", decimal_text), ("numeric(12,4)", decimal_text), ("numeric(8)", decimal_text),
           ("numeric(5,5)", decimal_text), ("double precision", decimal_text), ("real", decimal_text),
           ("timestamptz", time_text), ("timestamptz(2)", time_text), ("timestamp", time_text),
           ("timestamp(0)", time_text), ("date", time_text), ("uuid", uuid_text),
           ("text", plain_text), ("varchar", plain_text), ("varchar(5)", plain_text), ("char(5)", plain_text),
           ("boolean", lambda: random.choice(("true", "false", "t", "yes", "on", "1", "0", "TRUE", "tru", "falsee", "")))]


@pytest.mark.parametrize("column_type, make", SCALARS, ids=[name for name, _ in SCALARS])
def test_values_are_those_of_the_input_function(database, column_type, make):
    declare(database, column_type)
    texts = [make() for _ in range(3000)]
    messages = ['{"v": %s}' % spelled(text) for text in texts]
    database.execute(
        "SELECT count(*), array_agg((t, d, i)::text) FILTER (WHERE d <> i) FROM unnest(%s::text[], %s::text[]) u (t, m), "
        "LATERAL (SELECT pg_temp.decoded(convert_to(m, 'UTF8')), pg_temp.input(t)) r (d, i)", (texts, messages))
    count, different = database.fetchone()
    assert count == len(texts)
    assert different is None, different[:10]


def json_number():
    return random.choice(("0", "-0", "1", "-1.5", "1e3", "1E-2", "12345678901234567890", "0.1", "3.0"))


def json_value(depth):
    kind = random.randint(0, 7 if depth > 0 else 4)
    if kind == 0:
        return random.choice(("true", "false"))
    if kind == 1:
        return "null"
    if kind in (2, 3):
        return json_number()
    if kind == 4:
        return spelled(plain_text())
    if kind in (5, 6):
        return "[" + ",".join(json_value(depth - 1) for _ in range(random.randint(0, 3))) + "]"
    return "{" + ", ".join(spelled(random.choice(("x", "y", "v", "é"))) + random.choice((":", " : ")) + json_value(depth - 1)
                           for _ in range(random.randint(0, 3))) + "}"


def mutated(text):
    data = bytearray(text.encode())
    for _ in range(random.randint(1, 2)):
        at = random.randrange(len(data)) if data else 0
        new = bytes([random.choice(b'{}[]",:\\tfn01-.eE \n\t\x00\x1f\x7f\x80\xc3\xff/ud8')]) if random.random() < 0.7 else b""
        data[at:at + random.randint(0, 1)] = new
    return bytes(data)


def test_the_same_json_is_accepted(database):
    declare(database, "json")
    messages = []
    for _ in range(6000):
        text = '{"v": %s, "w": %s}' % (json_value(4), json_value(3))
        messages.append(mutated(text) if random.random() < 0.8 else text.encode())
    database.execute(
        "SELECT count(*), count(*) FILTER (WHERE j), array_agg((m, d)::text) FILTER (WHERE j <> (d NOT LIKE 'error%%')) "
        "FROM unnest(%s::bytea[]) m, LATERAL (SELECT pg_temp.decoded(m), pg_temp.is_json_object(m)) r (d, j)", (messages,))
    count, accepted, different = database.fetchone()
    assert count == len(messages) and 1000 < accepted < 5000
    assert different is None, different[:10]


@pytest.mark.parametrize("column_type", ["integer[]", "text[]", "numeric(6,2)[]", "jsonb[]", "jsonb", "text", "property_pair",
                                         "property_pair[]", "property_domain"])
def test_structures_are_those_of_json_populate_record(database, column_type):
    database.execute("CREATE TYPE property_pair AS (x integer, y text[])")
    database.execute("CREATE DOMAIN property_domain AS numeric(4, 1) CHECK (VALUE > 0)")
    declare(database, column_type)
    messages = ['{"v": %s}' % json_value(4) for _ in range(2000)]
    shapes = {"integer[]": lambda: random.choice(("[1,2]", "[[1],[2]]", "[[1],[2,3]]", "[[],[]]", '["1",null]')),
              "property_pair": lambda: '{"x": %s, "y": %s}' % (random.choice(("1", "null", '"2"', '"z"')), json_value(2))}
    if column_type in shapes:
        messages += ['{"v": %s}' % shapes[column_type]() for _ in range(500)]
    database.execute(
        "SELECT count(*), array_agg((m, d, p)::text) FILTER (WHERE CASE WHEN p = 'error' THEN d NOT LIKE 'error%%' ELSE d <> p END) "
        "FROM unnest(%s::text[]) m, LATERAL (SELECT pg_temp.decoded(convert_to(m, 'UTF8')), pg_temp.populated(convert_to(m, 'UTF8'))) r (d, p)",
        (messages,))
    count, different = database.fetchone()
    assert count == len(messages)
    assert different is None, different[:10]
    if database.connection.autocommit:
        database.execute("DROP TYPE property_pair, property_domain CASCADE")
