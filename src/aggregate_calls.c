/*-------------------------------------------------------------------------
 *
 * aggregate_calls.c
 *	  Calls an aggregate's support functions by the rules of nodeAgg.c: what a
 *	  strict function skips, what becomes the first state, who owns a state.
 *
 * Which functions these are, and who may call them, is left to
 * aggregate_support.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "aggregate_support.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/expandeddatum.h"
#include "utils/memutils.h"
#include "utils/regproc.h"

void
aggregate_use_contexts(AggregateSupport *support, ExprContext *state_context,
                       ExprContext *call_context)
{
	support->caller->curaggcontext = state_context;
	support->caller->tmpcontext = call_context;
}

/* A copy where states live. */
static Datum
copy_value(AggregateSupport *support, Datum value)
{
	MemoryContext old_context;

	if (support->transition_by_value)
		return value;
	old_context = MemoryContextSwitchTo(support->caller->curaggcontext->ecxt_per_tuple_memory);
	value = datumCopy(value, false, support->transition_length);
	MemoryContextSwitchTo(old_context);
	return value;
}

void
aggregate_start(AggregateSupport *support, TransitionState *state)
{
	*state = support->initial;
	if (!state->is_null)
		state->value = copy_value(support, state->value);
}

/* Is this value an expanded object of those that live with the states? */
static bool
is_expanded_state(AggregateSupport *support, Datum value)
{
	return DatumIsReadWriteExpandedObject(value, false, support->transition_length) &&
	       MemoryContextGetParent(DatumGetEOHP(value)->eoh_context) ==
	           support->caller->curaggcontext->ecxt_per_tuple_memory;
}

/* Calls the transition or combine function; its result becomes the state. */
static void
replace_state(AggregateSupport *support, FunctionCallInfo call, TransitionState *state)
{
	MemoryContext old_context;
	Datum value;

	old_context = MemoryContextSwitchTo(support->caller->tmpcontext->ecxt_per_tuple_memory);
	support->caller->curpertrans = &support->caller_transition;
	call->args[0].value = state->value;
	call->args[0].isnull = state->is_null;
	call->isnull = false;
	value = FunctionCallInvoke(call);
	support->caller->curpertrans = NULL;

	/* numeric_avg_combine() and its like return a null pointer for no state */
	if (call->isnull ||
	    (support->transition_type == INTERNALOID && DatumGetPointer(value) == NULL))
	{
		call->isnull = true;
		value = (Datum) 0;
	}
	if (!support->transition_by_value &&
	    DatumGetPointer(value) != DatumGetPointer(state->value))
	{
		if (!call->isnull && !is_expanded_state(support, value))
			value = copy_value(support, value);
		if (!state->is_null)
		{
			if (DatumIsReadWriteExpandedObject(state->value, false, support->transition_length))
				DeleteExpandedObject(state->value);
			else
				pfree(DatumGetPointer(state->value));
		}
	}
	state->value = value;
	state->is_null = call->isnull;
	state->no_value = state->no_value && state->is_null;
	MemoryContextSwitchTo(old_context);
}

void
aggregate_advance(AggregateSupport *support, TransitionState *state)
{
	FunctionCallInfo call = support->transition_call;

	if (support->transition.fn_strict)
	{
		for (int i = 1; i <= support->input_count; i++)
			if (call->args[i].isnull)
				return;
		if (state->no_value)
		{
			state->value = copy_value(support, call->args[1].value);
			state->is_null = false;
			state->no_value = false;
			return;
		}
		/* a strict function has returned NULL before: that stays */
		if (state->is_null)
			return;
	}
	replace_state(support, call, state);
}

bool
aggregate_skips_null_state(const AggregateSupport *support)
{
	return support->combine.fn_strict ||
	       (support->transition_type == INTERNALOID && support->deserialize.fn_strict);
}

void
aggregate_combine(AggregateSupport *support, TransitionState *state,
                  const TransitionState *other)
{
	LOCAL_FCINFO(call, 2);

	if (other->is_null && aggregate_skips_null_state(support))
		return;
	if (support->combine.fn_strict)
	{
		if (state->no_value)
		{
			*state = *other;
			state->no_value = false;
			return;
		}
		if (state->is_null)
			return;
	}
	InitFunctionCallInfoData(*call, &support->combine, 2, support->collation,
	                         (fmNodePtr) support->caller, NULL);
	call->args[1].value = other->value;
	call->args[1].isnull = other->is_null;
	replace_state(support, call, state);
}

