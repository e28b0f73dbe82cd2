/*-------------------------------------------------------------------------
 *
 * json_scanner.h
 *	  Validate JSON text (RFC 8259) in one pass and say where its values are.
 *
 * Plain C on bytes: no PostgreSQL, no allocation, no copy; bytes need neither
 * a terminating NUL nor any padding.  It accepts what PostgreSQL's type json
 * accepts, provided the caller has verified the encoding.  What a value
 * means is left to others: they get the piece of the text that it is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JSON_SCANNER_H
#define JSON_SCANNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Deeper nesting is refused. */
#define JSON_MAX_DEPTH 4096

/* Bytes of one escape in JSON that may stand for one byte: \u0041 */
#define JSON_LONGEST_ESCAPE 6

/* Room that json_unescape() needs with a writer of up to 16 bytes. */
#define JSON_UNESCAPED_SIZE(length) (3 * (size_t) (length) + 16)

typedef enum JsonKind
{
	JSON_KIND_MISSING, /* no value: never returned by the scanner */
	JSON_KIND_NULL,
	JSON_KIND_FALSE,
	JSON_KIND_TRUE,
	JSON_KIND_NUMBER,
	JSON_KIND_STRING,
	JSON_KIND_ARRAY,
	JSON_KIND_OBJECT
} JsonKind;

/* A value as it stands in the text; a string includes its quotes. */
typedef struct JsonFragment
{
	const char *text;
	size_t length;
	JsonKind kind;
	bool escaped; /* a string that has a backslash */
} JsonFragment;

typedef enum JsonScanError
{
	JSON_SCAN_OK,
	JSON_SCAN_UNEXPECTED_END,
	JSON_SCAN_BYTE_ORDER_MARK,
	JSON_SCAN_NOT_AN_OBJECT,
	JSON_SCAN_EXPECTED_VALUE,
	JSON_SCAN_EXPECTED_KEY,
	JSON_SCAN_EXPECTED_COLON,
	JSON_SCAN_EXPECTED_COMMA_OR_BRACE,
	JSON_SCAN_EXPECTED_COMMA_OR_BRACKET,
	JSON_SCAN_EXPECTED_END,
	JSON_SCAN_INVALID_NUMBER,
	JSON_SCAN_INVALID_WORD,
	JSON_SCAN_CONTROL_CHARACTER,
	JSON_SCAN_INVALID_ESCAPE,
	JSON_SCAN_INVALID_UNICODE_ESCAPE,
	JSON_SCAN_TOO_DEEP,
	/* of json_unescape() */
	JSON_SCAN_NUL_CHARACTER,
	JSON_SCAN_LONE_SURROGATE
} JsonScanError;

typedef struct JsonScanner
{
	const char *position;
	const char *end;
	int depth; /* arrays and objects around position */
	JsonScanError error;
	const char *error_position;
} JsonScanner;

/* Writes a code point in the encoding wanted; returns the number of bytes. */
typedef size_t (*JsonPutCodePoint)(uint32_t code_point, char *out);

/* Starts at the first byte of text. */
extern void json_scan_start(JsonScanner *scanner, const char *text, size_t length);

/*
 * Passes one value, of any kind, and white space before it.  Returns false,
 * with error and error_position set, when the text is no valid JSON.
 */
extern bool json_scan_value(JsonScanner *scanner, JsonFragment *value);

/* The same for a key and the colon behind it. */
extern bool json_scan_key(JsonScanner *scanner, JsonFragment *key);

/*
 * Walks an array or object: json_scan_enter() passes the opening bracket
 * at position, and sets *empty when the closing one follows, which it passes too;
 * json_scan_next() is called behind each value and passes the comma, or
 * the closing bracket (*done).  Return false on error as above.
 */
extern bool json_scan_enter(JsonScanner *scanner, bool *empty);
static inline bool json_scan_next(JsonScanner *scanner, bool in_object, bool *done);

/* Nothing but white space may follow. */
extern bool json_scan_finish(JsonScanner *scanner);

/* Records an error at a position; returns false. */
extern bool json_scan_fail(JsonScanner *scanner, JsonScanError error, const char *position);

/*
 * json_unescape.c: resolves the escapes of a scanned string's contents (without quotes) into
 * out.  With put_code_point NULL, \u escapes become UTF-8 and out
 * needs at most length bytes, otherwise JSON_UNESCAPED_SIZE(length).  Returns the number of bytes written, or -1 with *error set
 * to JSON_SCAN_NUL_CHARACTER or JSON_SCAN_LONE_SURROGATE.
 */
extern ptrdiff_t json_unescape(const char *contents, size_t length, char *out,
                               JsonPutCodePoint put_code_point, JsonScanError *error);

/* What json_scan_next() has to do where no comma is next. */
extern bool json_scan_next_other(JsonScanner *scanner, bool in_object, bool *done);

/* These are called around every token, or every byte of an escape: inline. */

#define JSON_IS_DIGIT(c) ((unsigned char) ((c) - '0') < 10)

/* -1 for what is no hexadecimal digit. */
static inline int
json_hexadecimal_digit(char c)
{
	if (JSON_IS_DIGIT(c))
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Skips white space. */
static inline void
json_skip_white_space(JsonScanner *scanner)
{
	const char *position = scanner->position;

	while (position < scanner->end && (unsigned char) *position <= ' ' &&
	       (*position == ' ' || *position == '\n' || *position == '\r' || *position == '\t'))
		position++;
	scanner->position = position;
}

static inline bool
json_scan_next(JsonScanner *scanner, bool in_object, bool *done)
{
	if (scanner->position < scanner->end && *scanner->position == ',')
	{
		scanner->position++;
		*done = false;
		return true;
	}
	return json_scan_next_other(scanner, in_object, done);
}

#endif /* JSON_SCANNER_H */
