/*-------------------------------------------------------------------------
 *
 * worker_open.h
 *	  Opening a stream in its worker, and noticing when it must be opened anew.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WORKER_OPEN_H
#define WORKER_OPEN_H

#include "postgres.h"
#include "micro_batch.h"

typedef enum OpenOutcome
{
	OPEN_RUNNING, /* reading has begun */
	OPEN_NOTHING, /* the stream is not to be run: stopped, failed, dropped */
	OPEN_AGAIN    /* the stream was taken over a loss: open it again */
} OpenOutcome;

/*
 * Reads all that the stream needs, in one transaction that ends here; then connects to Kafka, compares
 * the checkpoint with the topic, and starts reading.  "run" is empty, and filled in the current memory context, whose reset
 * lets all go again.  loss_confirmed: see data_loss_examine().  To be called outside a transaction.  Raises what is wrong with
 * definition, privileges or connection, and what data_loss_examine() raises.
 */
extern OpenOutcome worker_open_stream(StreamRun *run, int64 stream_id, int worker,
                                      bool loss_confirmed);

/*
 * Takes up partitions that were found to have been added to the topic: stores their
 * positions before anything is read from them.  False when the extension is gone.
 */
extern bool worker_take_up_new_partitions(StreamRun *run);

/* Once in a process: begins to watch what connections are made from. */
extern void worker_watch_connection(void);

/* Has server, user mapping, topic table or the list of allowed hosts changed since the stream was opened? */
extern bool worker_connection_changed(void);

#endif /* WORKER_OPEN_H */
