/*-------------------------------------------------------------------------
 *
 * topic_scan.h
 *	  The foreign scan of a topic table, and how a stream worker makes it
 *	  return the current micro-batch instead of reading Kafka.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TOPIC_SCAN_H
#define TOPIC_SCAN_H

#include "postgres.h"
#include "nodes/bitmapset.h"
#include "nodes/execnodes.h"
#include "storage/itemptr.h"
#include "kafka_consumer.h"

/* Value of a column whose field is missing in a message (not null: missing). */
typedef struct TopicColumnDefault
{
	AttrNumber attnum;
	Expr *expression; /* of the column's type; planned */
} TopicColumnDefault;

/* What a scan of "topic_table" returns while it is set in a worker. */
typedef struct TopicScanBatch
{
	Oid topic_table;
	const KafkaMessage *messages;
	int count;
	int current;             /* out: index of the message being decoded or
								 * last returned; -1 before the first and after the last */
	bool decoding;           /* out: true while "current" is being decoded */
	List *defaults;          /* of TopicColumnDefault *; overrides the topic
								 * table's own column defaults never, comes after them */
	int64 decode_us;         /* out: time spent decoding, estimated from samples; added
								 * to what is here */
	const bool *excluded;    /* by index: messages to leave out; NULL: none */
	bool without_tombstones; /* messages without a value make no rows, whatever the
								 * topic table's option null_value says */

	/* what is decoded of a message, to tell elsewhere which can't be; see topic_scan_keep_columns() */
	List *wanted;         /* out: numbers of the columns; until the transaction's end */
	Bitmapset *defaulted; /* out: those that have a default for a missing field; as long */
	const Bitmapset
	    *of_tombstones; /* columns of messages without a value that are read beside the
								 * scan; NULL: these are passed over */
} TopicScanBatch;

/*
 * The rows of a batch carry the index of their message in the system column
 * ctid, by which a query can be made to say which message a row comes from.
 */
static inline void
topic_scan_set_index(TupleTableSlot *slot, int index)
{
	ItemPointerSet(&slot->tts_tid, index, FirstOffsetNumber);
}

static inline int
topic_scan_get_index(ItemPointer row)
{
	return (int) ItemPointerGetBlockNumberNoCheck(row);
}

/*
 * Sets (or, with NULL, clears) the batch.  The caller keeps ownership and
 * must clear it before it releases the messages, also after an error.
 */
extern void topic_scan_set_batch(TopicScanBatch *batch);

/* Copies what is said about columns into the current memory context, before the transaction is gone. */
extern void topic_scan_keep_columns(TopicScanBatch *batch);

#endif /* TOPIC_SCAN_H */
