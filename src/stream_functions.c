/*-------------------------------------------------------------------------
 *
 * stream_functions.c
 *	  What SQL calls to create, start, stop, change, reset and drop a stream.
 *
 * Thin: checks arguments and rights, then tells stream.c, checkpoint.c and
 * progress.c.  All of it is undone by ROLLBACK; workers start at COMMIT.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "checkpoint.h"
#include "common/int.h"
#include "fmgr.h"
#include "function_arguments.h"
#include "kafka_consumer.h"
#include "miscadmin.h"
#include "progress.h"
#include "sink_append.h"
#include "start_position.h"
#include "stream.h"
#include "stream_query.h"
#include "topic_schema.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(kafka_create_stream);
PG_FUNCTION_INFO_V1(kafka_start_stream);
PG_FUNCTION_INFO_V1(kafka_stop_stream);
PG_FUNCTION_INFO_V1(kafka_alter_stream);
PG_FUNCTION_INFO_V1(kafka_reset_stream);
PG_FUNCTION_INFO_V1(kafka_drop_stream);

/* --- arguments --- */

static char *
text_argument(FunctionCallInfo fcinfo, int index)
{
	return PG_ARGISNULL(index) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(index));
}

/* One of two words; true for the second. */
static bool
choice(const char *name, const char *value, const char *first, const char *second)
{
	if (strcmp(value, first) == 0)
		return false;
	if (second != NULL && strcmp(value, second) == 0)
		return true;
	ereport(ERROR,
	        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid %s \"%s\"", name, value),
	         second ? errhint("Valid values are \"%s\" and \"%s\".", first, second)
	                : errhint("The only valid value is \"%s\".", first)));
}

static int64
interval_argument_ms(Datum value)
{
	Interval *interval = DatumGetIntervalP(value);
	int64 days;
	int64 ms;

	if (pg_mul_s64_overflow((int64) interval->month * DAYS_PER_MONTH + interval->day,
	                        INT64CONST(86400000), &days) ||
	    pg_add_s64_overflow(days, interval->time / 1000, &ms) || ms < 0 ||
	    ms > INT64CONST(86400000) * 365)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("trigger_interval must be between 0 and 365 days")));
	return ms;
}

static int64
limit_argument(Datum value, int64 lowest)
{
	int64 limit = DatumGetInt64(value);

	if (limit < lowest)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		         errmsg("max_offsets_per_trigger must be at least %lld", (long long) lowest)));
	return limit;
}

/* --- shared steps --- */

/* A consumer for look-ups, with the connection that the stream's worker will have. */
static KafkaConsumer *
open_lookup_consumer(const TopicSchema *schema, Oid owner)
{
	return kafka_consumer_open(kafka_connection_load(schema->server_id, owner), schema->topic,
	                           CurrentMemoryContext);
}

/* Looks start positions up and stores them as the whole checkpoint. */
static void
pin_start_positions(const Stream *stream, const StartOptions *options)
{
	TopicSchema *schema = topic_schema_load(stream_query_topic_table(stream->source));
	KafkaConsumer *consumer = open_lookup_consumer(schema, stream->owner);
	KafkaPartitionOffset *positions;
	int count;

	positions = start_position_resolve(options, consumer, schema->topic, &count);
	checkpoint_pin(stream->name, schema->topic, positions, count,
	               kafka_consumer_cluster_id(consumer));
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
		KafkaConsumer *consumer = open_lookup_consumer(schema, stream->owner);

		count = kafka_consumer_partition_count(consumer);
		ends = palloc0(sizeof(KafkaPartitionOffset) * count);
		for (int i = 0; i < count; i++)
		{
			ends[i].partition = i;
			ends[i].timestamp_ms = KAFKA_OFFSET_LATEST;
		}
		kafka_consumer_lookup_offsets(consumer, ends, count);
		kafka_consumer_close(consumer);
	}
	checkpoint_set_end(stream->name, schema->topic, ends, count);
}

static void
start_at_commit(const Stream *stream)
{
	pin_end_positions(stream);
	stream_set_enabled(stream->stream_id, true);
	progress_start_at_commit(stream->stream_id, stream->name, stream->owner);
}

/*
 * The stream whose definition the caller is about to change: its worker is
 * gone, and its definition locked.
 */
static Stream *
stop_and_lock(const char *name, bool missing_ok, bool forget)
{
	Stream *stream = stream_load_owned(name, missing_ok);

	if (stream == NULL)
		return NULL;
	progress_stop_now(stream->stream_id, forget);
	stream_lock(stream->stream_id, AccessExclusiveLock);
	/* another session may have been faster */
	return stream_load_owned(name, missing_ok);
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

	(void) append_sink_create(stream, stream_query_topic_table(stream->source));
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(scratch);
}

static StartOptions
start_options(FunctionCallInfo fcinfo, int first)
{
	StartOptions options = {0};

	options.starting_offsets = required_text(fcinfo, first, "starting_offsets");
	options.has_timestamp = !PG_ARGISNULL(first + 1);
	if (options.has_timestamp)
		options.starting_timestamp = PG_GETARG_TIMESTAMPTZ(first + 1);
	options.starting_offsets_by_timestamp = text_argument(fcinfo, first + 2);
	options.starting_timestamp_strategy =
	    required_text(fcinfo, first + 3, "starting_timestamp_strategy");
	return options;
}

/* --- functions --- */

