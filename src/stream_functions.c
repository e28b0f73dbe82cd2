/*-------------------------------------------------------------------------
 *
 * stream_functions.c
 *	  What SQL calls to create, start, stop, change, reset and drop a stream.
 *
 * Thin: checks rights, then tells stream.c, checkpoint.c and
 * progress.c.  All of it is undone by ROLLBACK; workers start at COMMIT.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "access/xact.h"
#include "checkpoint.h"
#include "dead_letter.h"
#include "function_arguments.h"
#include "micro_batch.h"
#include "progress.h"
#include "sink.h"
#include "start_position.h"
#include "stream_arguments.h"
#include "stream_query.h"
#include "stream_reader.h"
#include "stream_state.h"
#include "stream_trust.h"
#include "stream_view.h"
#include "topic_schema.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "watermark.h"
#include "stream_lock.h"
#include "stream_objects.h"

PG_FUNCTION_INFO_V1(kafka_create_stream);
PG_FUNCTION_INFO_V1(kafka_start_stream);
PG_FUNCTION_INFO_V1(kafka_stop_stream);
PG_FUNCTION_INFO_V1(kafka_alter_stream);
PG_FUNCTION_INFO_V1(kafka_alter_stream_owner);
PG_FUNCTION_INFO_V1(kafka_reset_stream);
PG_FUNCTION_INFO_V1(kafka_drop_stream);

/* --- shared steps --- */

/* Looks start positions up and stores them as the whole checkpoint. */
static void
pin_start_positions(const Stream *stream, const StartOptions *options)
{
	TopicSchema *schema = topic_schema_load(stream_query_topic_table(stream->source));
	KafkaConsumer *consumer =
	    stream_open_lookup_consumer(schema->server_id, schema->topic, stream->owner);
	KafkaPartitionOffset *positions;
	int count;
	uint32 requests;

	positions = start_position_resolve(options, consumer, schema->topic, &count);
	checkpoint_pin(stream->name, schema->topic, positions, count,
	               kafka_consumer_cluster_id(consumer),
	               kafka_consumer_topic_id(consumer, &requests));
	kafka_consumer_close(consumer);
}

/* available_now ends where the topic ends now; any other stream has no end. */
static void
pin_end_positions(const Stream *stream)
{
	TopicSchema *schema = topic_schema_load(stream_query_topic_table(stream->source));
	KafkaPartitionOffset *ends = NULL;
	int count = 0;

	if (stream->trigger == TRIGGER_AVAILABLE_NOW)
	{
		KafkaConsumer *consumer =
		    stream_open_lookup_consumer(schema->server_id, schema->topic, stream->owner);

		count = kafka_consumer_partition_count(consumer);
		ends = kafka_consumer_lookup_range(consumer, 0, count, KAFKA_OFFSET_LATEST);
		kafka_consumer_close(consumer);
	}
	checkpoint_set_end(stream->name, schema->topic, ends, count);
}

static void
start_at_commit(const Stream *stream)
{
	pin_end_positions(stream);
	stream_set_enabled(stream->stream_id, true);
	progress_start_at_commit(stream->stream_id, stream->workers, stream->name, stream->owner);
}

/*
 * The stream whose definition the caller is about to change: its workers are
 * gone, and its definition locked.
 */
static Stream *
stop_and_lock(const char *name, bool missing_ok, bool forget)
{
	Stream *stream = stream_load_owned(name, missing_ok);
	int64 stopped_id;

	while (stream != NULL)
	{
		stopped_id = stream->stream_id;
		progress_stop_now(stopped_id, stream->workers, forget);
		stream_lock(stopped_id, AccessExclusiveLock);
		/* another session may have changed it meanwhile, or dropped it and created it again */
		stream = stream_load_owned(name, missing_ok);
		if (stream != NULL && stream->stream_id == stopped_id)
			break;
	}
	return stream;
}

static bool
runs_here(const Stream *stream)
{
	return stream->enabled && stream->started_here && !stream->failed;
}

/* Plans the statement as the owner will, for its errors: columns, types, privileges. */
static void
check_definition(const Stream *stream)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "kafka stream check",
	                                              ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(scratch);
	OwnerIdentity saved;

	if (stream->max_offsets_per_trigger > 0 &&
	    stream->max_offsets_per_trigger < stream->workers)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		         errmsg("max_offsets_per_trigger must be at least the number of workers"),
		         errdetail("The %d workers share it.", stream->workers)));
	become_owner(stream, &saved);
	stream_trust_check(stream);
	(void) sink_create(stream, stream_query_topic_table(stream->source));
	restore_identity(&saved);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(scratch);
}

