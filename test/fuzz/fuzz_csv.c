/*
 * Format csv against a transcription of COPY's rules (CopyReadAttributesCSV).
 * The first bytes of an input choose delimiter, quote, escape and the null text.
 */
#include "postgres.h"

#include "decode_internal.h"
#include "runtime.h"

#define COLUMNS 4

typedef struct Field
{
	bool is_null;
	char *text;
	size_t length;
} Field;

static Field ours[COLUMNS];
static Decoder decoder;

/* --- called by decode_csv.c --- */

void
value_check_null(ValueConverter *converter)
{
	((Field *) converter)->is_null = true;
}

Datum
value_from_text(ValueConverter *converter, const char *text, size_t length)
{
	Field *field = (Field *) converter;

	FUZZ_CHECK(text[length] == '\0');
	field->is_null = false;
	field->text = pnstrdup(text, length);
	field->length = length;
	return (Datum) 0;
}

/* --- the reference --- */

typedef enum Outcome
{
	GOOD,
	BAD
} Outcome;

static Outcome
copy_rules(const TopicSchema *schema, const char *text, size_t length, Field *fields, int *count)
{
	const char *p = text;
	const char *end = text + length;

	/* one line end belongs to the record */
	*count = 0;
	for (;;)
	{
		char *out = palloc(length + 1);
		size_t written = 0;
		const char *start = p;
		bool quoted = false;
		bool in_quotes = false;
		bool delimited = false;
		const char *field_end;

		for (;;)
		{
			if (p == end)
				break;
			if (!in_quotes && *p == schema->csv_delimiter)
			{
				delimited = true;
				break;
			}
			if (!in_quotes && (*p == '\r' || *p == '\n'))
				break;
			if (!in_quotes && *p == schema->csv_quote)
			{
				quoted = in_quotes = true;
				p++;
				continue;
			}
			if (in_quotes && *p == schema->csv_escape && p + 1 < end &&
			    (p[1] == schema->csv_escape || p[1] == schema->csv_quote))
			{
				out[written++] = p[1];
				p += 2;
				continue;
			}
			if (in_quotes && *p == schema->csv_quote)
			{
				in_quotes = false;
				p++;
				continue;
			}
			out[written++] = *p++;
		}
		if (in_quotes)
			return BAD;
		field_end = p;
		out[written] = '\0';
		if (*count < COLUMNS)
		{
			fields[*count].is_null = !quoted && strlen(schema->csv_null) == (size_t) (field_end - start) &&
			                         memcmp(start, schema->csv_null, field_end - start) == 0;
			fields[*count].text = out;
			fields[*count].length = written;
		}
		(*count)++;
		if (delimited)
		{
			p++;
			continue;
		}
		if (p < end && *p == '\r' && p + 1 < end && p[1] == '\n')
			p += 2;
		else if (p < end)
			p++;
		return p == end ? GOOD : BAD;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static TopicColumn columns[COLUMNS];
	static DecodedColumn decoded[COLUMNS];
	static const char delimiters[] = ",;|\t";
	static const char quotes[] = "\"'";
	static const char escapes[] = "\"'\\";
	static const char *const nulls_texts[] = {"", "NULL", "\\N"};
	TopicSchema schema = {0};
	Datum values[COLUMNS];
	bool nulls[COLUMNS];
	Field expected[COLUMNS] = {0};
	int count;
	Outcome outcome;
	char *text;

	if (size < 1)
		return 0;
	schema.csv_delimiter = delimiters[data[0] & 3];
	schema.csv_quote = quotes[(data[0] >> 2) & 1];
	schema.csv_escape = escapes[((data[0] >> 3) & 3) % 3];
	schema.csv_null = (char *) nulls_texts[((data[0] >> 5) & 3) % 3];
	schema.columns = columns;
	schema.column_count = COLUMNS;
	data++;
	size--;
	/* the encoding has been verified: no NUL */
	if (memchr(data, '\0', size) != NULL)
		return 0;
	text = palloc(size);
	memcpy(text, data, size);

	memset(ours, 0, sizeof(ours));
	decoder.schema = &schema;
	decoder.fields = decoded;
	decoder.field_count = COLUMNS;
	for (int i = 0; i < COLUMNS; i++)
	{
		columns[i].name = "column";
		columns[i].source = COLUMN_FROM_FIELD;
		decoded[i].column = &columns[i];
		decoded[i].attribute = i;
		decoded[i].field = i;
		decoded[i].converter = (ValueConverter *) &ours[i];
	}
	outcome = copy_rules(&schema, text, size, expected, &count);

	if (sigsetjmp(fuzz_error_jump, 0) == 0)
	{
		decode_csv_prepare(&decoder);
		decode_csv(&decoder, text, size, values, nulls);
		FUZZ_CHECK(outcome == GOOD && count == COLUMNS);
		for (int i = 0; i < COLUMNS; i++)
		{
			FUZZ_CHECK(nulls[i] == expected[i].is_null && ours[i].is_null == expected[i].is_null);
			if (!nulls[i])
				FUZZ_CHECK(ours[i].length == expected[i].length &&
				           memcmp(ours[i].text, expected[i].text, ours[i].length) == 0);
		}
	}
	else
		FUZZ_CHECK(outcome == BAD || count != COLUMNS);
	fuzz_reset();
	return 0;
}
