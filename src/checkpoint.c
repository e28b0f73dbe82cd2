/*-------------------------------------------------------------------------
 *
 * checkpoint.c
 *	  The next offset of every partition of a stream, in kafka.stream_offset.
 *
 * Positions are written in the transaction that writes the rows, by
 * compare-and-set, and never anywhere else.  Which positions are right is
 * left to start_position.c and micro_batch.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "checkpoint.h"

#include "catalog.h"
#include "utils/array.h"
#include "utils/builtins.h"

/* An SQL array of one 8-byte field per item; -1 becomes NULL when null_if_negative. */
static Datum
int8_array(const void *items, size_t stride, size_t field, int count, bool null_if_negative)
{
	Datum *values = palloc(sizeof(Datum) * Max(count, 1));
	bool *nulls = palloc0(sizeof(bool) * Max(count, 1));
	int dimension = count;
	int lower_bound = 1;

	for (int i = 0; i < count; i++)
	{
		int64 value;

		memcpy(&value, (const char *) items + i * stride + field, sizeof(value));
		values[i] = Int64GetDatum(value);
		nulls[i] = null_if_negative && value < 0;
	}
	return PointerGetDatum(construct_md_array(values, nulls, 1, &dimension, &lower_bound,
	                                          INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
	                                          TYPALIGN_DOUBLE));
}

