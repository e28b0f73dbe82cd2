-- Options of topic tables and their columns.
\encoding UTF8
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_ingest;
RESET client_min_messages;
CREATE SCHEMA topic_table_options;
SET search_path = topic_table_options;
CREATE SERVER topic_table_options FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'localhost:9092');

-- the table's options
CREATE FOREIGN TABLE t (a int) SERVER topic_table_options;
CREATE FOREIGN TABLE t (a int) SERVER topic_table_options OPTIONS (topic '');
CREATE FOREIGN TABLE t (a int) SERVER topic_table_options OPTIONS (topic 'a/b');
CREATE FOREIGN TABLE t (a int) SERVER topic_table_options OPTIONS (topics 'a');
CREATE FOREIGN TABLE t (a int) SERVER topic_table_options OPTIONS (topic 'a', nonsense 'x');
CREATE FOREIGN TABLE t (a int) SERVER topic_table_options OPTIONS (topic 'a', format 'avro');
CREATE FOREIGN TABLE t (a int) SERVER topic_table_options OPTIONS (topic 'a', format 'JSON');
CREATE FOREIGN TABLE t (a int) SERVER topic_table_options OPTIONS (topic 'a', unknown_field 'warn');
CREATE FOREIGN TABLE t (a int) SERVER topic_table_options OPTIONS (topic 'a', null_value 'null');
CREATE FOREIGN TABLE t (a int) SERVER topic_table_options OPTIONS (topic 'a', delimiter ';');
CREATE FOREIGN TABLE t (a int) SERVER topic_table_options OPTIONS (topic 'a', format 'text', unknown_field 'error');
CREATE FOREIGN TABLE t (a int) SERVER topic_table_options OPTIONS (topic 'a', format 'csv', delimiter ';;');
CREATE FOREIGN TABLE t (a int) SERVER topic_table_options OPTIONS (topic 'a', format 'csv', delimiter E'\n');
CREATE FOREIGN TABLE t (a int) SERVER topic_table_options OPTIONS (topic 'a', format 'csv', delimiter '"');
CREATE FOREIGN TABLE t (a int) SERVER topic_table_options OPTIONS (topic 'a', format 'csv', "null" 'a,b');

-- a column's options
CREATE FOREIGN TABLE t (a int OPTIONS (paht 'b')) SERVER topic_table_options OPTIONS (topic 'a');
CREATE FOREIGN TABLE t (a int OPTIONS (metadata 'partitions')) SERVER topic_table_options OPTIONS (topic 'a');
CREATE FOREIGN TABLE t (a int OPTIONS (metadata 'partition', path 'b')) SERVER topic_table_options OPTIONS (topic 'a');
CREATE FOREIGN TABLE t (a timestamptz OPTIONS (epoch 'h')) SERVER topic_table_options OPTIONS (topic 'a');
CREATE FOREIGN TABLE t (a int OPTIONS (path '')) SERVER topic_table_options OPTIONS (topic 'a');
CREATE FOREIGN TABLE t (a int OPTIONS (path '.b')) SERVER topic_table_options OPTIONS (topic 'a');
CREATE FOREIGN TABLE t (a int OPTIONS (path 'b.')) SERVER topic_table_options OPTIONS (topic 'a');
CREATE FOREIGN TABLE t (a int OPTIONS (path 'b[-1]')) SERVER topic_table_options OPTIONS (topic 'a');
CREATE FOREIGN TABLE t (a int OPTIONS (path 'b[1]c')) SERVER topic_table_options OPTIONS (topic 'a');
CREATE FOREIGN TABLE t (a int OPTIONS (path '[0]')) SERVER topic_table_options OPTIONS (topic 'a');
CREATE FOREIGN TABLE t (a int OPTIONS (path '"b')) SERVER topic_table_options OPTIONS (topic 'a');

-- paths
CREATE FOREIGN TABLE paths (
    a text OPTIONS (path 'x.y'), b text OPTIONS (path '"x.y"'), c text OPTIONS (path '"say ""hi"""'), d text OPTIONS (path 'x[1][0]'), e text OPTIONS (path '""'), "f.g" text
) SERVER topic_table_options OPTIONS (topic 'a');
SELECT * FROM kafka.decode_message(NULL::paths, convert_to('{"x": {"y": 1}, "x.y": 2, "say \"hi\"": 3, "": 5, "f.g": 6}', 'UTF8'));
SELECT * FROM kafka.decode_message(NULL::paths, '{"x": [0, [4]]}');

-- types that options do not fit; seen when the table is used
CREATE FUNCTION use_column(definition text, options text DEFAULT 'topic ''a''') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    hint text;
BEGIN
    EXECUTE format('CREATE FOREIGN TABLE one (%s) SERVER topic_table_options OPTIONS (%s)', definition, options);
    EXECUTE 'SELECT kafka.decode_message(NULL::one, NULL)' INTO result;
    DROP FOREIGN TABLE one;
    RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN format('%s: %s [%s]', SQLSTATE, SQLERRM, hint);
END
$$;
SELECT definition, use_column(definition) FROM (VALUES
    ('a smallint OPTIONS (metadata ''partition'')'), ('a bigint OPTIONS (metadata ''partition'')'), ('a text OPTIONS (metadata ''partition'')'),
    ('a numeric OPTIONS (metadata ''offset'')'), ('a int OPTIONS (metadata ''offset'')'), ('a timestamp OPTIONS (metadata ''timestamp'')'),
    ('a date OPTIONS (metadata ''timestamp'')'), ('a varchar(10) OPTIONS (metadata ''topic'')'), ('a int OPTIONS (metadata ''topic'')'), ('a int OPTIONS (metadata ''timestamp_type'')'),
    ('a jsonb OPTIONS (metadata ''key'')'), ('a int OPTIONS (metadata ''key'')'), ('a json OPTIONS (metadata ''value'')'), ('a int[] OPTIONS (metadata ''value'')'),
    ('a kafka.header[] OPTIONS (metadata ''headers'')'), ('a jsonb OPTIONS (metadata ''headers'')'), ('a json OPTIONS (metadata ''headers'')'), ('a kafka.header OPTIONS (metadata ''headers'')'),
    ('a date OPTIONS (epoch ''s'')'), ('a int OPTIONS (epoch ''s'')'), ('a int, b int GENERATED ALWAYS AS (a) STORED')) t (definition);
SELECT definition, options, use_column(definition, options) FROM (VALUES
    ('a text, b text', 'topic ''a'', format ''text'''), ('a text, b int OPTIONS (metadata ''partition'')', 'topic ''a'', format ''text'''), ('a int OPTIONS (metadata ''partition'')', 'topic ''a'', format ''bytea'''),
    ('a text', 'topic ''a'', format ''bytea'''), ('a text OPTIONS (path ''b'')', 'topic ''a'', format ''csv'''), ('a bytea, b bytea', 'topic ''a'', format ''bytea''')) t (definition, options);

-- dropped columns do not count
CREATE FOREIGN TABLE dropped (a int, b text, c text) SERVER topic_table_options OPTIONS (topic 'a', format 'csv');
ALTER FOREIGN TABLE dropped DROP COLUMN b;
SELECT * FROM kafka.decode_message(NULL::dropped, '1,c');

SET client_min_messages = warning;
DROP SERVER topic_table_options CASCADE;
DROP SCHEMA topic_table_options CASCADE;
