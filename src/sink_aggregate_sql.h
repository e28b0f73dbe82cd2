/*-------------------------------------------------------------------------
 *
 * sink_aggregate_sql.h
 *	  The statements of an aggregate stream.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SINK_AGGREGATE_SQL_H
#define SINK_AGGREGATE_SQL_H

#include "postgres.h"
#include "sink_statements.h"
#include "stream_aggregate.h"

/*
 * merge: puts a batch into the state; in update mode writes the changed groups.
 * write: complete: makes the target equal to the result; append: the closed windows.
 * forget: update: removes closed windows from the state.
 *
 * Raises ERRCODE_INVALID_TABLE_DEFINITION when the target has no unique index on the
 * groups where the mode needs one.
 */
extern SinkStatements *aggregate_statements(const Stream *stream,
                                            const StreamAggregate *aggregate, Oid state_table);

#endif /* SINK_AGGREGATE_SQL_H */