Datum
aggregate_finalize(AggregateSupport *support, const TransitionState *state, bool *is_null)
{
	LOCAL_FCINFO(call, FUNC_MAX_ARGS);
	Datum result;

	if (!support->has_final)
	{
		*is_null = state->is_null;
		return state->value;
	}
	*is_null = true;
	if (support->final.fn_strict && (state->is_null || support->final_argument_count > 1))
		return (Datum) 0;
	InitFunctionCallInfoData(*call, &support->final, support->final_argument_count,
	                         support->collation, (fmNodePtr) support->caller, NULL);
	call->args[0].value =
	    MakeExpandedObjectReadOnly(state->value, state->is_null, support->transition_length);
	call->args[0].isnull = state->is_null;
	/* the others only tell the function the types */
	for (int i = 1; i < support->final_argument_count; i++)
	{
		call->args[i].value = (Datum) 0;
		call->args[i].isnull = true;
	}
	support->caller->curperagg = &support->caller_aggregate;
	result = FunctionCallInvoke(call);
	support->caller->curperagg = NULL;
	*is_null = call->isnull;
	return result;
}

bytea *
aggregate_serialize(AggregateSupport *support, const TransitionState *state)
{
	LOCAL_FCINFO(call, 1);
	Datum value =
	    MakeExpandedObjectReadOnly(state->value, state->is_null, support->transition_length);
	Datum bytes;

	if (support->transition_type != INTERNALOID)
		return state->is_null ? NULL : SendFunctionCall(&support->serialize, value);
	if (state->is_null && support->serialize.fn_strict)
		return NULL;
	InitFunctionCallInfoData(*call, &support->serialize, 1, InvalidOid,
	                         (fmNodePtr) support->caller, NULL);
	call->args[0].value = value;
	call->args[0].isnull = state->is_null;
	bytes = FunctionCallInvoke(call);
	return call->isnull ? NULL : DatumGetByteaPP(bytes);
}

/* The state from bytes that a deserialization function reads, or from none. */
static void
deserialize_internal(AggregateSupport *support, const char *payload, Size length,
                     TransitionState *state)
{
	LOCAL_FCINFO(call, 2);
	Datum value;

	InitFunctionCallInfoData(*call, &support->deserialize, 2, InvalidOid,
	                         (fmNodePtr) support->caller, NULL);
	call->args[0].value = (Datum) 0;
	call->args[0].isnull = payload == NULL;
	if (payload != NULL)
	{
		bytea *bytes = palloc(VARHDRSZ + length);

		SET_VARSIZE(bytes, VARHDRSZ + length);
		memcpy(VARDATA(bytes), payload, length);
		call->args[0].value = PointerGetDatum(bytes);
	}
	/* of type internal, so that the function can't be called from SQL */
	call->args[1].value = (Datum) 0;
	call->args[1].isnull = false;
	value = FunctionCallInvoke(call);
	if (!call->isnull && DatumGetPointer(value) != NULL)
	{
		state->value = value;
		state->is_null = false;
	}
}

void
aggregate_deserialize(AggregateSupport *support, const char *payload, Size length,
                      TransitionState *state)
{
	state->value = (Datum) 0;
	state->is_null = true;
	state->no_value = false;
	if (support->transition_type == INTERNALOID)
	{
		if (payload != NULL || !support->deserialize.fn_strict)
			deserialize_internal(support, payload, length, state);
	}
	else if (payload != NULL)
	{
		StringInfoData buffer;

		/* a copy: receive functions write into their buffer */
		initStringInfo(&buffer);
		appendBinaryStringInfo(&buffer, payload, length);
		state->value =
		    ReceiveFunctionCall(&support->deserialize, &buffer, support->receive_parameter, -1);
		state->is_null = false;
		if (buffer.cursor != buffer.len)
			ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
			                errmsg("state of aggregate \"%s\" is longer than its type's values",
			                       format_procedure(support->aggregate))));
	}
}
