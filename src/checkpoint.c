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

/* 1 for the partitions in which there is another log */
static Datum
other_log_array(const CheckpointJump *jumps, int count)
{
	Datum *values = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		values[i] = Int32GetDatum(jumps[i].other_log ? 1 : 0);
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
	    " CASE WHEN isfinite(last_message_at)"
	    "   THEN (extract(epoch FROM last_message_at) * 1000)::bigint ELSE -1 END,"
	    " coalesce(leader_epoch, -1), coalesce(high_watermark, -1), topic_id, state_rows,"
	    " coalesce(first_offset, -1),"
	    " CASE WHEN isfinite(first_message_at)"
	    "   THEN (extract(epoch FROM first_message_at) * 1000)::bigint ELSE -1 END"
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
		Datum id;

		position->partition = DatumGetInt32(SPI_getbinval(row, descriptor, 1, &isnull));
		position->next_offset = DatumGetInt64(SPI_getbinval(row, descriptor, 2, &isnull));
		position->last_offset = DatumGetInt64(SPI_getbinval(row, descriptor, 7, &isnull));
		position->last_message_ms = DatumGetInt64(SPI_getbinval(row, descriptor, 8, &isnull));
		position->end_offset = DatumGetInt64(SPI_getbinval(row, descriptor, 3, &isnull));
		checkpoint->last_batch_id =
		    Max(checkpoint->last_batch_id,
		        DatumGetInt64(SPI_getbinval(row, descriptor, 4, &isnull)));
		checkpoint->error_count += DatumGetInt64(SPI_getbinval(row, descriptor, 6, &isnull));
		position->leader_epoch = DatumGetInt32(SPI_getbinval(row, descriptor, 9, &isnull));
		position->known_end = DatumGetInt64(SPI_getbinval(row, descriptor, 10, &isnull));
		position->state_rows = DatumGetInt64(SPI_getbinval(row, descriptor, 12, &isnull));
		position->first_message_ms = DatumGetInt64(SPI_getbinval(row, descriptor, 14, &isnull));
		position->first_offset =
		    position->first_message_ms < 0
		        ? -1
		        : DatumGetInt64(SPI_getbinval(row, descriptor, 13, &isnull));
		id = SPI_getbinval(row, descriptor, 5, &isnull);
		if (!isnull && checkpoint->cluster_id == NULL)
			checkpoint->cluster_id =
			    MemoryContextStrdup(caller_context, TextDatumGetCString(id));
		id = SPI_getbinval(row, descriptor, 11, &isnull);
		if (!isnull)
			position->topic_id = MemoryContextStrdup(caller_context, TextDatumGetCString(id));
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
                 int count, const char *cluster_id, const char *topic_id, int64 batch_id,
                 bool may_exist)
{
	Oid types[7] = {TEXTOID, TEXTOID, INT4ARRAYOID, INT8ARRAYOID, TEXTOID, INT8OID, TEXTOID};
	Datum values[7] = {CStringGetTextDatum(stream),
	                   CStringGetTextDatum(topic),
	                   FIELD_PARTITION(positions, count, KafkaPartitionOffset),
	                   FIELD_INT8(positions, count, KafkaPartitionOffset, offset, false),
	                   cluster_id ? CStringGetTextDatum(cluster_id) : (Datum) 0,
	                   Int64GetDatum(batch_id),
	                   topic_id ? CStringGetTextDatum(topic_id) : (Datum) 0};
	char nulls[8] = "       ";

	if (cluster_id == NULL)
		nulls[4] = 'n';
	if (topic_id == NULL)
		nulls[6] = 'n';
	catalog_execute(SPI_OK_INSERT,
	                psprintf("INSERT INTO kafka.stream_offset (stream, topic, partition,"
	                         " next_offset, cluster_id, batch_id, topic_id)"
	                         " SELECT $1, $2, p, o, $5, $6, $7"
	                         " FROM unnest($3, $4) AS n (p, o) %s",
	                         may_exist ? "ON CONFLICT DO NOTHING" : ""),
	                7, types, values, nulls);
}

void
checkpoint_pin(const char *stream, const char *topic, const KafkaPartitionOffset *positions,
               int count, const char *cluster_id, const char *topic_id)
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
	insert_positions(stream, topic, positions, count, cluster_id, topic_id, batch_id, false);
	catalog_end(&access);
}

