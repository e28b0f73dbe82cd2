/*-------------------------------------------------------------------------
 *
 * stream_failure.h
 *	  Why a stream has failed: recorded, and raised again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STREAM_FAILURE_H
#define STREAM_FAILURE_H

#include "postgres.h"
#include "stream.h"

/* Records why the worker gave up; the stream is "failed" until start_stream. */
extern void stream_record_failure(int64 stream_id, const ErrorData *error);

/* The stream's failure as stored, raised as an error of the caller's. */
extern void stream_raise_failure(const Stream *stream);

#endif /* STREAM_FAILURE_H */
