/*-------------------------------------------------------------------------
 *
 * upsert_rows.h
 *	  The rows and tombstones of one batch, reduced to the last per key and
 *	  sorted by key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef UPSERT_ROWS_H
#define UPSERT_ROWS_H

#include "postgres.h"
#include "tcop/dest.h"
#include "topic_scan.h"
#include "upsert_target.h"
#include "utils/tuplestore.h"

typedef struct UpsertRows UpsertRows;

/* What is left to write; the stores belong to the current transaction. */
typedef struct UpsertResult
{
	Tuplestorestate *changed_rows; /* of target->row_type */
	int64 changed_count;
	Tuplestorestate *deleted_keys; /* the same; only the key is set */
	int64 deleted_count;
} UpsertResult;

/* Starts to collect, in the current memory context; topic and batch name messages in errors. */
extern UpsertRows *upsert_rows_begin(const UpsertTarget *target, const char *topic,
                                     TopicScanBatch *batch);

/*
 * Receives rows of target's columns, followed by the index of their message (type
 * tid, see topic_scan_get_index()).  Raises ERRCODE_NOT_NULL_VIOLATION for a
 * key column that is NULL, with the message in the detail.
 */
extern DestReceiver *upsert_rows_receiver(UpsertRows *rows);

/*
 * Adds a tombstone: values and nulls of the key, in the order of target->keys.
 * Raises as above.
 */
extern void upsert_rows_add_tombstone(UpsertRows *rows, int message_index, const Datum *values,
                                      const bool *nulls);

/*
 * Sorts, and keeps of every key the last message (by index, then by row within a message).  With a
 * version it is the row of the highest version, of equal ones the last; NULL is the
 * lowest; a tombstone ends all before it, and stays in deleted_keys even if
 * rows follow.
 */
extern UpsertResult upsert_rows_finish(UpsertRows *rows);

#endif /* UPSERT_ROWS_H */
