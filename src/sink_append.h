/*-------------------------------------------------------------------------
 *
 * sink_append.h
 *	  Append mode: write the rows of one batch into the target.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SINK_APPEND_H
#define SINK_APPEND_H

#include "postgres.h"
#include "stream.h"
#include "topic_scan.h"

typedef struct AppendSink AppendSink;

/*
 * Prepares the statement of a stream as the current user; the sink lives in
 * the current memory context and is freed with it.  Needs a transaction.
 * Raises what parse analysis raises, and ERRCODE_INSUFFICIENT_PRIVILEGE when the current user
 * may not read the source or write the target.
 */
extern AppendSink *append_sink_create(const Stream *stream, Oid topic_table);

/*
 * True when the statement was planned for objects that have changed since:
 * create a new sink.
 */
extern bool append_sink_is_stale(AppendSink *sink);

/*
 * Writes what the stream's query makes of the batch; returns the number of
 * rows.  Runs in the caller's transaction as the current user.  Errors are
 * those of an INSERT.
 */
extern uint64 append_sink_write(AppendSink *sink, TopicScanBatch *batch);

#endif /* SINK_APPEND_H */