void
checkpoint_add_partitions(const char *stream, const char *topic,
                          const KafkaPartitionOffset *positions, int count)
{
	CatalogAccess access;

	catalog_begin(&access);
	insert_positions(stream, topic, positions, count, NULL, NULL, 0, true);
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

/* Takes what the update of the checkpoint has returned: partition, rows of state. */
static void
read_state_rows(CheckpointMove *moves, int count)
{
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc descriptor = SPI_tuptable->tupdesc;
		bool isnull;
		int32 partition = DatumGetInt32(SPI_getbinval(row, descriptor, 1, &isnull));
		int low = 0;
		int high = count - 1;

		/* the moves are in the order of partitions, the rows need not be */
		while (low < high)
		{
			int middle = (low + high) / 2;

			if (moves[middle].partition < partition)
				low = middle + 1;
			else
				high = middle;
		}
		Assert(moves[low].partition == partition);
		moves[low].state_rows = DatumGetInt64(SPI_getbinval(row, descriptor, 2, &isnull));
	}
}

void
checkpoint_set_identity(const char *stream, const char *topic, const char *cluster_id,
                        const char *topic_id)
{
	CatalogAccess access;
	Oid types[4] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum values[4] = {CStringGetTextDatum(stream), CStringGetTextDatum(topic),
	                   cluster_id ? CStringGetTextDatum(cluster_id) : (Datum) 0,
	                   topic_id ? CStringGetTextDatum(topic_id) : (Datum) 0};
	char nulls[5] = "    ";

	if (cluster_id == NULL)
		nulls[2] = 'n';
	if (topic_id == NULL)
		nulls[3] = 'n';
	catalog_begin(&access);
	catalog_execute(SPI_OK_UPDATE,
	                "UPDATE kafka.stream_offset SET cluster_id = coalesce(cluster_id, $3),"
	                " topic_id = coalesce(topic_id, $4) WHERE stream = $1 AND topic = $2",
	                4, types, values, nulls);
	catalog_end(&access);
}

/* Not all of the positions were where they should have been. */
pg_noreturn static void
raise_overtaken(const char *stream, int expected, uint64 found)
{
	ereport(ERROR,
	        (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
	         errmsg("checkpoint of stream \"%s\" was changed by another session", stream),
	         errdetail("Of %d positions, %llu were where the worker left them.", expected,
	                   (unsigned long long) found),
	         errhint("The batch is rolled back; the worker goes on from the stored "
	                 "positions.")));
}

void
checkpoint_pass_loss(const char *stream, const char *topic, int64 batch_id,
                     const CheckpointJump *jumps, int count, const char *topic_id)
{
	CatalogAccess access;
	Oid types[10] = {TEXTOID,      TEXTOID,      INT8OID,      TEXTOID,      INT4ARRAYOID,
	                 INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT4ARRAYOID};
	Datum values[10] = {CStringGetTextDatum(stream),
	                    CStringGetTextDatum(topic),
	                    Int64GetDatum(batch_id),
	                    topic_id ? CStringGetTextDatum(topic_id) : (Datum) 0,
	                    FIELD_PARTITION(jumps, count, CheckpointJump),
	                    FIELD_INT8(jumps, count, CheckpointJump, from_offset, false),
	                    FIELD_INT8(jumps, count, CheckpointJump, to_offset, true),
	                    FIELD_INT8(jumps, count, CheckpointJump, log_end, true),
	                    FIELD_INT8(jumps, count, CheckpointJump, lost, false),
	                    other_log_array(jumps, count)};
	char nulls[11] = "          ";
	uint64 moved;

	if (topic_id == NULL)
		nulls[3] = 'n';
	catalog_begin(&access);
	moved = catalog_execute(
	    SPI_OK_UPDATE,
	    "UPDATE kafka.stream_offset o SET next_offset = coalesce(n.to_offset, o.next_offset),"
	    " lost_offsets = o.lost_offsets + n.lost, data_loss_at = now(), batch_id = $3,"
	    " topic_id = CASE WHEN n.other_log THEN $4 ELSE coalesce($4, o.topic_id) END,"
	    " end_offset = CASE WHEN n.other_log AND o.end_offset IS NOT NULL THEN n.log_end"
	    "   ELSE o.end_offset END,"
	    " last_offset = CASE WHEN NOT n.other_log THEN o.last_offset END,"
	    " first_offset = NULL, first_message_at = NULL,"
	    " leader_epoch = CASE WHEN NOT n.other_log THEN o.leader_epoch END,"
	    " high_watermark = n.log_end"
	    " FROM (SELECT p, f, t, e, l, other = 1"
	    "         FROM unnest($5, $6, $7, $8, $9, $10) AS u (p, f, t, e, l, other))"
	    "   AS n (partition, from_offset, to_offset, log_end, lost, other_log)"
	    " WHERE o.stream = $1 AND o.topic = $2 AND o.partition = n.partition"
	    "   AND o.next_offset = n.from_offset",
	    lengthof(types), types, values, nulls);
	if (moved != (uint64) count)
		raise_overtaken(stream, count, moved);
	catalog_end(&access);
}

