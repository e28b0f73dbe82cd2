/*
 * Direct conversions of texts into values: none reads or writes past an end, and
 * what they give is what the text says, by another way of reading it.
 * (test_decode_properties.py compares with the types' input functions.)
 */
#include "postgres.h"

#include <errno.h>
#include <math.h>
#include <time.h>

#include "datatype/timestamp.h"
#include "utils/date.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "decode_internal.h"
#include "runtime.h"

static const int32 typmods[] = {-1, 0, 2, 6, VARHDRSZ + 5, VARHDRSZ + (12 << 16 | 4), VARHDRSZ + (8 << 16), VARHDRSZ + (5 << 16 | 5)};

/* A numeric's digits, as PostgreSQL writes them. */
static char *
numeric_text(const char *numeric)
{
	uint16 header;
	int16 digit;
	int count = (VARSIZE(numeric) - VARHDRSZ - sizeof(header)) / sizeof(int16);
	int weight;
	int scale;
	StringInfoData whole;
	StringInfoData fraction;
	StringInfoData result;

	memcpy(&header, VARDATA(numeric), sizeof(header));
	scale = (header >> 7) & 0x3f;
	weight = (header & 0x40) ? (int) (header & 0x3f) - 64 : (int) (header & 0x3f);
	initStringInfo(&whole);
	initStringInfo(&fraction);
	initStringInfo(&result);
	for (int position = weight; position >= 0; position--)
	{
		int i = weight - position;

		digit = 0;
		if (i < count)
			memcpy(&digit, VARDATA(numeric) + sizeof(header) + i * sizeof(int16), sizeof(digit));
		appendStringInfo(&whole, "%04d", digit);
	}
	for (int position = -1; fraction.len < scale; position--)
	{
		int i = weight - position;

		digit = 0;
		if (i >= 0 && i < count)
			memcpy(&digit, VARDATA(numeric) + sizeof(header) + i * sizeof(int16), sizeof(digit));
		appendStringInfo(&fraction, "%04d", digit);
	}
	for (int i = weight + 1; i < 0; i++)
		; /* leading zeros of the fraction are in the loop above */
	fraction.data[scale] = '\0';
	if (header & 0x2000)
		appendStringInfoChar(&result, '-');
	appendStringInfoString(&result, whole.data + Min(strspn(whole.data, "0"), (size_t) whole.len));
	if (scale > 0)
		appendStringInfo(&result, ".%s", fraction.data);
	return result.data;
}

/* "-00.50" of scale 4 as "-.5000", and no minus before zero: the same form as above */
static char *
normal_decimal(const char *text, int scale)
{
	bool negative = *text == '-';
	const char *point;
	StringInfoData result;

	initStringInfo(&result);
	text += negative;
	if (strpbrk(text, "123456789") == NULL)
		negative = false;
	if (negative)
		appendStringInfoChar(&result, '-');
	text += strspn(text, "0");
	point = strchr(text, '.');
	appendBinaryStringInfo(&result, text, point ? point - text : (int) strlen(text));
	if (scale > 0)
	{
		int digits = point ? (int) strlen(point + 1) : 0;

		appendStringInfo(&result, ".%s", point ? point + 1 : "");
		for (; digits < scale; digits++)
			appendStringInfoChar(&result, '0');
	}
	return result.data;
}

static void
check_integer(const char *text, int64 value)
{
	char *end;

	errno = 0;
	FUZZ_CHECK(strtoll(text, &end, 10) == value && *end == '\0' && errno == 0);
}

