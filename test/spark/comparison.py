"""Runs a query in Spark and in a stream over the same topic with the same batches, and compares what each did."""

import collections
import dataclasses

from peers.canonical import canonical


LOG_CHANGES = """
CREATE TABLE changes (sequence bigint GENERATED ALWAYS AS IDENTITY, xid xid8 DEFAULT pg_current_xact_id(), operation text,
                      LIKE target);
CREATE FUNCTION log_change() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO changes ({columns}, operation) SELECT OLD.*, TG_OP;
    ELSE
        IF TG_OP = 'UPDATE' THEN
            INSERT INTO changes ({columns}, operation) SELECT OLD.*, 'REPLACED';
        END IF;
        INSERT INTO changes ({columns}, operation) SELECT NEW.*, TG_OP;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER log_change AFTER INSERT OR UPDATE OR DELETE ON target FOR EACH ROW EXECUTE FUNCTION log_change();
"""
# Spark's watermark before the first event; a stream has none then
NO_WATERMARK = "1970-01-01 00:00:00.000000"


@dataclasses.dataclass
class Changes:
    """What a batch of the stream did to the target."""
    written: collections.Counter
    removed: collections.Counter
    input_rows: int
    watermark: str      # the one that is valid after the batch
    late_rows: int


@dataclasses.dataclass
class Outcome:
    spark: list         # of Batch
    stream: list        # of Changes
    table: collections.Counter
    state_rows: int


def rows_of(rows):
    return collections.Counter(tuple(canonical(value) for value in row) for row in rows)


def run_stream(db, topic, columns, query, target, **arguments):
    """Runs a stream in the database until it has read the topic; returns its batches."""
    db.run("SET timezone = 'UTC'")
    db.create_topic_table(topic, f"{columns}, kafka_partition int OPTIONS (metadata 'partition'), "
                                 "kafka_offset bigint OPTIONS (metadata 'offset')")
    db.run(target)
    names = db.value("SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute "
                     "WHERE attrelid = 'target'::regclass AND attnum > 0")
    db.run(LOG_CHANGES.format(columns=names))
    db.create_stream(query=query, trigger="available_now", **arguments)
    status = db.wait_for_state("stopped", "failed", timeout=60)
    assert status.state == "stopped", status
    batches = []
    for xid, *counts in db.run("""
            SELECT xid, num_input_rows, (event_time->>'watermark')::timestamptz, coalesce(late_rows, 0)
              FROM kafka.stream_progress WHERE stream = 's' ORDER BY batch_id"""):
        changes = {operation: rows_of(db.run(f"SELECT {names} FROM changes WHERE xid = %s AND operation = ANY (%s)",
                                             xid, operations))
                   for operation, operations in (("written", ["INSERT", "UPDATE"]), ("removed", ["DELETE", "REPLACED"]))}
        input_rows, watermark, late_rows = counts
        batches.append(Changes(**changes, input_rows=input_rows, watermark=canonical(watermark), late_rows=late_rows))
    return batches


def spark_columns(columns):
    """Columns of a topic table with Spark's names of the types."""
    return columns.replace("timestamptz", "timestamp").replace("text", "string")


def run_both(db, spark, topic, columns, query, target, spark_query=None, mode="append", batch_size=10, watermark=None,
             deduplicate_by=None):
    """Runs the query in both; returns the Outcome.

    columns: SQL, of the topic table
    spark_query: where SQL of Spark has other words
    watermark: column and delay, with a unit that both know
    """
    batches = spark.run(topic, spark_columns(columns), spark_query or query, mode=mode, batch_size=batch_size,
                        watermark=watermark, deduplicate_by=deduplicate_by)
    arguments = {"mode": mode}
    if batch_size:
        arguments["max_offsets_per_trigger"] = batch_size
    if watermark:
        arguments["watermark_column"], arguments["watermark_delay"] = watermark
    if deduplicate_by:
        arguments["deduplicate_by"] = deduplicate_by
    changes = run_stream(db, topic, columns, query, target, **arguments)
    state = db.value("SELECT to_regclass('kafka.stream_1_state')")
    return Outcome(batches, changes, rows_of(db.run("SELECT * FROM target")),
                   db.value(f"SELECT count(*) FROM {state}") if state else 0)


# --- what the two have to agree on ---

def assert_same_batches(outcome):
    """The batches were the same, and event time came as far in each."""
    assert [batch.input_rows for batch in outcome.stream] == [batch.input_rows for batch in outcome.spark]
    # a stream shows the watermark that is valid after a batch, Spark the one before
    after = [batch.watermark for batch in outcome.spark[1:]]
    if any(after):
        assert [batch.watermark or NO_WATERMARK for batch in outcome.stream[:-1]] == after


def assert_same_late_rows(outcome):
    assert [batch.late_rows for batch in outcome.stream] == [batch.late_rows for batch in outcome.spark]


def assert_same_state(outcome):
    assert outcome.state_rows == outcome.spark[-1].state_rows


def assert_same_append(outcome):
    """Every batch has added the same rows."""
    for batch, changes in zip(outcome.spark, outcome.stream):
        assert changes.written == rows_of(batch.rows)
        assert not changes.removed
    assert outcome.table == sum((rows_of(batch.rows) for batch in outcome.spark), collections.Counter())


def assert_same_update(outcome, key):
    """Every batch has changed the same groups; one whose row stays the same is not written.

    key: how many of the first columns are the group.
    """
    table = {}
    for batch, changes in zip(outcome.spark, outcome.stream):
        emitted = [tuple(row) for row in batch.rows]
        assert changes.written == collections.Counter(row for row in emitted if table.get(row[:key]) != row)
        table.update((row[:key], row) for row in emitted)
    assert outcome.table == collections.Counter(table.values())


def assert_same_complete(outcome):
    """After every batch the table has been the whole result."""
    table = collections.Counter()
    for batch, changes in zip(outcome.spark, outcome.stream):
        table = table - changes.removed + changes.written
        assert table == rows_of(batch.rows)
    assert outcome.table == rows_of(outcome.spark[-1].rows)
