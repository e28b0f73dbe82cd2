/*-------------------------------------------------------------------------
 *
 * decode.c
 *	  One message -> the Datums of one row of its topic table.
 *
 * Chooses the format, verifies text, and adds to every error where it
 * happened.  What a format's text means is in decode_json.c and decode_csv.c, the
 * message key is in decode_key.c, metadata columns are in decode_metadata.c, types in
 * decode_value.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "compat.h"
#include "decode_internal.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* How much of a text a message shows before and behind the place it is about. */
#define EXCERPT_BEFORE 32
#define EXCERPT_BEHIND 24

Decoder *
decoder_create(const TopicSchema *schema, const Bitmapset *wanted, const Bitmapset *defaulted)
{
	Decoder *decoder = palloc0(sizeof(Decoder));
	int field_number = 0;

	decoder->schema = schema;
	decoder->workspace = value_workspace_create();
	decoder->fields = palloc(sizeof(DecodedColumn) * (schema->column_count + 1));
	decoder->keys = palloc(sizeof(DecodedColumn) * (schema->column_count + 1));
	decoder->metadata = palloc(sizeof(DecodedColumn) * (schema->column_count + 1));
	for (int i = 0; i < schema->column_count; i++)
	{
		const TopicColumn *column = &schema->columns[i];
		bool from_field = column->source == COLUMN_FROM_FIELD;
		int number = from_field ? field_number++ : -1;
		DecodedColumn *decoded;

		if (wanted != NULL && !bms_is_member(column->attnum, wanted))
			continue;
		if (from_field)
			decoded = &decoder->fields[decoder->field_count++];
		else if (column->source == COLUMN_FROM_DECODED_KEY)
		{
			decoded = &decoder->keys[decoder->key_count++];
			decoder->key_only_count++;
		}
		else
			decoded = &decoder->metadata[decoder->metadata_count++];
		decoded->column = column;
		decoded->attribute = column->attnum - 1;
		decoded->field = number;
		decoded->defaulted = from_field && bms_is_member(column->attnum, defaulted);
		decoded->converter = value_converter_create(decoder->workspace, column->type,
		                                            column->typmod, column->epoch);
		decoded->direct = value_converter_direct_type(decoded->converter);
		if (from_field && column->has_key)
			decoder->keys[decoder->key_count++] = *decoded;
	}
	decode_key_prepare(decoder);
	if (schema->format == TOPIC_FORMAT_JSON)
		decode_json_prepare(decoder);
	else if (schema->format == TOPIC_FORMAT_CSV)
		decode_csv_prepare(decoder);
	return decoder;
}

/* No byte is zero or above 127. */
static bool
is_plain_ascii(const char *text, size_t length)
{
	const char *end = text + length;
	unsigned char unusual = 0;

#ifdef __SSE2__
	const __m128i zero = _mm_setzero_si128();

	for (; end - text >= 16; text += 16)
	{
		__m128i bytes = _mm_loadu_si128((const __m128i *) text);

		if (_mm_movemask_epi8(_mm_or_si128(bytes, _mm_cmpeq_epi8(bytes, zero))) != 0)
			return false;
	}
#endif
	for (; end - text >= 8; text += 8)
	{
		const uint64 ones = UINT64CONST(0x0101010101010101);
		uint64 bytes;

		memcpy(&bytes, text, sizeof(bytes));
		if (((bytes | (bytes - ones)) & (ones << 7)) != 0)
			return false;
	}
	for (; text < end; text++)
		unusual |= *text | (*text - 1);
	return (unusual & 0x80) == 0;
}

void
decode_verify_text(const char **text, size_t *length)
{
	/* the same in every server encoding */
	if (is_plain_ascii(*text, *length))
		return;
	if (GetDatabaseEncoding() == PG_UTF8)
	{
		int valid = pg_encoding_verifymbstr(PG_UTF8, *text, *length);

		if (valid != *length)
			report_invalid_encoding(PG_UTF8, *text + valid, *length - valid);
	}
	else
	{
		const char *converted = pg_any_to_server(*text, *length, PG_UTF8);

		if (converted != *text)
		{
			*text = converted;
			*length = strlen(converted);
		}
	}
}

