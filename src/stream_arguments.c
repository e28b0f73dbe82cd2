/*-------------------------------------------------------------------------
 *
 * stream_arguments.c
 *	  The arguments of create_stream and alter_stream, as a Stream.
 *
 * Checks each value by itself.  Whether they go together with each other, the query
 * and the target is left to stream_query.c and the sinks.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_arguments.h"

#include "function_arguments.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/regproc.h"
#include "utils/timestamp.h"

/* What both functions have, in one order, behind their first arguments. */
enum
{
	SETTING_MAX_OFFSETS,
	SETTING_TRIGGER,
	SETTING_TRIGGER_INTERVAL,
	SETTING_ON_CONFLICT,
	SETTING_ON_ERROR,
	SETTING_MAX_ERRORS,
	SETTING_MAX_ERRORS_PER_BATCH,
	SETTING_FAIL_ON_DATA_LOSS,
	SETTING_KEY_COLUMNS,
	SETTING_ON_TOMBSTONE,
	SETTING_VERSION_COLUMN,
	SETTING_WATERMARK_COLUMN,
	SETTING_WATERMARK_DELAY,
	SETTING_DEDUPLICATE_BY,
	SETTING_FOREACH_BATCH,
	SETTING_NOTIFY,
	SETTING_WORKERS,
	SETTINGS
};

StaticAssertDecl(CREATE_START == CREATE_SETTINGS + SETTINGS,
                 "create_stream has these settings");

/* Where settings come from. */
typedef struct Arguments
{
	FunctionCallInfo fcinfo;
	int first;     /* argument of the first setting */
	bool altering; /* NULL leaves a setting as it is, and it can be removed */
} Arguments;

static bool
is_given(const Arguments *arguments, int setting)
{
	return !arguments->fcinfo->args[arguments->first + setting].isnull;
}

static Datum
given(const Arguments *arguments, int setting)
{
	return arguments->fcinfo->args[arguments->first + setting].value;
}

/* A word that create_stream must have; NULL: to be left alone. */
static char *
word(const Arguments *arguments, int setting, const char *name)
{
	if (arguments->altering && !is_given(arguments, setting))
		return NULL;
	return required_text(arguments->fcinfo, arguments->first + setting, name);
}

static void
read_limit(const Arguments *arguments, int setting, const char *name, int64 *limit)
{
	if (is_given(arguments, setting))
		*limit = limit_argument(name, given(arguments, setting), arguments->altering ? 0 : 1);
}

/* One of two words: is it the second? */
static void
read_choice(const Arguments *arguments, int setting, const char *name, const char *first,
            const char *second, bool *is_second)
{
	char *value = word(arguments, setting, name);

	if (value != NULL)
		*is_second = choice_argument(name, value, first, second);
}

static void
read_name(const Arguments *arguments, int setting, char **name)
{
	if (!is_given(arguments, setting))
		return;
	*name = text_argument(arguments->fcinfo, arguments->first + setting);
	if (arguments->altering && (*name)[0] == '\0')
		*name = NULL;
}

static void
read_names(const Arguments *arguments, int setting, const char *name, List **names)
{
	ArrayType *array;

	if (!is_given(arguments, setting))
		return;
	array = DatumGetArrayTypeP(given(arguments, setting));
	if (arguments->altering && ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)) == 0)
		*names = NIL;
	else
		*names = names_argument(arguments->fcinfo, arguments->first + setting, name);
}

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

static void
check_watermark(const Stream *stream)
{
	const Interval *delay = stream->watermark_delay;

	if ((stream->watermark_column == NULL) != (delay == NULL))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("watermark_column and watermark_delay must be given together"),
		                errhint("watermark_column is the column with the event time, "
		                        "watermark_delay how late messages may be.")));
	if (delay != NULL && (delay->time < 0 || delay->day < 0 || delay->month < 0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("watermark_delay must not be negative"),
		                errhint("It says how late messages may be, for example '10 min'.")));
}

static void
read_event_time(const Arguments *arguments, Stream *stream)
{
	read_name(arguments, SETTING_WATERMARK_COLUMN, &stream->watermark_column);
	if (is_given(arguments, SETTING_WATERMARK_DELAY))
		stream->watermark_delay = DatumGetIntervalP(given(arguments, SETTING_WATERMARK_DELAY));
	else if (arguments->altering && is_given(arguments, SETTING_WATERMARK_COLUMN) &&
	         stream->watermark_column == NULL)
		stream->watermark_delay = NULL;
	check_watermark(stream);
	read_names(arguments, SETTING_DEDUPLICATE_BY, "deduplicate_by", &stream->deduplicate_by);
}

