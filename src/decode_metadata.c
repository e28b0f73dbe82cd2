/*-------------------------------------------------------------------------
 *
 * decode_metadata.c
 *	  Columns that are filled from a message's topic, partition, offset,
 *	  timestamp, key, value bytes and headers instead of a field.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "compat.h"
#include "decode_internal.h"

static Datum
integer_datum(Oid type, int64 value)
{
	switch (type)
	{
		case INT2OID:
			if (value > PG_INT16_MAX)
				ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				                errmsg("value \"" INT64_FORMAT "\" is out of range for type %s",
				                       value, "smallint")));
			return Int16GetDatum((int16) value);
		case INT4OID:
			return Int32GetDatum((int32) value);
		case INT8OID:
			return Int64GetDatum(value);
		default:
			return DirectFunctionCall1(int8_numeric, Int64GetDatum(value));
	}
}

/* Bytes as they are, or as text that the type's input function reads. */
static Datum
bytes_datum(const DecodedColumn *column, const char *bytes, size_t length)
{
	if (column->column->type == BYTEAOID)
		return value_from_bytes(column->converter, bytes, length);
	decode_verify_text(&bytes, &length);
	return value_from_text(column->converter, bytes, length);
}

/* A text for a header's name or value; NUL-terminated. */
static char *
header_text(const char *bytes, size_t length)
{
	decode_verify_text(&bytes, &length);
	return pnstrdup(bytes, length);
}

/* kafka.header[] */
static Datum
headers_array(const TopicColumn *column, const KafkaHeader *headers, int count)
{
	Oid header_type = get_element_type(column->type);
	TupleDesc tuple_descriptor = lookup_rowtype_tupdesc_copy(header_type, -1);
	Datum *elements = palloc(sizeof(Datum) * (count + 1));
	int16 element_length;
	bool element_by_value;
	char element_alignment;

	for (int i = 0; i < count; i++)
	{
		Datum values[2] = {0};
		bool nulls[2] = {false, headers[i].value == NULL};

		values[0] = CStringGetTextDatum(header_text(headers[i].name, strlen(headers[i].name)));
		if (headers[i].value != NULL)
			values[1] = PointerGetDatum(
			    cstring_to_text_with_len(headers[i].value, headers[i].value_length));
		elements[i] = HeapTupleGetDatum(heap_form_tuple(tuple_descriptor, values, nulls));
	}
	get_typlenbyvalalign(header_type, &element_length, &element_by_value, &element_alignment);
	return PointerGetDatum(construct_array(elements, count, header_type, element_length,
	                                       element_by_value, element_alignment));
}

/* [{"key": ..., "value": ...}, ...] */
static Datum
headers_jsonb(const DecodedColumn *column, const KafkaHeader *headers, int count)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '[');
	for (int i = 0; i < count; i++)
	{
		appendStringInfoString(&json, i == 0 ? "{\"key\": " : ", {\"key\": ");
		escape_json(&json, header_text(headers[i].name, strlen(headers[i].name)));
		appendStringInfoString(&json, ", \"value\": ");
		if (headers[i].value == NULL)
			appendStringInfoString(&json, "null");
		else
			escape_json(&json, header_text(headers[i].value, headers[i].value_length));
		appendStringInfoChar(&json, '}');
	}
	appendStringInfoChar(&json, ']');
	return value_from_text(column->converter, json.data, json.len);
}

/* Error context callback for headers in jsonb: text is all that JSON can hold. */
static void
add_header_hint(void *arg)
{
	if (geterrcode() == ERRCODE_CHARACTER_NOT_IN_REPERTOIRE)
		errhint("Declare the column as kafka.header[], which takes values of any bytes.");
}

static Datum
headers_datum(const DecodedColumn *column, const KafkaMessage *message)
{
	KafkaHeader *headers;
	int count = kafka_message_headers(message, &headers);
	ErrorContextCallback callback;
	Datum result;

	if (column->column->type != JSONBOID)
		return headers_array(column->column, headers, count);

	callback.callback = add_header_hint;
	callback.arg = NULL;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	result = headers_jsonb(column, headers, count);
	error_context_stack = callback.previous;
	return result;
}

Datum
decode_metadata(Decoder *decoder, const DecodedColumn *column, const KafkaMessage *message,
                bool *is_null)
{
	const TopicColumn *topic_column = column->column;
	const char *text;

	*is_null = false;
	switch (topic_column->source)
	{
		case COLUMN_FROM_FIELD:
		case COLUMN_FROM_DECODED_KEY:
			break;
		case COLUMN_FROM_TOPIC:
			text = decoder->schema->topic;
			return value_from_text(column->converter, text, strlen(text));
		case COLUMN_FROM_PARTITION:
			if (message->partition < 0)
				break;
			return integer_datum(topic_column->type, message->partition);
		case COLUMN_FROM_OFFSET:
			if (message->offset < 0)
				break;
			return integer_datum(topic_column->type, message->offset);
		case COLUMN_FROM_TIMESTAMP:
			if (message->timestamp_ms == -1)
				break;
			return epoch_value(EPOCH_MILLISECONDS, topic_column->type, topic_column->typmod,
			                   message->timestamp_ms);
		case COLUMN_FROM_TIMESTAMP_TYPE:
			if (message->timestamp_type == KAFKA_TIMESTAMP_NONE)
				break;
			text = message->timestamp_type == KAFKA_TIMESTAMP_CREATE_TIME ? "create_time"
			                                                              : "log_append_time";
			return value_from_text(column->converter, text, strlen(text));
		case COLUMN_FROM_KEY:
			if (message->key == NULL)
				break;
			return bytes_datum(column, message->key, message->key_length);
		case COLUMN_FROM_VALUE:
			if (message->value == NULL)
				break;
			return bytes_datum(column, message->value, message->value_length);
		case COLUMN_FROM_HEADERS:
			if (message->handle == NULL)
				break;
			return headers_datum(column, message);
	}
	*is_null = true;
	return (Datum) 0;
}