char *
decode_excerpt(const char *text, size_t length, size_t position)
{
	size_t start = 0;
	size_t end = 0;
	StringInfoData excerpt;

	/* cut between characters */
	while (start < length && start + EXCERPT_BEFORE < position)
		start += pg_encoding_mblen(GetDatabaseEncoding(), text + start);
	end = start;
	while (end < length && end < position + EXCERPT_BEHIND)
		end += pg_encoding_mblen(GetDatabaseEncoding(), text + end);
	start = Min(start, length);
	end = Min(end, length);

	initStringInfo(&excerpt);
	if (start > 0)
		appendStringInfoString(&excerpt, "...");
	appendBinaryStringInfo(&excerpt, text + start, end - start);
	if (end < length)
		appendStringInfoString(&excerpt, "...");
	for (char *p = excerpt.data; *p != '\0'; p++)
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			*p = ' ';
	return excerpt.data;
}

/*
 * Error context callback: appends the place to the error's detail.  It is a
 * detail and not context, because users and dead letters are shown that.
 */
static void
add_place_to_error(void *arg)
{
	Decoder *decoder = arg;
	const KafkaMessage *message = decoder->message;
	int category = ERRCODE_TO_CATEGORY(geterrcode());
	MemoryContext old_context;
	ErrorData *error;

	/* cancelled, out of memory, disk full: not about the message */
	if (category == ERRCODE_OPERATOR_INTERVENTION ||
	    category == ERRCODE_INSUFFICIENT_RESOURCES || category == ERRCODE_SYSTEM_ERROR)
		return;

	/* an escape of a character that the server's encoding has no way to have */
	if (geterrcode() == ERRCODE_FEATURE_NOT_SUPPORTED && GetDatabaseEncoding() != PG_UTF8)
		errcode(ERRCODE_UNTRANSLATABLE_CHARACTER);

	old_context = MemoryContextSwitchTo(decoder->caller_context);
	error = CopyErrorData();
	if (error->elevel >= ERROR)
	{
		StringInfoData detail;

		initStringInfo(&detail);
		if (error->detail != NULL)
			appendStringInfo(&detail, "%s\n", error->detail);
		appendStringInfo(&detail, "Topic \"%s\"", decoder->schema->topic);
		if (message->partition >= 0)
			appendStringInfo(&detail, ", partition %d", message->partition);
		if (message->offset >= 0)
			appendStringInfo(&detail, ", offset " INT64_FORMAT, message->offset);
		if (decoder->current_column != NULL)
			appendStringInfo(&detail, ", column \"%s\"", decoder->current_column->name);
		appendStringInfoChar(&detail, '.');
		errdetail_internal("%s", detail.data);

		/* for classify_decoding_error(): it is the value, not a function that a domain calls */
		if (decoder->current_column != NULL && error->column_name == NULL &&
		    (error->context == NULL || strstr(error->context, " function ") == NULL))
			err_generic_string(PG_DIAG_COLUMN_NAME, decoder->current_column->name);

		if (error->hint != NULL)
			;
		else if (decoder->current_column != NULL)
			errhint("Correct the producer, or the topic table's column \"%s\".",
			        decoder->current_column->name);
		else
			errhint("Correct the producer, or the options of the topic table.");
	}
	MemoryContextSwitchTo(old_context);
}

/* Begins and ends work on a message. */
static void
start_message(Decoder *decoder, const KafkaMessage *message, ErrorContextCallback *callback)
{
	decoder->message = message;
	decoder->current_column = NULL;
	decoder->caller_context = CurrentMemoryContext;
	value_memory_reserve(&decoder->workspace->memory, 0);
	callback->callback = add_place_to_error;
	callback->arg = decoder;
	callback->previous = error_context_stack;
	error_context_stack = callback;
}

static void
end_message(Decoder *decoder, ErrorContextCallback *callback)
{
	error_context_stack = callback->previous;
	decoder->message = NULL;
}