static Datum
partition_array(const void *items, size_t stride, size_t field, int count)
{
	Datum *values = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
	{
		int32 value;

		memcpy(&value, (const char *) items + i * stride + field, sizeof(value));
		values[i] = Int32GetDatum(value);
	}
	return PointerGetDatum(
	    construct_array(values, count, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

#define FIELD_INT8(items, count, type, field, null_if_negative)                                \
	int8_array(items, sizeof(type), offsetof(type, field), count, null_if_negative)
#define FIELD_PARTITION(items, count, type)                                                    \
	partition_array(items, sizeof(type), offsetof(type, partition), count)

Checkpoint *
checkpoint_load(const char *stream, const char *topic)
{
	MemoryContext caller_context = CurrentMemoryContext;
	Checkpoint *checkpoint = palloc0(sizeof(Checkpoint));
	CatalogAccess access;
	Oid types[2] = {TEXTOID, TEXTOID};
	Datum values[2] = {CStringGetTextDatum(stream), CStringGetTextDatum(topic)};

	catalog_begin(&access);
	checkpoint->count = (int) catalog_execute(
	    SPI_OK_SELECT,
	    "SELECT partition, next_offset, coalesce(end_offset, -1), batch_id, cluster_id,"
	    " error_count, coalesce(last_offset, -1),"
	    " coalesce((extract(epoch FROM last_message_at) * 1000)::bigint, -1)"
	    " FROM kafka.stream_offset WHERE stream = $1 AND topic = $2 ORDER BY partition",
	    2, types, values, NULL);
	checkpoint->positions =
	    MemoryContextAllocZero(caller_context,
	                           sizeof(PartitionPosition) * Max(checkpoint->count, 1));
	for (int i = 0; i < checkpoint->count; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc descriptor = SPI_tuptable->tupdesc;
		PartitionPosition *position = &checkpoint->positions[i];
		bool isnull;
		Datum cluster_id;

		position->partition = DatumGetInt32(SPI_getbinval(row, descriptor, 1, &isnull));
		position->next_offset = DatumGetInt64(SPI_getbinval(row, descriptor, 2, &isnull));
		position->last_offset = DatumGetInt64(SPI_getbinval(row, descriptor, 7, &isnull));
		position->last_message_ms = DatumGetInt64(SPI_getbinval(row, descriptor, 8, &isnull));
		position->end_offset = DatumGetInt64(SPI_getbinval(row, descriptor, 3, &isnull));
		checkpoint->last_batch_id =
		    Max(checkpoint->last_batch_id,
		        DatumGetInt64(SPI_getbinval(row, descriptor, 4, &isnull)));
		checkpoint->error_count += DatumGetInt64(SPI_getbinval(row, descriptor, 6, &isnull));
		cluster_id = SPI_getbinval(row, descriptor, 5, &isnull);
		if (!isnull && checkpoint->cluster_id == NULL)
			checkpoint->cluster_id =
			    MemoryContextStrdup(caller_context, TextDatumGetCString(cluster_id));
		if (position->partition != i)
			ereport(ERROR,
			        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			         errmsg("checkpoint of stream \"%s\" is damaged", stream),
			         errdetail("Partition %d of topic \"%s\" has no position.", i, topic),
			         errhint("Use kafka.reset_stream to give it new start positions.")));
	}
	catalog_end(&access);

	if (checkpoint->count == 0)
		ereport(ERROR,
		        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		         errmsg("stream \"%s\" has no checkpoint for topic \"%s\"", stream, topic),
		         errhint("If the topic table names another topic now, use "
		                 "kafka.reset_stream to start there.")));
	return checkpoint;
}

static void
insert_positions(const char *stream, const char *topic, const KafkaPartitionOffset *positions,
                 int count, const char *cluster_id, int64 batch_id, bool may_exist)
{
	Oid types[6] = {TEXTOID, TEXTOID, INT4ARRAYOID, INT8ARRAYOID, TEXTOID, INT8OID};
	Datum values[6] = {CStringGetTextDatum(stream),
	                   CStringGetTextDatum(topic),
	                   FIELD_PARTITION(positions, count, KafkaPartitionOffset),
	                   FIELD_INT8(positions, count, KafkaPartitionOffset, offset, false),
	                   cluster_id ? CStringGetTextDatum(cluster_id) : (Datum) 0,
	                   Int64GetDatum(batch_id)};
	char nulls[7] = "      ";

	if (cluster_id == NULL)
		nulls[4] = 'n';
	catalog_execute(SPI_OK_INSERT,
	                psprintf("INSERT INTO kafka.stream_offset (stream, topic, partition,"
	                         " next_offset, cluster_id, batch_id) SELECT $1, $2, p, o, $5, $6"
	                         " FROM unnest($3, $4) AS n (p, o) %s",
	                         may_exist ? "ON CONFLICT DO NOTHING" : ""),
	                6, types, values, nulls);
}

void
checkpoint_pin(const char *stream, const char *topic, const KafkaPartitionOffset *positions,
               int count, const char *cluster_id)
{
	CatalogAccess access;
	Oid types[1] = {TEXTOID};
	Datum values[1] = {CStringGetTextDatum(stream)};
	int64 batch_id;
	bool isnull;

	catalog_begin(&access);
	/* batches keep being counted on, so that a batch_id never comes twice */
	catalog_execute(
	    SPI_OK_SELECT,
	    "SELECT coalesce(max(batch_id), 0) FROM kafka.stream_offset WHERE stream = $1", 1,
	    types, values, NULL);
	batch_id =
	    DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	catalog_execute(SPI_OK_DELETE, "DELETE FROM kafka.stream_offset WHERE stream = $1", 1,
	                types, values, NULL);
	insert_positions(stream, topic, positions, count, cluster_id, batch_id, false);
	catalog_end(&access);
}

void
checkpoint_add_partitions(const char *stream, const char *topic,
                          const KafkaPartitionOffset *positions, int count)
{
	CatalogAccess access;

	catalog_begin(&access);
	insert_positions(stream, topic, positions, count, NULL, 0, true);
	catalog_end(&access);
}

void
checkpoint_set_end(const char *stream, const char *topic, const KafkaPartitionOffset *ends,
                   int count)
{
	CatalogAccess access;
	Oid types[4] = {TEXTOID, TEXTOID, INT4ARRAYOID, INT8ARRAYOID};
	Datum values[4] = {CStringGetTextDatum(stream), CStringGetTextDatum(topic),
	                   FIELD_PARTITION(ends, count, KafkaPartitionOffset),
	                   FIELD_INT8(ends, count, KafkaPartitionOffset, offset, false)};

	catalog_begin(&access);
	catalog_execute(SPI_OK_UPDATE,
	                "UPDATE kafka.stream_offset SET end_offset = ("
	                "SELECT o FROM unnest($3, $4) AS n (p, o) WHERE p = partition)"
	                " WHERE stream = $1 AND topic = $2",
	                4, types, values, NULL);
	catalog_end(&access);
}

/* One value of the stream's positions in a topic. */
static Datum
position_summary(const char *sql, const char *stream, const char *topic)
{
	CatalogAccess access;
	Oid types[2] = {TEXTOID, TEXTOID};
	Datum values[2] = {CStringGetTextDatum(stream), CStringGetTextDatum(topic)};
	Datum result;
	bool isnull;

	catalog_begin(&access);
	catalog_execute(SPI_OK_SELECT, sql, 2, types, values, NULL);
	result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	catalog_end(&access);
	return result;
}

bool
checkpoint_at_end(const char *stream, const char *topic)
{
	return DatumGetBool(
	    position_summary("SELECT coalesce(every(end_offset IS NOT NULL"
	                     " AND next_offset >= end_offset), true)"
	                     " FROM kafka.stream_offset WHERE stream = $1 AND topic = $2",
	                     stream, topic));
}

int64
checkpoint_error_count(const char *stream, const char *topic)
{
	return DatumGetInt64(
	    position_summary("SELECT coalesce(sum(error_count), 0)::bigint"
	                     " FROM kafka.stream_offset WHERE stream = $1 AND topic = $2",
	                     stream, topic));
}

void
checkpoint_advance(const char *stream, const char *topic, int64 batch_id,
                   const CheckpointMove *moves, int count)
{
	/* kept for the life of the session: this runs in every batch */
	static SPIPlanPtr plan = NULL;
	Oid types[12] = {TEXTOID,      TEXTOID,      INT8OID,      INT4ARRAYOID,
	                 INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID,
	                 INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID};
	Datum values[12];
	CatalogAccess access;
	int result;

	catalog_begin(&access);
	if (plan == NULL)
	{
		SPIPlanPtr prepared = SPI_prepare(
		    "UPDATE kafka.stream_offset o SET next_offset = n.to_offset,"
		    " high_watermark = coalesce(n.high_watermark, o.high_watermark),"
		    " last_offset = coalesce(n.last_offset, o.last_offset),"
		    " last_message_at = CASE WHEN n.last_offset IS NULL THEN o.last_message_at"
		    "   ELSE to_timestamp(0) + n.last_message_ms * interval '1 millisecond' END,"
		    " message_count = o.message_count + n.messages,"
		    " byte_count = o.byte_count + n.bytes,"
		    " error_count = o.error_count + n.errors,"
		    " batch_id = $3"
		    " FROM unnest($4, $5, $6, $7, $8, $9, $10, $11, $12)"
		    "   AS n (partition, from_offset, to_offset, high_watermark, last_offset,"
		    "         last_message_ms, messages, bytes, errors)"
		    " WHERE o.stream = $1 AND o.topic = $2 AND o.partition = n.partition"
		    "   AND o.next_offset = n.from_offset",
		    lengthof(types), types);

		if (prepared == NULL)
			elog(ERROR, "could not prepare the checkpoint's update: %s",
			     SPI_result_code_string(SPI_result));
		SPI_keepplan(prepared);
		plan = prepared;
	}

	values[0] = CStringGetTextDatum(stream);
	values[1] = CStringGetTextDatum(topic);
	values[2] = Int64GetDatum(batch_id);
	values[3] = FIELD_PARTITION(moves, count, CheckpointMove);
	values[4] = FIELD_INT8(moves, count, CheckpointMove, from_offset, false);
	values[5] = FIELD_INT8(moves, count, CheckpointMove, to_offset, false);
	values[6] = FIELD_INT8(moves, count, CheckpointMove, high_watermark, true);
	values[7] = FIELD_INT8(moves, count, CheckpointMove, last_offset, true);
	values[8] = FIELD_INT8(moves, count, CheckpointMove, last_message_ms, true);
	values[9] = FIELD_INT8(moves, count, CheckpointMove, messages, false);
	values[10] = FIELD_INT8(moves, count, CheckpointMove, bytes, false);
	values[11] = FIELD_INT8(moves, count, CheckpointMove, errors, false);

	result = SPI_execute_plan(plan, values, NULL, false, 0);
	if (result != SPI_OK_UPDATE)
		elog(ERROR, "could not move the checkpoint: %s", SPI_result_code_string(result));
	if (SPI_processed != (uint64) count)
		ereport(ERROR,
		        (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
		         errmsg("checkpoint of stream \"%s\" was changed by another session", stream),
		         errdetail("Of %d positions, %llu were where the worker left them.", count,
		                   (unsigned long long) SPI_processed),
		         errhint("The batch is rolled back; the worker goes on from the stored "
		                 "positions.")));
	catalog_end(&access);
}
