-- Format json: syntax, fields, paths, missing and unknown fields.
\encoding UTF8
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_ingest;
RESET client_min_messages;
CREATE SCHEMA decode_json;
SET search_path = decode_json;
SET timezone = 'UTC';
CREATE SERVER decode_json FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'localhost:9092');

CREATE FOREIGN TABLE orders_topic (
    order_id bigint,
    customer text OPTIONS (path 'customer.name'),
    first_item text OPTIONS (path 'items[0].id'),
    third_item text OPTIONS (path 'items.2.id'),
    dotted text OPTIONS (path 'a."b.c"[0]'),
    customer_json json OPTIONS (path 'customer'),
    amount numeric
) SERVER decode_json OPTIONS (topic 'orders');

CREATE FUNCTION decode(value text) RETURNS orders_topic
    LANGUAGE sql AS $$ SELECT kafka.decode_message(NULL::decode_json.orders_topic, convert_to(value, 'UTF8')) $$;

-- fields, in any order, nested, unknown, missing and null
SELECT * FROM decode('{"order_id": 9007199254740993, "customer": {"name": "Ann", "x": [1, {}]}, "amount": 1.50}');
SELECT * FROM decode(E'\t{ "amount" :0,\r\n"unknown":{"order_id":5},"order_id":1 } \n');
SELECT * FROM decode('{"items": [{"id": "a"}, 7, {"id": "c", "id": "last"}], "a": {"b.c": ["dotted"]}}');
SELECT * FROM decode('{"items": {"0": {"id": "by name"}}, "customer": null, "a": 1}');
SELECT * FROM decode('{}');
SELECT * FROM decode('{"items": [], "customer": [], "a": {"b.c": []}}');

-- of duplicate keys the last counts, with all that is below it
SELECT * FROM decode('{"order_id": "no number", "order_id": 1, "order_id": 2}');
SELECT * FROM decode('{"customer": {"name": "Ann"}, "customer": {"id": 1}}');
SELECT * FROM decode('{"customer": {"name": "Ann"}, "customer": 7}');

-- keys with escapes
SELECT * FROM decode('{"order\u005fid": 7, "\u0061mount": 8, "\ud800": 1, "\u0000": 2, "a": {"\u0062.c": [9]}}');

-- the same order again and again, and another one
SELECT (kafka.decode_message(NULL::orders_topic, convert_to(value, 'UTF8'))).*
  FROM (VALUES ('{"order_id": 1, "amount": 1.0}'), ('{"order_id": 2, "amount": 2.0}'),
               ('{"amount": 3.0, "order_id": 3}'), ('{"x": 0, "amount": 4.0, "y": 0, "order_id": 4}'),
               ('{"order_id": 5, "amount": 5.0}'), ('{"order_id_": 6, "amoun": 6.0}')) messages (value);

-- not JSON, or no object
SELECT decode('');
SELECT decode('   ');
SELECT decode('{"order_id": 1');
SELECT decode('{"order_id": 1, "customer": {"name": "Ann}');
SELECT decode('{"order_id": 1} trailing');
SELECT decode('{"order_id": 1}{}');
SELECT decode(U&'\FEFF{"order_id": 1}');
SELECT decode('[1, 2]');
SELECT decode('null');
SELECT decode('"text"');
SELECT decode('order_id');
SELECT decode('{order_id: 1}');
SELECT decode('{"order_id" 1}');
SELECT decode('{"order_id": }');
SELECT decode('{"order_id": 1,}');
SELECT decode('{"order_id": 1 "amount": 2}');
SELECT decode('{"x": [1, 2,]}');
SELECT decode('{"x": [1 2]}');
SELECT decode('{"x": [1}');
SELECT decode('{"order_id": 01}');
SELECT decode('{"x": [-]}');
SELECT decode('{"x": 1.}');
SELECT decode('{"x": 1e}');
SELECT decode('{"x": .5}');
SELECT decode('{"x": +5}');
SELECT decode('{"x": NaN}');
SELECT decode('{"x": True}');
SELECT decode('{"x": truex}');
SELECT decode('{''x'': 1}');
SELECT decode('{"x": "\x41"}');
SELECT decode('{"x": "\u12g4"}');
SELECT decode('{"x": "\u12');
SELECT decode(E'{"x": "tab\there"}');
SELECT decode('{"very long piece of text before": "and more of it, and more of it, äöü", "x": y, "äöü and a long piece of text behind": "it"}');

