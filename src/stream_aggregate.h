/*-------------------------------------------------------------------------
 *
 * stream_aggregate.h
 *	  An aggregate query taken apart: its groups, its aggregates, the query
 *	  that makes partial states of a batch, and the result in terms of stored states.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STREAM_AGGREGATE_H
#define STREAM_AGGREGATE_H

#include "postgres.h"
#include "nodes/parsenodes.h"
#include "utils/relcache.h"

#include "event_time.h"
#include "stream.h"

/* One expression of GROUP BY: column k<n> of the state, n from 1 on. */
typedef struct GroupKey
{
	Node *expression;
	char *text;
	Oid type;
	int32 typmod;
	Oid collation;
	int output; /* index among the outputs that show it; -1: none does */
} GroupKey;

/* One aggregate: column a<n> of the state. */
typedef struct GroupAggregate
{
	Aggref *call;
	char *text;
} GroupAggregate;

typedef struct StreamAggregate
{
	Query *query;     /* without aliases of joins and groups */
	List *keys;       /* of GroupKey *; that of a window comes first, that of a session last */
	List *aggregates; /* of GroupAggregate *, without duplicates */
	EventWindow window;
	int window_key; /* the window is column k<n> of the state */
} StreamAggregate;

/* A column of the result. */
typedef struct AggregateOutput
{
	char *name;
	char *expression; /* SQL over a row of the state called "s" */
} AggregateOutput;

/*
 * Takes the query of an aggregate stream apart, as the current user.  topic_table is what it
 * reads.  Lives in the current memory context.  Raises ERRCODE_FEATURE_NOT_SUPPORTED,
 * with a detail and a hint, for what can't be kept up to date from states.
 */
extern StreamAggregate *stream_aggregate_load(const Stream *stream, Oid topic_table);

/* The index of the key that an expression is, of the aggregate that a call is; -1: none. */
extern int stream_aggregate_find_key(const StreamAggregate *aggregate, Node *expression);
extern int stream_aggregate_find_call(const StreamAggregate *aggregate, Aggref *call);

/* May a group have another result when its rows come in another order? */
extern bool stream_aggregate_depends_on_order(const StreamAggregate *aggregate);

/*
 * The query of a batch: k1 ... (a constant, without GROUP BY), the states a1 ... of the
 * batch's rows, and, with a window, their number as input_rows.
 */
extern char *stream_aggregate_batch_query(const StreamAggregate *aggregate);

/*
 * The rows of a batch that are to be grouped: k1 ..., and for aggregate n of "aggregates" its
 * arguments x<n>_1 ... and, if it has a FILTER, f<n>.
 */
extern char *stream_aggregate_rows_query(const StreamAggregate *aggregate);

/*
 * The columns of the result, of AggregateOutput *, over rows of a state table, with the
 * collations of the target's columns; "convert": with their types, too.
 */
extern List *stream_aggregate_outputs(const StreamAggregate *aggregate, Oid state_table,
                                      Relation target, bool convert);

/* HAVING in terms of "s", NULL without; " ORDER BY ... LIMIT ...", "" without. */
extern char *stream_aggregate_having(const StreamAggregate *aggregate, Oid state_table);
extern char *stream_aggregate_order(const StreamAggregate *aggregate, Oid state_table);

#endif /* STREAM_AGGREGATE_H */
