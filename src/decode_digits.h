/*-------------------------------------------------------------------------
 *
 * decode_digits.h
 *	  Decimal digits in a text, for the direct conversions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DECODE_DIGITS_H
#define DECODE_DIGITS_H

#include "postgres.h"

/* More digits than these may not fit into 64 bits. */
#define MAX_DIGITS 18

static const uint64 powers_of_ten[] = {
    UINT64CONST(1),     UINT64CONST(10),     UINT64CONST(100),     UINT64CONST(1000),
    UINT64CONST(10000), UINT64CONST(100000), UINT64CONST(1000000),
};

static inline bool
is_digit(char c)
{
	return (unsigned char) (c - '0') < 10;
}

/* Passes at most MAX_DIGITS digits; false when there is none, or more of them. */
static inline bool
read_digits(const char **position, const char *end, uint64 *value)
{
	const char *p = *position;
	const char *start = p;
	uint64 result = 0;

	while (p < end && is_digit(*p))
		result = result * 10 + (*p++ - '0');
	*position = p;
	*value = result;
	return p > start && p - start <= MAX_DIGITS;
}

#endif /* DECODE_DIGITS_H */
