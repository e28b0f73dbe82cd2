-- Plans of topic scans.  Kafka is not asked before the first row is.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_ingest;
RESET client_min_messages;
CREATE SERVER nowhere FOREIGN DATA WRAPPER kafka
    OPTIONS (bootstrap_servers 'localhost:1', socket_timeout_ms '300');
CREATE FOREIGN TABLE orders_topic (
    order_id bigint,
    amount numeric,
    part int OPTIONS (metadata 'partition'),
    pos bigint OPTIONS (metadata 'offset'),
    at timestamptz OPTIONS (metadata 'timestamp')
) SERVER nowhere OPTIONS (topic 'orders');

EXPLAIN (COSTS OFF) SELECT * FROM orders_topic;

-- pushed down: comparisons of metadata columns with what is constant in a scan
EXPLAIN (COSTS OFF) SELECT * FROM orders_topic WHERE part = 2 AND pos >= 100 AND pos < 200::smallint;
EXPLAIN (COSTS OFF) SELECT * FROM orders_topic WHERE part IN (0, 2) AND pos BETWEEN 5 AND 10;
EXPLAIN (COSTS OFF) SELECT * FROM orders_topic WHERE 1000 <= pos AND 1 > part;
EXPLAIN (COSTS OFF) SELECT * FROM orders_topic WHERE at >= now() - interval '10 minutes';
EXPLAIN (COSTS OFF) SELECT * FROM orders_topic WHERE at > date '2026-11-01' AND at = current_timestamp;
PREPARE from_offset(bigint) AS SELECT * FROM orders_topic WHERE pos > $1;
SET plan_cache_mode = force_generic_plan;
EXPLAIN (COSTS OFF) EXECUTE from_offset(7);
RESET plan_cache_mode;

-- only checked row by row: an upper bound of the time, fields, volatile
-- functions, and operators without an order
EXPLAIN (COSTS OFF) SELECT * FROM orders_topic WHERE at < '2026-11-01 00:00+00'::timestamptz(0) AT TIME ZONE 'UTC' AT TIME ZONE 'UTC';
EXPLAIN (COSTS OFF) SELECT * FROM orders_topic WHERE order_id = 1 AND pos <> 2 AND part = amount;
EXPLAIN (COSTS OFF) SELECT * FROM orders_topic WHERE pos > random()::int AND part = 1 + pos;

-- read only
\set VERBOSITY terse
INSERT INTO orders_topic (order_id) VALUES (1);
UPDATE orders_topic SET amount = 0;
DELETE FROM orders_topic;
ANALYZE orders_topic;

-- no broker: an error, in time
SET client_min_messages = error;
SELECT count(*) FROM orders_topic;
SELECT * FROM kafka.topic_partitions('orders_topic');
SELECT * FROM kafka.offsets_for_timestamp('orders_topic', now());
RESET client_min_messages;

-- who may ask
CREATE ROLE kafka_reader_without_rights;
SET ROLE kafka_reader_without_rights;
SELECT * FROM kafka.topic_partitions('orders_topic');
SELECT * FROM kafka.offsets_for_timestamp('orders_topic', now());
SELECT count(*) FROM orders_topic;
RESET ROLE;
DROP ROLE kafka_reader_without_rights;
SELECT * FROM kafka.topic_partitions('pg_class');

SET client_min_messages = warning;
DROP SERVER nowhere CASCADE;