/* A tombstone; returns whether it makes a row, the value's columns being NULL. */
static bool
decode_null_value(Decoder *decoder)
{
	switch (decoder->schema->null_value)
	{
		case NULL_VALUE_SKIP:
			return false;
		case NULL_VALUE_ERROR:
			ereport(ERROR,
			        (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("message has no value"),
			         errhint("Set the topic table's option \"null_value\" to \"row\" or "
			                 "\"skip\" if the topic has tombstones.")));
			break;
		case NULL_VALUE_ROW:
			break;
	}
	for (int i = 0; i < decoder->field_count; i++)
	{
		decoder->current_column = decoder->fields[i].column;
		if (!decoder->current_column->has_key)
			value_check_null(decoder->fields[i].converter);
	}
	return true;
}

/* Formats text and bytea: the value as a whole. */
static void
decode_whole_value(Decoder *decoder, const char *text, size_t length, Datum *values,
                   bool *nulls)
{
	const DecodedColumn *column = decoder->fields;

	if (decoder->field_count == 0)
		return;
	decoder->current_column = column->column;
	if (decoder->schema->format == TOPIC_FORMAT_TEXT)
		values[column->attribute] = value_from_text(column->converter, text, length);
	else
		values[column->attribute] = value_from_bytes(column->converter, text, length);
	nulls[column->attribute] = false;
}

static void
decode_metadata_columns(Decoder *decoder, const KafkaMessage *message, Datum *values,
                        bool *nulls)
{
	for (int i = 0; i < decoder->metadata_count; i++)
	{
		const DecodedColumn *column = &decoder->metadata[i];

		decoder->current_column = column->column;
		values[column->attribute] =
		    decode_metadata(decoder, column, message, &nulls[column->attribute]);
	}
}

static bool
decode_row(Decoder *decoder, const KafkaMessage *message, Datum *values, bool *nulls,
           bool *missing)
{
	const TopicSchema *schema = decoder->schema;
	int column_count = schema->tuple_descriptor->natts;

	memset(nulls, true, sizeof(bool) * column_count);
	if (missing != NULL)
		memset(missing, false, sizeof(bool) * column_count);

	if (message->value == NULL)
	{
		if (!decode_null_value(decoder))
			return false;
	}
	/* who asks for metadata only can look at any message, whatever is in it */
	else if (decoder->field_count > 0 || schema->unknown_field == UNKNOWN_FIELD_ERROR)
	{
		const char *text = message->value;
		size_t length = message->value_length;

		if (schema->format != TOPIC_FORMAT_BYTEA)
			decode_verify_text(&text, &length);
		switch (schema->format)
		{
			case TOPIC_FORMAT_JSON:
				decode_json(decoder, text, length, values, nulls, missing);
				break;
			case TOPIC_FORMAT_CSV:
				decode_csv(decoder, text, length, values, nulls);
				break;
			case TOPIC_FORMAT_TEXT:
			case TOPIC_FORMAT_BYTEA:
				decode_whole_value(decoder, text, length, values, nulls);
				break;
		}
	}

	decode_key(decoder, message, values, nulls);
	decode_metadata_columns(decoder, message, values, nulls);
	return true;
}

bool
decode_message(Decoder *decoder, const KafkaMessage *message, Datum *values, bool *nulls,
               bool *missing)
{
	ErrorContextCallback callback;
	bool row;

	start_message(decoder, message, &callback);
	row = decode_row(decoder, message, values, nulls, missing);
	end_message(decoder, &callback);
	return row;
}

void
decode_tombstone(Decoder *decoder, const KafkaMessage *message, Datum *values, bool *nulls)
{
	int column_count = decoder->schema->tuple_descriptor->natts;
	ErrorContextCallback callback;

	Assert(message->value == NULL);
	memset(values, 0, sizeof(Datum) * column_count);
	memset(nulls, true, sizeof(bool) * column_count);

	start_message(decoder, message, &callback);
	if (message->key == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("tombstone has no key"),
		                errdetail("A message without a value says that its key is deleted, but "
		                          "this one has no key either."),
		                errhint("Correct the producer, or create the stream with on_tombstone "
		                        "=> 'ignore'.")));
	decode_key(decoder, message, values, nulls);
	decode_metadata_columns(decoder, message, values, nulls);
	end_message(decoder, &callback);
}
