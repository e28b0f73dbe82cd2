/*-------------------------------------------------------------------------
 *
 * aggregate_state.c
 *	  The SQL functions that make, combine and finish transition states:
 *	  parallel aggregation with a table between its steps.
 *
 * Each call site (fn_extra) looks its aggregate up once per statement.  How
 * support functions are found and called is left to aggregate_support.c and
 * aggregate_calls.c, what a stored state looks like to
 * aggregate_state_format.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "aggregate_state.h"

#include "aggregate_state_format.h"
#include "catalog/pg_aggregate.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/regproc.h"

PG_FUNCTION_INFO_V1(kafka_partial_state_transition);
PG_FUNCTION_INFO_V1(kafka_partial_state_final);
PG_FUNCTION_INFO_V1(kafka_combine_states);
PG_FUNCTION_INFO_V1(kafka_combine_next_state);
PG_FUNCTION_INFO_V1(kafka_final_value);

/* What a call site has looked up. */
typedef struct StateCall
{
	Oid aggregate;
	StateSeal *seal;
	AggregateSupport *support; /* NULL until a state tells the types */
	StateSignature signature;
	bool result_checked; /* final_value may return what support computes */

	/* not for partial_state, which works in the executor's contexts */
	MemoryContext context;         /* holds this struct */
	MemoryContext support_context; /* holds support and signature */
	ExprContext *state_context;    /* these two are emptied after each call */
	ExprContext *call_context;
} StateCall;

void
aggregate_state_check(const Aggref *call)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "aggregate state check",
	                                              ALLOCSET_SMALL_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	Oid input_types[FUNC_MAX_ARGS];
	int input_count = 0;
	ListCell *cell;

	if (call->aggdistinct != NIL)
		aggregate_refuse(call->aggfnoid,
		                 "With DISTINCT it needs all values of earlier batches.",
		                 "Leave DISTINCT out, or deduplicate in a stream of its own.");
	if (!AGGKIND_IS_ORDERED_SET(call->aggkind) && call->aggorder != NIL)
		aggregate_refuse(call->aggfnoid,
		                 "With ORDER BY it needs all values of earlier batches in one order.",
		                 "Leave ORDER BY out.");
	foreach (cell, call->aggargtypes)
		input_types[input_count++] = lfirst_oid(cell);
	(void) aggregate_support_load(call->aggfnoid, input_count, input_types, call->inputcollid);

	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
}

static Oid
aggregate_argument(FunctionCallInfo fcinfo, int number)
{
	if (PG_ARGISNULL(number))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("aggregate must not be null")));
	return PG_GETARG_OID(number);
}

/* ---------------------------------------------------------------------------
 * kafka.partial_state
 * ---------------------------------------------------------------------------
 */

/* The aggregate that a call of partial_state names: known before the first row. */
static Oid
named_aggregate(const Aggref *call)
{
	Expr *argument = linitial_node(TargetEntry, call->args)->expr;

	if (!IsA(argument, Const))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("the aggregate of kafka.partial_state must be a constant"),
		                errhint("Write it as a literal, such as "
		                        "'sum(numeric)'::regprocedure.")));
	if (((Const *) argument)->constisnull)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("aggregate must not be null")));
	return DatumGetObjectId(((Const *) argument)->constvalue);
}

/* Looks up what a call of partial_state asks for, once per statement and function. */
static StateCall *
load_partial_call(FunctionCallInfo fcinfo)
{
	MemoryContext old_context = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	Aggref *call = AggGetAggref(fcinfo);
	StateCall *state_call = palloc0(sizeof(StateCall));
	Oid input_types[FUNC_MAX_ARGS];
	int input_count = 0;

	if (call == NULL || AggCheckCallContext(fcinfo, NULL) != AGG_CONTEXT_AGGREGATE)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("kafka.partial_state cannot be used as a window function"),
		                errhint("Use it with GROUP BY.")));
	state_call->aggregate = named_aggregate(call);
	if (call->aggdistinct != NIL)
		aggregate_refuse(state_call->aggregate,
		                 "With DISTINCT it needs all values of earlier batches.",
		                 "Leave DISTINCT out.");
	for (int i = 1; i < list_length(call->aggargtypes); i++)
		input_types[input_count++] = list_nth_oid(call->aggargtypes, i);
	state_call->support = aggregate_support_load(state_call->aggregate, input_count,
	                                             input_types, call->inputcollid);
	state_call->signature = state_signature_make(state_call->support);
	state_call->seal = stored_state_seal(state_call->aggregate);
	fcinfo->flinfo->fn_extra = state_call;
	MemoryContextSwitchTo(old_context);
	return state_call;
}

/* States live where the executor keeps those of its own aggregates. */
static void
use_executor_contexts(AggregateSupport *support, FunctionCallInfo fcinfo)
{
	AggState *executor = castNode(AggState, fcinfo->context);

	aggregate_use_contexts(support, executor->curaggcontext, executor->tmpcontext);
}

