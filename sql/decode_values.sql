-- Format json: values of every type.
\encoding UTF8
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_ingest;
RESET client_min_messages;
CREATE SCHEMA decode_values;
SET search_path = decode_values;
SET timezone = 'Europe/Berlin';
SET datestyle = 'ISO, DMY';
CREATE SERVER decode_values FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'localhost:9092');

-- The value v of one message, by a topic table with a column of that type.
CREATE FUNCTION value_of(type text, value text, options text DEFAULT '') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    message text;
    detail text;
    hint text;
BEGIN
    EXECUTE format('CREATE FOREIGN TABLE one_value (v %s %s) SERVER decode_values OPTIONS (topic ''values'')', type, options);
    EXECUTE 'SELECT (kafka.decode_message(NULL::one_value, $1)).v::text'
       INTO result USING convert_to(format('{"v": %s}', value), 'UTF8');
    DROP FOREIGN TABLE one_value;
    RETURN coalesce(result, '(null)');
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN format('%s: %s [%s]', SQLSTATE, message, replace(detail, E'\n', ' / '));
END
$$;

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE point2 AS (x int, y numeric(4, 1));
CREATE TYPE line2 AS (name varchar(5), "from" point2, tags text[]);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN given AS text NOT NULL;
CREATE DOMAIN small_point AS point2 CHECK ((VALUE).x < 10);
CREATE DOMAIN few AS int[] CHECK (cardinality(VALUE) < 3);

-- integers: exact, and in their range
SELECT type, value, value_of(type, value)
  FROM (VALUES ('bigint', '9007199254740993'), ('bigint', '-9223372036854775808'), ('bigint', '9223372036854775807'),
               ('bigint', '9223372036854775808'), ('bigint', '"9007199254740993"'), ('bigint', '" 12 "'), ('bigint', '-0'),
               ('bigint', '1.0'), ('bigint', '1e3'), ('bigint', '"12x"'), ('bigint', '""'), ('bigint', 'true'),
               ('bigint', '{"a": 1}'), ('bigint', '[1]'), ('bigint', 'null'),
               ('int', '2147483647'), ('int', '2147483648'), ('int', '-2147483648'), ('int', '-2147483649'),
               ('smallint', '32767'), ('smallint', '32768'), ('smallint', '-32768'), ('smallint', '-32769'),
               ('oid', '4294967295'), ('int', '"0000000000000000000000000000042"')) t (type, value);

-- numeric and floats
SELECT type, value, value_of(type, value)
  FROM (VALUES ('numeric', '123456789012345678901234567890123456789012345678901234567890.123456789012345678901234567890'),
               ('numeric', '-0.00'), ('numeric', '1.50'), ('numeric', '"NaN"'), ('numeric', '"Infinity"'),
               ('numeric', '"1_000x"'), ('numeric(5,2)', '123.456'), ('numeric(5,2)', '999.999'), ('numeric(5,2)', '1234'),
               ('numeric(5,2)', '-1.5'), ('numeric(3,0)', '12.5'), ('numeric(2,2)', '0.12'), ('numeric(2,2)', '1'),
               ('float8', '1e400'), ('float8', '1e308'), ('float8', '0.1'), ('float8', '-0'), ('float8', '"NaN"'), ('float8', '123456789.123456789'),
               ('float8', '"-Infinity"'), ('float4', '16777217'), ('float4', '1e39')) t (type, value);
SELECT value_of('numeric', '1e400')::numeric = 10::numeric ^ 400 AS exact;

