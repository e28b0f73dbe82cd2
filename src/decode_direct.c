/*-------------------------------------------------------------------------
 *
 * decode_direct.c
 *	  Text to Datum without an input function, for the forms in which
 *	  producers usually write the common types.
 *
 * A form is recognised exactly, or left to the type's input function: no
 * result here may depend on a setting (DateStyle, TimeZone), and every one is what
 * the input function returns, to the bit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <float.h>

#include "catalog/pg_type.h"
#include "common/int.h"
#include "datatype/timestamp.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "decode_digits.h"
#include "decode_internal.h"

void
value_memory_reserve(ValueMemory *memory, size_t size)
{
	if (size > memory->size)
	{
		char *chunk = MemoryContextAlloc(memory->context, size);

		if (memory->chunk != NULL)
			pfree(memory->chunk);
		memory->chunk = chunk;
		memory->size = size;
	}
	memory->free = memory->chunk;
	memory->left = memory->size;
}

DirectType
direct_type(Oid type)
{
	switch (type)
	{
		case BOOLOID:
			return DIRECT_BOOL;
		case INT2OID:
			return DIRECT_INT2;
		case INT4OID:
			return DIRECT_INT4;
		case INT8OID:
			return DIRECT_INT8;
		case FLOAT8OID:
			return DIRECT_FLOAT8;
		case NUMERICOID:
			return DIRECT_NUMERIC;
		case TEXTOID:
		case VARCHAROID:
			return DIRECT_TEXT;
		case UUIDOID:
			return DIRECT_UUID;
		case DATEOID:
			return DIRECT_DATE;
		case TIMESTAMPOID:
			return DIRECT_TIMESTAMP;
		case TIMESTAMPTZOID:
			return DIRECT_TIMESTAMPTZ;
		default:
			return DIRECT_NONE;
	}
}

/* An optional minus sign and digits. */
static inline bool
integer_value(const char *text, size_t length, int64 lowest, int64 highest, int64 *value)
{
	const char *position = text;
	const char *end = text + length;
	bool negative = length > 0 && *text == '-';
	uint64 magnitude;

	if (negative)
		position++;
	if (!read_digits(&position, end, &magnitude) || position != end)
		return false;
	*value = negative ? -(int64) magnitude : (int64) magnitude;
	return *value >= lowest && *value <= highest;
}

static bool
bool_value(const char *text, size_t length, Datum *value)
{
	if (length == 4 && memcmp(text, "true", 4) == 0)
		*value = BoolGetDatum(true);
	else if (length == 5 && memcmp(text, "false", 5) == 0)
		*value = BoolGetDatum(false);
	else
		return false;
	return true;
}

/*
 * A decimal of up to 15 digits and a power of ten up to 10^22 are both exact
 * as a double, so that one division rounds once, correctly, as strtod() does.
 */
