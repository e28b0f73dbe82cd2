-- What a stream may be in each mode: everything here is refused before Kafka is asked.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_ingest;
RESET client_min_messages;
CREATE SERVER modes FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'localhost:1');
CREATE FOREIGN TABLE events (id bigint, customer text, amount numeric, at timestamptz, note json,
    tags text[]) SERVER modes OPTIONS (topic 'events');
CREATE FOREIGN TABLE other_events (id bigint) SERVER modes OPTIONS (topic 'other');
CREATE TABLE customers (customer text PRIMARY KEY, region text);
CREATE TABLE result (customer text, n bigint);
CREATE TABLE keyed (customer text PRIMARY KEY, n bigint);

CREATE PROCEDURE refuse(query text, mode text, target regclass DEFAULT 'result', watermark text DEFAULT NULL,
    delay interval DEFAULT NULL, keys text[] DEFAULT NULL, version text DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
    message text;
    detail text;
    hint text;
BEGIN
    PERFORM kafka.create_stream('s', query => refuse.query, mode => refuse.mode, target => refuse.target,
        watermark_column => watermark, watermark_delay => delay, key_columns => keys, version_column => version,
        start => false);
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RAISE INFO E'% %\n  DETAIL: %\n  HINT: %', SQLSTATE, message,
        regexp_replace(detail, 'stream_\d+', 'stream_<id>'), hint;
END $$;

-- append
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY customer', 'append');
CALL refuse('SELECT DISTINCT customer, id AS n FROM events', 'append');
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY customer', 'append',
    watermark => 'at', delay => '1 min');
CALL refuse($$SELECT customer, count(*) AS n FROM events GROUP BY customer, date_bin('1 min', now(), '2000-01-01')$$,
    'append', watermark => 'at', delay => '1 min');
CALL refuse('SELECT customer, id AS n FROM events ORDER BY id', 'append');
CALL refuse('SELECT customer, id AS n FROM events LIMIT 1', 'append');
CALL refuse('SELECT customer, id AS n FROM events OFFSET 1', 'append');
CALL refuse('SELECT customer, id AS n FROM events', 'append', watermark => 'at', delay => '1 min');

-- complete
CALL refuse('SELECT customer, id AS n FROM events', 'complete');
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY customer ORDER BY n OFFSET 3', 'complete');
CALL refuse('SELECT customer, n FROM (SELECT customer, id AS n FROM events) q', 'complete');

-- update
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY customer ORDER BY n', 'update', 'keyed');
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY customer LIMIT 3', 'update', 'keyed');
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY customer', 'update');
CALL refuse('SELECT customer, id % 2 AS n FROM events GROUP BY customer, id % 2', 'update', 'keyed');
CALL refuse('SELECT max(customer) AS customer, count(*) AS n FROM events GROUP BY customer', 'update', 'keyed');
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY customer', 'update', 'keyed', keys => '{customer}');
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY customer', 'update', 'keyed', version => 'n');
CREATE TABLE narrow (at date PRIMARY KEY, n bigint);
CALL refuse('SELECT at, count(*) AS n FROM events GROUP BY at', 'update', 'narrow');
CREATE TABLE nullable (customer text UNIQUE, n bigint);
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY customer', 'update', 'nullable');
CREATE VIEW keyed_view AS SELECT * FROM keyed;
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY customer', 'update', 'keyed_view');
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY customer', 'complete', 'keyed_view');

-- aggregates
CALL refuse('SELECT customer, count(DISTINCT id) AS n FROM events GROUP BY customer', 'complete');
CALL refuse('SELECT customer, percentile_cont(0.5) WITHIN GROUP (ORDER BY id)::bigint AS n FROM events GROUP BY customer', 'complete');
CALL refuse('SELECT customer, rank(5) WITHIN GROUP (ORDER BY id) AS n FROM events GROUP BY customer', 'complete');
CALL refuse('SELECT customer, json_object_agg(id, id) AS n FROM events GROUP BY customer', 'complete');
CALL refuse('SELECT customer, cardinality(array_agg(id ORDER BY id)) AS n FROM events GROUP BY customer', 'complete');