-- texts
SELECT type, value, value_of(type, value)
  FROM (VALUES ('text', '"a\nb"'), ('text', '12.50'), ('text', '1e400'), ('text', 'true'), ('text', 'false'), ('text', '{"a": [1,  2]}'), ('text', '[ ]'),
               ('text', '"\u0000"'), ('varchar(3)', '"abc"'), ('varchar(3)', '"äöü"'), ('varchar(3)', '"abc  "'), ('varchar(3)', '"abcd"'),
               ('char(3)', '"a"'), ('char(3)', '"abcd"'), ('name', '"n"'), ('"char"', '"x"'), ('bytea', '"\\x00ff"'), ('bytea', '"\\xzz"'),
               ('bool', 'true'), ('bool', 'false'), ('bool', '"yes"'), ('bool', '1'), ('bool', '2'), ('bool', '"maybe"'),
               ('mood', '"ok"'), ('mood', '"angry"'), ('mood', '1'),
               ('uuid', '"A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11"'), ('uuid', '"{a0eebc999c0b4ef8bb6d6bb9bd380a11}"'), ('uuid', '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1"'),
               ('inet', '"10.0.0.1/8"'), ('interval', '"1 day"'), ('int4range', '"[1,5)"')) t (type, value);

-- dates and times
SELECT type, value, value_of(type, value)
  FROM (VALUES ('timestamptz', '"2026-11-01T12:34:56Z"'), ('timestamptz', '"2026-11-01T12:34:56.789+02:00"'), ('timestamptz', '"2026-11-01 12:34:56.123456-0530"'),
               ('timestamptz', '"2026-11-01T12:34:56.1234567Z"'), ('timestamptz', '"2026-11-01T12:34:56"'), ('timestamptz', '"2026-11-01"'), ('timestamptz', '"01.02.2026"'),
               ('timestamptz', '"2026-02-29T00:00:00Z"'), ('timestamptz', '"2026-11-01T24:00:00Z"'), ('timestamptz', '"2026-11-01T23:59:60Z"'), ('timestamptz', '"2026-11-01T25:00:00Z"'),
               ('timestamptz', '"0000-01-01T00:00:00Z"'), ('timestamptz', '"0001-01-01T00:00:00+14:00"'), ('timestamptz', '"infinity"'), ('timestamptz', '1793491200'),
               ('timestamptz(0)', '"2026-11-01T12:34:56.789Z"'), ('timestamptz(0)', '"2026-11-01T12:34:56.000Z"'),
               ('timestamp', '"2026-11-01T12:34:56.789+02:00"'), ('timestamp', '"2026-11-01T12:34:56"'), ('timestamp', '"99999-01-01 00:00"'), ('timestamp', '"999999-01-01"'),
               ('date', '"2026-11-01"'), ('date', '"2024-02-29"'), ('date', '"2023-02-29"'), ('date', '"2026-13-01"'), ('date', '"2026-11-01T12:34:56Z"'),
               ('time', '"12:34:56"')) t (type, value);

-- integers since 1970
SELECT type, epoch, value, value_of(type, value, format('OPTIONS (epoch %L)', epoch))
  FROM (VALUES ('timestamptz', 's', '1793491200'), ('timestamptz', 'ms', '1793491200123'), ('timestamptz', 'us', '1793491200123456'), ('timestamptz', 'ms', '-1'),
               ('timestamptz', 'ms', '"1793491200123"'), ('timestamp', 'ms', '1793491200123'), ('timestamptz(0)', 'ms', '1793491200500'), ('date', 'ms', '1793491199999'), ('date', 's', '-1'), ('date', 's', '86400'),
               ('timestamptz', 's', '9223372036854775807'), ('timestamptz', 'us', '9223372036854775807'), ('timestamptz', 'us', '-9223372036854775808'), ('timestamptz', 'us', '9223372036854775808'),
               ('date', 's', '9223372036854775807'), ('timestamptz', 'ms', '1.5'), ('timestamptz', 'ms', '1e3'), ('timestamptz', 'ms', '"2026-11-01"'), ('timestamptz', 'ms', '""'),
               ('timestamptz', 'ms', '"-"'), ('timestamptz', 'ms', '{}'), ('timestamptz', 'ms', 'null'), ('timestamptz', 'ms', 'true')) t (type, epoch, value);