/* Microseconds since 2000 by the C library's calendar. */
static int64
library_timestamp(const char *text, bool with_time_zone)
{
	struct tm tm = {0};
	char fraction[8] = "000000";
	int consumed = 0;
	int64 result;

	FUZZ_CHECK(sscanf(text, "%4d-%2d-%2d%*c%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
	                  &tm.tm_min, &tm.tm_sec, &consumed) == 6);
	tm.tm_year -= 1900;
	tm.tm_mon--;
	text += consumed;
	if (*text == '.')
	{
		size_t digits = strspn(++text, "0123456789");

		FUZZ_CHECK(digits >= 1 && digits <= 6);
		memcpy(fraction, text, digits);
		text += digits;
	}
	result = ((int64) timegm(&tm) - 946684800) * 1000000 + atoi(fraction);
	if (with_time_zone && *text != 'Z')
	{
		int hours = 0;
		int minutes = 0;

		FUZZ_CHECK(sscanf(text + 1, strchr(text, ':') ? "%2d:%2d" : "%2d%2d", &hours, &minutes) >= 1);
		result -= (*text == '-' ? -1 : 1) * (hours * 60 + minutes) * INT64CONST(60000000);
	}
	return result;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	DirectType type;
	int32 typmod;
	ValueMemory memory = {0};
	Datum value = (Datum) 0;
	char *text;
	char *exact;
	size_t length;

	if (size < 1)
		return 0;
	type = data[0] % (DIRECT_TIMESTAMPTZ + 1);
	typmod = typmods[(data[0] / (DIRECT_TIMESTAMPTZ + 1)) % lengthof(typmods)];
	length = size - 1;
	if (memchr(data + 1, '\0', length) != NULL)
		return 0;
	exact = palloc(length);
	memcpy(exact, data + 1, length);
	text = pnstrdup((const char *) data + 1, length);

	value_memory_reserve(&memory, DIRECT_VALUES_SIZE(length, 1));
	if (direct_value(type, typmod, exact, length, &memory, &value))
	{
		switch (type)
		{
			case DIRECT_NONE:
				abort();
			case DIRECT_BOOL:
				FUZZ_CHECK(strcmp(text, DatumGetBool(value) ? "true" : "false") == 0);
				break;
			case DIRECT_INT2:
				check_integer(text, DatumGetInt16(value));
				break;
			case DIRECT_INT4:
				check_integer(text, DatumGetInt32(value));
				break;
			case DIRECT_INT8:
				check_integer(text, DatumGetInt64(value));
				break;
			case DIRECT_FLOAT8:
			{
				char *end;
				double expected = strtod(text, &end);
				double found = DatumGetFloat8(value);

				FUZZ_CHECK(*end == '\0' && memcmp(&expected, &found, sizeof(double)) == 0);
				break;
			}
			case DIRECT_NUMERIC:
			{
				const char *numeric = DatumGetPointer(value);
				uint16 header;

				memcpy(&header, VARDATA(numeric), sizeof(header));
				FUZZ_CHECK(strcmp(numeric_text(numeric), normal_decimal(text, (header >> 7) & 0x3f)) == 0);
				break;
			}
			case DIRECT_TEXT:
				FUZZ_CHECK(VARSIZE(DatumGetPointer(value)) == VARHDRSZ + length);
				FUZZ_CHECK(memcmp(VARDATA(DatumGetPointer(value)), text, length) == 0);
				break;
			case DIRECT_UUID:
				for (int i = 0, at = 0; i < UUID_LEN; i++, at += 2)
				{
					unsigned int byte;

					at += text[at] == '-';
					FUZZ_CHECK(sscanf(text + at, "%2x", &byte) == 1 && DatumGetUUIDP(value)->data[i] == byte);
				}
				break;
			case DIRECT_DATE:
				FUZZ_CHECK(DatumGetDateADT(value) * INT64CONST(86400000000) ==
				           library_timestamp(psprintf("%s 00:00:00Z", text), true));
				break;
			case DIRECT_TIMESTAMP:
				FUZZ_CHECK(DatumGetTimestamp(value) == library_timestamp(text, false));
				break;
			case DIRECT_TIMESTAMPTZ:
				FUZZ_CHECK(DatumGetTimestampTz(value) == library_timestamp(text, true));
				break;
		}
	}
	fuzz_reset();
	return 0;
}
