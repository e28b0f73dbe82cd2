/*-------------------------------------------------------------------------
 *
 * stream_failure.h
 *	  Why a stream has failed: recorded, raised again, looked for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STREAM_FAILURE_H
#define STREAM_FAILURE_H

#include "postgres.h"
#include "stream.h"

/* Records why the worker gave up; the stream is "failed" until start_stream. */
extern void stream_record_failure(int64 stream_id, const ErrorData *error);

/*
 * Says by name which of the objects that a stream is made of has been dropped:
 * ERRCODE_UNDEFINED_TABLE, ERRCODE_UNDEFINED_OBJECT.  Waits for who is dropping the source, and keeps it
 * from being dropped until the transaction ends.
 */
extern void stream_check_objects(const Stream *stream);

/*
 * The same for source and target, which is locked as for writing.  Not for those who wait while the
 * stream writes: somebody who wants to change the target would wait for them, and the stream for him.
 */
extern void stream_lock_objects(const Stream *stream);

/* The same without waiting: false when somebody is in the way. */
extern bool stream_try_lock_objects(const Stream *stream);

/* Waits until nobody is in the way of one and then of the other.  Nothing is locked when it returns, or looked at. */
extern void stream_wait_for_objects(const Stream *stream);

/* The stream's failure as stored, raised as an error of the caller's. */
extern void stream_raise_failure(const Stream *stream);

#endif /* STREAM_FAILURE_H */
