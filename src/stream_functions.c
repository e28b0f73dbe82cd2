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
#include "checkpoint.h"
#include "function_arguments.h"
#include "micro_batch.h"
#include "progress.h"
#include "sink.h"
#include "start_position.h"
#include "stream_query.h"
#include "stream_state.h"
#include "stream_trust.h"
#include "topic_schema.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(kafka_create_stream);
PG_FUNCTION_INFO_V1(kafka_start_stream);
PG_FUNCTION_INFO_V1(kafka_stop_stream);
PG_FUNCTION_INFO_V1(kafka_alter_stream);
PG_FUNCTION_INFO_V1(kafka_alter_stream_owner);
PG_FUNCTION_INFO_V1(kafka_reset_stream);
PG_FUNCTION_INFO_V1(kafka_drop_stream);

/* --- arguments --- */

static StreamOnError
on_error_argument(const char *value)
{
	if (strcmp(value, "stop") == 0)
		return ON_ERROR_STOP;
	if (strcmp(value, "skip") == 0)
		return ON_ERROR_SKIP;
	if (strcmp(value, "dead_letter") == 0)
		return ON_ERROR_DEAD_LETTER;
	ereport(ERROR,
	        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid on_error \"%s\"", value),
	         errhint("Valid values are \"stop\", \"skip\" and \"dead_letter\".")));
}

static int
workers_argument(Datum value)
{
	int workers = DatumGetInt32(value);

	if (workers < 1 || workers > STREAM_MAX_WORKERS)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("workers must be between 1 and %d", STREAM_MAX_WORKERS)));
	return workers;
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
	               kafka_consumer_cluster_id(consumer), kafka_consumer_topic_id(consumer));
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

	if (stream == NULL)
		return NULL;
	progress_stop_now(stream->stream_id, stream->workers, forget);
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

/* The arguments of create_stream, in the order of its declaration. */
enum
{
	CREATE_NAME,
	CREATE_SOURCE,
	CREATE_QUERY,
	CREATE_TARGET,
	CREATE_MODE,
	CREATE_START_OPTIONS, /* four arguments: see start_options() */
	CREATE_MAX_OFFSETS = CREATE_START_OPTIONS + 4,
	CREATE_TRIGGER,
	CREATE_TRIGGER_INTERVAL,
	CREATE_ON_CONFLICT,
	CREATE_ON_ERROR,
	CREATE_MAX_ERRORS,
	CREATE_MAX_ERRORS_PER_BATCH,
	CREATE_FAIL_ON_DATA_LOSS,
	CREATE_KEY_COLUMNS,
	CREATE_ON_TOMBSTONE,
	CREATE_VERSION_COLUMN,
	CREATE_WATERMARK_COLUMN,
	CREATE_WATERMARK_DELAY,
	CREATE_DEDUPLICATE_BY,
	CREATE_FOREACH_BATCH,
	CREATE_NOTIFY,
	CREATE_WORKERS,
	CREATE_START
};

