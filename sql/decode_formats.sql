-- Formats text, bytea and csv; metadata columns.
\encoding UTF8
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_ingest;
RESET client_min_messages;
CREATE SCHEMA decode_formats;
SET search_path = decode_formats;
CREATE SERVER decode_formats FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'localhost:9092');

-- text: the whole value, for one column of any type
CREATE FOREIGN TABLE text_topic (v text, key text OPTIONS (metadata 'key')) SERVER decode_formats OPTIONS (topic 'texts', format 'text');
SELECT * FROM kafka.decode_message(NULL::text_topic, convert_to('äöü {"a": 1}', 'UTF8'), 'k');
SELECT * FROM kafka.decode_message(NULL::text_topic, '');
SELECT * FROM kafka.decode_message(NULL::text_topic, NULL, '');
SELECT * FROM kafka.decode_message(NULL::text_topic, '\x61ff');
SELECT * FROM kafka.decode_message(NULL::text_topic, '\x610062');
SELECT * FROM kafka.decode_message(NULL::text_topic, 'x', '\xff');
CREATE FOREIGN TABLE number_topic (v numeric(6, 2)) SERVER decode_formats OPTIONS (topic 'numbers', format 'text');
SELECT * FROM kafka.decode_message(NULL::number_topic, '12.345');
SELECT * FROM kafka.decode_message(NULL::number_topic, 'twelve');
CREATE FOREIGN TABLE json_text_topic (v jsonb) SERVER decode_formats OPTIONS (topic 'documents', format 'text');
SELECT * FROM kafka.decode_message(NULL::json_text_topic, '[1, 2]');

-- bytea: any bytes
CREATE FOREIGN TABLE bytea_topic (v bytea) SERVER decode_formats OPTIONS (topic 'bytes', format 'bytea');
SELECT * FROM kafka.decode_message(NULL::bytea_topic, '\x00ff61');
SELECT * FROM kafka.decode_message(NULL::bytea_topic, '');
SELECT * FROM kafka.decode_message(NULL::bytea_topic, NULL);

-- csv: columns by position
CREATE FOREIGN TABLE csv_topic (a int, topic text OPTIONS (metadata 'topic'), b text, c timestamptz OPTIONS (epoch 's'))
    SERVER decode_formats OPTIONS (topic 'csv', format 'csv');
CREATE FUNCTION csv(value text) RETURNS csv_topic
    LANGUAGE sql AS $$ SELECT kafka.decode_message(NULL::decode_formats.csv_topic, convert_to(value, 'UTF8')) $$;
SET timezone = 'UTC';
SELECT * FROM csv('1,two,3');
SELECT * FROM csv(E'1,"two, ""and"" more\nlines",3\n');
SELECT * FROM csv(E',"",\r\n');
SELECT * FROM csv('1,pre"quo,ted"post,3');
SELECT * FROM csv(',,');
SELECT csv('1,two');
SELECT csv('');
SELECT csv('1,two,3,four');
SELECT csv('1,"two,3');
SELECT csv(E'1,two,3\n4,five,6');
SELECT csv('one,two,3');
SELECT csv('1,two,three');
SELECT kafka.decode_message(NULL::csv_topic, NULL);
ALTER FOREIGN TABLE csv_topic OPTIONS (ADD delimiter ';', ADD quote '''', ADD escape '\', ADD "null" 'NULL');
SELECT * FROM csv($$NULL;'it\'s \\ \n; NULL';0$$);
SELECT * FROM csv($$1;'NULL';NULL$$);
SELECT * FROM csv($$1;;0$$);
DROP FUNCTION csv;

-- metadata: what is not known without Kafka is NULL
CREATE FOREIGN TABLE metadata_topic (
    topic text OPTIONS (metadata 'topic'), partition int OPTIONS (metadata 'partition'), "offset" bigint OPTIONS (metadata 'offset'),
    "timestamp" timestamptz OPTIONS (metadata 'timestamp'), timestamp_type text OPTIONS (metadata 'timestamp_type'),
    key bytea OPTIONS (metadata 'key'), key_json jsonb OPTIONS (metadata 'key'), value bytea OPTIONS (metadata 'value'), value_text varchar(20) OPTIONS (metadata 'value'),
    headers kafka.header[] OPTIONS (metadata 'headers'), headers_json jsonb OPTIONS (metadata 'headers'),
    id int
) SERVER decode_formats OPTIONS (topic 'metadata');
\x on
SELECT * FROM kafka.decode_message(NULL::metadata_topic, '{"id": 1}', '{"k": 2}');
SELECT * FROM kafka.decode_message(NULL::metadata_topic, NULL, NULL);
\x off
SELECT * FROM kafka.decode_message(NULL::metadata_topic, '{"id": 1}', 'no json');
SELECT * FROM kafka.decode_message(NULL::metadata_topic, '{"id": 1, "more": "than 20 characters"}');

SET client_min_messages = warning;
DROP SERVER decode_formats CASCADE;
DROP SCHEMA decode_formats CASCADE;
