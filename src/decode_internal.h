/*-------------------------------------------------------------------------
 *
 * decode_internal.h
 *	  What the decode*.c files share: converting the text of one value, and
 *	  the state of a decoder.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DECODE_INTERNAL_H
#define DECODE_INTERNAL_H

#include "postgres.h"
#include "fmgr.h"
#include "lib/stringinfo.h"

#include "compat.h"
#include "decode.h"
#include "json_fields.h"

/* --- decode_direct.c: types that need no input function for common forms --- */

typedef enum DirectType
{
	DIRECT_NONE,
	DIRECT_BOOL,
	DIRECT_INT2,
	DIRECT_INT4,
	DIRECT_INT8,
	DIRECT_FLOAT8,
	DIRECT_NUMERIC,
	DIRECT_TEXT, /* text and varchar */
	DIRECT_UUID,
	DIRECT_DATE,
	DIRECT_TIMESTAMP,
	DIRECT_TIMESTAMPTZ
} DirectType;

/*
 * Memory for the pass-by-reference values of one message, used again for the
 * next one.
 */
typedef struct ValueMemory
{
	MemoryContext context; /* of the chunk */
	char *chunk;
	size_t size;
	char *free;
	size_t left;
} ValueMemory;

/* Direct conversions of a text of this length, in so many pieces, allocate at most this. */
#define DIRECT_VALUES_SIZE(text_length, pieces)                                                \
	((size_t) (text_length) + (size_t) (pieces) * (32 + MAXIMUM_ALIGNOF))

/* For the next message: the chunk is used from its start again, with at least so many bytes. */
extern void value_memory_reserve(ValueMemory *memory, size_t size);

/* Aligned memory from the chunk, or, when it is used up, from the current context. */
static inline void *
value_memory_alloc(ValueMemory *memory, size_t size)
{
	void *result = memory->free;

	size = MAXALIGN(size);
	if (size > memory->left)
		return palloc(size);
	memory->free += size;
	memory->left -= size;
	return result;
}

extern DirectType direct_type(Oid type);

/*
 * Converts a text (not NUL-terminated) if it has one of the forms known here,
 * to exactly what the type's input function gives.  Returns false otherwise,
 * also for all that is an error: the input function then says which.
 */
extern bool direct_value(DirectType type, int32 typmod, const char *text, size_t length,
                         ValueMemory *memory, Datum *value);

/* --- decode_numeric.c --- */

/* direct_value() for numeric. */
extern bool direct_numeric_value(int32 typmod, const char *text, size_t length,
                                 ValueMemory *memory, Datum *value);

/* --- decode_value.c: any type --- */

typedef struct ValueConverter ValueConverter;

/* What the converters of a decoder share. */
typedef struct ValueWorkspace
{
	MemoryContext context; /* the decoder's */
	ValueMemory memory;
	StringInfoData text; /* NUL-terminated argument of an input function */
	JsonPutCodePoint put_code_point;
} ValueWorkspace;

/* The workspace lives in the current memory context. */
extern ValueWorkspace *value_workspace_create(void);

/* Creates a converter to a type, in the workspace's context. */
extern ValueConverter *value_converter_create(ValueWorkspace *workspace, Oid type, int32 typmod,
                                              TopicEpoch epoch);

/*
 * The value of a piece of JSON, a missing one and null being NULL.  Errors
 * are those of the input function, of a domain's constraints, and
 * ERRCODE_INVALID_TEXT_REPRESENTATION for JSON of another shape than the type.
 */
extern Datum value_from_json(ValueConverter *converter, const JsonFragment *json,
                             bool *is_null);

/* The value of a text in the server encoding, by the input function's rules. */
extern Datum value_from_text(ValueConverter *converter, const char *text, size_t length);

/* The value of type bytea (or a domain over it) that is these bytes. */
extern Datum value_from_bytes(ValueConverter *converter, const char *bytes, size_t length);

/* NULL: an error if the type is a domain that does not allow it. */
extern void value_check_null(ValueConverter *converter);

/* The direct conversion that a converter tries first; DIRECT_NONE: there is none. */
extern DirectType value_converter_direct_type(const ValueConverter *converter);

/* --- decode_epoch.c --- */

/*
 * The date, timestamp or timestamptz (type; typmod of the latter two) at an
 * integer number of units since 1970-01-01 00:00 UTC.  Raises
 * ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, and for a text that is no integer
 * ERRCODE_INVALID_DATETIME_FORMAT.
 */
extern Datum epoch_value(TopicEpoch epoch, Oid type, int32 typmod, int64 units);
extern Datum epoch_value_from_text(TopicEpoch epoch, Oid type, int32 typmod, const char *text,
                                   size_t length);

/* --- decode.c --- */

/* A column to be filled. */
typedef struct DecodedColumn
{
	const TopicColumn *column;
	int attribute;  /* attnum - 1 */
	int field;      /* JSON: number of the fragment; CSV: position */
	bool defaulted; /* the caller has a default for a missing field */
	DirectType direct;
	ValueConverter *converter;
} DecodedColumn;

struct Decoder
{
	const TopicSchema *schema;
	ValueWorkspace *workspace;
	DecodedColumn *fields; /* columns from the value, by attribute number */
	int field_count;
	DecodedColumn *
	    keys; /* columns from the message key, also those that tombstones only have from there */
	int key_count;
	int key_only_count;      /* of them, columns that are never from the value */
	DecodedColumn *metadata; /* the others */
	int metadata_count;
	JsonFields *json_fields; /* format json */
	JsonFields *key_fields;  /* key_format json, and a column with a path into the key */
	StringInfoData csv_text; /* format csv: one field, without quotes */

	/* what is being decoded, for errors */
	const KafkaMessage *message;
	const TopicColumn *current_column;
	MemoryContext caller_context;
};

/*
 * Verifies that bytes are UTF-8 text, without NUL, and returns them in the server
 * encoding: *text and *length are changed only where that is another one.
 */
extern void decode_verify_text(const char **text, size_t *length);

/*
 * A clipped piece of verified text around a byte, palloc'd, for messages;
 * control characters are shown as spaces.
 */
extern char *decode_excerpt(const char *text, size_t length, size_t position);

/* --- decode_json.c, decode_csv.c: the formats; text has been verified --- */

/* Once, when the decoder's columns are known. */
extern void decode_json_prepare(Decoder *decoder);
extern void decode_json(Decoder *decoder, const char *text, size_t length, Datum *values,
                        bool *nulls, bool *missing);

/*
 * Raises the error of a scanner that has stopped in a text, which is the message's
 * key or its value.
 */
pg_noreturn extern void decode_json_report_error(const JsonScanner *scanner, const char *text,
                                                 size_t length, bool is_key);

extern void decode_csv_prepare(Decoder *decoder);
extern void decode_csv(Decoder *decoder, const char *text, size_t length, Datum *values,
                       bool *nulls);

/* --- decode_key.c --- */

/* Once, when the decoder's columns are known. */
extern void decode_key_prepare(Decoder *decoder);

/*
 * Fills the columns that come from the message key, NULL if the message has
 * none; of a tombstone, also those that otherwise come from the value.
 */
extern void decode_key(Decoder *decoder, const KafkaMessage *message, Datum *values,
                       bool *nulls);

/* --- decode_metadata.c --- */

/* Sets *is_null where the message does not know (see kafka.decode_message). */
extern Datum decode_metadata(Decoder *decoder, const DecodedColumn *column,
                             const KafkaMessage *message, bool *is_null);

#endif /* DECODE_INTERNAL_H */
