/*-------------------------------------------------------------------------
 *
 * careful_write.h
 *	  Write messages of which some are known to be bad, in small parts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CAREFUL_WRITE_H
#define CAREFUL_WRITE_H

#include "postgres.h"
#include "rejects.h"
#include "sink.h"

/*
 * Calls sink->write in a subtransaction with a snapshot of its own.  NULL, or the error, copied
 * into the current memory context, with everything of the write undone.
 */
extern ErrorData *write_in_subtransaction(Sink *sink, SinkBatch *batch);

/*
 * Writes as many of the messages [first, last) as one transaction should, in the caller's, and
 * rejects the bad ones.  Returns the index up to which every message is written or rejected: less
 * than "last" after many parts, or when the message that stands there may not be rejected
 * any more.  batch is that of all messages: its results are added up.
 *
 * For sinks with accepts_parts only.  Errors that are not a message's are raised.
 */
extern int write_carefully(Sink *sink, SinkBatch *batch, Rejects *rejects, const char *topic,
                           const KafkaMessage *messages, int first, int last);

#endif /* CAREFUL_WRITE_H */
