/*-------------------------------------------------------------------------
 *
 * upsert_target.h
 *	  The table that rows are inserted into or updated in by key: its key, its
 *	  unique index, and the statements that write.
 *
 *-------------------------------------------------------------------------
 */
#ifndef UPSERT_TARGET_H
#define UPSERT_TARGET_H

#include "postgres.h"
#include "access/tupdesc.h"
#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"
#include "stream.h"

/* The relations that the statements read: of row_type, one row per key, sorted by key. */
#define UPSERT_CHANGED_ROWS "kafka_changed_rows"
#define UPSERT_DELETED_KEYS "kafka_deleted_keys" /* only the key is set */

/* A column that takes part in comparisons. */
typedef struct UpsertOrder
{
	int column;        /* index in columns */
	Oid sort_operator; /* "less than" */
	Oid collation;
	char *equal;            /* "=" as OPERATOR(schema.name) */
	char *greater_or_equal; /* the same for ">=" */
} UpsertOrder;

typedef struct UpsertTarget
{
	Oid relid;
	char *name; /* qualified and quoted */
	char *index_name;
	int column_count; /* columns that the source gives, in its order */
	AttrNumber *columns;
	char **column_names;
	int key_count;
	UpsertOrder *keys;    /* in the order of the unique index */
	UpsertOrder *version; /* NULL: none */

	/*
	 * The columns, with the target's types; behind them the index of the message
	 * and the number of the row (bigint, orders rows), and whether it is a
	 * tombstone (boolean).
	 */
	TupleDesc row_type;
} UpsertTarget;

/*
 * Looks the target of a stream up, in the current memory context.  Raises what is
 * wrong with it or with the key: ERRCODE_WRONG_OBJECT_TYPE,
 * ERRCODE_INVALID_TABLE_DEFINITION (no key), ERRCODE_UNDEFINED_COLUMN,
 * ERRCODE_INVALID_COLUMN_REFERENCE (no unique index), ERRCODE_UNDEFINED_FUNCTION
 * (version_column without order).
 */
extern UpsertTarget *upsert_target_load(const Stream *stream);

/* The statements (upsert_statements.c); palloc'd. */
extern char *upsert_target_write_statement(const UpsertTarget *target);
extern char *upsert_target_delete_statement(const UpsertTarget *target);

/* The expression that the stream's INSERT has for a column of the target. */
extern Expr *upsert_target_expression(Query *insert, AttrNumber attnum);

/* "a, b": the key's columns, as for a message (not quoted). */
extern char *upsert_target_key_list(const UpsertTarget *target);

/* Is columns[column] a key column? */
extern bool upsert_target_is_key(const UpsertTarget *target, int column);

/* The place of a column of the target in columns; -1 if the source does not give it. */
extern int upsert_target_find_column(const UpsertTarget *target, const char *name);

#endif /* UPSERT_TARGET_H */
