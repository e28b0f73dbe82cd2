/*-------------------------------------------------------------------------
 *
 * dead_letter.c
 *	  Messages that a stream could not write: kafka.dead_letter.
 *
 * Stores them in the batch's transaction.  Which messages are rejected is
 * decided in micro_batch.c; trying them again is dead_letter_retry.c's.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "dead_letter.h"

#include "catalog.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

static Datum
bytes_datum(const char *bytes, size_t length)
{
	return PointerGetDatum(cstring_to_text_with_len(bytes, (int) length));
}

/* The arrays of header names and values, as bytea[]: names need not be valid text. */
static void
header_arrays(const KafkaMessage *message, Datum *names, Datum *values)
{
	KafkaHeader *headers;
	int count = kafka_message_headers(message, &headers);
	Datum *name_elements = palloc(sizeof(Datum) * Max(count, 1));
	Datum *value_elements = palloc(sizeof(Datum) * Max(count, 1));
	bool *nulls = palloc0(sizeof(bool) * Max(count, 1));
	int lower_bound = 1;

	for (int i = 0; i < count; i++)
	{
		name_elements[i] = bytes_datum(headers[i].name, strlen(headers[i].name));
		nulls[i] = headers[i].value == NULL;
		value_elements[i] =
		    nulls[i] ? (Datum) 0 : bytes_datum(headers[i].value, headers[i].value_length);
	}
	*names = PointerGetDatum(construct_md_array(name_elements, NULL, 1, &count, &lower_bound,
	                                            BYTEAOID, -1, false, TYPALIGN_INT));
	*values = PointerGetDatum(construct_md_array(value_elements, nulls, 1, &count, &lower_bound,
	                                             BYTEAOID, -1, false, TYPALIGN_INT));
}

int64
dead_letter_count(const char *stream)
{
	Oid type = TEXTOID;
	Datum name;
	CatalogAccess access;
	bool isnull;
	int64 count;

	catalog_begin(&access);
	name = CStringGetTextDatum(stream);
	(void) catalog_execute(SPI_OK_SELECT,
	                       "SELECT count(*) FROM kafka.dead_letter WHERE stream = $1", 1, &type,
	                       &name, NULL);
	count =
	    DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	catalog_end(&access);
	return count;
}

/* Raises an error: both messages must be recorded, and there is one place. */
pg_noreturn static void
report_other_message(const char *stream, const char *topic, const KafkaMessage *message,
                     const ErrorData *error)
{
	ereport(ERROR,
	        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
	         errmsg("stream \"%s\" has a dead letter of another message at this place", stream),
	         errdetail("Topic \"%s\", partition %d, offset %lld: the message that is there now "
	                   "can't be written either: %s.",
	                   topic, message->partition, (long long) message->offset, error->message),
	         errhint(
	             "The topic was recreated since. Use kafka.retry_dead_letters or "
	             "kafka.discard_dead_letters for the old letter, then kafka.start_stream.")));
}

void
dead_letter_store(const char *stream, const char *topic, const KafkaMessage *message,
                  const ErrorData *error)
{
	/* kept for the life of the session: there may be many */
	static SPIPlanPtr plan = NULL;
	Oid types[13] = {TEXTOID,  TEXTOID,  INT4OID,       INT8OID,       TIMESTAMPTZOID,
	                 BYTEAOID, BYTEAOID, BYTEAARRAYOID, BYTEAARRAYOID, TEXTOID,
	                 TEXTOID,  TEXTOID,  TEXTOID};
	Datum values[13] = {0};
	char nulls[14] = "             ";
	CatalogAccess access;
	uint64 stored;

	catalog_begin(&access);
	values[0] = CStringGetTextDatum(stream);
	values[1] = CStringGetTextDatum(topic);
	values[2] = Int32GetDatum(message->partition);
	values[3] = Int64GetDatum(message->offset);
	if (message->timestamp_ms >= 0)
		values[4] = TimestampTzGetDatum(kafka_timestamp_from_ms(message->timestamp_ms));
	else
		nulls[4] = 'n';
	if (message->key)
		values[5] = bytes_datum(message->key, message->key_length);
	else
		nulls[5] = 'n';
	if (message->value)
		values[6] = bytes_datum(message->value, message->value_length);
	else
		nulls[6] = 'n';
	header_arrays(message, &values[7], &values[8]);
	values[9] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
	values[10] = CStringGetTextDatum(error->message ? error->message : "");
	if (error->detail)
		values[11] = CStringGetTextDatum(error->detail);
	else
		nulls[11] = 'n';
	if (message->timestamp_type == KAFKA_TIMESTAMP_NONE)
		nulls[12] = 'n';
	else
		values[12] = CStringGetTextDatum(message->timestamp_type == KAFKA_TIMESTAMP_CREATE_TIME
		                                     ? "create_time"
		                                     : "log_append_time");

	stored = catalog_execute_kept(
	    &plan, SPI_OK_INSERT,
	    "INSERT INTO kafka.dead_letter AS d (stream, topic, partition, \"offset\","
	    " \"timestamp\", key, value, headers, error_sqlstate, error_message, error_detail,"
	    " timestamp_type)"
	    " VALUES ($1, $2, $3, $4, $5, $6, $7,"
	    " (SELECT coalesce(array_agg(ROW(encode(h.name, 'escape'), h.value)::kafka.header"
	    "   ORDER BY h.position), '{}')"
	    "  FROM unnest($8, $9) WITH ORDINALITY AS h (name, value, position)),"
	    " $10, $11, $12, $13)"
	    " ON CONFLICT (stream, topic, partition, \"offset\") DO UPDATE SET"
	    " error_sqlstate = excluded.error_sqlstate, error_message = excluded.error_message,"
	    " error_detail = excluded.error_detail, attempts = d.attempts + 1,"
	    " last_attempt = now() WHERE d.key IS NOT DISTINCT FROM excluded.key AND d.value IS NOT"
	    " DISTINCT FROM excluded.value AND d.\"timestamp\" IS NOT DISTINCT FROM"
	    " excluded.\"timestamp\"",
	    lengthof(types), types, values, nulls);
	catalog_end(&access);
	if (stored == 0)
		report_other_message(stream, topic, message, error);
}
