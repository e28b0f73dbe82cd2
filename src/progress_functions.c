/*-------------------------------------------------------------------------
 *
 * progress_functions.c
 *	  SQL functions that show shared memory: workers, partitions, batches.
 *
 * Each shows the streams of the current database whose owner's privileges the
 * caller has, and all of them to pg_monitor.  Without
 * shared_preload_libraries there is nothing to show.  The views over them are
 * in the extension's script.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "progress_slots.h"

#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define STATUS_COLUMNS    14
#define PARTITION_COLUMNS 5
#define BATCH_COLUMNS     20

PG_FUNCTION_INFO_V1(kafka_worker_status);
PG_FUNCTION_INFO_V1(kafka_worker_partitions);
PG_FUNCTION_INFO_V1(kafka_worker_batches);
PG_FUNCTION_INFO_V1(kafka_is_here);

/* Copies slot number index if it is one that the caller may see here. */
static bool
visible_slot(int index, StreamSlot *slot)
{
	return progress_copy_slot(index, slot) && slot->database_id == MyDatabaseId &&
	       (has_privs_of_role(GetUserId(), slot->owner) ||
	        has_privs_of_role(GetUserId(), ROLE_PG_MONITOR));
}

static void
set_text(Datum *value, bool *isnull, const char *text)
{
	*isnull = text[0] == '\0';
	if (!*isnull)
		*value = CStringGetTextDatum(text);
}

static void
set_timestamp(Datum *value, bool *isnull, TimestampTz timestamp)
{
	*isnull = timestamp == 0;
	*value = TimestampTzGetDatum(timestamp);
}

/* NULL: nobody wants a worker, and there is none. *retry_at: 0 unless it backs off. */
static const char *
state_name(const StreamSlot *slot, TimestampTz now, TimestampTz *retry_at)
{
	*retry_at = 0;
	if (slot->worker_pid != 0)
		switch (slot->state)
		{
			case STREAM_STARTING:
				return "starting";
			case STREAM_RUNNING:
				return "running";
			case STREAM_IDLE:
				return "idle";
			case STREAM_BACKING_OFF:
				*retry_at = slot->retry_at;
				return "backing off";
		}
	if (!slot->wanted)
		return NULL;
	if (!slot->starting && (slot->failures > 0 || slot->next_start > now))
	{
		*retry_at = slot->next_start;
		return "backing off";
	}
	return "starting";
}

/* kafka.worker_status(): one row per slot. */
Datum
kafka_worker_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = GetCurrentTimestamp();

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; progress_available() && i < progress_max_stream_workers; i++)
	{
		Datum values[STATUS_COLUMNS] = {0};
		bool nulls[STATUS_COLUMNS] = {0};
		const ProgressError *error;
		const char *state;
		TimestampTz retry_at;
		StreamSlot slot;

		if (!visible_slot(i, &slot))
			continue;
		state = state_name(&slot, now, &retry_at);
		error = &slot.last_error;

		values[0] = Int64GetDatum(slot.stream_id);
		set_text(&values[1], &nulls[1], state != NULL ? state : "");
		values[2] = Int32GetDatum(slot.worker_pid);
		nulls[2] = slot.worker_pid == 0;
		set_timestamp(&values[3], &nulls[3], slot.state_since);
		set_timestamp(&values[4], &nulls[4], slot.worker_pid != 0 ? slot.worker_since : 0);
		set_timestamp(&values[5], &nulls[5], retry_at);
		values[6] = Int64GetDatum(slot.restarts);
		values[7] = Float8GetDatum(progress_rows_per_second(&slot, now));
		set_timestamp(&values[8], &nulls[8], error->at);
		set_text(&values[9], &nulls[9],
		         error->at != 0 ? unpack_sql_state(error->sqlerrcode) : "");
		set_text(&values[10], &nulls[10], error->message);
		set_text(&values[11], &nulls[11], error->detail);
		set_text(&values[12], &nulls[12], error->hint);
		values[13] = Int32GetDatum(slot.worker);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

static void
set_offset(Datum *value, bool *isnull, int64 offset)
{
	*isnull = offset < 0;
	*value = Int64GetDatum(offset);
}

/* kafka.worker_partitions(): one row per partition of each slot. */
Datum
kafka_worker_partitions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; progress_available() && i < progress_max_stream_workers; i++)
	{
		PartitionProgress *partitions;
		StreamSlot slot;
		int count;

		if (!visible_slot(i, &slot))
			continue;
		partitions = progress_copy_partitions(i, slot.generation, &count);
		for (int j = 0; j < count; j++)
		{
			Datum values[PARTITION_COLUMNS] = {0};
			bool nulls[PARTITION_COLUMNS] = {0};

			values[0] = Int64GetDatum(slot.stream_id);
			values[1] = Int32GetDatum(partitions[j].partition);
			set_offset(&values[2], &nulls[2], partitions[j].low_watermark);
			set_offset(&values[3], &nulls[3], partitions[j].high_watermark);
			values[4] = Int32GetDatum(slot.worker);
			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		}
		pfree(partitions);
	}
	return (Datum) 0;
}

/* ---------------------------------------------------------------------
 * Batches
 * ---------------------------------------------------------------------
 */

static Datum
json_datum(StringInfo json)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json->data));
}

static void
append_duration(StringInfo json, const char *phase, int64 microseconds)
{
	appendStringInfo(json, "%s\"%s\": " INT64_FORMAT ".%03d", json->len > 1 ? ", " : "", phase,
	                 microseconds / 1000, (int) (microseconds % 1000));
}

