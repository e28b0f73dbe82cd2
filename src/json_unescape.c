/*-------------------------------------------------------------------------
 *
 * json_unescape.c
 *	  What a string of JSON stands for: its escapes, resolved.
 *
 * The scanner has found each escape well-formed; what is left to find wrong is what they stand for.
 *
 *-------------------------------------------------------------------------
 */
#include "json_scanner.h"

#include <string.h>

static size_t
put_utf8(uint32_t code_point, char *out)
{
	if (code_point < 0x80)
	{
		out[0] = code_point;
		return 1;
	}
	if (code_point < 0x800)
	{
		out[0] = 0xc0 | (code_point >> 6);
		out[1] = 0x80 | (code_point & 0x3f);
		return 2;
	}
	if (code_point < 0x10000)
	{
		out[0] = 0xe0 | (code_point >> 12);
		out[1] = 0x80 | ((code_point >> 6) & 0x3f);
		out[2] = 0x80 | (code_point & 0x3f);
		return 3;
	}
	out[0] = 0xf0 | (code_point >> 18);
	out[1] = 0x80 | ((code_point >> 12) & 0x3f);
	out[2] = 0x80 | ((code_point >> 6) & 0x3f);
	out[3] = 0x80 | (code_point & 0x3f);
	return 4;
}

/* The value of the four hexadecimal digits at p. */
static uint32_t
four_digits(const char *p)
{
	return json_hexadecimal_digit(p[0]) << 12 | json_hexadecimal_digit(p[1]) << 8 |
	       json_hexadecimal_digit(p[2]) << 4 | json_hexadecimal_digit(p[3]);
}

ptrdiff_t
json_unescape(const char *contents, size_t length, char *out, JsonPutCodePoint put_code_point,
              JsonScanError *error)
{
	const char *position = contents;
	const char *end = contents + length;
	char *written = out;

	if (put_code_point == NULL)
		put_code_point = put_utf8;
	while (position < end)
	{
		const char *plain = position;
		uint32_t code_point;

		position = memchr(plain, '\\', end - plain);
		if (position == NULL)
			position = end;
		memcpy(written, plain, position - plain);
		written += position - plain;
		if (position == end)
			break;

		position += 2;
		switch (position[-1])
		{
			case 'b':
				*written++ = '\b';
				break;
			case 'f':
				*written++ = '\f';
				break;
			case 'n':
				*written++ = '\n';
				break;
			case 'r':
				*written++ = '\r';
				break;
			case 't':
				*written++ = '\t';
				break;
			case 'u':
				code_point = four_digits(position);
				position += 4;
				if (code_point >= 0xd800 && code_point <= 0xdbff && end - position >= 6 &&
				    position[0] == '\\' && position[1] == 'u')
				{
					uint32_t low = four_digits(position + 2);

					if (low >= 0xdc00 && low <= 0xdfff)
					{
						code_point = 0x10000 + ((code_point & 0x3ff) << 10) + (low & 0x3ff);
						position += 6;
					}
				}
				if (code_point >= 0xd800 && code_point <= 0xdfff)
				{
					*error = JSON_SCAN_LONE_SURROGATE;
					return -1;
				}
				if (code_point == 0)
				{
					*error = JSON_SCAN_NUL_CHARACTER;
					return -1;
				}
				written += put_code_point(code_point, written);
				break;
			default: /* quote, backslash, slash */
				*written++ = position[-1];
		}
	}
	return written - out;
}