/* --- functions --- */

Datum
kafka_create_stream(PG_FUNCTION_ARGS)
{
	Stream *stream = stream_from_arguments(fcinfo);
	StartOptions options = start_options_from_arguments(fcinfo, CREATE_START_OPTIONS);
	bool start = PG_ARGISNULL(CREATE_START) || PG_GETARG_BOOL(CREATE_START);

	PreventCommandIfReadOnly("kafka.create_stream()");
	if (start)
		progress_require_available();
	if (stream_load(stream->name, true) != NULL)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
		                errmsg("stream \"%s\" already exists", stream->name)));

	stream->stream_id = stream_next_id();
	if (!PG_ARGISNULL(CREATE_QUERY))
	{
		stream->source =
		    stream_view_create(stream,
		                       stream_query_analyze(text_argument(fcinfo, CREATE_QUERY)));
		stream->query_view = true;
		CommandCounterIncrement();
	}

	stream_lock_objects(stream);
	sink_create_objects(stream);
	CommandCounterIncrement();
	check_definition(stream);
	stream_lock(stream->stream_id, AccessExclusiveLock);
	stream_insert(stream);
	pin_start_positions(stream, &options);
	if (start)
		start_at_commit(stream);
	PG_RETURN_VOID();
}

Datum
kafka_start_stream(PG_FUNCTION_ARGS)
{
	char *name = required_text(fcinfo, 0, "name");
	Stream *stream;

	PreventCommandIfReadOnly("kafka.start_stream()");
	progress_require_available();
	stream = stream_load_owned(name, false);
	if (PG_ARGISNULL(1))
	{
		if (runs_here(stream) && stream->trigger == TRIGGER_PROCESSING_TIME)
		{
			/* only to wake the launcher up: the workers that are there stay */
			progress_start_at_commit(stream->stream_id, stream->workers, stream->name,
			                         stream->owner);
			PG_RETURN_VOID();
		}
		stream = stop_and_lock(name, false, false);
		stream_lock_objects(stream);
	}
	else
	{
		StartOptions options = {.starting_offsets = "latest",
		                        .has_timestamp = true,
		                        .starting_timestamp = PG_GETARG_TIMESTAMPTZ(1),
		                        .starting_timestamp_strategy = "latest"};

		stream = stop_and_lock(name, false, false);
		stream_lock_objects(stream);
		pin_start_positions(stream, &options);
		sink_reset_objects(stream);
	}
	check_definition(stream);
	start_at_commit(stream);
	PG_RETURN_VOID();
}

Datum
kafka_stop_stream(PG_FUNCTION_ARGS)
{
	char *name = required_text(fcinfo, 0, "name");
	Stream *stream;

	PreventCommandIfReadOnly("kafka.stop_stream()");
	stream = stop_and_lock(name, false, false);
	stream_set_enabled(stream->stream_id, false);
	PG_RETURN_VOID();
}

/* Gives a stream another query over the same topic table. */
static void
replace_query(Stream *stream, const char *query)
{
	Oid topic_table = stream_query_topic_table(stream->source);

	stream->source = stream_view_create(stream, stream_query_analyze(query));
	stream->query_view = true;
	CommandCounterIncrement();
	if (stream_query_topic_table(stream->source) != topic_table)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("a stream can't be moved to another topic table"),
		                errdetail("The checkpoint of stream \"%s\" is about \"%s\".",
		                          stream->name, get_rel_name(topic_table)),
		                errhint("Create another stream.")));
}

/* Is it the same column, whatever its name?  One that is gone has been renamed: the query needs it. */
static bool
keeps_watermark_column(const Stream *before, const Stream *stream)
{
	if (before->watermark_column == NULL || stream->watermark_column == NULL)
		return before->watermark_column == stream->watermark_column;
	return strcmp(before->watermark_column, stream->watermark_column) == 0 ||
	       get_attnum(stream_query_topic_table(before->source), before->watermark_column) ==
	           InvalidAttrNumber;
}

