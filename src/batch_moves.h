/*-------------------------------------------------------------------------
 *
 * batch_moves.h
 *	  How far a batch takes each partition.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BATCH_MOVES_H
#define BATCH_MOVES_H

#include "postgres.h"
#include "checkpoint.h"
#include "micro_batch.h"
#include "progress.h"

/*
 * What the messages [first, last) of the batch move, one entry for each partition that moves; palloc'd, *count
 * entries.  The last part of a batch also takes the partitions to where the reader has come without messages.
 */
extern CheckpointMove *batch_moves_gather(const StreamRun *run, int first, int last,
                                          int *count);

/* What the moves mean for a batch's progress, whose sums it fills in; the array is palloc'd. */
extern BatchPartition *batch_moves_describe(BatchProgress *progress,
                                            const CheckpointMove *moves, int count);

/* The rows of the stream's state, once these moves are committed. */
extern int64 batch_moves_state_rows(const Checkpoint *checkpoint, const CheckpointMove *moves,
                                    int count);

#endif /* BATCH_MOVES_H */