-- groups
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY ROLLUP (customer)', 'complete');
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY GROUPING SETS ((customer), ())', 'complete');
CALL refuse('SELECT customer, GROUPING(customer) AS n FROM events GROUP BY customer', 'complete');
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY customer, random()', 'complete');
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY customer, events.id::text::xid', 'complete');
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY customer, ROW(id, at)', 'complete');
CALL refuse('SELECT c.region AS customer, count(*) AS n FROM events JOIN customers c USING (customer) GROUP BY c.customer', 'complete');
CALL refuse('SELECT DISTINCT customer, count(*) AS n FROM events GROUP BY customer', 'complete');
CALL refuse('SELECT DISTINCT ON (customer) customer, id AS n FROM events', 'complete');
CALL refuse('SELECT customer, unnest(ARRAY[count(*)]) AS n FROM events GROUP BY customer', 'complete');
CALL refuse('SELECT customer, (SELECT count(*) FROM customers) AS n FROM events GROUP BY customer', 'complete');
CALL refuse('SELECT ''all'' AS customer, 1 AS n FROM events HAVING true', 'complete');

-- levels and sources
CALL refuse('SELECT max(customer) AS customer, n FROM (SELECT customer, count(*) AS n FROM events GROUP BY customer) q GROUP BY n', 'complete');
CALL refuse('SELECT * FROM (SELECT customer, count(*) AS n FROM events GROUP BY customer) q WHERE n > 1', 'update');
CALL refuse('SELECT customer, n FROM (SELECT customer, id AS n FROM events LIMIT 3) q', 'append');
CALL refuse('SELECT customer, n FROM (SELECT customer, id AS n FROM events ORDER BY 2) q', 'append');
CALL refuse('SELECT customer, row_number() OVER () AS n FROM events', 'append');
CALL refuse('SELECT customer, sum(count(*)) OVER () AS n FROM events GROUP BY customer', 'complete');
CALL refuse('SELECT customer, id AS n FROM events UNION ALL SELECT customer, 1 FROM customers', 'append');
CALL refuse('SELECT a.customer, count(*) AS n FROM events a JOIN other_events b USING (id) GROUP BY 1', 'complete');
CALL refuse('SELECT a.customer, count(*) AS n FROM events a JOIN events b USING (id) GROUP BY 1', 'complete');
CALL refuse('SELECT c.customer, count(*) AS n FROM customers c LEFT JOIN events e USING (customer) GROUP BY 1', 'complete');
CALL refuse('SELECT c.customer, count(*) AS n FROM customers c WHERE EXISTS (SELECT FROM events) GROUP BY 1', 'complete');
CALL refuse('WITH gone AS (DELETE FROM customers RETURNING customer) SELECT customer, count(*) AS n FROM gone GROUP BY 1', 'complete');

CALL refuse('SELECT customer, id AS n FROM events TABLESAMPLE SYSTEM (10)', 'append');
CALL refuse('SELECT customer, count(*) AS n FROM events GROUP BY customer, note', 'complete');
CALL refuse('SELECT DISTINCT note::text AS customer, note, id AS n FROM events', 'complete');
CALL refuse('SELECT customer, id AS n FROM events; SELECT 1', 'append');
CALL refuse('DELETE FROM customers', 'append');
SELECT kafka.create_stream('s', source => 'events', target => 'result', notify => repeat('x', 64), start => false);
SELECT kafka.create_stream('s', source => 'events', target => 'result', notify => '', start => false);
SELECT kafka.create_stream('s', query => 'SELECT customer, id AS n FROM events', target => 'result',
    deduplicate_by => '{customer,customer}', watermark_column => 'at', watermark_delay => '1 min', start => false);

-- nothing is left behind
SELECT count(*) FROM kafka.stream;
SELECT relname FROM pg_class WHERE relname LIKE 'stream%state';

SET client_min_messages = warning;
DROP PROCEDURE refuse(text, text, regclass, text, interval, text[], text);
DROP SERVER modes CASCADE;
DROP TABLE customers, result, keyed, narrow, nullable CASCADE;