/* Does what a change of definition means for the state that there is. */
static void
adapt_state(const Stream *before, const Stream *stream)
{
	if (!keeps_watermark_column(before, stream))
		watermark_delete(stream->name);
	sink_alter_objects(stream);
	CommandCounterIncrement();
	if (before->target != stream->target && stream->mode == MODE_UPDATE &&
	    !stream_state_is_empty(stream))
		ereport(NOTICE,
		        (errmsg("target \"%s\" gets the groups that change from now on",
		                get_rel_name(stream->target)),
		         errhint("Copy the others from the former target, or use kafka.reset_stream to "
		                 "have all of them written again.")));
}

Datum
kafka_alter_stream(PG_FUNCTION_ARGS)
{
	char *name = required_text(fcinfo, ALTER_NAME, "name");
	char *query = text_argument(fcinfo, ALTER_QUERY);
	Stream *stream;
	Stream before;
	bool state_concerned;

	PreventCommandIfReadOnly("kafka.alter_stream()");
	stream = stop_and_lock(name, false, false);
	before = *stream;
	state_concerned = stream_change_by_arguments(stream, fcinfo);
	stream_lock_objects(stream);
	if (query != NULL)
	{
		if (keeps_watermark_column(&before, stream))
			sink_note_names(stream);
		replace_query(stream, query);
	}
	if (query != NULL || state_concerned)
		adapt_state(&before, stream);
	check_definition(stream);
	stream_update(stream);
	if (runs_here(stream))
		start_at_commit(stream);
	PG_RETURN_VOID();
}

Datum
kafka_alter_stream_owner(PG_FUNCTION_ARGS)
{
	char *name = required_text(fcinfo, 0, "name");
	Stream *stream;
	Oid owner;

	PreventCommandIfReadOnly("kafka.alter_stream_owner()");
	require_argument(fcinfo, 1, "owner");
	owner = PG_GETARG_OID(1);
	stream = stream_load_owned(name, false);
	/* nobody may give code of his to somebody else to run */
	check_may_become(GetUserId(), owner);
	stream = stop_and_lock(name, false, false);
	stream_change_owner(stream, owner);
	stream_state_set_owner(stream);
	CommandCounterIncrement();
	stream_lock_objects(stream);
	check_definition(stream);
	if (runs_here(stream))
		start_at_commit(stream);
	PG_RETURN_VOID();
}

/* What a stream that is read anew still has of messages that it could not write. */
static void
tell_of_kept_letters(const Stream *stream)
{
	int64 letters = dead_letter_count(stream->name);

	if (letters > 0)
		ereport(NOTICE,
		        (errmsg("stream \"%s\" keeps " INT64_FORMAT " dead letter(s)", stream->name,
		                letters),
		         errdetail("Where the stream reads a message again and can write it now, its "
		                   "letter stays."),
		         errhint("Use kafka.discard_dead_letters for those: kafka.retry_dead_letters "
		                 "would write them a second time.")));
}

Datum
kafka_reset_stream(PG_FUNCTION_ARGS)
{
	char *name = required_text(fcinfo, 0, "name");
	StartOptions options = start_options_from_arguments(fcinfo, 1);
	Stream *stream;

	PreventCommandIfReadOnly("kafka.reset_stream()");
	stream = stop_and_lock(name, false, false);
	stream_lock_objects(stream);
	pin_start_positions(stream, &options);
	sink_reset_objects(stream);
	tell_of_kept_letters(stream);
	if (runs_here(stream))
		start_at_commit(stream);
	PG_RETURN_VOID();
}

Datum
kafka_drop_stream(PG_FUNCTION_ARGS)
{
	char *name = required_text(fcinfo, 0, "name");
	bool if_exists = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	Stream *stream;

	PreventCommandIfReadOnly("kafka.drop_stream()");
	stream = stop_and_lock(name, if_exists, true);
	if (stream == NULL)
		ereport(NOTICE, (errmsg("stream \"%s\" does not exist, skipping", name)));
	else
	{
		int64 letters = dead_letter_count(name);

		sink_drop_objects(stream);
		stream_delete(stream);
		if (letters > 0)
			ereport(NOTICE, (errmsg("stream \"%s\" had " INT64_FORMAT
			                        " dead letter(s), which are gone with it",
			                        name, letters)));
	}
	PG_RETURN_VOID();
}
