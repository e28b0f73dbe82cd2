/*-------------------------------------------------------------------------
 *
 * batch_notice.h
 *	  notify => 'channel': tell listeners about a batch when it commits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BATCH_NOTICE_H
#define BATCH_NOTICE_H

#include "postgres.h"
#include "progress.h"

/*
 * Queues a NOTIFY in the current transaction, with the batch's progress as a
 * JSON object; listeners get it after COMMIT.  Offsets are left out when they
 * don't fit into a notification (8000 bytes).
 */
extern void batch_notice_queue(const char *channel, const char *stream,
                               const BatchProgress *progress, const BatchPartition *partitions);

#endif /* BATCH_NOTICE_H */
