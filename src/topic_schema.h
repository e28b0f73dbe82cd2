/*-------------------------------------------------------------------------
 *
 * topic_schema.h
 *	  What a topic table declares: topic, format, and where each column comes
 *	  from.  Knows foreign table and column options, not Kafka itself.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TOPIC_SCHEMA_H
#define TOPIC_SCHEMA_H

#include "postgres.h"
#include "access/tupdesc.h"
#include "nodes/pg_list.h"

typedef enum TopicFormat
{
	TOPIC_FORMAT_JSON,
	TOPIC_FORMAT_TEXT,
	TOPIC_FORMAT_BYTEA,
	TOPIC_FORMAT_CSV
} TopicFormat;

typedef enum TopicColumnSource
{
	COLUMN_FROM_FIELD,       /* a field of the value; text, bytea: all of it */
	COLUMN_FROM_DECODED_KEY, /* the message key, or a field of it */
	COLUMN_FROM_TOPIC,       /* the rest: metadata */
	COLUMN_FROM_PARTITION,
	COLUMN_FROM_OFFSET,
	COLUMN_FROM_TIMESTAMP,
	COLUMN_FROM_TIMESTAMP_TYPE,
	COLUMN_FROM_KEY,
	COLUMN_FROM_VALUE,
	COLUMN_FROM_HEADERS
} TopicColumnSource;

typedef enum TopicEpoch
{
	EPOCH_NONE,
	EPOCH_SECONDS,
	EPOCH_MILLISECONDS,
	EPOCH_MICROSECONDS
} TopicEpoch;

/* Option unknown_field */
typedef enum TopicUnknownField
{
	UNKNOWN_FIELD_IGNORE,
	UNKNOWN_FIELD_ERROR
} TopicUnknownField;

/* Option key_format: how columns with the option "key" are read from message keys */
typedef enum TopicKeyFormat
{
	KEY_FORMAT_TEXT,
	KEY_FORMAT_JSON,
	KEY_FORMAT_BYTEA
} TopicKeyFormat;

/* Option null_value: what a null value (tombstone) is in append mode */
typedef enum TopicNullValue
{
	NULL_VALUE_ROW,  /* a row whose value columns are NULL */
	NULL_VALUE_SKIP, /* no row */
	NULL_VALUE_ERROR
} TopicNullValue;

typedef struct TopicColumn
{
	AttrNumber attnum;
	const char *name;
	Oid type;
	int32 typmod;
	Oid collation;
	TopicColumnSource source;
	char **path; /* steps below the value: names, or array
								 * indexes as decimal digits */
	int path_length;
	bool has_key;    /* option key; with a path as well: for tombstones only */
	char **key_path; /* as path, below the message key; NULL: all of it */
	int key_path_length;
	TopicEpoch epoch;
} TopicColumn;

typedef struct TopicSchema
{
	Oid relid; /* the topic table */
	Oid server_id;
	char *topic;
	TopicFormat format;
	TopicKeyFormat key_format;
	TopicUnknownField unknown_field;
	TopicNullValue null_value;
	char csv_delimiter;
	char csv_quote;
	char csv_escape;
	char *csv_null;
	TupleDesc tuple_descriptor; /* a copy */
	int column_count;           /* without dropped columns */
	TopicColumn *columns;
} TopicSchema;

/* Validates table / column options for the FDW validator. */
extern void topic_schema_validate_table_options(List *options);
extern void topic_schema_validate_column_options(List *options);

/*
 * Reads the schema of a topic table, in the current memory context.  Raises
 * ERRCODE_WRONG_OBJECT_TYPE when relid is not a foreign table of our wrapper, and a clear error for a
 * column whose options and type do not fit (they can't be seen together by the validator).
 */
extern TopicSchema *topic_schema_load(Oid relid);

/* Is it a foreign table of our wrapper, whatever the wrapper is called now? */
extern bool topic_schema_is_topic_table(Oid relid);

/* The topic table's column by attribute number, or NULL. */
extern const TopicColumn *topic_schema_column(const TopicSchema *schema, AttrNumber attnum);

#endif /* TOPIC_SCHEMA_H */
