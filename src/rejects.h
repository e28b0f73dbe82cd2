/*-------------------------------------------------------------------------
 *
 * rejects.h
 *	  The messages of a batch that on_error keeps out of it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef REJECTS_H
#define REJECTS_H

#include "postgres.h"
#include "kafka_consumer.h"
#include "topic_scan.h"

/* Live in the memory context current at creation. */
typedef struct Rejects
{
	int count;
	int64 allowed;      /* how many there may be */
	bool *excluded;     /* by index of the message */
	ErrorData **errors; /* by index */
} Rejects;

/*
 * The search for a bad message: [first, end) is tried next.  Of n messages it takes at most
 * log2(n) + 3 attempts until it stands alone.
 */
typedef struct BadMessageSearch
{
	int first;
	int end;
	int bad_end; /* a bad message is before this; -1: not known of any */
} BadMessageSearch;

/* Begins with the messages [first, end). */
extern void search_begin(BadMessageSearch *search, int first, int end);
/* [first, end) of more than one has failed.  suspect: where the scan was then; -1: not known. */
extern void search_failed(BadMessageSearch *search, int suspect);
/* [first, end) has passed; if no bad message is known, at most "step" are tried next, up to "last". */
extern void search_passed(BadMessageSearch *search, int step, int last);

/* For a batch of so many messages, none of them rejected. */
extern Rejects *rejects_create(int message_count, int64 allowed);

/* May another message be rejected? */
extern bool rejects_allow_more(const Rejects *rejects);

/* Rejects a message; takes the error over. */
extern void rejects_add(Rejects *rejects, int index, ErrorData *error);

/*
 * Adds to the error's detail, in the current memory context, which message it came from; the
 * decoder does so by itself.
 */
extern void blame_message(const char *topic, const KafkaMessage *message, ErrorData *error);

/*
 * Adds to the detail of an error that on_error does not decide about, in the current memory
 * context, which message the executor was at.  It need not be that message's fault.
 * decoding: it was being decoded.  passes: the batch is tried again, the stream does not stop.
 */
extern void mention_message(const char *topic, const KafkaMessage *message, bool decoding,
                            bool passes, ErrorData *error);

/*
 * Rejects the messages [first, last) that can't be decoded, as far as allowed, and returns their number.
 * scan: of the attempt that failed, with what it decodes of a message (topic_scan_keep_columns()).
 * Ends early at a message whose error is none that on_error decides about.  Needs a transaction, in which the
 * current user is the stream's owner; leaves nothing in it.  Errors of the environment are raised.
 */
extern int rejects_add_undecodable(Rejects *rejects, const TopicScanBatch *scan,
                                   const KafkaMessage *messages, int first, int last);

#endif /* REJECTS_H */