static pg_noinline bool
float8_value(const char *text, size_t length, Datum *value)
{
#if FLT_EVAL_METHOD == 0 && DBL_MANT_DIG == 53
	static const double exact_powers[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
	                                      1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
	const char *position = text;
	const char *end = text + length;
	bool negative = length > 0 && *text == '-';
	uint64 mantissa = 0;
	int digits = 0;
	int decimals = 0;
	double result;

	if (negative)
		position++;
	if (position == end || !is_digit(*position) || end - position > 17)
		return false;
	for (; position < end && is_digit(*position); position++, digits++)
		mantissa = mantissa * 10 + (*position - '0');
	if (position < end && *position == '.')
	{
		position++;
		if (position == end)
			return false;
		for (; position < end && is_digit(*position); position++, decimals++)
			mantissa = mantissa * 10 + (*position - '0');
	}
	if (position != end || digits + decimals > 15)
		return false;
	result = (double) mantissa / exact_powers[decimals];
	*value = Float8GetDatum(negative ? -result : result);
	return true;
#else
	return false;
#endif
}

static inline bool
text_value(int32 typmod, const char *text, size_t length, ValueMemory *memory, Datum *value)
{
	char *result;

	/* varchar(n) counts characters; as many bytes are never too many */
	if (typmod >= (int32) VARHDRSZ && length > typmod - VARHDRSZ)
		return false;
	result = value_memory_alloc(memory, VARHDRSZ + length);
	SET_VARSIZE(result, VARHDRSZ + length);
	memcpy(VARDATA(result), text, length);
	*value = PointerGetDatum(result);
	return true;
}

/* xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx */
static pg_noinline bool
uuid_value(const char *text, size_t length, ValueMemory *memory, Datum *value)
{
	pg_uuid_t uuid;
	pg_uuid_t *result;

	if (length != 2 * UUID_LEN + 4)
		return false;
	for (int i = 0; i < UUID_LEN; i++)
	{
		unsigned char byte = 0;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
			return false;
		for (int half = 0; half < 2; half++, text++)
		{
			if (is_digit(*text))
				byte = byte << 4 | (*text - '0');
			else if (*text >= 'a' && *text <= 'f')
				byte = byte << 4 | (*text - 'a' + 10);
			else if (*text >= 'A' && *text <= 'F')
				byte = byte << 4 | (*text - 'A' + 10);
			else
				return false;
		}
		uuid.data[i] = byte;
	}
	result = value_memory_alloc(memory, sizeof(uuid));
	*result = uuid;
	*value = UUIDPGetDatum(result);
	return true;
}

/*
 * Do eight bytes fit a pattern, in which 0 stands for any digit and all else
 * for itself?  "slack" is what may be added to each byte's difference from the pattern
 * before it reaches 0x80: SLACK_DIGIT for 0, SLACK_OTHER for the rest.
 */
#define SLACK_DIGIT "\x76"
#define SLACK_OTHER "\x7f"

static inline bool
fits_pattern(const char *text, const char *pattern, const char *slack)
{
	uint64 difference;
	uint64 expected;
	uint64 addend;

	memcpy(&difference, text, sizeof(difference));
	memcpy(&expected, pattern, sizeof(expected));
	memcpy(&addend, slack, sizeof(addend));
	difference ^= expected;
	return ((difference | (difference + addend)) & UINT64CONST(0x8080808080808080)) == 0;
}

/* Two bytes that are digits. */
static inline int
two_digits(const char *p)
{
	return (p[0] - '0') * 10 + (p[1] - '0');
}

/* Days from 0001-01-01 to 2000-01-01 */
#define DAYS_BEFORE_2000 730119

/* The ten bytes YYYY-MM-DD, of a day that exists, in days since 2000-01-01. */
static inline bool
read_date(const char *p, int *days)
{
	/* of the year before the month; the second set is for leap years */
	static const int16 days_before_month[2][12] = {
	    {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334},
	    {0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335}};
	int month;
	int day;
	int year;
	int years_before;
	bool leap;

	if (!fits_pattern(p, "0000-00-",
	                  SLACK_DIGIT SLACK_DIGIT SLACK_DIGIT SLACK_DIGIT SLACK_OTHER SLACK_DIGIT
	                      SLACK_DIGIT SLACK_OTHER) ||
	    !is_digit(p[8]) || !is_digit(p[9]))
		return false;
	year = two_digits(p) * 100 + two_digits(p + 2);
	month = two_digits(p + 5);
	day = two_digits(p + 8);
	if (year == 0 || month < 1 || month > 12)
		return false;
	years_before = year - 1;
	leap = isleap(year);
	if (day < 1 || day > day_tab[leap][month - 1])
		return false;
	*days = years_before * 365 + years_before / 4 - years_before / 100 + years_before / 400 +
	        days_before_month[leap][month - 1] + day - 1 - DAYS_BEFORE_2000;
	return true;
}

/*
 * YYYY-MM-DD, "T" or a space, hh:mm:ss, up to six decimals, and a zone: Z, +hh,
 * +hhmm or +hh:mm.  timestamptz needs a zone, timestamp ignores it.
 */
static pg_noinline bool
timestamp_value(bool with_time_zone, int32 typmod, const char *text, size_t length,
                Datum *value)
{
	const char *end = text + length;
	int days;
	int hour;
	int minute;
	int second;
	uint64 fraction = 0;
	int zone_seconds = 0;
	Timestamp result;

	if (length < 19 || !read_date(text, &days) || (text[10] != 'T' && text[10] != ' ') ||
	    !fits_pattern(text + 11, "00:00:00",
	                  SLACK_DIGIT SLACK_DIGIT SLACK_OTHER SLACK_DIGIT SLACK_DIGIT SLACK_OTHER
	                      SLACK_DIGIT SLACK_DIGIT))
		return false;
	hour = two_digits(text + 11);
	minute = two_digits(text + 14);
	second = two_digits(text + 17);
	if (hour > 23 || minute > 59 || second > 59)
		return false;
	text += 19;

	if (text < end && *text == '.')
	{
		const char *point = text++;

		if (!read_digits(&text, end, &fraction) || text - point > 7)
			return false;
		fraction *= powers_of_ten[7 - (text - point)];
		/* rounding is left to the input function */
		if (fraction != 0 && typmod >= 0 && typmod < MAX_TIMESTAMP_PRECISION)
			return false;
	}
	if (end - text == 1 && *text == 'Z')
		text++;
	else if (end - text >= 3 && (*text == '+' || *text == '-'))
	{
		bool west = *text == '-';
		int zone_hours;
		int zone_minutes = 0;

		if (!is_digit(text[1]) || !is_digit(text[2]))
			return false;
		zone_hours = two_digits(text + 1);

		text += 3;
		if (end - text == 3 && *text == ':')
			text++;
		if (end - text == 2 && is_digit(text[0]) && is_digit(text[1]))
		{
			zone_minutes = two_digits(text);
			text += 2;
		}
		if (zone_hours > 14 || zone_minutes > 59)
			return false;
		zone_seconds = (int) (zone_hours * SECS_PER_HOUR + zone_minutes * SECS_PER_MINUTE);
		if (west)
			zone_seconds = -zone_seconds;
	}
	else if (with_time_zone)
		return false;
	if (text != end)
		return false;

	result =
	    days * USECS_PER_DAY +
	    (int64) (hour * SECS_PER_HOUR + minute * SECS_PER_MINUTE + second) * USECS_PER_SEC +
	    (int64) fraction;
	if (with_time_zone)
		result -= zone_seconds * USECS_PER_SEC;
	*value = TimestampGetDatum(result);
	return true;
}

bool
direct_value(DirectType type, int32 typmod, const char *text, size_t length,
             ValueMemory *memory, Datum *value)
{
	int64 integer;
	int days;

	switch (type)
	{
		case DIRECT_NONE:
			return false;
		case DIRECT_BOOL:
			return bool_value(text, length, value);
		case DIRECT_INT2:
			if (!integer_value(text, length, PG_INT16_MIN, PG_INT16_MAX, &integer))
				return false;
			*value = Int16GetDatum((int16) integer);
			return true;
		case DIRECT_INT4:
			if (!integer_value(text, length, PG_INT32_MIN, PG_INT32_MAX, &integer))
				return false;
			*value = Int32GetDatum((int32) integer);
			return true;
		case DIRECT_INT8:
			if (!integer_value(text, length, PG_INT64_MIN, PG_INT64_MAX, &integer))
				return false;
			*value = Int64GetDatum(integer);
			return true;
		case DIRECT_FLOAT8:
			return float8_value(text, length, value);
		case DIRECT_NUMERIC:
			return direct_numeric_value(typmod, text, length, memory, value);
		case DIRECT_TEXT:
			return text_value(typmod, text, length, memory, value);
		case DIRECT_UUID:
			return uuid_value(text, length, memory, value);
		case DIRECT_DATE:
			if (length != 10 || !read_date(text, &days))
				return false;
			*value = DateADTGetDatum(days);
			return true;
		case DIRECT_TIMESTAMP:
			return timestamp_value(false, typmod, text, length, value);
		case DIRECT_TIMESTAMPTZ:
			return timestamp_value(true, typmod, text, length, value);
	}
	return false;
}
