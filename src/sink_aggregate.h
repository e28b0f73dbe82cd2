/*-------------------------------------------------------------------------
 *
 * sink_aggregate.h
 *	  Streams that aggregate, in any mode.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SINK_AGGREGATE_H
#define SINK_AGGREGATE_H

#include "sink.h"

/*
 * See sink_create() and sink_create_objects().  Raise what stream_aggregate_load() raises;
 * ERRCODE_INVALID_TABLE_DEFINITION when the target lacks what the mode needs,
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE when the state is of another query, and
 * ERRCODE_INSUFFICIENT_PRIVILEGE.
 */
extern Sink *aggregate_sink_create(const Stream *stream, Oid topic_table);
extern void aggregate_sink_create_state(const Stream *stream, Oid topic_table);
extern void aggregate_sink_check_state(const Stream *stream, Oid topic_table);

#endif /* SINK_AGGREGATE_H */
