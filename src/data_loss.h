/*-------------------------------------------------------------------------
 *
 * data_loss.h
 *	  What becomes of a stream whose topic has lost something: fail_on_data_loss.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DATA_LOSS_H
#define DATA_LOSS_H

#include "postgres.h"
#include "log_check.h"
#include "stream.h"

/*
 * Decides about the findings of a stream's log.  Raises, with what is gone and what to do:
 * ERRCODE_DATA_CORRUPTED for another cluster; for any loss, unless the stream has
 * fail_on_data_loss => false; and even then for a loss that a cluster in trouble may show
 * (anything but a log start behind the position), unless "confirmed" says that it was seen
 * before.  ERRCODE_FDW_TABLE_NOT_FOUND for a topic that isn't there, when the stream shall wait for it.
 *
 * Returns the moves that take the stream to what is there, for checkpoint_pass_loss(), and
 * their number in *count; 0: nothing is lost.
 */
extern CheckpointJump *data_loss_examine(const Stream *stream, const char *topic,
                                         const Checkpoint *checkpoint, const LogCheck *check,
                                         bool confirmed, int *count);

/*
 * While fetching, the cluster has refused a position: raises as above, or returns when the worker
 * shall open the stream again, which finds the loss and moves on.
 */
extern void data_loss_out_of_range(const Stream *stream, const char *topic,
                                   const LogFinding *finding);

/* Is this the error of a loss that was found in the topic, and not anybody else's ERRCODE_DATA_CORRUPTED? */
extern bool data_loss_raised(const ErrorData *error);

/* Topic or partition is not there any more; raises as above. */
pg_noreturn extern void data_loss_topic_gone(const Stream *stream, const char *topic,
                                             const char *detail);

/* Writes a WARNING for each move into the server log. */
extern void data_loss_report(const Stream *stream, const char *topic,
                             const CheckpointJump *jumps, int count);

#endif /* DATA_LOSS_H */
