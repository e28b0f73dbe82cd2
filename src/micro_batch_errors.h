/*-------------------------------------------------------------------------
 *
 * micro_batch_errors.h
 *	  What becomes of a micro-batch when an attempt to write it fails.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MICRO_BATCH_ERRORS_H
#define MICRO_BATCH_ERRORS_H

#include "micro_batch.h"

/* What an attempt to write some of the messages came to. */
typedef struct BatchAttempt
{
	ErrorData *error;    /* NULL: committed */
	int failed_at;       /* index of the message being decoded at the error, or -1 */
	int suspect;         /* index of the message that the scan was at, or -1 */
	int end;             /* committed up to here */
	TopicScanBatch scan; /* what was decoded, as far as known at an error */
	bool gone;           /* stream or extension does not exist any more */
	bool over_budget;    /* other workers have rejected messages: these are too many now */
} BatchAttempt;

/* For the batch that run->reader has gathered, in the current memory context: none rejected so far. */
extern Rejects *micro_batch_rejects(const StreamRun *run);

/*
 * An attempt at the messages [search->first, search->end) has failed.  When one of them is to blame, rejects
 * messages where on_error says so, or narrows the part to be tried next until the message stands alone.
 * Raises the error when it is no message's fault, or that of one that may not be rejected, with what can be
 * done about it.  Called outside of a transaction.
 */
extern void micro_batch_handle_error(StreamRun *run, const BatchAttempt *attempt,
                                     BadMessageSearch *search);

#endif /* MICRO_BATCH_ERRORS_H */