-- bytes that are no UTF-8 text
SELECT kafka.decode_message(NULL::orders_topic, '\x7b226f726465725f6964223a2022ff227d');
SELECT kafka.decode_message(NULL::orders_topic, '\x7b2278223a2022c3227d');
SELECT kafka.decode_message(NULL::orders_topic, '\x7b2278223a2022eda080227d');
SELECT kafka.decode_message(NULL::orders_topic, '\x7b7d00');

-- strings
SELECT amount, customer FROM decode('{"amount": "1\u002e5", "customer": {"name": "\"\\\/\b\f\n\r\t \u00e4 \u20ac \ud83d\ude00"}}');
SELECT decode('{"customer": {"name": "a\u0000b"}}');
SELECT decode('{"customer": {"name": "\ud83d"}}');
SELECT decode('{"customer": {"name": "\ude00"}}');
SELECT decode('{"customer": {"name": "\ud83d\ud83d"}}');
SELECT decode('{"customer": {"name": "\ud83d\u0041"}}');
-- nobody asked for these
SELECT order_id, customer_json FROM decode('{"order_id": 1, "x": "\ud83d \u0000", "customer": {"x": "\u0000"}}');

-- nesting
SELECT order_id FROM decode('{"x": ' || repeat('[', 4095) || repeat(']', 4095) || ', "order_id": 1}');
SELECT order_id FROM decode('{"x": ' || repeat('[', 4096) || repeat(']', 4096) || ', "order_id": 1}');
SELECT decode('{"x": ' || repeat('[', 100000));
SELECT decode('{"x": ' || repeat('{"x":', 100000));
SELECT decode(repeat('[', 100000));
SELECT order_id FROM decode('{"x": ' || repeat('[{"x":[]},[', 40) || repeat(']]', 40) || ', "order_id": 1}');
SELECT decode('{"x": ' || repeat('[{"x":[]},[', 40) || repeat(']]', 39) || '}');

-- tombstones
SELECT kafka.decode_message(NULL::orders_topic, NULL);
ALTER FOREIGN TABLE orders_topic OPTIONS (ADD null_value 'skip');
SELECT kafka.decode_message(NULL::orders_topic, NULL) IS NULL AS skipped;
SELECT count(*) FROM (SELECT kafka.decode_message(NULL::orders_topic, NULL) AS r) q WHERE r IS NOT DISTINCT FROM NULL;
ALTER FOREIGN TABLE orders_topic OPTIONS (SET null_value 'error');
SELECT kafka.decode_message(NULL::orders_topic, NULL);

-- unknown fields
ALTER FOREIGN TABLE orders_topic OPTIONS (ADD unknown_field 'error');
SELECT decode('{"order_id": 1, "customer": {"unknown": 1}, "items": [], "a": 2}');
SELECT decode('{"order_id": 1, "nobody\u0020knows": 2, "this": 3}');

-- a column's definition changes between two calls
ALTER FOREIGN TABLE orders_topic ALTER COLUMN amount TYPE numeric(3, 1);
SELECT amount FROM decode('{"amount": 12.34}');
SELECT amount FROM decode('{"amount": 1234.5}');

SELECT kafka.decode_message(1, '{}');
SELECT kafka.decode_message(NULL::pg_class, '{}');

SET client_min_messages = warning;
DROP SERVER decode_json CASCADE;
DROP SCHEMA decode_json CASCADE;