/* SQL: transition function of kafka.partial_state */
Datum
kafka_partial_state_transition(PG_FUNCTION_ARGS)
{
	StateCall *call = fcinfo->flinfo->fn_extra;
	TransitionState *state;

	if (call == NULL)
		call = load_partial_call(fcinfo);
	use_executor_contexts(call->support, fcinfo);
	if (PG_ARGISNULL(0))
	{
		state = MemoryContextAlloc(call->support->caller->curaggcontext->ecxt_per_tuple_memory,
		                           sizeof(TransitionState));
		aggregate_start(call->support, state);
	}
	else
		state = (TransitionState *) PG_GETARG_POINTER(0);

	/* behind our own state and the aggregate are its arguments */
	memcpy(&call->support->transition_call->args[1], &fcinfo->args[2],
	       call->support->input_count * sizeof(NullableDatum));
	aggregate_advance(call->support, state);
	PG_RETURN_POINTER(state);
}

/* SQL: final function of kafka.partial_state */
Datum
kafka_partial_state_final(PG_FUNCTION_ARGS)
{
	StateCall *call = fcinfo->flinfo->fn_extra;
	TransitionState state;
	bytea *result;

	if (call == NULL)
		call = load_partial_call(fcinfo);
	use_executor_contexts(call->support, fcinfo);
	if (PG_ARGISNULL(0))
		aggregate_start(call->support, &state);
	else
		state = *(TransitionState *) PG_GETARG_POINTER(0);
	/* whatever made it null: to the other states there is nothing here */
	state.no_value = state.is_null;
	result = stored_state_make(call->support, call->seal, &call->signature, &state);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(result);
}

/* ---------------------------------------------------------------------------
 * kafka.combine_states, kafka.final_value
 * ---------------------------------------------------------------------------
 */

/* The call site's cache, for this aggregate. */
static StateCall *
load_state_call(FunctionCallInfo fcinfo)
{
	Oid aggregate = aggregate_argument(fcinfo, 0);
	StateCall *call = fcinfo->flinfo->fn_extra;
	MemoryContext context;
	MemoryContext old_context;

	if (call != NULL && call->aggregate == aggregate)
		return call;
	if (call != NULL)
	{
		fcinfo->flinfo->fn_extra = NULL;
		MemoryContextDelete(call->context);
	}
	context = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt, "aggregate states",
	                                ALLOCSET_SMALL_SIZES);
	old_context = MemoryContextSwitchTo(context);
	/* says so if it isn't an aggregate */
	(void) aggregate_state_depends_on_types(aggregate);
	call = palloc0(sizeof(StateCall));
	call->aggregate = aggregate;
	call->context = context;
	call->seal = stored_state_seal(aggregate);
	call->support_context =
	    AllocSetContextCreate(context, "aggregate support", ALLOCSET_SMALL_SIZES);
	call->state_context = CreateStandaloneExprContext();
	call->call_context = CreateStandaloneExprContext();
	MemoryContextSwitchTo(old_context);
	fcinfo->flinfo->fn_extra = call;
	return call;
}

/* Looks up the aggregate for the types and collation that a state was made for. */
static void
use_signature(StateCall *call, const StateSignature *signature)
{
	MemoryContext old_context;
	char *names;

	if (call->support != NULL && state_signature_equal(&call->signature, signature))
		return;
	call->support = NULL;
	call->result_checked = false;
	MemoryContextReset(call->support_context);
	old_context = MemoryContextSwitchTo(call->support_context);
	names = palloc(signature->length);
	/* of an aggregate whose state depends on no types: none */
	if (signature->length > 0)
		memcpy(names, signature->names, signature->length);
	call->signature = *signature;
	call->signature.names = names;
	call->support = state_signature_resolve(call->aggregate, &call->signature);
	aggregate_use_contexts(call->support, call->state_context, call->call_context);
	MemoryContextSwitchTo(old_context);
}

/* An argument's bytes in the current memory context, or NULL. */
static const bytea *
state_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : PG_GETARG_BYTEA_PP(number);
}

/* The state that was stored, or a fresh one. */
static void
open_state(StateCall *call, const StoredState *stored, TransitionState *state)
{
	if (stored->no_value)
		aggregate_start(call->support, state);
	else
		aggregate_deserialize(call->support, stored->payload, stored->payload_length, state);
}

/*
 * Puts "other" into "state"; returns the argument's number when the result is
 * one of the two as it is, else 0 and the result's bytes, in scratch memory.
 */
