/*-------------------------------------------------------------------------
 *
 * decode_numeric.c
 *	  Text to numeric without its input function, for plain decimals.
 *
 * Builds what numeric_in() returns, to the bit; all other forms are left to it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "decode_digits.h"
#include "decode_internal.h"

/*
 * numeric on disk: a header with sign, scale and weight, then digits of base
 * 10000, without leading or trailing zeros.  The short header, which is
 * always the one used for numbers as small as these, as in numeric.c.
 */
#define NUMERIC_SHORT_HEADER        0x8000
#define NUMERIC_SHORT_NEGATIVE      0x2000
#define NUMERIC_SHORT_SCALE_SHIFT   7
#define NUMERIC_SHORT_MAX_SCALE     63
#define NUMERIC_SHORT_WEIGHT_SIGNED 0x0040
#define NUMERIC_SHORT_WEIGHT_MASK   0x003f
#define NUMERIC_BASE                10000
#define NUMERIC_BASE_DIGITS         4

/* Scale and precision that a typmod of numeric stands for. */
static inline int
numeric_typmod_scale(int32 typmod)
{
	return (((typmod - VARHDRSZ) & 0x7ff) ^ 1024) - 1024;
}

static inline int
numeric_typmod_precision(int32 typmod)
{
	return ((typmod - VARHDRSZ) >> 16) & 0xffff;
}

bool
direct_numeric_value(int32 typmod, const char *text, size_t length, ValueMemory *memory,
                     Datum *value)
{
	const char *position = text;
	const char *end = text + length;
	bool negative = length > 0 && *text == '-';
	uint64 integer;
	uint64 fraction = 0;
	int decimals = 0;
	int scale;
	int16 digits[2 * (MAX_DIGITS / NUMERIC_BASE_DIGITS + 1)];
	int first = lengthof(digits) / 2; /* first digit behind the decimal point */
	int last = first;                 /* one behind the last digit */
	int weight = -1;
	uint16 header;
	char *result;
	size_t size;

	if (negative)
		position++;
	if (!read_digits(&position, end, &integer))
		return false;
	if (position < end && *position == '.')
	{
		const char *point = position++;

		if (!read_digits(&position, end, &fraction))
			return false;
		decimals = position - point - 1;
	}
	if (position != end)
		return false;

	scale = decimals;
	if (typmod >= (int32) VARHDRSZ)
	{
		int whole_digits;

		scale = numeric_typmod_scale(typmod);
		whole_digits = numeric_typmod_precision(typmod) - scale;
		if (scale < decimals || scale > NUMERIC_SHORT_MAX_SCALE || whole_digits < 0)
			return false;
		/* too many digits: let numeric_in say so */
		for (uint64 rest = integer; rest > 0; rest /= 10)
			if (whole_digits-- == 0)
				return false;
	}

	/* digits before the point, from the last one, then those behind it */
	for (uint64 rest = integer; rest > 0; rest /= NUMERIC_BASE)
	{
		digits[--first] = rest % NUMERIC_BASE;
		weight++;
	}
	if (decimals > 0)
	{
		int groups = (decimals + NUMERIC_BASE_DIGITS - 1) / NUMERIC_BASE_DIGITS;
		int padding = groups * NUMERIC_BASE_DIGITS - decimals;

		/* the last group is filled up with zeros; only its part is multiplied */
		for (int i = groups - 1; i >= 0; i--)
		{
			if (i == groups - 1)
			{
				uint64 unit = powers_of_ten[NUMERIC_BASE_DIGITS - padding];

				digits[last + i] = fraction % unit * powers_of_ten[padding];
				fraction /= unit;
			}
			else
			{
				digits[last + i] = fraction % NUMERIC_BASE;
				fraction /= NUMERIC_BASE;
			}
		}
		last += groups;
	}
	while (first < last && digits[first] == 0)
	{
		first++;
		weight--;
	}
	while (first < last && digits[last - 1] == 0)
		last--;
	if (first == last)
	{
		weight = 0;
		negative = false;
	}

	header = NUMERIC_SHORT_HEADER | (negative ? NUMERIC_SHORT_NEGATIVE : 0) |
	         scale << NUMERIC_SHORT_SCALE_SHIFT |
	         (weight < 0 ? NUMERIC_SHORT_WEIGHT_SIGNED : 0) |
	         (weight & NUMERIC_SHORT_WEIGHT_MASK);
	size = VARHDRSZ + sizeof(header) + (last - first) * sizeof(int16);
	result = value_memory_alloc(memory, size);
	SET_VARSIZE(result, size);
	memcpy(VARDATA(result), &header, sizeof(header));
	memcpy(VARDATA(result) + sizeof(header), &digits[first], (last - first) * sizeof(int16));
	*value = PointerGetDatum(result);
	return true;
}
