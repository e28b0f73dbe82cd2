/*-------------------------------------------------------------------------
 *
 * worker_errors.h
 *	  What a worker does about an error.
 *
 * Errors are counted for the process, which runs one stream.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WORKER_ERRORS_H
#define WORKER_ERRORS_H

#include "postgres.h"

typedef enum ErrorAnswer
{
	ERROR_TRY_AGAIN, /* open the stream anew, now */
	ERROR_STOPPED,   /* asked to stop meanwhile */
	ERROR_GIVEN_UP   /* the stream has failed, and the catalog says so */
} ErrorAnswer;

/* Once in a process: what shows while it waits. */
extern void worker_errors_define(void);

/* The stream was opened and reads: a loss that was seen before is not there any more. */
extern void worker_errors_started(void);

/* A batch was committed: errors before it are over. */
extern void worker_errors_progressed(void);

/* Has the same loss of data been seen as often as must be to be believed? */
extern bool worker_errors_loss_confirmed(void);

/*
 * Decides about an error that has ended a run, outside a transaction; its hint may be replaced.
 * Sleeps as long as the next attempt shall wait; records the failure of a stream that is given up, and tells its
 * other workers.
 */
extern ErrorAnswer worker_errors_answer(int64 stream_id, ErrorData *error);

#endif /* WORKER_ERRORS_H */