void
checkpoint_remove_partitions(const char *stream, const char *topic, int remaining)
{
	CatalogAccess access;
	Oid types[3] = {TEXTOID, TEXTOID, INT4OID};
	Datum values[3] = {CStringGetTextDatum(stream), CStringGetTextDatum(topic),
	                   Int32GetDatum(remaining)};

	catalog_begin(&access);
	catalog_execute(
	    SPI_OK_UPDATE,
	    "WITH removed AS (DELETE FROM kafka.stream_offset WHERE stream = $1 AND topic = $2"
	    "   AND partition >= $3 RETURNING message_count, byte_count, error_count, "
	    "lost_offsets, state_rows)"
	    " UPDATE kafka.stream_offset o SET message_count = o.message_count + r.messages,"
	    " byte_count = o.byte_count + r.bytes, error_count = o.error_count + r.errors,"
	    " lost_offsets = o.lost_offsets + r.lost, state_rows = o.state_rows + r.state_rows"
	    " FROM (SELECT sum(message_count) AS messages, sum(byte_count) AS bytes,"
	    "         sum(error_count) AS errors, sum(lost_offsets) AS lost,"
	    "         sum(state_rows) AS state_rows FROM removed) r"
	    " WHERE o.stream = $1 AND o.topic = $2 AND o.partition = 0 AND r.messages IS NOT NULL",
	    3, types, values, NULL);
	catalog_end(&access);
}

/* In the SQL below; Kafka has timestamps that PostgreSQL hasn't. */
#define LAST_MESSAGE_AT                                                                        \
	"CASE WHEN n.last_message_ms > 9224318015999999 THEN 'infinity'"                           \
	" ELSE to_timestamp(0) + n.last_message_ms * interval '1 millisecond' END"

void
checkpoint_advance(const char *stream, const char *topic, int64 batch_id, CheckpointMove *moves,
                   int count)
{
	/* kept for the life of the session: this runs in every batch */
	static SPIPlanPtr plan = NULL;
	Oid types[15] = {TEXTOID,      TEXTOID,      INT8OID,      INT4ARRAYOID, INT8ARRAYOID,
	                 INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID,
	                 INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID};
	Datum values[15];
	CatalogAccess access;
	uint64 moved;

	catalog_begin(&access);
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
	values[12] = FIELD_INT8(moves, count, CheckpointMove, leader_epoch, true);
	values[13] = FIELD_INT8(moves, count, CheckpointMove, state_rows_added, false);
	values[14] = FIELD_INT8(moves, count, CheckpointMove, first_offset, true);

	moved = catalog_execute_kept(
	    &plan, SPI_OK_UPDATE_RETURNING,
	    "UPDATE kafka.stream_offset o SET next_offset = n.to_offset,"
	    " high_watermark = coalesce(n.high_watermark, o.high_watermark),"
	    " last_offset = coalesce(n.last_offset, o.last_offset),"
	    " last_message_at = CASE WHEN n.last_offset IS NULL THEN o.last_message_at"
	    "   ELSE " LAST_MESSAGE_AT " END,"
	    " first_offset = coalesce(n.first_offset, n.last_offset),"
	    " first_message_at = CASE WHEN n.first_offset IS NOT NULL THEN o.first_message_at"
	    "   ELSE " LAST_MESSAGE_AT " END,"
	    " leader_epoch = CASE WHEN n.last_offset IS NULL THEN o.leader_epoch"
	    "   ELSE n.leader_epoch END,"
	    " message_count = o.message_count + n.messages,"
	    " byte_count = o.byte_count + n.bytes,"
	    " error_count = o.error_count + n.errors,"
	    " state_rows = o.state_rows + n.state_rows_added,"
	    " batch_id = $3"
	    " FROM unnest($4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
	    "   AS n (partition, from_offset, to_offset, high_watermark, last_offset,"
	    "         last_message_ms, messages, bytes, errors, leader_epoch, state_rows_added,"
	    "         first_offset)"
	    " WHERE o.stream = $1 AND o.topic = $2 AND o.partition = n.partition"
	    "   AND o.next_offset = n.from_offset"
	    " RETURNING o.partition, o.state_rows",
	    lengthof(types), types, values, NULL);
	if (moved != (uint64) count)
		raise_overtaken(stream, count, moved);
	read_state_rows(moves, count);
	catalog_end(&access);
}

void
checkpoint_add_state_rows(const char *stream, const char *topic, int32 partition,
                          int64 state_rows_added)
{
	CatalogAccess access;
	Oid types[4] = {TEXTOID, TEXTOID, INT4OID, INT8OID};
	Datum values[4] = {CStringGetTextDatum(stream), CStringGetTextDatum(topic),
	                   Int32GetDatum(partition), Int64GetDatum(state_rows_added)};

	catalog_begin(&access);
	catalog_execute(SPI_OK_UPDATE,
	                "UPDATE kafka.stream_offset SET state_rows = state_rows + $4"
	                " WHERE stream = $1 AND topic = $2 AND partition = $3",
	                4, types, values, NULL);
	catalog_end(&access);
}