static void
read_settings(const Arguments *arguments, Stream *stream)
{
	bool available_now = stream->trigger == TRIGGER_AVAILABLE_NOW;
	char *on_error = word(arguments, SETTING_ON_ERROR, "on_error");

	if (on_error != NULL)
		stream->on_error = on_error_argument(on_error);
	read_limit(arguments, SETTING_MAX_ERRORS, "max_errors", &stream->max_errors);
	read_limit(arguments, SETTING_MAX_ERRORS_PER_BATCH, "max_errors_per_batch",
	           &stream->max_errors_per_batch);
	if (stream->on_error == ON_ERROR_STOP &&
	    ((is_given(arguments, SETTING_MAX_ERRORS) && stream->max_errors > 0) ||
	     (is_given(arguments, SETTING_MAX_ERRORS_PER_BATCH) &&
	      stream->max_errors_per_batch > 0)))
		ereport(NOTICE, (errmsg("a limit of errors means nothing while on_error is \"stop\""),
		                 errdetail("The first bad message stops stream \"%s\".", stream->name),
		                 errhint("Set on_error to \"skip\" or \"dead_letter\".")));
	if (is_given(arguments, SETTING_FAIL_ON_DATA_LOSS))
		stream->fail_on_data_loss = DatumGetBool(given(arguments, SETTING_FAIL_ON_DATA_LOSS));
	read_choice(arguments, SETTING_ON_CONFLICT, "on_conflict", "error", "ignore",
	            &stream->ignore_conflicts);
	read_choice(arguments, SETTING_ON_TOMBSTONE, "on_tombstone", "delete", "ignore",
	            &stream->ignore_tombstones);
	read_choice(arguments, SETTING_TRIGGER, "trigger", "processing_time", "available_now",
	            &available_now);
	stream->trigger = available_now ? TRIGGER_AVAILABLE_NOW : TRIGGER_PROCESSING_TIME;
	if (is_given(arguments, SETTING_TRIGGER_INTERVAL))
		stream->trigger_interval_ms =
		    interval_argument_ms(given(arguments, SETTING_TRIGGER_INTERVAL));
	read_limit(arguments, SETTING_MAX_OFFSETS, "max_offsets_per_trigger",
	           &stream->max_offsets_per_trigger);

	read_names(arguments, SETTING_KEY_COLUMNS, "key_columns", &stream->key_columns);
	read_name(arguments, SETTING_VERSION_COLUMN, &stream->version_column);
	read_event_time(arguments, stream);
	read_name(arguments, SETTING_NOTIFY, &stream->notify);
	if (stream->notify != NULL &&
	    (stream->notify[0] == '\0' || strlen(stream->notify) >= NAMEDATALEN))
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME),
		                errmsg("invalid channel name \"%s\"", stream->notify),
		                errdetail("A name has from 1 to %d bytes.", NAMEDATALEN - 1),
		                errhint("Give notify the name that listeners use in LISTEN.")));
	if (is_given(arguments, SETTING_FOREACH_BATCH))
		stream->foreach_batch = format_procedure_qualified(
		    DatumGetObjectId(given(arguments, SETTING_FOREACH_BATCH)));
	if (is_given(arguments, SETTING_WORKERS))
		stream->workers = workers_argument(given(arguments, SETTING_WORKERS));
}

static void
refuse_two_sinks(void)
{
	ereport(ERROR,
	        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
	         errmsg("a stream needs either a target or foreach_batch"),
	         errhint("target names the table that the rows are written to; foreach_batch a "
	                 "procedure that is called with every batch.")));
}

Stream *
stream_from_arguments(FunctionCallInfo fcinfo)
{
	Stream *stream = palloc0(sizeof(Stream));
	Arguments arguments = {fcinfo, CREATE_SETTINGS, false};
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
	if (PG_ARGISNULL(CREATE_TARGET) != is_given(&arguments, SETTING_FOREACH_BATCH))
		refuse_two_sinks();

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

	stream->workers = 1;
	stream->fail_on_data_loss = true;
	stream->owner = GetUserId();
	if (!PG_ARGISNULL(CREATE_TARGET))
		stream->target = relation_argument(fcinfo, CREATE_TARGET, "target");
	if (!PG_ARGISNULL(CREATE_SOURCE))
		stream->source = relation_argument(fcinfo, CREATE_SOURCE, "source");
	read_settings(&arguments, stream);
	return stream;
}

bool
stream_change_by_arguments(Stream *stream, FunctionCallInfo fcinfo)
{
	Arguments arguments = {fcinfo, ALTER_SETTINGS, true};
	bool has_procedure = is_given(&arguments, SETTING_FOREACH_BATCH);

	if (!PG_ARGISNULL(ALTER_TARGET) && has_procedure)
		refuse_two_sinks();
	if (!PG_ARGISNULL(ALTER_TARGET))
	{
		stream->target = relation_argument(fcinfo, ALTER_TARGET, "target");
		stream->foreach_batch = NULL;
	}
	else if (has_procedure)
		stream->target = InvalidOid;
	read_settings(&arguments, stream);
	return !PG_ARGISNULL(ALTER_TARGET) || has_procedure ||
	       is_given(&arguments, SETTING_WATERMARK_COLUMN) ||
	       is_given(&arguments, SETTING_DEDUPLICATE_BY);
}

StartOptions
start_options_from_arguments(FunctionCallInfo fcinfo, int first)
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
