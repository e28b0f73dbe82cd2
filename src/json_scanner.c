/*-------------------------------------------------------------------------
 *
 * json_scanner.c
 *	  Validate JSON text (RFC 8259) in one pass and say where its values are.
 *
 * See json_scanner.h.  Strings are searched 16 or 8 bytes at a time, and
 * values that are only passed over are walked without recursion.
 *
 *-------------------------------------------------------------------------
 */
#include "json_scanner.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

bool
json_scan_fail(JsonScanner *scanner, JsonScanError error, const char *position)
{
	scanner->error = error;
	scanner->error_position = position;
	return false;
}

void
json_scan_start(JsonScanner *scanner, const char *text, size_t length)
{
	scanner->position = text;
	scanner->end = text + length;
	scanner->depth = 0;
	scanner->error = JSON_SCAN_OK;
	scanner->error_position = NULL;
}

/* The error for a byte that can't be there, or for the end of the text. */
static bool
fail_here(JsonScanner *scanner, JsonScanError error)
{
	return json_scan_fail(scanner,
	                      scanner->position == scanner->end ? JSON_SCAN_UNEXPECTED_END : error,
	                      scanner->position);
}

/* First quote, backslash or control character at or behind position, or end. */
static inline const char *
find_end_of_plain_text(const char *position, const char *end)
{
#ifdef __SSE2__
	const __m128i quote = _mm_set1_epi8('"');
	const __m128i backslash = _mm_set1_epi8('\\');
	const __m128i last_control = _mm_set1_epi8(0x1f);

	while (end - position >= 16)
	{
		__m128i bytes = _mm_loadu_si128((const __m128i *) position);
		__m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, last_control), bytes);
		__m128i special = _mm_or_si128(control, _mm_or_si128(_mm_cmpeq_epi8(bytes, quote),
		                                                     _mm_cmpeq_epi8(bytes, backslash)));
		int mask = _mm_movemask_epi8(special);

		if (mask != 0)
			return position + __builtin_ctz(mask);
		position += 16;
	}
#endif
	/*
	 * Eight bytes in a register: (x - n) & ~x has the high bit of each byte
	 * set that is less than n; a borrow may set it in bytes above such a byte
	 * too, so that a hit only ends this loop and the bytes are looked at singly.
	 */
	while (end - position >= 8)
	{
		const uint64_t ones = UINT64_C(0x0101010101010101);
		const uint64_t high_bits = UINT64_C(0x8080808080808080);
		uint64_t bytes;
		uint64_t quotes;
		uint64_t backslashes;

		memcpy(&bytes, position, sizeof(bytes));
		quotes = bytes ^ (ones * '"');
		backslashes = bytes ^ (ones * '\\');
		if (((((bytes - ones * 0x20) & ~bytes) | ((quotes - ones) & ~quotes) |
		      ((backslashes - ones) & ~backslashes)) &
		     high_bits) != 0)
			break;
		position += 8;
	}
	while (position < end && *position != '"' && *position != '\\' &&
	       (unsigned char) *position >= 0x20)
		position++;
	return position;
}

/* Passes a string; position is at its opening quote. */
static bool
scan_string(JsonScanner *scanner, JsonFragment *value)
{
	const char *end = scanner->end;
	const char *position = scanner->position + 1;

	value->text = scanner->position;
	value->kind = JSON_KIND_STRING;
	value->escaped = false;
	for (;;)
	{
		position = find_end_of_plain_text(position, end);
		if (position == end)
			return json_scan_fail(scanner, JSON_SCAN_UNEXPECTED_END, position);
		if (*position == '"')
			break;
		if (*position != '\\')
			return json_scan_fail(scanner, JSON_SCAN_CONTROL_CHARACTER, position);

		value->escaped = true;
		position++;
		if (position == end)
			return json_scan_fail(scanner, JSON_SCAN_UNEXPECTED_END, position);
		switch (*position)
		{
			case '"':
			case '\\':
			case '/':
			case 'b':
			case 'f':
			case 'n':
			case 'r':
			case 't':
				position++;
				break;
			case 'u':
				position++;
				for (int i = 0; i < 4; i++, position++)
				{
					if (position == end)
						return json_scan_fail(scanner, JSON_SCAN_UNEXPECTED_END, position);
					if (json_hexadecimal_digit(*position) < 0)
						return json_scan_fail(scanner, JSON_SCAN_INVALID_UNICODE_ESCAPE,
						                      position);
				}
				break;
			default:
				return json_scan_fail(scanner, JSON_SCAN_INVALID_ESCAPE, position);
		}
	}
	position++;
	scanner->position = position;
	value->length = position - value->text;
	return true;
}

