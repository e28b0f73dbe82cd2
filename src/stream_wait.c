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
#include "stream_failure.h"
#include "stream_objects.h"
#include "stream_query.h"
#include "stream_reader.h"
#include "topic_schema.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "watermark.h"

PG_FUNCTION_INFO_V1(kafka_process_all_available);

/* a backstop: changes are announced */
#define CHECK_INTERVAL_MS 1000

/* from one look at a topic that is not the one that was read to the next */
#define EXAMINATION_INTERVAL_MS 200

/* An examination may take this long although time is up: who doesn't want to wait wants an answer. */
#define SHORTEST_LOOKUP_MS 1000

/* What the topic has now, and whether it is the one that was read. */
typedef struct Examination
{
	MemoryContext context;
	LogCheck *log;
	TimestampTz deadline;
	bool another_log; /* the worker has yet to find out, or to do something about it */
	TimestampTz made_at;
} Examination;

/* The stream's positions when they were looked at last. */
typedef struct Positions
{
	int count;
	int64 *next_offsets;
} Positions;

/* The checkpoint comes first: what has been read by now must be in the log. */
static void
examine_topic(Examination *examination, const Stream *stream, const TopicSchema *schema)
{
	MemoryContext old_context;
	Checkpoint *checkpoint;
	KafkaConsumer *consumer;
	LogShare all = {.worker = 0, .workers = 1};
	LogCheck *log;
	long left_ms =
	    TimestampDifferenceMilliseconds(GetCurrentTimestamp(), examination->deadline);

	MemoryContextReset(examination->context);
	old_context = MemoryContextSwitchTo(examination->context);
	checkpoint = checkpoint_load(stream->name, schema->topic);
	consumer = stream_open_lookup_consumer(schema->server_id, schema->topic, stream->owner);
	kafka_consumer_limit_lookups(consumer,
	                             (int) Min(Max(left_ms, SHORTEST_LOOKUP_MS), INT_MAX));
	examination->log = log = log_check(consumer, checkpoint, all, LOG_PEEK_LAST_AT_END);
	/* an error that says so; without fail_on_data_loss the worker waits for it, and so do we */
	if (log->partition_count == 0 && stream->fail_on_data_loss)
		(void) kafka_consumer_partition_count(consumer);
	kafka_consumer_close(consumer);
	MemoryContextSwitchTo(old_context);

	examination->made_at = GetCurrentTimestamp();
	examination->another_log = log->other_cluster || log->partition_count == 0;
	for (int i = 0; i < log->finding_count; i++)
	{
		switch (log->findings[i].kind)
		{
			case LOG_AGREES:
			case LOG_PARTITION_NEW:
			case LOG_START_PASSED: /* then it is behind, or has passed that since */
				break;
			case LOG_ENDS_BEFORE:
			case LOG_OTHER_MESSAGE:
			case LOG_OTHER_TOPIC:
			case LOG_PARTITION_GONE:
				examination->another_log = true;
				break;
		}
	}
}

/*
 * Has the worker gone over to another log, in which what is waited for may never come?  Keeps the positions for
 * the next time, in the current memory context.
 */
static bool
has_moved_back(Positions *before, const Checkpoint *checkpoint)
{
	bool back = checkpoint->count < before->count;

	for (int i = 0; i < Min(checkpoint->count, before->count); i++)
		back |= checkpoint->positions[i].next_offset < before->next_offsets[i];
	if (before->count < checkpoint->count)
		before->next_offsets = palloc(sizeof(int64) * checkpoint->count);
	before->count = checkpoint->count;
	for (int i = 0; i < checkpoint->count; i++)
		before->next_offsets[i] = checkpoint->positions[i].next_offset;
	return back;
}

/* Partitions that are not there yet count as behind, unless there is nothing in them. */
static int
partitions_behind(const Checkpoint *checkpoint, const LogCheck *log, int64 *messages)
{
	int behind = 0;

	*messages = 0;
	for (int i = 0; i < log->finding_count; i++)
	{
		int64 end = log->findings[i].high;
		int64 position = i < checkpoint->count ? checkpoint->positions[i].next_offset : 0;

		if (position < end)
		{
			behind++;
			*messages += end - position;
		}
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
	Examination examination;
	Positions before = {0};
	TimestampTz deadline;
	TimestampTz closing = DT_NOBEGIN; /* watermark when all had been read */
	uint32 *unreported = NULL;        /* commits at that time that the status did not show */

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
	stream_check_objects(stream);
	schema = topic_schema_load(stream_query_topic_table(stream->source));
	examination.context = AllocSetContextCreate(CurrentMemoryContext, "kafka topic examination",
	                                            ALLOCSET_DEFAULT_SIZES);
	examination.deadline = deadline;
	examine_topic(&examination, stream, schema);
	/* it finds out by itself, but when? */
	if (examination.another_log)
		progress_tell_workers(stream->stream_id);

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
		MemoryContextSwitchTo(old_context);
		if (has_moved_back(&before, checkpoint))
			examine_topic(&examination, stream, schema);
		MemoryContextSwitchTo(scratch);

		behind = partitions_behind(checkpoint, examination.log, &messages);
		/* windows that the last messages have closed are still to come out */
		if (behind == 0 && !examination.another_log)
		{
			StreamWatermark watermark = watermark_load(stream->name);

			if (closing == DT_NOBEGIN)
				closing = watermark.watermark;
			if (watermark.previous >= closing)
			{
				MemoryContextSwitchTo(old_context);
				if (unreported == NULL)
					unreported = progress_unreported_commits(stream->stream_id);
				MemoryContextSwitchTo(scratch);
				if (progress_commits_reported(unreported))
					break;
			}
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
			     examination.log->partition_count == 0
			         ? errdetail("There is no topic \"%s\": the stream waits for it.",
			                     schema->topic)
			         : errdetail("%lld offset(s) of %d partition(s) are not processed.",
			                     (long long) messages, behind),
			     errhint("See kafka.stream_status for its state, or give a longer timeout.")));
		progress_wait_for_change(stream->stream_id,
		                         Min(TimestampDifferenceMilliseconds(now, deadline) + 1,
		                             CHECK_INTERVAL_MS));
		if (examination.another_log &&
		    GetCurrentTimestamp() >=
		        TimestampTzPlusMilliseconds(examination.made_at, EXAMINATION_INTERVAL_MS))
			examine_topic(&examination, stream, schema);
		MemoryContextReset(scratch);
	}
	progress_end_wait();
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(scratch);
	PG_RETURN_VOID();
}
