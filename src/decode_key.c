/*-------------------------------------------------------------------------
 *
 * decode_key.c
 *	  Columns with the option "key": the message key, or a field of it, decoded
 *	  by the topic table's key_format.
 *
 * A column that also has a path takes its value from the message's value, and from
 * the key only where there is no value: in tombstones.  Raw keys (metadata
 * 'key') are in decode_metadata.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "decode_internal.h"

void
decode_key_prepare(Decoder *decoder)
{
	JsonField **fields;

	for (int i = 0; i < decoder->key_count && decoder->key_fields == NULL; i++)
		if (decoder->keys[i].column->key_path != NULL)
			decoder->key_fields = json_fields_create(decoder->workspace->put_code_point);
	if (decoder->key_fields == NULL)
		return;

	fields = palloc0(sizeof(JsonField *) * decoder->key_count);
	for (int i = 0; i < decoder->key_count; i++)
	{
		const TopicColumn *column = decoder->keys[i].column;

		if (column->key_path != NULL)
			fields[i] =
			    json_fields_add(decoder->key_fields, column->key_path, column->key_path_length);
	}
	json_fields_finish(decoder->key_fields);
	for (int i = 0; i < decoder->key_count; i++)
		if (fields[i] != NULL)
			decoder->keys[i].field = json_field_number(fields[i]);
	pfree(fields);
}

/* Passes the whole key, which becomes the fragment, and finds the wanted fields in it. */
static void
scan_json_key(Decoder *decoder, const char *text, size_t length, JsonFragment *whole)
{
	JsonScanner scanner;

	json_scan_start(&scanner, text, length);
	if (!json_scan_value(&scanner, whole) || !json_scan_finish(&scanner))
		decode_json_report_error(&scanner, text, length, true);
	if (decoder->key_fields == NULL)
		return;
	json_scan_start(&scanner, text, length);
	if (!json_fields_find(decoder->key_fields, &scanner))
		decode_json_report_error(&scanner, text, length, true);
}

/* Does this message have the column from its key? */
static bool
is_wanted(const DecodedColumn *column, bool tombstone)
{
	return tombstone || column->column->source == COLUMN_FROM_DECODED_KEY;
}

/* A column to name when the key as a whole is at fault. */
static const TopicColumn *
first_column(const Decoder *decoder, bool tombstone)
{
	const DecodedColumn *column = decoder->keys;

	while (!is_wanted(column, tombstone))
		column++;
	return column->column;
}

void
decode_key(Decoder *decoder, const KafkaMessage *message, Datum *values, bool *nulls)
{
	TopicKeyFormat format = decoder->schema->key_format;
	bool tombstone = message->value == NULL;
	const char *text = message->key;
	size_t length = message->key_length;
	JsonFragment whole = {.kind = JSON_KIND_MISSING};

	if (tombstone ? decoder->key_count == 0 : decoder->key_only_count == 0)
		return;
	if (text != NULL && format != KEY_FORMAT_BYTEA)
	{
		decoder->current_column = first_column(decoder, tombstone);
		decode_verify_text(&text, &length);
		decoder->current_column = NULL;
	}
	if (text != NULL && format == KEY_FORMAT_JSON)
		scan_json_key(decoder, text, length, &whole);

	for (int i = 0; i < decoder->key_count; i++)
	{
		const DecodedColumn *column = &decoder->keys[i];
		const JsonFragment *json;

		if (!is_wanted(column, tombstone))
			continue;
		decoder->current_column = column->column;
		if (text == NULL)
		{
			value_check_null(column->converter);
			continue;
		}
		nulls[column->attribute] = false;
		switch (format)
		{
			case KEY_FORMAT_TEXT:
				values[column->attribute] = value_from_text(column->converter, text, length);
				break;
			case KEY_FORMAT_BYTEA:
				values[column->attribute] = value_from_bytes(column->converter, text, length);
				break;
			case KEY_FORMAT_JSON:
				json = column->column->key_path == NULL
				           ? &whole
				           : &json_fields_fragments(decoder->key_fields)[column->field];
				values[column->attribute] =
				    value_from_json(column->converter, json, &nulls[column->attribute]);
				break;
		}
	}
}
