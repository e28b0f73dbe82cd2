/*-------------------------------------------------------------------------
 *
 * batch_shares.h
 *	  max_offsets_per_trigger: which messages of each partition a batch takes,
 *	  and those that are held for later ones.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BATCH_SHARES_H
#define BATCH_SHARES_H

#include "stream_reader.h"

/* Begins a batch: sets what it may take of each partition, and takes that of the messages held. */
extern void batch_shares_begin(StreamReader *reader);

/* Holds the messages in reader->fetched, and takes into the batch what it may of them. */
extern void batch_shares_hold(StreamReader *reader);

/* Does a partition with a backlog still have a share of the batch left? */
extern bool batch_shares_left(const StreamReader *reader);

#endif /* BATCH_SHARES_H */
