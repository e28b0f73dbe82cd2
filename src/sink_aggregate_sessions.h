/*-------------------------------------------------------------------------
 *
 * sink_aggregate_sessions.h
 *	  How a batch goes into a state whose groups are sessions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SINK_AGGREGATE_SESSIONS_H
#define SINK_AGGREGATE_SESSIONS_H

#include "postgres.h"
#include "lib/stringinfo.h"
#include "stream.h"
#include "stream_aggregate.h"

/*
 * Appends "WITH ..., merged ..., late ...": changes the state, with the sessions it has changed in
 * merged, and counts in late.rows the messages that were too late by $1.
 */
extern void append_session_merge(StringInfo sql, const Stream *stream,
                                 const StreamAggregate *aggregate);

/* By how many rows they make the state grow, as an expression below that WITH. */
#define SESSION_STATE_ROWS_ADDED                                                               \
	"(SELECT count(*) FROM merged) - (SELECT count(*) FROM touched)"

#endif /* SINK_AGGREGATE_SESSIONS_H */
