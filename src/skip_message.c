/*-------------------------------------------------------------------------
 *
 * skip_message.c
 *	  kafka.skip_message: moves a checkpoint past the one message that a stream can't write.
 *
 * What a dead letter is, and what is done with it, is left to dead_letter_functions.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "catalog.h"
#include "checkpoint.h"
#include "function_arguments.h"
#include "log_check.h"
#include "stream_lock.h"
#include "stream_query.h"
#include "stream_reader.h"
#include "topic_schema.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(kafka_skip_message);

/* The message that is to be skipped, and where its stream stands. */
typedef struct Skip
{
	const Stream *stream;
	const char *topic;
	int32 partition;
	int64 stands_at;
	int64 offset;
	int64 message_ms; /* its timestamp; -1: there is no message at the offset */
} Skip;

/* between: a message before the one to be skipped, or -1 */
pg_noreturn static void
raise_stands_elsewhere(const Skip *skip, int64 between)
{
	ereport(
	    ERROR,
	    (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
	     errmsg("stream \"%s\" does not stand at offset %lld of partition %d of topic \"%s\"",
	            skip->stream->name, (long long) skip->offset, skip->partition, skip->topic),
	     between < 0
	         ? 0
	         : errdetail("The next message is that of offset %lld.", (long long) between),
	     errhint("The table kafka.stream_offset says where it stands.")));
}

/* start, end: of the log */
pg_noreturn static void
raise_no_message(const Skip *skip, int64 start, int64 end)
{
	ereport(
	    ERROR,
	    (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
	     errmsg("there is no message at offset %lld of partition %d of topic \"%s\"",
	            (long long) skip->offset, skip->partition, skip->topic),
	     skip->offset < start
	         ? errdetail("The log of the partition starts at offset %lld: what was before "
	                     "is lost.",
	                     (long long) start)
	         : errdetail("Stream \"%s\" has read that partition up to its end, offset %lld.",
	                     skip->stream->name, (long long) end),
	     skip->offset < start
	         ? errhint("See kafka.verify_stream, and fail_on_data_loss.")
	         : errhint("The detail of the stream's error names the message that it failed "
	                   "at: see kafka.stream_status.")));
}

/*
 * What has not been written yet can't be skipped: it would be the next good message that is lost.  Between
 * where the stream stands and the message there may be places without a message only.
 */
static void
look_at_log(Skip *skip)
{
	TopicSchema *schema = topic_schema_load(stream_query_topic_table(skip->stream->source));
	KafkaConsumer *consumer =
	    stream_open_lookup_consumer(schema->server_id, skip->topic, skip->stream->owner);
	KafkaPartitionOffset end = {.partition = skip->partition,
	                            .timestamp_ms = KAFKA_OFFSET_LATEST};
	KafkaPartitionOffset start = {.partition = skip->partition,
	                              .timestamp_ms = KAFKA_OFFSET_EARLIEST};
	bool in_log;
	int64 next = -1;

	kafka_consumer_lookup_offsets(consumer, &end, 1);
	kafka_consumer_lookup_offsets(consumer, &start, 1);
	in_log = skip->stands_at >= start.offset && skip->offset < end.offset;
	if (in_log)
		next = log_next_message(consumer, skip->partition, skip->stands_at, &skip->message_ms);
	kafka_consumer_close(consumer);
	if (!in_log)
		raise_no_message(skip, start.offset, end.offset);
	if (next >= 0 && next < skip->offset)
		raise_stands_elsewhere(skip, next);
	if (next != skip->offset)
		skip->message_ms = -1;
}

static void
move_checkpoint(const Skip *skip)
{
	CatalogAccess access;
	Oid types[5] = {TEXTOID, TEXTOID, INT4OID, INT8OID, INT8OID};
	Datum values[5] = {CStringGetTextDatum(skip->stream->name),
	                   CStringGetTextDatum(skip->topic), Int32GetDatum(skip->partition),
	                   Int64GetDatum(skip->stands_at), Int64GetDatum(skip->offset)};
	uint64 moved;

	catalog_begin(&access);
	moved = catalog_execute(
	    SPI_OK_UPDATE,
	    "UPDATE kafka.stream_offset SET next_offset = $5 + 1, error_count = error_count + 1"
	    " WHERE stream = $1 AND topic = $2 AND partition = $3 AND next_offset = $4",
	    5, types, values, NULL);
	catalog_end(&access);
	if (moved == 0)
		raise_stands_elsewhere(skip, -1);
}

/* The message that was left out becomes the last one that was read, where none was: a recreated topic is noticed by it. */
static void
note_skipped(const Skip *skip)
{
	CatalogAccess access;
	Oid types[5] = {TEXTOID, TEXTOID, INT4OID, INT8OID, INT8OID};
	Datum values[5] = {CStringGetTextDatum(skip->stream->name),
	                   CStringGetTextDatum(skip->topic), Int32GetDatum(skip->partition),
	                   Int64GetDatum(skip->offset), Int64GetDatum(skip->message_ms)};

	/* before 1970, or too late for a timestamptz: nothing to compare by */
	if (skip->message_ms < 0 || skip->message_ms > INT64CONST(9224318015999999))
		return;
	catalog_begin(&access);
	catalog_execute(SPI_OK_UPDATE,
	                "UPDATE kafka.stream_offset SET last_offset = $4,"
	                " last_message_at = to_timestamp(0) + $5 * interval '1 millisecond'"
	                " WHERE stream = $1 AND topic = $2 AND partition = $3"
	                "   AND last_offset IS NULL",
	                5, types, values, NULL);
	catalog_end(&access);
}

Datum
kafka_skip_message(PG_FUNCTION_ARGS)
{
	char *name = required_text(fcinfo, 0, "stream");
	Skip skip = {.topic = required_text(fcinfo, 1, "topic"), .message_ms = -1};
	Checkpoint *checkpoint;
	Stream *stream;

	require_argument(fcinfo, 2, "partition");
	require_argument(fcinfo, 3, "offset");
	skip.partition = PG_GETARG_INT32(2);
	skip.offset = PG_GETARG_INT64(3);
	skip.stream = stream = stream_lock_owned(name, AccessExclusiveLock);
	if (stream->enabled && stream->started_here && !stream->failed)
		ereport(ERROR,
		        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		         errmsg("stream \"%s\" is running", name),
		         errdetail("A message is skipped while its stream stands at it."),
		         errhint("If the stream is not able to pass the message, use kafka.stop_stream "
		                 "first.")));

	checkpoint = checkpoint_load(name, skip.topic);
	if (skip.partition < 0 || skip.partition >= checkpoint->count ||
	    checkpoint->positions[skip.partition].next_offset > skip.offset)
		raise_stands_elsewhere(&skip, -1);
	skip.stands_at = checkpoint->positions[skip.partition].next_offset;
	look_at_log(&skip);
	move_checkpoint(&skip);
	note_skipped(&skip);
	PG_RETURN_VOID();
}
