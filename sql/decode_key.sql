-- Columns from the message key: options key_format and key.
\encoding UTF8
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_ingest;
RESET client_min_messages;
CREATE SCHEMA decode_key;
SET search_path = decode_key;
SET timezone = 'UTC';
CREATE SERVER decode_key FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'localhost:9092');

-- options
CREATE FOREIGN TABLE t (a int) SERVER decode_key OPTIONS (topic 'a', key_format 'avro');
CREATE FOREIGN TABLE t (a int OPTIONS (key '')) SERVER decode_key OPTIONS (topic 'a');
CREATE FOREIGN TABLE t (a int OPTIONS (key 'a.')) SERVER decode_key OPTIONS (topic 'a');
CREATE FOREIGN TABLE t (a int OPTIONS (key 'true', metadata 'key')) SERVER decode_key OPTIONS (topic 'a');
CREATE FOREIGN TABLE t (a int OPTIONS (keys 'true')) SERVER decode_key OPTIONS (topic 'a');

-- against the key's format; seen when the table is used
CREATE FOREIGN TABLE path_in_text (a int OPTIONS (key 'id')) SERVER decode_key OPTIONS (topic 'a');
SELECT kafka.decode_message(NULL::path_in_text, '{}', '1');
CREATE FOREIGN TABLE int_from_bytea (a int OPTIONS (key 'true')) SERVER decode_key OPTIONS (topic 'a', key_format 'bytea');
SELECT kafka.decode_message(NULL::int_from_bytea, '{}', '1');
CREATE FOREIGN TABLE epoch_in_text (a text OPTIONS (key 'true', epoch 's')) SERVER decode_key OPTIONS (topic 'a');
SELECT kafka.decode_message(NULL::epoch_in_text, '{}', '1');

-- the whole key, as text through the type's input function; 'false' is as without
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE FOREIGN TABLE whole (
    id bigint OPTIONS (key 'true'), t text OPTIONS (key 'true'), day timestamptz OPTIONS (key 'true', epoch 's'), p positive OPTIONS (key 'true'), field text OPTIONS (key 'false')
) SERVER decode_key OPTIONS (topic 'a');
SELECT * FROM kafka.decode_message(NULL::whole, '{"id": 7, "field": "x"}', '12');
SELECT * FROM kafka.decode_message(NULL::whole, NULL, '12');
SELECT * FROM kafka.decode_message(NULL::whole, '{}', NULL);
SELECT * FROM kafka.decode_message(NULL::whole, '{}', '1x');
SELECT * FROM kafka.decode_message(NULL::whole, '{}', '');
SELECT * FROM kafka.decode_message(NULL::whole, '{}', '-1');
SELECT * FROM kafka.decode_message(NULL::whole, '{}', '\xff');
SELECT * FROM kafka.decode_message(NULL::whole, '{}', '99999999999999999999');
-- an empty key is a text, and not NULL
CREATE FOREIGN TABLE only_text (t text OPTIONS (key 'true'), b int) SERVER decode_key OPTIONS (topic 'a');
SELECT * FROM kafka.decode_message(NULL::only_text, '{"b": 1}', '') WHERE t = '';

-- bytes as they are
CREATE FOREIGN TABLE bytes (k bytea OPTIONS (key 'true'), v text) SERVER decode_key OPTIONS (topic 'a', format 'text', key_format 'bytea');
SELECT * FROM kafka.decode_message(NULL::bytes, 'value', '\x00ff');
SELECT * FROM kafka.decode_message(NULL::bytes, 'value', '');

-- JSON: the whole of it, and paths into it
CREATE FOREIGN TABLE json_whole (k text OPTIONS (key 'true'), j jsonb OPTIONS (key 'true')) SERVER decode_key OPTIONS (topic 'a', key_format 'json');
SELECT * FROM kafka.decode_message(NULL::json_whole, '{}', convert_to('"a\u00e9"', 'UTF8'));
SELECT * FROM kafka.decode_message(NULL::json_whole, '{}', ' 9007199254740993 ');
SELECT * FROM kafka.decode_message(NULL::json_whole, '{}', '{"a": [1]}');
SELECT * FROM kafka.decode_message(NULL::json_whole, '{}', 'null');
SELECT * FROM kafka.decode_message(NULL::json_whole, '{}', '1 2');
SELECT * FROM kafka.decode_message(NULL::json_whole, '{}', '');
CREATE FOREIGN TABLE json_fields (
    id bigint OPTIONS (key 'id'), name text OPTIONS (key 'a.b[1]'), "true" text OPTIONS (key '"true"'), v int
) SERVER decode_key OPTIONS (topic 'a', key_format 'json');
SELECT * FROM kafka.decode_message(NULL::json_fields, '{"v": 1, "id": 5}', '{"a": {"b": ["x", "y"]}, "id": 1, "true": "field", "more": {}}');
SELECT * FROM kafka.decode_message(NULL::json_fields, '{"v": 1}', '{"id": null}');
SELECT * FROM kafka.decode_message(NULL::json_fields, '{"v": 1}', '7');
SELECT * FROM kafka.decode_message(NULL::json_fields, '{"v": 1}', '{"id": 1');
SELECT * FROM kafka.decode_message(NULL::json_fields, '{"v": 1}', '{"id": "x"}');
SELECT * FROM kafka.decode_message(NULL::json_fields, '{"v": 1}', NULL);

-- path and key: the value when there is one, the key of a tombstone
CREATE DOMAIN present AS bigint NOT NULL;
CREATE FOREIGN TABLE cdc (id present OPTIONS (path 'after.id', key 'payload.id'), v int OPTIONS (path 'after.v')) SERVER decode_key OPTIONS (topic 'a', key_format 'json');
SELECT * FROM kafka.decode_message(NULL::cdc, '{"after": {"id": 1, "v": 2}}', '{"payload": {"id": 3}}');
SELECT * FROM kafka.decode_message(NULL::cdc, '{"after": {"id": 1, "v": 2}}', 'not looked at');
SELECT * FROM kafka.decode_message(NULL::cdc, NULL, '{"payload": {"id": 3}}');
SELECT * FROM kafka.decode_message(NULL::cdc, NULL, '{"payload": {}}');
SELECT * FROM kafka.decode_message(NULL::cdc, '{"after": null}', '{"payload": {"id": 3}}');

-- columns from the key are none of the value's, in any format
CREATE FOREIGN TABLE csv (a int, k int OPTIONS (key 'true'), b text) SERVER decode_key OPTIONS (topic 'a', format 'csv');
SELECT * FROM kafka.decode_message(NULL::csv, '1,x', '2');
CREATE FOREIGN TABLE one_text (k int OPTIONS (key 'true'), v text) SERVER decode_key OPTIONS (topic 'a', format 'text');
SELECT * FROM kafka.decode_message(NULL::one_text, 'value', '2');
CREATE FOREIGN TABLE strict (k int OPTIONS (key 'true'), v text) SERVER decode_key OPTIONS (topic 'a', unknown_field 'error');
SELECT * FROM kafka.decode_message(NULL::strict, '{"v": "x"}', '2');
SELECT * FROM kafka.decode_message(NULL::strict, '{"v": "x", "k": 1}', '2');

SET client_min_messages = warning;
DROP SERVER decode_key CASCADE;
DROP SCHEMA decode_key CASCADE;