-- json and jsonb take any piece
SELECT type, value, value_of(type, value)
  FROM (VALUES ('json', '{"a" : [1, 2.50, "\u0000\ud800"]}'), ('json', '"s"'), ('json', '1e400'), ('json', 'null'), ('json', 'true'),
               ('jsonb', '{"b": 1, "a": 2.50, "a": 3}'), ('jsonb', '"s"'), ('jsonb', '[null]'), ('jsonb', 'null'), ('jsonb', '"\u0000"')) t (type, value);

-- arrays
SELECT type, value, value_of(type, value)
  FROM (VALUES ('int[]', '[1, null, 3]'), ('int[]', '[]'), ('int[]', '[[1, 2], [3, 4]]'), ('int[]', '[[1], [2, 3]]'), ('int[]', '[[1], 2]'), ('int[]', '[1, [2]]'), ('int[]', '[[], []]'),
               ('int[]', '[[[[[[[1]]]]]]]'), ('int[]', '"{1,2}"'), ('int[]', '"{1,x}"'), ('int[]', '7'), ('int[]', '{"a": 1}'), ('int[]', '["x"]'), ('int[]', 'null'), ('int[]', '[[1], null]'),
               ('text[]', '["a\"b", "c,d", true, 1.0, {"x": 1}]'), ('varchar(2)[]', '["ab", "abc"]'), ('jsonb[]', '[{"a": 1}, [2], "s", null]'), ('jsonb[]', '[[1], [2]]'),
               ('timestamptz[]', '["2026-11-01T00:00:00Z"]'), ('point2[]', '[{"x": 1}, {"y": 2, "z": 3}, null]'), ('numeric(3,1)[]', '[1.25, 99.99]'), ('uuid[]', '[]')) t (type, value);

-- composite types
SELECT type, value, value_of(type, value)
  FROM (VALUES ('point2', '{"x": 1, "y": 2.55}'), ('point2', '{}'), ('point2', '"(3,4)"'), ('point2', '[1, 2]'), ('point2', '5'), ('point2', '{"x": "a"}'), ('point2', '{"y": 12345}'),
               ('line2', '{"name": "abc", "from": {"x": 1, "x": 2}, "tags": ["a", "b"], "more": [{}]}'), ('line2', '{"name": "abcdef"}'), ('line2', '{"from": null, "tags": "{}"}')) t (type, value);

-- domains
SELECT type, value, value_of(type, value)
  FROM (VALUES ('positive', '1'), ('positive', '0'), ('positive', 'null'), ('given', '"x"'), ('given', 'null'), ('positive[]', '[1, 2]'), ('positive[]', '[1, -2]'),
               ('small_point', '{"x": 9}'), ('small_point', '{"x": 10}'), ('few', '[1, 2]'), ('few', '[1, 2, 3]')) t (type, value);
CREATE FOREIGN TABLE needed (v given) SERVER decode_values OPTIONS (topic 'values');
SELECT kafka.decode_message(NULL::needed, '{}');
SELECT kafka.decode_message(NULL::needed, NULL);

-- a thousand columns
DO $$
BEGIN
    EXECUTE (SELECT format('CREATE FOREIGN TABLE wide (%s) SERVER decode_values OPTIONS (topic ''wide'', unknown_field ''error'')',
                           string_agg(format('column_%s int', i), ', ' ORDER BY i)) FROM generate_series(1, 1000) i);
END
$$;
SELECT w.column_1, w.column_2, w.column_999, w.column_1000
  FROM kafka.decode_message(NULL::wide, (SELECT convert_to('{' || string_agg(format('"column_%s": %s', i, i), ', ' ORDER BY i DESC) || '}', 'UTF8')
                                           FROM generate_series(1, 1000) i WHERE i <> 2)) w;

SET client_min_messages = warning;
DROP SERVER decode_values CASCADE;
DROP SCHEMA decode_values CASCADE;
