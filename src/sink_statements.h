/*-------------------------------------------------------------------------
 *
 * sink_statements.h
 *	  A sink that keeps a state: runs its statements with the watermark of the batch.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SINK_STATEMENTS_H
#define SINK_STATEMENTS_H

#include "sink.h"

/*
 * Each returns one row of three bigints: the rows written to the target, the input rows
 * that were too late, and by how many rows the state has grown.  It has the parameters $1, the watermark by which rows are late,
 * and $2, the one by which windows are closed (timestamptz; -infinity: none).
 * NULL: nothing to be done.
 */
typedef struct SinkStatements
{
	/* puts a batch into the state; a fourth bigint, if there is one: how many groups it has touched */
	char *merge;
	char *write;  /* writes to the target what the state has for it */
	char *forget; /* removes what is done with from the state */

	/* may "merge" take the rows of a batch in any order? */
	bool in_any_order;
} SinkStatements;

/*
 * A sink that runs these, in this order; without data all but the first.
 * waits_for_watermark: there is something to do when the watermark has moved,
 * if the stream has one.  Raises what parse analysis raises, and
 * ERRCODE_INSUFFICIENT_PRIVILEGE.
 */
extern Sink *statement_sink_create(const Stream *stream, Oid topic_table,
                                   const SinkStatements *statements, bool waits_for_watermark);

#endif /* SINK_STATEMENTS_H */