static int
combine(StateCall *call, FunctionCallInfo fcinfo, bytea **result)
{
	StoredState stored;
	StoredState stored_other;
	TransitionState state;
	TransitionState other;

	stored_state_read(call->aggregate, call->seal, state_argument(fcinfo, 1), &stored);
	stored_state_read(call->aggregate, call->seal, state_argument(fcinfo, 2), &stored_other);
	/* NULL says nothing about types */
	if (PG_ARGISNULL(1) && PG_ARGISNULL(2) && aggregate_state_depends_on_types(call->aggregate))
		return 1;
	if (!PG_ARGISNULL(1) && !PG_ARGISNULL(2) &&
	    !state_signature_equal(&stored.signature, &stored_other.signature))
		ereport(ERROR,
		        (errcode(ERRCODE_DATATYPE_MISMATCH),
		         errmsg("states of aggregate \"%s\" differ in argument types or collation",
		                format_procedure(call->aggregate))));
	if (!PG_ARGISNULL(1) || !PG_ARGISNULL(2) || call->support == NULL)
		use_signature(call, PG_ARGISNULL(1) ? &stored_other.signature : &stored.signature);

	/* a combine function that has once returned NULL for good */
	if (call->support->combine.fn_strict && stored.payload == NULL && !stored.no_value)
		return 1;
	if (call->support->combine.fn_strict && stored_other.payload == NULL &&
	    !stored_other.no_value)
		return 2;
	if (stored_other.payload == NULL && aggregate_skips_null_state(call->support) &&
	    !PG_ARGISNULL(1))
		return 1;
	if (stored.no_value && call->support->initial.is_null && call->support->combine.fn_strict &&
	    !PG_ARGISNULL(2))
		return 2;

	open_state(call, &stored, &state);
	if (stored_other.payload != NULL || !aggregate_skips_null_state(call->support))
	{
		aggregate_deserialize(call->support, stored_other.payload, stored_other.payload_length,
		                      &other);
		aggregate_combine(call->support, &state, &other);
	}
	*result = stored_state_make(call->support, call->seal, &call->signature, &state);
	return 0;
}

/* Forgets all but the lookups; the result has been copied. */
static void
end_call(StateCall *call)
{
	ReScanExprContext(call->state_context);
	ReScanExprContext(call->call_context);
}

/* SQL: kafka.combine_states(aggregate, state, other) */
Datum
kafka_combine_states(PG_FUNCTION_ARGS)
{
	StateCall *call = load_state_call(fcinfo);
	MemoryContext old_context;
	bytea *result = NULL;
	int same_as;

	old_context = MemoryContextSwitchTo(call->call_context->ecxt_per_tuple_memory);
	same_as = combine(call, fcinfo, &result);
	MemoryContextSwitchTo(old_context);
	if (same_as == 0 && result != NULL)
		result = (bytea *) DatumGetPointer(datumCopy(PointerGetDatum(result), false, -1));
	end_call(call);

	if (same_as != 0 && !PG_ARGISNULL(same_as))
		PG_RETURN_DATUM(PG_GETARG_DATUM(same_as));
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(result);
}

/* SQL: kafka.combine_next_state(state, aggregate, other), the step of kafka.combined_state */
Datum
kafka_combine_next_state(PG_FUNCTION_ARGS)
{
	NullableDatum state = fcinfo->args[0];

	fcinfo->args[0] = fcinfo->args[1];
	fcinfo->args[1] = state;
	return kafka_combine_states(fcinfo);
}

/* Raises ERRCODE_DATATYPE_MISMATCH unless the result can be taken for this type. */
static void
check_result_type(FunctionCallInfo fcinfo, const AggregateSupport *support)
{
	Oid wanted = get_fn_expr_argtype(fcinfo->flinfo, 2);

	if (wanted != support->result_type && !IsBinaryCoercible(support->result_type, wanted))
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
		                errmsg("aggregate \"%s\" returns %s, not %s",
		                       format_procedure(support->aggregate),
		                       format_type_be(support->result_type), format_type_be(wanted)),
		                errhint("Make the third argument NULL::%s.",
		                        format_type_be(support->result_type))));
}

/* SQL: kafka.final_value(aggregate, state, result) */
Datum
kafka_final_value(PG_FUNCTION_ARGS)
{
	StateCall *call = load_state_call(fcinfo);
	StoredState stored;
	TransitionState state;
	MemoryContext old_context;
	Datum result;
	bool is_null;

	/* NULL says nothing about types */
	if (PG_ARGISNULL(1) && aggregate_state_depends_on_types(call->aggregate))
		PG_RETURN_NULL();
	old_context = MemoryContextSwitchTo(call->call_context->ecxt_per_tuple_memory);
	stored_state_read(call->aggregate, call->seal, state_argument(fcinfo, 1), &stored);
	if (!PG_ARGISNULL(1) || call->support == NULL)
		use_signature(call, &stored.signature);
	if (!call->result_checked)
		check_result_type(fcinfo, call->support);
	call->result_checked = true;
	open_state(call, &stored, &state);
	result = aggregate_finalize(call->support, &state, &is_null);
	MemoryContextSwitchTo(old_context);
	if (!is_null)
		result =
		    datumCopy(result, call->support->result_by_value, call->support->result_length);
	end_call(call);
	fcinfo->isnull = is_null;
	return is_null ? (Datum) 0 : result;
}
