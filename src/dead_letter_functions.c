/*-------------------------------------------------------------------------
 *
 * dead_letter_functions.c
 *	  What SQL calls about messages that could not be written: try them
 *	  again, or discard them.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "careful_write.h"
#include "catalog.h"
#include "checkpoint.h"
#include "error_class.h"
#include "funcapi.h"
#include "function_arguments.h"
#include "micro_batch.h"
#include "stream_objects.h"
#include "stream_query.h"
#include "stream_trust.h"
#include "topic_schema.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "stream_lock.h"

PG_FUNCTION_INFO_V1(kafka_retry_dead_letters);
PG_FUNCTION_INFO_V1(kafka_discard_dead_letters);

/* which dead letters: $1 stream, $2 partition, $3 offset; NULL: all */
#define DEAD_LETTER_CONDITION                                                                  \
	" d.stream = $1 AND ($2 IS NULL OR d.partition = $2) AND ($3 IS NULL OR d.\"offset\" = "   \
	"$3)"

typedef struct DeadLetterChoice
{
	Oid types[3];
	Datum values[3];
	char nulls[4];
} DeadLetterChoice;

/*
 * The arguments (stream, partition, offset); the caller must have the stream owner's rights.  Nobody
 * changes or drops the stream until the transaction ends.
 */
static Stream *
chosen_stream(FunctionCallInfo fcinfo, DeadLetterChoice *choice)
{
	Stream *stream;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("argument \"stream\" must not be null")));
	stream = stream_lock_owned(text_to_cstring(PG_GETARG_TEXT_PP(0)), AccessShareLock);
	choice->types[0] = TEXTOID;
	choice->types[1] = INT4OID;
	choice->types[2] = INT8OID;
	for (int i = 0; i < 3; i++)
	{
		choice->values[i] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
		choice->nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	choice->nulls[3] = '\0';
	return stream;
}

/* --- retry --- */

/* A column's bytes, copied into the current context; NULL for NULL. */
static char *
column_bytes(HeapTuple row, TupleDesc descriptor, int column, size_t *length)
{
	bool isnull;
	Datum datum = SPI_getbinval(row, descriptor, column, &isnull);
	bytea *bytes;

	*length = 0;
	if (isnull)
		return NULL;
	bytes = DatumGetByteaPCopy(datum);
	*length = VARSIZE(bytes) - VARHDRSZ;
	return VARDATA(bytes);
}

/* Headers come as two arrays of bytea: names (without NULLs) and values. */
static void
column_headers(HeapTuple row, TupleDesc descriptor, int column, KafkaMessage *message)
{
	bool isnull;
	Datum names = SPI_getbinval(row, descriptor, column, &isnull);
	Datum values;
	Datum *name_elements;
	Datum *value_elements;
	bool *value_nulls;
	KafkaHeader *headers;
	int count;

	if (isnull)
		return;
	values = SPI_getbinval(row, descriptor, column + 1, &isnull);
	deconstruct_array(DatumGetArrayTypePCopy(names), BYTEAOID, -1, false, TYPALIGN_INT,
	                  &name_elements, NULL, &count);
	deconstruct_array(DatumGetArrayTypePCopy(values), BYTEAOID, -1, false, TYPALIGN_INT,
	                  &value_elements, &value_nulls, &count);
	headers = palloc0(sizeof(KafkaHeader) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		headers[i].name = text_to_cstring((text *) DatumGetByteaPP(name_elements[i]));
		if (value_nulls[i])
			continue;
		headers[i].value = VARDATA_ANY(DatumGetByteaPP(value_elements[i]));
		headers[i].value_length = VARSIZE_ANY_EXHDR(DatumGetByteaPP(value_elements[i]));
	}
	message->own_headers = headers;
	message->own_header_count = count;
}

/* Reads the chosen dead letters as messages, in the current memory context; locks them. */
static KafkaMessage *
load_dead_letters(DeadLetterChoice *choice, const char *topic, int *count)
{
	MemoryContext context = CurrentMemoryContext;
	CatalogAccess access;
	KafkaMessage *messages;

	catalog_begin(&access);
	*count = (int) catalog_execute(
	    SPI_OK_SELECT,
	    psprintf("SELECT d.partition, d.\"offset\", d.\"timestamp\", d.timestamp_type, d.key, "
	             "d.value,"
	             " (SELECT array_agg(decode(h.key, 'escape') ORDER BY i)"
	             "    FROM unnest(d.headers) WITH ORDINALITY AS h (key, value, i)),"
	             " (SELECT array_agg(h.value ORDER BY i)"
	             "    FROM unnest(d.headers) WITH ORDINALITY AS h (key, value, i))"
	             " FROM kafka.dead_letter d WHERE" DEAD_LETTER_CONDITION " AND d.topic = %s"
	             " ORDER BY d.partition, d.\"offset\" FOR UPDATE",
	             quote_literal_cstr(topic)),
	    3, choice->types, choice->values, choice->nulls);
	MemoryContextSwitchTo(context);
	messages = palloc0(sizeof(KafkaMessage) * Max(*count, 1));
	for (int i = 0; i < *count; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc descriptor = SPI_tuptable->tupdesc;
		KafkaMessage *message = &messages[i];
		char *timestamp_type = SPI_getvalue(row, descriptor, 4);
		Datum timestamp;
		bool isnull;

		message->partition = DatumGetInt32(SPI_getbinval(row, descriptor, 1, &isnull));
		message->offset = DatumGetInt64(SPI_getbinval(row, descriptor, 2, &isnull));
		timestamp = SPI_getbinval(row, descriptor, 3, &isnull);
		message->timestamp_ms =
		    isnull ? -1 : kafka_timestamp_to_ms(DatumGetTimestampTz(timestamp));
		if (timestamp_type != NULL)
			message->timestamp_type = strcmp(timestamp_type, "create_time") == 0
			                              ? KAFKA_TIMESTAMP_CREATE_TIME
			                              : KAFKA_TIMESTAMP_LOG_APPEND_TIME;
		message->key = column_bytes(row, descriptor, 5, &message->key_length);
		message->value = column_bytes(row, descriptor, 6, &message->value_length);
		column_headers(row, descriptor, 7, message);
	}
	catalog_end(&access);
	MemoryContextSwitchTo(context);
	return messages;
}

