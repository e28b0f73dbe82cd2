/*-------------------------------------------------------------------------
 *
 * aggregate_support.h
 *	  An aggregate's support functions, and calling them outside of a query's
 *	  aggregation by the rules of nodeAgg.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef AGGREGATE_SUPPORT_H
#define AGGREGATE_SUPPORT_H

#include "postgres.h"
#include "executor/nodeAgg.h"
#include "fmgr.h"
#include "nodes/execnodes.h"

/* A transition state in memory. */
typedef struct TransitionState
{
	Datum value; /* 0 when null */
	bool is_null;
	bool no_value; /* null, and the first value becomes the state (nodeAgg's noTransValue) */
} TransitionState;

/* An aggregate for certain argument types and a collation, ready to be called. */
typedef struct AggregateSupport
{
	Oid aggregate;
	Oid collation;
	int input_count;
	Oid input_types[FUNC_MAX_ARGS]; /* "any" and polymorphic ones resolved */
	Oid transition_type;
	int16 transition_length;
	bool transition_by_value;
	Oid result_type;
	int16 result_length;
	bool result_by_value;

	TransitionState initial;
	FmgrInfo transition;
	FunctionCallInfo transition_call; /* inputs from args[1] on: see aggregate_advance() */
	FmgrInfo combine;
	bool has_final;
	FmgrInfo final;
	int final_argument_count;
	FmgrInfo serialize;   /* or the type's send function */
	FmgrInfo deserialize; /* or the type's receive function */
	Oid receive_parameter;

	/* what support functions see as their caller, through nodeAgg.c's API */
	AggState *caller;
	AggStatePerAggData caller_aggregate;
	AggStatePerTransData caller_transition;
} AggregateSupport;

/*
 * Looks up an aggregate, in the current memory context.  The types are those
 * of the call's arguments; input_count < 0 stands for the declared ones, which
 * do when the state doesn't depend on types.  Raises
 * ERRCODE_FEATURE_NOT_SUPPORTED when its states can't be stored and combined,
 * ERRCODE_DATATYPE_MISMATCH when it doesn't take these types,
 * ERRCODE_INSUFFICIENT_PRIVILEGE as a query with this aggregate would, and
 * what aggregate_state_depends_on_types() does.
 */
extern AggregateSupport *aggregate_support_load(Oid aggregate, int input_count,
                                                const Oid *input_types, Oid collation);

/*
 * Do states mean something only together with the types of the arguments,
 * since the aggregate takes any type?  Raises ERRCODE_UNDEFINED_FUNCTION or
 * ERRCODE_WRONG_OBJECT_TYPE when there is no such aggregate.
 */
extern bool aggregate_state_depends_on_types(Oid aggregate);

/* Raises ERRCODE_FEATURE_NOT_SUPPORTED: states of this aggregate aren't kept. */
pg_noreturn extern void aggregate_refuse(Oid aggregate, const char *detail, const char *hint);

/*
 * Sets where states live and where their parts may be left behind, before any
 * of the calls below; they are made in the latter's memory.
 */
extern void aggregate_use_contexts(AggregateSupport *support, ExprContext *state_context,
                                   ExprContext *call_context);

/* The state before any input. */
extern void aggregate_start(AggregateSupport *support, TransitionState *state);

/* Puts one row into a state: its values are in transition_call->args[1...]. */
extern void aggregate_advance(AggregateSupport *support, TransitionState *state);

/* Does a null state change nothing when it is put into another one? */
extern bool aggregate_skips_null_state(const AggregateSupport *support);

/* Puts another state into a state. */
extern void aggregate_combine(AggregateSupport *support, TransitionState *state,
                              const TransitionState *other);

/* The result of a state; lives as long as both contexts are left alone. */
extern Datum aggregate_finalize(AggregateSupport *support, const TransitionState *state,
                                bool *is_null);

/* The bytes of a state; NULL for none. */
extern bytea *aggregate_serialize(AggregateSupport *support, const TransitionState *state);

/*
 * The state from bytes that aggregate_serialize() made (payload NULL where it
 * made none).  They must be ours: built-in deserialization functions believe
 * what they read.
 */
extern void aggregate_deserialize(AggregateSupport *support, const char *payload, Size length,
                                  TransitionState *state);

#endif /* AGGREGATE_SUPPORT_H */