/* Passes digits, of which there must be one; *position may be at the end. */
static inline bool
scan_digits(const char **position, const char *end)
{
	const char *start = *position;
	const char *p = start;

	while (p < end && JSON_IS_DIGIT(*p))
		p++;
	*position = p;
	return p > start;
}

/* Passes a number; position is at its first byte. */
static bool
scan_number(JsonScanner *scanner, JsonFragment *value)
{
	const char *end = scanner->end;
	const char *position = scanner->position;
	bool valid;

	value->text = position;
	value->kind = JSON_KIND_NUMBER;
	value->escaped = false;

	if (*position == '-')
		position++;
	if (position < end && *position == '0')
	{
		position++;
		valid = !(position < end && JSON_IS_DIGIT(*position)); /* no leading zeros */
	}
	else
		valid = scan_digits(&position, end);
	if (valid && position < end && *position == '.')
	{
		position++;
		valid = scan_digits(&position, end);
	}
	if (valid && position < end && (*position == 'e' || *position == 'E'))
	{
		position++;
		if (position < end && (*position == '+' || *position == '-'))
			position++;
		valid = scan_digits(&position, end);
	}
	scanner->position = position;
	if (!valid)
		return fail_here(scanner, JSON_SCAN_INVALID_NUMBER);
	value->length = position - value->text;
	return true;
}

/* Passes true, false or null; position is at its first byte. */
static bool
scan_word(JsonScanner *scanner, JsonFragment *value, const char *word, size_t length,
          JsonKind kind)
{
	size_t left = scanner->end - scanner->position;

	if (left < length || memcmp(scanner->position, word, length) != 0)
		return json_scan_fail(scanner, JSON_SCAN_INVALID_WORD, scanner->position);
	value->text = scanner->position;
	value->length = length;
	value->kind = kind;
	value->escaped = false;
	scanner->position += length;
	return true;
}

/* Passes a value that is neither array nor object. */
static inline bool
scan_scalar(JsonScanner *scanner, JsonFragment *value)
{
	if (scanner->position == scanner->end)
		return json_scan_fail(scanner, JSON_SCAN_UNEXPECTED_END, scanner->position);
	switch (*scanner->position)
	{
		case '"':
			return scan_string(scanner, value);
		case '-':
		case '0':
		case '1':
		case '2':
		case '3':
		case '4':
		case '5':
		case '6':
		case '7':
		case '8':
		case '9':
			return scan_number(scanner, value);
		case 't':
			return scan_word(scanner, value, "true", 4, JSON_KIND_TRUE);
		case 'f':
			return scan_word(scanner, value, "false", 5, JSON_KIND_FALSE);
		case 'n':
			return scan_word(scanner, value, "null", 4, JSON_KIND_NULL);
		default:
			return json_scan_fail(scanner, JSON_SCAN_EXPECTED_VALUE, scanner->position);
	}
}

static inline bool
at_container(const JsonScanner *scanner)
{
	return scanner->position < scanner->end &&
	       (*scanner->position == '{' || *scanner->position == '[');
}

/*
 * Passes an array or object with all that is in it.  Which brackets are
 * open is kept as one bit per level: set for an object.
 */