/* Writes one message; NULL, or the error that its message made. */
static ErrorData *
write_one(Sink *sink, const char *stream, const char *topic, Oid topic_table,
          const KafkaMessage *message)
{
	TopicScanBatch scan = {.topic_table = topic_table, .messages = message, .count = 1};
	SinkBatch batch = {.messages = &scan, .is_part = true};
	ErrorData *error = write_in_subtransaction(sink, &batch);

	if (error == NULL && batch.state_rows_added != 0)
		checkpoint_add_state_rows(stream, topic, message->partition, batch.state_rows_added);
	if (error == NULL)
		return NULL;
	if ((scan.decoding ? classify_decoding_error(error) : classify_error(error)) !=
	    ERROR_OF_MESSAGE)
		ReThrowError(error);
	if (!scan.decoding)
		blame_message(topic, message, error);
	return error;
}

/* Removes a dead letter that has been written, or counts another attempt. */
static void
settle_dead_letter(const char *stream, const char *topic, const KafkaMessage *message,
                   const ErrorData *error)
{
	CatalogAccess access;
	Oid types[7] = {TEXTOID, TEXTOID, INT4OID, INT8OID, TEXTOID, TEXTOID, TEXTOID};
	Datum values[7] = {CStringGetTextDatum(stream), CStringGetTextDatum(topic),
	                   Int32GetDatum(message->partition), Int64GetDatum(message->offset)};
	char nulls[8] = "       ";

	catalog_begin(&access);
	if (error == NULL)
		catalog_execute(SPI_OK_DELETE,
		                "DELETE FROM kafka.dead_letter WHERE stream = $1 AND topic = $2"
		                " AND partition = $3 AND \"offset\" = $4",
		                4, types, values, NULL);
	else
	{
		values[4] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
		values[5] = CStringGetTextDatum(error->message ? error->message : "");
		if (error->detail)
			values[6] = CStringGetTextDatum(error->detail);
		else
			nulls[6] = 'n';
		catalog_execute(SPI_OK_UPDATE,
		                "UPDATE kafka.dead_letter SET attempts = attempts + 1,"
		                " last_attempt = now(), error_sqlstate = $5, error_message = $6,"
		                " error_detail = $7 WHERE stream = $1 AND topic = $2"
		                " AND partition = $3 AND \"offset\" = $4",
		                7, types, values, nulls);
	}
	catalog_end(&access);
}

Datum
kafka_retry_dead_letters(PG_FUNCTION_ARGS)
{
	DeadLetterChoice choice;
	Stream *stream = chosen_stream(fcinfo, &choice);
	Oid topic_table;
	const char *topic;
	KafkaMessage *messages;
	OwnerIdentity saved;
	TupleDesc descriptor;
	Datum values[3];
	bool nulls[3] = {false};
	int guc_nest_level;
	int count;
	int succeeded = 0;
	Sink *sink;

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	stream_lock_objects(stream);
	topic_table = stream_query_topic_table(stream->source);
	topic = topic_schema_load(topic_table)->topic;
	messages = load_dead_letters(&choice, topic, &count);

	/* as in the worker: nothing of the caller's takes part */
	guc_nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
	                         true, 0, false);
	/* as in the worker; what the caller's transaction has deferred before runs now, with the caller's rights */
	AfterTriggerSetState(makeNode(ConstraintsSetStmt));
	become_owner(stream, &saved);
	stream_trust_check(stream);
	sink = sink_create(stream, topic_table);
	for (int i = 0; i < count; i++)
	{
		ErrorData *error;

		CHECK_FOR_INTERRUPTS();
		error = write_one(sink, stream->name, topic, topic_table, &messages[i]);
		settle_dead_letter(stream->name, topic, &messages[i], error);
		if (error == NULL)
			succeeded++;
	}
	restore_identity(&saved);
	AtEOXact_GUC(true, guc_nest_level);

	values[0] = Int64GetDatum(count);
	values[1] = Int64GetDatum(succeeded);
	values[2] = Int64GetDatum(count - succeeded);
	PG_RETURN_DATUM(
	    HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}

/* --- discard --- */

Datum
kafka_discard_dead_letters(PG_FUNCTION_ARGS)
{
	DeadLetterChoice choice;
	CatalogAccess access;
	int64 discarded;

	(void) chosen_stream(fcinfo, &choice);
	catalog_begin(&access);
	discarded =
	    (int64) catalog_execute(SPI_OK_DELETE,
	                            "DELETE FROM kafka.dead_letter d WHERE" DEAD_LETTER_CONDITION,
	                            3, choice.types, choice.values, choice.nulls);
	catalog_end(&access);
	PG_RETURN_INT64(discarded);
}