/* {"wait": 1.250, "decode": 3.000, ...}, in milliseconds */
static Datum
durations(const BatchProgress *batch)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	append_duration(&json, "wait", Max(batch->wait_us, 0));
	if (batch->decode_us >= 0)
		append_duration(&json, "decode", batch->decode_us);
	append_duration(&json, "execute", Max(batch->execute_us, 0));
	append_duration(&json, "commit", Max(batch->commit_us, 0));
	appendStringInfoChar(&json, '}');
	return json_datum(&json);
}

/* {"0": 23, "1": 42} */
static Datum
offsets(const BatchPartition *partitions, int count, bool end)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	for (int i = 0; i < count; i++)
		appendStringInfo(&json, "%s\"%d\": " INT64_FORMAT, i > 0 ? ", " : "",
		                 partitions[i].partition,
		                 end ? partitions[i].end_offset : partitions[i].start_offset);
	appendStringInfoChar(&json, '}');
	return json_datum(&json);
}

/* {"max": 7, "min": 0, "avg": 3.5} over the partitions; NULL when it is known for none. */
static Datum
offsets_behind_latest(const BatchPartition *partitions, int count, bool *isnull)
{
	StringInfoData json;
	int64 highest = 0;
	int64 lowest = 0;
	double sum = 0;
	int known = 0;

	for (int i = 0; i < count; i++)
	{
		int64 behind = partitions[i].behind_latest;

		if (behind < 0)
			continue;
		highest = known == 0 ? behind : Max(highest, behind);
		lowest = known == 0 ? behind : Min(lowest, behind);
		sum += behind;
		known++;
	}
	*isnull = known == 0;
	if (known == 0)
		return (Datum) 0;

	initStringInfo(&json);
	appendStringInfo(&json,
	                 "{\"max\": " INT64_FORMAT ", \"min\": " INT64_FORMAT ", \"avg\": %.1f}",
	                 highest, lowest, sum / known);
	return json_datum(&json);
}

/* Rows per second of so many microseconds; NULL when they are none. */
static Datum
rate(int64 rows, int64 microseconds, bool *isnull)
{
	*isnull = microseconds <= 0;
	return Float8GetDatum(*isnull ? 0 : rows * (double) USECS_PER_SEC / microseconds);
}

/* kafka.worker_batches(): one row per batch that the slots remember. */
Datum
kafka_worker_batches(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext row_context;
	MemoryContext old_context;

	InitMaterializedSRF(fcinfo, 0);
	row_context = AllocSetContextCreate(CurrentMemoryContext, "kafka.worker_batches",
	                                    ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; progress_available() && i < progress_max_stream_workers; i++)
	{
		TimestampTz previous_start = 0;
		StreamSlot slot;
		char *batches;
		char *cursor;
		int count;

		if (!visible_slot(i, &slot))
			continue;
		cursor = batches = progress_copy_batches(i, slot.generation, &count);
		for (int j = 0; j < count; j++)
		{
			Datum values[BATCH_COLUMNS] = {0};
			bool nulls[BATCH_COLUMNS] = {0};
			BatchProgress batch;
			BatchPartition *partitions;

			old_context = MemoryContextSwitchTo(row_context);
			progress_next_batch(&cursor, &batch, &partitions);
			values[0] = Int64GetDatum(slot.stream_id);
			values[1] = Int64GetDatum(batch.batch_id);
			set_timestamp(&values[2], &nulls[2], batch.started_at);
			values[3] = Int64GetDatum(batch.input_rows);
			values[4] = Int64GetDatum(batch.output_rows);
			values[5] = Int64GetDatum(batch.input_bytes);
			/* as Spark has it: arriving since the last batch started, processed while working */
			values[6] =
			    rate(batch.input_rows,
			         previous_start != 0 ? batch.started_at - previous_start : 0, &nulls[6]);
			values[7] = rate(batch.input_rows, batch.execute_us + batch.commit_us, &nulls[7]);
			values[8] = durations(&batch);
			values[9] = offsets(partitions, batch.partition_count, false);
			values[10] = offsets(partitions, batch.partition_count, true);
			values[11] = offsets_behind_latest(partitions, batch.partition_count, &nulls[11]);
			values[12] = UInt64GetDatum(batch.xid);
			set_timestamp(&values[13], &nulls[13], batch.watermark);
			values[14] = Int64GetDatum(batch.late_rows);
			values[15] = Int64GetDatum(batch.lost_offsets);
			values[16] = Int32GetDatum(slot.worker);
			values[17] = Int64GetDatum(batch.state_rows);
			nulls[17] = batch.state_rows < 0;
			set_timestamp(&values[18], &nulls[18], batch.oldest_event);
			set_timestamp(&values[19], &nulls[19], batch.newest_event);
			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
			previous_start = batch.started_at;
			MemoryContextSwitchTo(old_context);
			MemoryContextReset(row_context);
		}
		pfree(batches);
	}
	MemoryContextDelete(row_context);
	return (Datum) 0;
}

/*
 * kafka.is_here(system identifier, database oid): is this the cluster and the
 * database in which a stream was started?  false for NULLs: it never was.
 */
Datum
kafka_is_here(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(PG_GETARG_INT64(0) == (int64) GetSystemIdentifier() &&
	               PG_GETARG_OID(1) == MyDatabaseId);
}