static bool
scan_container(JsonScanner *scanner)
{
	unsigned char objects[(JSON_MAX_DEPTH + 7) / 8];
	int outer_depth = scanner->depth;
	bool in_object = false;
	JsonFragment ignored;

	for (;;)
	{
		/* A value starts at position. */
		if (at_container(scanner))
		{
			int level = scanner->depth - outer_depth;
			bool empty;

			in_object = *scanner->position == '{';
			if (!json_scan_enter(scanner, &empty))
				return false;
			if (!empty)
			{
				if (level % 8 == 0)
					objects[level / 8] = 0;
				objects[level / 8] &= ~(1 << (level % 8));
				objects[level / 8] |= in_object << (level % 8);
				if (in_object && !json_scan_key(scanner, &ignored))
					return false;
				json_skip_white_space(scanner);
				continue;
			}
		}
		else if (!scan_scalar(scanner, &ignored))
			return false;

		/* It has ended: close what ends with it. */
		for (;;)
		{
			int level = scanner->depth - outer_depth;
			bool done;

			if (level == 0)
				return true;
			in_object = objects[(level - 1) / 8] & (1 << ((level - 1) % 8));
			if (!json_scan_next(scanner, in_object, &done))
				return false;
			if (!done)
				break;
		}
		if (in_object && !json_scan_key(scanner, &ignored))
			return false;
		json_skip_white_space(scanner);
	}
}

bool
json_scan_value(JsonScanner *scanner, JsonFragment *value)
{
	json_skip_white_space(scanner);
	/* what most values are */
	if (scanner->position < scanner->end && *scanner->position == '"')
		return scan_string(scanner, value);
	if (!at_container(scanner))
		return scan_scalar(scanner, value);

	value->text = scanner->position;
	value->kind = *scanner->position == '{' ? JSON_KIND_OBJECT : JSON_KIND_ARRAY;
	value->escaped = false;
	if (!scan_container(scanner))
		return false;
	value->length = scanner->position - value->text;
	return true;
}

bool
json_scan_key(JsonScanner *scanner, JsonFragment *key)
{
	json_skip_white_space(scanner);
	if (scanner->position == scanner->end || *scanner->position != '"')
		return fail_here(scanner, JSON_SCAN_EXPECTED_KEY);
	if (!scan_string(scanner, key))
		return false;
	json_skip_white_space(scanner);
	if (scanner->position == scanner->end || *scanner->position != ':')
		return fail_here(scanner, JSON_SCAN_EXPECTED_COLON);
	scanner->position++;
	return true;
}

bool
json_scan_enter(JsonScanner *scanner, bool *empty)
{
	char closing = *scanner->position == '{' ? '}' : ']';

	if (scanner->depth >= JSON_MAX_DEPTH)
		return json_scan_fail(scanner, JSON_SCAN_TOO_DEEP, scanner->position);
	scanner->position++;
	json_skip_white_space(scanner);
	*empty = scanner->position < scanner->end && *scanner->position == closing;
	if (*empty)
		scanner->position++;
	else
		scanner->depth++;
	return true;
}

bool
json_scan_next_other(JsonScanner *scanner, bool in_object, bool *done)
{
	json_skip_white_space(scanner);
	*done = false;
	if (scanner->position < scanner->end)
	{
		if (*scanner->position == ',')
		{
			scanner->position++;
			return true;
		}
		if (*scanner->position == (in_object ? '}' : ']'))
		{
			scanner->position++;
			scanner->depth--;
			*done = true;
			return true;
		}
	}
	return fail_here(scanner, in_object ? JSON_SCAN_EXPECTED_COMMA_OR_BRACE
	                                    : JSON_SCAN_EXPECTED_COMMA_OR_BRACKET);
}

bool
json_scan_finish(JsonScanner *scanner)
{
	json_skip_white_space(scanner);
	if (scanner->position < scanner->end)
		return json_scan_fail(scanner, JSON_SCAN_EXPECTED_END, scanner->position);
	return true;
}
