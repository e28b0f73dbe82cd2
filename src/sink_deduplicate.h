/*-------------------------------------------------------------------------
 *
 * sink_deduplicate.h
 *	  Append mode with deduplicate_by: of rows with the same key, the first.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SINK_DEDUPLICATE_H
#define SINK_DEDUPLICATE_H

#include "sink.h"
#include "stream_state.h"

/* The keys that were seen: k1 ... and the time until which each is remembered. */
extern StateDefinition *deduplicate_state_definition(const Stream *stream);

/*
 * See sink_create().  Raises ERRCODE_UNDEFINED_COLUMN for a name in deduplicate_by that the
 * source doesn't have, ERRCODE_FEATURE_NOT_SUPPORTED when it doesn't have the event time, and
 * what statement_sink_create() does.
 */
extern Sink *deduplicate_sink_create(const Stream *stream, Oid topic_table);

#endif /* SINK_DEDUPLICATE_H */
