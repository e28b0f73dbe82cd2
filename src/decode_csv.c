/*-------------------------------------------------------------------------
 *
 * decode_csv.c
 *	  Format csv: one record's fields into columns, by position.
 *
 * The rules are those of COPY ... (FORMAT csv); a message is one record, with or
 * without a line end.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "decode_internal.h"

typedef enum CsvFieldEnd
{
	CSV_FIELD_FOLLOWS,
	CSV_RECORD_END
} CsvFieldEnd;

typedef struct CsvField
{
	bool is_null;
	CsvFieldEnd end;
} CsvField;

void
decode_csv_prepare(Decoder *decoder)
{
	initStringInfo(&decoder->csv_text);
}

static bool
at_line_end(const char *position, const char *end)
{
	return position < end && (*position == '\n' || *position == '\r');
}

/* Passes one field and what ends it; its text is left in decoder->csv_text. */
static CsvField
read_field(Decoder *decoder, const char **position, const char *end)
{
	const TopicSchema *schema = decoder->schema;
	StringInfo text = &decoder->csv_text;
	const char *start = *position;
	const char *p = start;
	const char *field_end;
	bool in_quotes = false;
	bool quoted = false;
	CsvField field;

	resetStringInfo(text);
	for (; p < end; p++)
	{
		if (!in_quotes)
		{
			if (*p == schema->csv_delimiter || at_line_end(p, end))
				break;
			if (*p == schema->csv_quote)
				in_quotes = quoted = true;
			else
				appendStringInfoChar(text, *p);
		}
		else if (*p == schema->csv_escape && p + 1 < end &&
		         (p[1] == schema->csv_escape || p[1] == schema->csv_quote))
			appendStringInfoChar(text, *++p);
		else if (*p == schema->csv_quote)
			in_quotes = false;
		else
			appendStringInfoChar(text, *p);
	}
	if (in_quotes)
		ereport(ERROR, (errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
		                errmsg("unterminated CSV quoted field")));

	field_end = p;
	field.is_null = !quoted && field_end - start == strlen(schema->csv_null) &&
	                memcmp(start, schema->csv_null, field_end - start) == 0;
	field.end = CSV_RECORD_END;
	if (p < end && *p == schema->csv_delimiter)
	{
		field.end = CSV_FIELD_FOLLOWS;
		p++;
	}
	else if (p < end)
	{
		p += *p == '\r' && p + 1 < end && p[1] == '\n' ? 2 : 1;
		if (p < end)
			ereport(ERROR, (errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
			                errmsg("unquoted line end found in CSV record"),
			                errdetail("A message must be one record."),
			                errhint("Put fields with line ends in quotes.")));
	}
	*position = p;
	return field;
}

/* How many columns there are, and the name of one of them. */
static const TopicColumn *
column_at(const TopicSchema *schema, int number, int *count)
{
	const TopicColumn *result = NULL;

	*count = 0;
	for (int i = 0; i < schema->column_count; i++)
		if (schema->columns[i].source == COLUMN_FROM_FIELD)
		{
			if (*count == number)
				result = &schema->columns[i];
			(*count)++;
		}
	return result;
}

/* The record has another number of fields than the table has columns for them. */
static void
check_field_count(Decoder *decoder, int field_count)
{
	int column_count;
	const TopicColumn *missing = column_at(decoder->schema, field_count, &column_count);

	if (field_count == column_count)
		return;
	decoder->current_column = missing;
	ereport(ERROR, (errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
	                missing == NULL ? errmsg("extra data after last expected column")
	                                : errmsg("missing data for column \"%s\"", missing->name),
	                errdetail("Number of fields: %d; number of columns from the value: %d.",
	                          field_count, column_count)));
}

void
decode_csv(Decoder *decoder, const char *text, size_t length, Datum *values, bool *nulls)
{
	const char *position = text;
	const char *end = text + length;
	DecodedColumn *next_column = decoder->fields;
	DecodedColumn *columns_end = decoder->fields + decoder->field_count;
	CsvField field;
	int field_count = 0;

	do
	{
		field = read_field(decoder, &position, end);
		if (next_column < columns_end && next_column->field == field_count)
		{
			decoder->current_column = next_column->column;
			nulls[next_column->attribute] = field.is_null;
			if (field.is_null)
				value_check_null(next_column->converter);
			else
				values[next_column->attribute] =
				    value_from_text(next_column->converter, decoder->csv_text.data,
				                    decoder->csv_text.len);
			decoder->current_column = NULL;
			next_column++;
		}
		field_count++;
	} while (field.end == CSV_FIELD_FOLLOWS);
	check_field_count(decoder, field_count);
}
