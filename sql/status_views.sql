-- Status functions and views: who sees what, and what they show of streams
-- that no worker runs. Shared memory is needed for none of this.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_ingest;
RESET client_min_messages;
CREATE SCHEMA status_views;
SET search_path = status_views;
SET timezone = 'UTC';

-- without a worker there is nothing in shared memory
SELECT count(*) FROM kafka.worker_status();
SELECT count(*) FROM kafka.worker_partitions();
SELECT count(*) FROM kafka.worker_batches();

-- this cluster and this database, and no other
SELECT system_identifier AS system FROM pg_control_system() \gset
SELECT oid AS database FROM pg_database WHERE datname = current_database() \gset
SELECT kafka.is_here(:system, :database);
SELECT kafka.is_here(:system, 1::oid);
SELECT kafka.is_here(:system + 1, :database);
SELECT kafka.is_here(NULL, NULL), kafka.is_here(:system, NULL), kafka.is_here(NULL, :database);

-- rows as the functions of the extension would leave them
CREATE ROLE status_views_owner;
CREATE ROLE status_views_other;
CREATE ROLE status_views_monitor IN ROLE pg_monitor;
GRANT USAGE ON SCHEMA status_views TO PUBLIC;
CREATE TABLE topic (a int);
CREATE TABLE target (a int);

CREATE FUNCTION add_stream(name text, enabled boolean, system bigint, database oid,
                           error text DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
    INSERT INTO kafka.stream (name, owner, source, query_view, target, mode, on_tombstone, on_conflict, on_error,
                              trigger, trigger_interval, enabled, started_in_system, started_in_database,
                              error_at, error_sqlstate, error_message, error_detail, error_hint)
    VALUES (name, 'status_views_owner', 'status_views.topic', false, 'status_views.target', 'append', 'delete',
            'error', 'stop', 'processing_time', '0 s', enabled, system, database,
            CASE WHEN error IS NOT NULL THEN '2026-11-01 00:00+00'::timestamptz END,
            CASE WHEN error IS NOT NULL THEN '22P02' END, error, error || ' detail', error || ' hint');
$$;
SELECT add_stream('never started', false, NULL, NULL);
SELECT add_stream('stopped', false, :system, :database);
SELECT add_stream('failed', true, :system, :database, 'failure');
SELECT add_stream('of another cluster', true, :system + 1, :database);
SELECT add_stream('of another database', true, :system, 1);
INSERT INTO kafka.stream_offset (stream, topic, partition, next_offset, high_watermark,
                                 last_message_at, message_count, byte_count)
    VALUES ('stopped', 'orders', 0, 10, 12, '2026-11-01 00:00+00', 7, 700),
           ('stopped', 'orders', 1, 5, NULL, NULL, 0, 0),
           ('stopped', 'orders', 2, 5, 3, NULL, 1, 10);

SELECT stream, state, pid, since, last_error, last_error_sqlstate, last_error_detail, last_error_hint,
       last_error_at, restarts, messages, bytes, rows_per_second
  FROM kafka.stream_status ORDER BY stream COLLATE "C";
SELECT * FROM kafka.stream_lag ORDER BY stream, topic, partition;
SELECT * FROM kafka.stream_progress;

-- the owner and pg_monitor see a stream, nobody else does
SET ROLE status_views_owner;
SELECT count(*) FROM kafka.stream_status;
SELECT count(*) FROM kafka.stream_lag;
RESET ROLE;
SET ROLE status_views_monitor;
SELECT count(*) FROM kafka.stream_status;
SELECT count(*) FROM kafka.stream_lag;
RESET ROLE;
SET ROLE status_views_other;
SELECT count(*) FROM kafka.stream_status;
SELECT count(*) FROM kafka.stream_lag;
SELECT count(*) FROM kafka.stream;
-- and only the extension's functions write
INSERT INTO kafka.stream (name) VALUES ('mine');
UPDATE kafka.stream SET enabled = true;
DELETE FROM kafka.stream_offset;
RESET ROLE;

DELETE FROM kafka.stream WHERE owner = 'status_views_owner'::regrole;
SELECT count(*) FROM kafka.stream_offset;
SET client_min_messages = warning;
DROP SCHEMA status_views CASCADE;
DROP ROLE status_views_owner, status_views_other, status_views_monitor;