/* What the arguments say, before anything is looked up. */
static Stream *
stream_from_arguments(FunctionCallInfo fcinfo)
{
	Stream *stream = palloc0(sizeof(Stream));
	const char *mode = required_text(fcinfo, CREATE_MODE, "mode");

	stream->name = required_text(fcinfo, CREATE_NAME, "name");
	if (stream->name[0] == '\0' || strlen(stream->name) >= NAMEDATALEN)
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME),
		                errmsg("invalid stream name \"%s\"", stream->name),
		                errdetail("A name has from 1 to %d bytes.", NAMEDATALEN - 1)));
	if (PG_ARGISNULL(CREATE_SOURCE) == PG_ARGISNULL(CREATE_QUERY))
		ereport(
		    ERROR,
		    (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		     errmsg("a stream needs either a source or a query"),
		     errhint("source names a topic table, or a view over one; query is a SELECT.")));
	if (PG_ARGISNULL(CREATE_TARGET) == PG_ARGISNULL(CREATE_FOREACH_BATCH))
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		         errmsg("a stream needs either a target or foreach_batch"),
		         errhint("target names the table that the rows are written to; foreach_batch a "
		                 "procedure that is called with every batch.")));

	if (strcmp(mode, "append") == 0)
		stream->mode = MODE_APPEND;
	else if (strcmp(mode, "update") == 0)
		stream->mode = MODE_UPDATE;
	else if (strcmp(mode, "complete") == 0)
		stream->mode = MODE_COMPLETE;
	else
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid mode \"%s\"", mode),
		         errhint("Valid values are \"append\", \"update\" and \"complete\".")));

	stream->on_error = on_error_argument(required_text(fcinfo, CREATE_ON_ERROR, "on_error"));
	if (!PG_ARGISNULL(CREATE_MAX_ERRORS))
		stream->max_errors =
		    limit_argument("max_errors", PG_GETARG_DATUM(CREATE_MAX_ERRORS), 1);
	if (!PG_ARGISNULL(CREATE_MAX_ERRORS_PER_BATCH))
		stream->max_errors_per_batch =
		    limit_argument("max_errors_per_batch", PG_GETARG_DATUM(CREATE_MAX_ERRORS_PER_BATCH),
		                   1);
	stream->fail_on_data_loss =
	    PG_ARGISNULL(CREATE_FAIL_ON_DATA_LOSS) || PG_GETARG_BOOL(CREATE_FAIL_ON_DATA_LOSS);
	stream->ignore_conflicts =
	    choice_argument("on_conflict", required_text(fcinfo, CREATE_ON_CONFLICT, "on_conflict"),
	                    "error", "ignore");
	stream->ignore_tombstones =
	    choice_argument("on_tombstone",
	                    required_text(fcinfo, CREATE_ON_TOMBSTONE, "on_tombstone"), "delete",
	                    "ignore");
	stream->trigger =
	    choice_argument("trigger", required_text(fcinfo, CREATE_TRIGGER, "trigger"),
	                    "processing_time", "available_now")
	        ? TRIGGER_AVAILABLE_NOW
	        : TRIGGER_PROCESSING_TIME;
	if (!PG_ARGISNULL(CREATE_TRIGGER_INTERVAL))
		stream->trigger_interval_ms =
		    interval_argument_ms(PG_GETARG_DATUM(CREATE_TRIGGER_INTERVAL));
	if (!PG_ARGISNULL(CREATE_MAX_OFFSETS))
		stream->max_offsets_per_trigger =
		    limit_argument("max_offsets_per_trigger", PG_GETARG_DATUM(CREATE_MAX_OFFSETS), 1);

	stream->key_columns = names_argument(fcinfo, CREATE_KEY_COLUMNS, "key_columns");
	stream->version_column = text_argument(fcinfo, CREATE_VERSION_COLUMN);
	stream->watermark_column = text_argument(fcinfo, CREATE_WATERMARK_COLUMN);
	if (!PG_ARGISNULL(CREATE_WATERMARK_DELAY))
		stream->watermark_delay = PG_GETARG_INTERVAL_P(CREATE_WATERMARK_DELAY);
	if ((stream->watermark_column == NULL) != (stream->watermark_delay == NULL))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("watermark_column and watermark_delay must be given together"),
		                errhint("watermark_column is the column with the event time, "
		                        "watermark_delay how late messages may be.")));
	if (stream->watermark_delay != NULL &&
	    (stream->watermark_delay->time < 0 || stream->watermark_delay->day < 0 ||
	     stream->watermark_delay->month < 0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("watermark_delay must not be negative"),
		                errhint("It says how late messages may be, for example '10 min'.")));
	stream->deduplicate_by = names_argument(fcinfo, CREATE_DEDUPLICATE_BY, "deduplicate_by");
	stream->notify = text_argument(fcinfo, CREATE_NOTIFY);
	if (stream->notify != NULL &&
	    (stream->notify[0] == '\0' || strlen(stream->notify) >= NAMEDATALEN))
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME),
		                errmsg("invalid channel name \"%s\"", stream->notify),
		                errdetail("A name has from 1 to %d bytes.", NAMEDATALEN - 1)));

	stream->workers =
	    PG_ARGISNULL(CREATE_WORKERS) ? 1 : workers_argument(PG_GETARG_DATUM(CREATE_WORKERS));
	stream->owner = GetUserId();
	if (!PG_ARGISNULL(CREATE_TARGET))
		stream->target = relation_argument(fcinfo, CREATE_TARGET, "target");
	if (!PG_ARGISNULL(CREATE_FOREACH_BATCH))
		stream->foreach_batch = format_procedure_qualified(PG_GETARG_OID(CREATE_FOREACH_BATCH));
	if (!PG_ARGISNULL(CREATE_SOURCE))
		stream->source = relation_argument(fcinfo, CREATE_SOURCE, "source");
	return stream;
}

Datum
kafka_create_stream(PG_FUNCTION_ARGS)
{
	Stream *stream = stream_from_arguments(fcinfo);
	StartOptions options = start_options(fcinfo, CREATE_START_OPTIONS);
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
		    stream_create_query_view(stream,
		                             stream_query_qualify(text_argument(fcinfo, CREATE_QUERY)));
		stream->query_view = true;
		CommandCounterIncrement();
	}

	stream_check_objects(stream);
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
	{
		if (stream->foreach_batch != NULL)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("stream \"%s\" has no target", stream->name),
			                errdetail("It calls a procedure with every batch.")));
		stream->target = relation_argument(fcinfo, 7, "target");
	}
	stream_check_objects(stream);
	previous_topic_table = stream_query_topic_table(stream->source);
	if (!PG_ARGISNULL(1))
		stream->max_offsets_per_trigger =
		    limit_argument("max_offsets_per_trigger", PG_GETARG_DATUM(1), 0);
	if (trigger != NULL)
		stream->trigger =
		    choice_argument("trigger", trigger, "processing_time", "available_now")
		        ? TRIGGER_AVAILABLE_NOW
		        : TRIGGER_PROCESSING_TIME;
	if (!PG_ARGISNULL(3))
		stream->trigger_interval_ms = interval_argument_ms(PG_GETARG_DATUM(3));
	if (on_conflict != NULL)
		stream->ignore_conflicts =
		    choice_argument("on_conflict", on_conflict, "error", "ignore");
	if (on_error != NULL)
		stream->on_error = on_error_argument(on_error);
	if (!PG_ARGISNULL(8))
		stream->max_errors = limit_argument("max_errors", PG_GETARG_DATUM(8), 0);
	if (!PG_ARGISNULL(9))
		stream->max_errors_per_batch =
		    limit_argument("max_errors_per_batch", PG_GETARG_DATUM(9), 0);
	if (!PG_ARGISNULL(10))
		stream->fail_on_data_loss = PG_GETARG_BOOL(10);
	if (!PG_ARGISNULL(11))
		stream->workers = workers_argument(PG_GETARG_DATUM(11));
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
		sink_alter_objects(stream);
		CommandCounterIncrement();
	}
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
	stream_check_objects(stream);
	check_definition(stream);
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
	sink_reset_objects(stream);
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
		sink_drop_objects(stream);
		stream_delete(stream);
	}
	PG_RETURN_VOID();
}
