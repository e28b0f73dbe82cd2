/*-------------------------------------------------------------------------
 *
 * topic_bounds.h
 *	  Which part of a topic a query's WHERE clause can match, as far as Kafka
 *	  can be asked for it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TOPIC_BOUNDS_H
#define TOPIC_BOUNDS_H

#include "postgres.h"
#include "nodes/execnodes.h"
#include "nodes/primnodes.h"

#include "topic_schema.h"

/* Metadata columns that Kafka can be asked for. */
typedef enum TopicBoundKind
{
	BOUND_PARTITION,
	BOUND_OFFSET,
	BOUND_TIMESTAMP
} TopicBoundKind;

typedef struct TopicBounds
{
	bool nothing; /* no message can match */
	int64 first_partition;
	int64 last_partition;
	bool partitions_listed; /* then only those of partition_list */
	List *partition_list;   /* of int */
	int64 first_offset;
	int64 last_offset;
	int64 since_ms; /* from the first message that is not older; -1: all */
} TopicBounds;

/* Everything. */
extern void topic_bounds_init(TopicBounds *bounds);

/*
 * Can a restriction clause on the relation "relid" of the query be turned into
 * a bound?  Those are comparisons of a metadata column (partition, offset,
 * timestamp) with an expression that is constant during a scan.  Bounds only narrow what is
 * read: the clause must be checked for each row all the same.
 */
extern bool topic_bounds_match(Expr *clause, Index relid, const TopicSchema *schema,
                               TopicBoundKind *kind);

/*
 * The parts of such clauses that are evaluated when a scan starts, and their
 * evaluation.  Prepared in the current memory context, of which results of an
 * evaluation use the per-tuple context of "econtext".
 */
typedef struct TopicBoundsState TopicBoundsState;

extern TopicBoundsState *topic_bounds_prepare(List *clauses, Index relid,
                                              const TopicSchema *schema, PlanState *parent);
extern void topic_bounds_evaluate(TopicBoundsState *state, ExprContext *econtext,
                                  TopicBounds *bounds);

#endif /* TOPIC_BOUNDS_H */
