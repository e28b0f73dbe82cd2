/*-------------------------------------------------------------------------
 *
 * decode_json.c
 *	  Format json: an object's fields into columns.
 *
 * One pass finds the wanted fields (json_fields.c); then, when the whole text is known
 * to be valid, each is converted (decode_value.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "decode_internal.h"

void
decode_json_prepare(Decoder *decoder)
{
	const TopicSchema *schema = decoder->schema;
	JsonField **fields = palloc(sizeof(JsonField *) * (decoder->field_count + 1));

	decoder->json_fields = json_fields_create(decoder->workspace->put_code_point);
	for (int i = 0; i < decoder->field_count; i++)
	{
		const TopicColumn *column = decoder->fields[i].column;

		fields[i] = json_fields_add(decoder->json_fields, column->path, column->path_length);
	}
	for (int i = 0; i < schema->column_count; i++)
		if (schema->columns[i].source == COLUMN_FROM_FIELD)
			json_fields_add_known(decoder->json_fields, schema->columns[i].path[0]);
	json_fields_finish(decoder->json_fields);
	for (int i = 0; i < decoder->field_count; i++)
		decoder->fields[i].field = json_field_number(fields[i]);
	pfree(fields);
}

/* What is wrong, for the error's detail. */
static const char *
describe_error(JsonScanError error)
{
	switch (error)
	{
		case JSON_SCAN_UNEXPECTED_END:
			return "The text ends too early";
		case JSON_SCAN_BYTE_ORDER_MARK:
			return "Found a byte order mark";
		case JSON_SCAN_NOT_AN_OBJECT:
			return "Expected an object";
		case JSON_SCAN_EXPECTED_VALUE:
			return "Expected a JSON value";
		case JSON_SCAN_EXPECTED_KEY:
			return "Expected a key in double quotes";
		case JSON_SCAN_EXPECTED_COLON:
			return "Expected \":\"";
		case JSON_SCAN_EXPECTED_COMMA_OR_BRACE:
			return "Expected \",\" or \"}\"";
		case JSON_SCAN_EXPECTED_COMMA_OR_BRACKET:
			return "Expected \",\" or \"]\"";
		case JSON_SCAN_EXPECTED_END:
			return "Expected the end of the text";
		case JSON_SCAN_INVALID_NUMBER:
			return "Found an invalid number";
		case JSON_SCAN_INVALID_WORD:
			return "Expected true, false or null";
		case JSON_SCAN_CONTROL_CHARACTER:
			return "A control character in a string must be escaped";
		case JSON_SCAN_INVALID_ESCAPE:
			return "Found an invalid escape sequence";
		case JSON_SCAN_INVALID_UNICODE_ESCAPE:
			return "\"\\u\" must be followed by four hexadecimal digits";
		case JSON_SCAN_TOO_DEEP:
		case JSON_SCAN_OK:
		case JSON_SCAN_NUL_CHARACTER:
		case JSON_SCAN_LONE_SURROGATE:
			break;
	}
	elog(ERROR, "unexpected JSON error %d", (int) error);
	return NULL;
}

void
decode_json_report_error(const JsonScanner *scanner, const char *text, size_t length,
                         bool is_key)
{
	size_t position = scanner->error_position - text;

	if (scanner->error == JSON_SCAN_TOO_DEEP)
		ereport(ERROR,
		        (errcode(ERRCODE_STATEMENT_TOO_COMPLEX), errmsg("JSON is nested too deeply"),
		         errdetail("At byte %zu there are more than %d arrays and objects around it.",
		                   position + 1, JSON_MAX_DEPTH)));
	if (length == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
		                errmsg("invalid input syntax for type %s", "json"),
		                is_key ? errdetail("The message key is empty.")
		                       : errdetail("The value is empty.")));
	ereport(ERROR,
	        (errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
	         errmsg("invalid input syntax for type %s", "json"),
	         errdetail("%s at byte %zu of %zu%s: %s", describe_error(scanner->error),
	                   Min(position + 1, length), length, is_key ? " of the message key" : "",
	                   decode_excerpt(text, length, position))));
}

void
decode_json(Decoder *decoder, const char *text, size_t length, Datum *values, bool *nulls,
            bool *missing)
{
	const JsonFragment *fragments;
	const JsonFragment *unknown;
	ValueMemory *memory = &decoder->workspace->memory;
	JsonScanner scanner;

	json_scan_start(&scanner, text, length);
	if (!json_fields_find(decoder->json_fields, &scanner) || !json_scan_finish(&scanner))
		decode_json_report_error(&scanner, text, length, false);

	unknown = json_fields_unknown(decoder->json_fields);
	if (unknown != NULL && decoder->schema->unknown_field == UNKNOWN_FIELD_ERROR)
		ereport(ERROR,
		        (errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
		         errmsg("unknown field %s", decode_excerpt(unknown->text, unknown->length, 0)),
		         errhint("Add a column for it to the topic table, or set its option "
		                 "\"unknown_field\" to \"ignore\".")));

	fragments = json_fields_fragments(decoder->json_fields);
	/* a field that two columns take counts twice */
	value_memory_reserve(memory, DIRECT_VALUES_SIZE(length, decoder->field_count));
	for (int i = 0; i < decoder->field_count; i++)
	{
		const DecodedColumn *column = &decoder->fields[i];
		const JsonFragment *json = &fragments[column->field];
		bool is_string = json->kind == JSON_KIND_STRING;

		if (column->defaulted && json->kind == JSON_KIND_MISSING)
		{
			missing[column->attribute] = true;
			continue;
		}
		decoder->current_column = column->column;
		/* most values; the rest, and all that is an error, the long way */
		if (json->kind > JSON_KIND_NULL && !json->escaped &&
		    direct_value(column->direct, column->column->typmod, json->text + is_string,
		                 json->length - 2 * is_string, memory, &values[column->attribute]))
			nulls[column->attribute] = false;
		else
			values[column->attribute] =
			    value_from_json(column->converter, json, &nulls[column->attribute]);
	}
}
