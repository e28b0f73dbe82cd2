/*-------------------------------------------------------------------------
 *
 * aggregate_state.h
 *	  Transition states of aggregates as values that can be stored.
 *
 * SQL sees these functions (sql/kafka_ingest--1.0.sql, "Aggregate states"):
 *
 *	  kafka.partial_state(aggregate regprocedure, VARIADIC arguments "any") -> bytea
 *	  kafka.combine_states(aggregate regprocedure, state bytea, other bytea) -> bytea
 *	  kafka.combined_state(aggregate regprocedure, state bytea) -> bytea, over rows
 *	  kafka.final_value(aggregate regprocedure, state bytea, result anyelement) -> anyelement
 *
 *-------------------------------------------------------------------------
 */
#ifndef AGGREGATE_STATE_H
#define AGGREGATE_STATE_H

#include "postgres.h"
#include "nodes/primnodes.h"

/*
 * Checks that the three functions can stand for this call of an aggregate, as
 * the current user: it has a combine function, its state can be stored, no
 * DISTINCT or ORDER BY, and the user may execute it.  Otherwise raises the
 * refusal (ERRCODE_FEATURE_NOT_SUPPORTED with detail and hint), or
 * ERRCODE_INSUFFICIENT_PRIVILEGE.  FILTER is left to the executor.
 */
extern void aggregate_state_check(const Aggref *call);

#endif /* AGGREGATE_STATE_H */
