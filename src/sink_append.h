/*-------------------------------------------------------------------------
 *
 * sink_append.h
 *	  Append mode without aggregation: write the rows of a batch into the target.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SINK_APPEND_H
#define SINK_APPEND_H

#include "sink.h"

/*
 * See sink_create().  Raises what parse analysis raises, and
 * ERRCODE_INSUFFICIENT_PRIVILEGE when the current user may not read the source or write the
 * target.
 */
extern Sink *append_sink_create(const Stream *stream, Oid topic_table);

#endif /* SINK_APPEND_H */
