/*-------------------------------------------------------------------------
 *
 * stream_wait.c
 *	  kafka.process_all_available: wait until a stream has caught up.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "access/xact.h"
#include "checkpoint.h"
#include "function_arguments.h"
#include "progress.h"
#include "stream_query.h"
#include "stream_reader.h"
#include "topic_schema.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "watermark.h"
#include "stream_failure.h"

PG_FUNCTION_INFO_V1(kafka_process_all_available);

/* a backstop: changes are announced */
#define CHECK_INTERVAL_MS 1000

/* Where each partition of the topic ends now. */
static KafkaPartitionOffset *
topic_end(const Stream *stream, const TopicSchema *schema, int *count)
{
	KafkaConsumer *consumer =
	    stream_open_lookup_consumer(schema->server_id, schema->topic, stream->owner);
	KafkaPartitionOffset *ends;

	*count = kafka_consumer_partition_count(consumer);
	ends = kafka_consumer_lookup_range(consumer, 0, *count, KAFKA_OFFSET_LATEST);
	kafka_consumer_close(consumer);
	return ends;
}

/*
 * Partitions that are not there yet count as behind, unless there is nothing in them; so do those
 * whose log ended before the checkpoint when it was looked at ("before"), until the worker has
 * seen that it is another log.
 */
static int
partitions_behind(const Checkpoint *checkpoint, const Checkpoint *before,
                  const KafkaPartitionOffset *ends, int count, int64 *messages)
{
	int behind = 0;

	*messages = 0;
	for (int i = 0; i < count; i++)
	{
		int64 position = i < checkpoint->count ? checkpoint->positions[i].next_offset : 0;

		if (position < ends[i].offset)
		{
			behind++;
			*messages += ends[i].offset - position;
		}
		else if (position > ends[i].offset && i < before->count &&
		         before->positions[i].next_offset == position)
			behind++;
	}
	return behind;
}

Datum
kafka_process_all_available(PG_FUNCTION_ARGS)
{
	char *name = required_text(fcinfo, 0, "name");
	Stream *stream;
	MemoryContext scratch;
	MemoryContext old_context;
	TopicSchema *schema;
	Checkpoint *before;
	KafkaPartitionOffset *ends;
	TimestampTz deadline;
	TimestampTz closing = DT_NOBEGIN; /* watermark when all had been read */
	int count;

	require_argument(fcinfo, 1, "timeout");
	progress_require_available();
	stream = stream_load_owned(name, false);
	progress_refuse_in_worker(stream->stream_id, "wait for");
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("kafka.process_all_available needs isolation level read committed"),
		         errdetail("In this transaction no later commit can be seen.")));
	deadline = DatumGetTimestampTz(
	    DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(GetCurrentTimestamp()),
	                        PG_GETARG_DATUM(1)));
	if (progress_request_is_pending(stream->stream_id))
		ereport(ERROR, (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
		                errmsg("stream \"%s\" was changed in this transaction", name),
		                errdetail("Its worker starts when the transaction commits."),
		                errhint("Use COMMIT before kafka.process_all_available.")));
	schema = topic_schema_load(stream_query_topic_table(stream->source));
	/* before the ends: what has been read by now must be in the log */
	before = checkpoint_load(stream->name, schema->topic);
	ends = topic_end(stream, schema, &count);

	scratch = AllocSetContextCreate(CurrentMemoryContext, "kafka progress check",
	                                ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(scratch);
	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		Checkpoint *checkpoint;
		int64 messages;
		int behind;

		stream = stream_load_owned(name, false);
		checkpoint = checkpoint_load(stream->name, schema->topic);

		behind = partitions_behind(checkpoint, before, ends, count, &messages);
		/* windows that the last messages have closed are still to come out */
		if (behind == 0)
		{
			StreamWatermark watermark = watermark_load(stream->name);

			if (closing == DT_NOBEGIN)
				closing = watermark.watermark;
			if (watermark.previous >= closing)
				break;
		}
		if (stream->failed)
			stream_raise_failure(stream);
		if (!stream->enabled || !stream->started_here)
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			                errmsg("stream \"%s\" is stopped", name),
			                errdetail("%lld offset(s) of %d partition(s) are not processed.",
			                          (long long) messages, behind),
			                errhint("Use kafka.start_stream.")));
		if (now >= deadline)
			ereport(
			    ERROR,
			    (errcode(ERRCODE_QUERY_CANCELED),
			     errmsg("stream \"%s\" has not processed all that was available in time", name),
			     errdetail("%lld offset(s) of %d partition(s) are not processed.",
			               (long long) messages, behind),
			     errhint("See kafka.stream_status for its state, or give a longer timeout.")));
		progress_wait_for_change(stream->stream_id,
		                         Min(TimestampDifferenceMilliseconds(now, deadline) + 1,
		                             CHECK_INTERVAL_MS));
		MemoryContextReset(scratch);
	}
	progress_end_wait();
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(scratch);
	PG_RETURN_VOID();
}
