/*-------------------------------------------------------------------------
 *
 * upsert_tombstones.h
 *	  Which row of the target a message without a value deletes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef UPSERT_TOMBSTONES_H
#define UPSERT_TOMBSTONES_H

#include "postgres.h"
#include "nodes/bitmapset.h"
#include "nodes/parsenodes.h"
#include "topic_scan.h"
#include "upsert_rows.h"
#include "upsert_target.h"

/* How the target's key is computed from the message key. */
typedef struct TombstoneKey
{
	Oid topic_table;
	const char *topic;
	List *expressions;  /* of Expr *, over the topic table's columns, in the order of the key */
	Bitmapset *columns; /* the columns of the topic table in them */
	char *problem;      /* why it can't be computed (a sentence), or NULL */
} TombstoneKey;

/*
 * Finds it in the stream's INSERT, which has been analyzed and rewritten, in the current
 * memory context.  A topic without tombstones need not declare keys, so that a
 * problem is no error yet.
 */
extern TombstoneKey *upsert_tombstone_key(const UpsertTarget *target, Query *insert,
                                          Oid topic_table);

/*
 * Adds the tombstones of a batch to its rows.  Raises ERRCODE_NULL_VALUE_NOT_ALLOWED for a
 * tombstone without a key or when the key has a problem, with the message in the
 * detail, and what decode_tombstone() and upsert_rows_add_tombstone() raise.
 */
extern void upsert_tombstones_collect(const TombstoneKey *key, TopicScanBatch *batch,
                                      UpsertRows *rows);

#endif /* UPSERT_TOMBSTONES_H */