Datum
kafka_create_stream(PG_FUNCTION_ARGS)
{
	Stream stream = {0};
	char *query = text_argument(fcinfo, 2);
	StartOptions options = start_options(fcinfo, 5);
	bool start = PG_ARGISNULL(14) ? true : PG_GETARG_BOOL(14);

	PreventCommandIfReadOnly("kafka.create_stream()");
	stream.name = required_text(fcinfo, 0, "name");
	if (stream.name[0] == '\0' || strlen(stream.name) >= NAMEDATALEN)
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME),
		                errmsg("invalid stream name \"%s\"", stream.name),
		                errdetail("A name has from 1 to %d bytes.", NAMEDATALEN - 1)));
	if (PG_ARGISNULL(1) == (query == NULL))
		ereport(
		    ERROR,
		    (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		     errmsg("a stream needs either a source or a query"),
		     errhint("source names a topic table, or a view over one; query is a SELECT.")));
	if (PG_ARGISNULL(3))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("argument \"target\" must not be null"),
		                errhint("target names the table that the rows are written to.")));
	(void) choice("mode", required_text(fcinfo, 4, "mode"), "append", NULL);
	(void) choice("on_error", required_text(fcinfo, 13, "on_error"), "stop", NULL);
	stream.ignore_conflicts =
	    choice("on_conflict", required_text(fcinfo, 12, "on_conflict"), "error", "ignore");
	stream.trigger = choice("trigger", required_text(fcinfo, 10, "trigger"), "processing_time",
	                        "available_now")
	                     ? TRIGGER_AVAILABLE_NOW
	                     : TRIGGER_PROCESSING_TIME;
	if (!PG_ARGISNULL(11))
		stream.trigger_interval_ms = interval_argument_ms(PG_GETARG_DATUM(11));
	if (!PG_ARGISNULL(9))
		stream.max_offsets_per_trigger = limit_argument(PG_GETARG_DATUM(9), 1);
	if (start)
		progress_require_available();
	if (stream_load(stream.name, true) != NULL)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
		                errmsg("stream \"%s\" already exists", stream.name)));

	stream.owner = GetUserId();
	stream.target = PG_GETARG_OID(3);
	stream.stream_id = stream_next_id();
	if (query != NULL)
	{
		stream.source = stream_create_query_view(&stream, stream_query_qualify(query));
		stream.query_view = true;
		CommandCounterIncrement();
	}
	else
		stream.source = PG_GETARG_OID(1);

	stream_check_objects(&stream);
	check_definition(&stream);
	stream_lock(stream.stream_id, AccessExclusiveLock);
	stream_insert(&stream);
	pin_start_positions(&stream, &options);
	if (start)
		start_at_commit(&stream);
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
			/* only to wake the launcher up: the worker, if there is one, stays */
			progress_start_at_commit(stream->stream_id, stream->name, stream->owner);
			PG_RETURN_VOID();
		}
		stream = stop_and_lock(name, false, false);
		stream_check_objects(stream);
	}
	else
	{
		StartOptions options = {.starting_offsets = "latest",
		                        .has_timestamp = true,
		                        .starting_timestamp = PG_GETARG_TIMESTAMPTZ(1),
		                        .starting_timestamp_strategy = "latest"};

		stream = stop_and_lock(name, false, false);
		stream_check_objects(stream);
		pin_start_positions(stream, &options);
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

Datum
kafka_alter_stream(PG_FUNCTION_ARGS)
{
	char *name = required_text(fcinfo, 0, "name");
	Stream *stream;
	char *trigger = text_argument(fcinfo, 2);
	char *on_conflict = text_argument(fcinfo, 4);
	char *on_error = text_argument(fcinfo, 5);
	char *query = text_argument(fcinfo, 6);
	Oid previous_topic_table;

	PreventCommandIfReadOnly("kafka.alter_stream()");
	stream = stop_and_lock(name, false, false);
	if (!PG_ARGISNULL(7))
		stream->target = PG_GETARG_OID(7);
	stream_check_objects(stream);
	previous_topic_table = stream_query_topic_table(stream->source);
	if (!PG_ARGISNULL(1))
		stream->max_offsets_per_trigger = limit_argument(PG_GETARG_DATUM(1), 0);
	if (trigger != NULL)
		stream->trigger = choice("trigger", trigger, "processing_time", "available_now")
		                      ? TRIGGER_AVAILABLE_NOW
		                      : TRIGGER_PROCESSING_TIME;
	if (!PG_ARGISNULL(3))
		stream->trigger_interval_ms = interval_argument_ms(PG_GETARG_DATUM(3));
	if (on_conflict != NULL)
		stream->ignore_conflicts = choice("on_conflict", on_conflict, "error", "ignore");
	if (on_error != NULL)
		(void) choice("on_error", on_error, "stop", NULL);
	if (query != NULL)
	{
		stream->source = stream_create_query_view(stream, stream_query_qualify(query));
		stream->query_view = true;
		CommandCounterIncrement();
		if (stream_query_topic_table(stream->source) != previous_topic_table)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("a stream can't be moved to another topic table"),
			                errdetail("The checkpoint of stream \"%s\" is about \"%s\".",
			                          stream->name, get_rel_name(previous_topic_table)),
			                errhint("Create another stream.")));
	}
	check_definition(stream);
	stream_update(stream);
	if (runs_here(stream))
		start_at_commit(stream);
	PG_RETURN_VOID();
}

Datum
kafka_reset_stream(PG_FUNCTION_ARGS)
{
	char *name = required_text(fcinfo, 0, "name");
	StartOptions options = start_options(fcinfo, 1);
	Stream *stream;

	PreventCommandIfReadOnly("kafka.reset_stream()");
	stream = stop_and_lock(name, false, false);
	stream_check_objects(stream);
	pin_start_positions(stream, &options);
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
		stream_delete(stream);
	PG_RETURN_VOID();
}
