/*-------------------------------------------------------------------------
 *
 * aggregate_support.c
 *	  Looks up an aggregate's support functions, and refuses the aggregates
 *	  whose states can't be stored and combined.
 *
 * What ExecInitAgg() does for a query: types resolved, privileges checked,
 * functions ready to be called.  Calling them is left to aggregate_calls.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "aggregate_support.h"

#include "access/htup_details.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_agg.h"
#include "parser/parse_coerce.h"
#include "privileges.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* The two catalog rows of an aggregate; to be released. */
typedef struct AggregateRows
{
	HeapTuple function_tuple;
	HeapTuple aggregate_tuple;
	Form_pg_proc function;
	Form_pg_aggregate aggregate;
} AggregateRows;

void
aggregate_refuse(Oid aggregate, const char *detail, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	                errmsg("aggregate \"%s\" cannot be kept as a state from batch to batch",
	                       format_procedure(aggregate)),
	                errdetail_internal("%s", detail), errhint("%s", hint)));
}

static void
open_aggregate(Oid aggregate, AggregateRows *rows)
{
	rows->function_tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(aggregate));
	if (!HeapTupleIsValid(rows->function_tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
		                errmsg("aggregate with OID %u does not exist", aggregate)));
	rows->function = (Form_pg_proc) GETSTRUCT(rows->function_tuple);
	if (rows->function->prokind != PROKIND_AGGREGATE)
		ereport(ERROR,
		        (errcode(ERRCODE_WRONG_OBJECT_TYPE),
		         errmsg("function \"%s\" is not an aggregate", format_procedure(aggregate))));
	rows->aggregate_tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggregate));
	if (!HeapTupleIsValid(rows->aggregate_tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggregate);
	rows->aggregate = (Form_pg_aggregate) GETSTRUCT(rows->aggregate_tuple);
}

static void
close_aggregate(AggregateRows *rows)
{
	ReleaseSysCache(rows->aggregate_tuple);
	ReleaseSysCache(rows->function_tuple);
}

bool
aggregate_state_depends_on_types(Oid aggregate)
{
	AggregateRows rows;
	bool takes_any_type = false;
	bool depends;

	open_aggregate(aggregate, &rows);
	for (int i = 0; i < rows.function->pronargs; i++)
	{
		Oid type = rows.function->proargtypes.values[i];

		takes_any_type |= type == ANYOID || IsPolymorphicType(type);
	}
	depends = takes_any_type &&
	          (IsPolymorphicType(rows.aggregate->aggtranstype) ||
	           rows.aggregate->aggtranstype == INTERNALOID ||
	           IsPolymorphicType(rows.function->prorettype) || rows.aggregate->aggfinalextra);
	close_aggregate(&rows);
	return depends;
}

/* Can values be sent and received, with all their parts? */
static bool
type_can_be_stored(Oid type)
{
	Oid base_type = getBaseType(type);
	HeapTuple tuple;
	bool sent_and_received;
	Oid part;

	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(base_type));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", base_type);
	sent_and_received = ((Form_pg_type) GETSTRUCT(tuple))->typisdefined &&
	                    ((Form_pg_type) GETSTRUCT(tuple))->typtype != TYPTYPE_PSEUDO &&
	                    OidIsValid(((Form_pg_type) GETSTRUCT(tuple))->typsend) &&
	                    OidIsValid(((Form_pg_type) GETSTRUCT(tuple))->typreceive);
	ReleaseSysCache(tuple);
	if (!sent_and_received)
		return false;

	check_stack_depth();
	if (OidIsValid(part = get_element_type(base_type)) ||
	    OidIsValid(part = get_range_subtype(base_type)) ||
	    OidIsValid(part = get_multirange_range(base_type)))
		return type_can_be_stored(part);
	if (get_typtype(base_type) == TYPTYPE_COMPOSITE)
	{
		TupleDesc columns = lookup_rowtype_tupdesc_copy(base_type, -1);

		for (int i = 0; i < columns->natts; i++)
		{
			Form_pg_attribute column = TupleDescAttr(columns, i);

			if (!column->attisdropped && !type_can_be_stored(column->atttypid))
				return false;
		}
	}
	return true;
}

/* Raises the refusal for what no argument types can mend. */
static void
check_kind(Oid aggregate, const AggregateRows *rows)
{
	if (rows->aggregate->aggkind != AGGKIND_NORMAL)
		aggregate_refuse(aggregate,
		                 "It is an ordered-set aggregate: it needs all the rows at once.",
		                 "Keep the rows in append mode and aggregate them when they are read.");
	if (!OidIsValid(rows->aggregate->aggcombinefn))
		aggregate_refuse(
		    aggregate, "It has no combine function to put the states of two batches together.",
		    "Use an aggregate that has one (pg_aggregate.aggcombinefn; array_agg and "
		    "string_agg do from PostgreSQL 16 on), or keep the rows in append mode.");
	if (rows->aggregate->aggtranstype == INTERNALOID &&
	    (!OidIsValid(rows->aggregate->aggserialfn) ||
	     !OidIsValid(rows->aggregate->aggdeserialfn)))
		aggregate_refuse(aggregate,
		                 "Its state has no serialization and deserialization functions.",
		                 "Use an aggregate that PostgreSQL can compute in parallel.");
	if (rows->function->provariadic == ANYOID)
		aggregate_refuse(aggregate, "It takes any number of arguments of any type.",
		                 "Use an aggregate with a fixed number of arguments.");
}

/* Takes the types of the call; resolves those of the arguments, the state and the result. */
static void
resolve_types(AggregateSupport *support, const AggregateRows *rows, int input_count,
              const Oid *input_types)
{
	const Oid *declared = rows->function->proargtypes.values;
	int declared_count = rows->function->pronargs;

	support->input_count = declared_count;
	memcpy(support->input_types, declared, declared_count * sizeof(Oid));
	support->transition_type = rows->aggregate->aggtranstype;
	support->result_type = rows->function->prorettype;
	if (input_count < 0)
		return;

	if (input_count != declared_count)
		ereport(ERROR,
		        (errcode(ERRCODE_DATATYPE_MISMATCH),
		         errmsg("aggregate \"%s\" takes %d arguments, not %d",
		                format_procedure(support->aggregate), declared_count, input_count)));
	for (int i = 0; i < input_count; i++)
		if (input_types[i] == UNKNOWNOID)
			ereport(ERROR, (errcode(ERRCODE_INDETERMINATE_DATATYPE),
			                errmsg("could not determine the type of argument %d of "
			                       "aggregate \"%s\"",
			                       i + 1, format_procedure(support->aggregate)),
			                errhint("Cast it to a type.")));

	support->transition_type =
	    resolve_aggregate_transtype(support->aggregate, support->transition_type,
	                                unconstify(Oid *, input_types), input_count);
	support->result_type =
	    enforce_generic_type_consistency(input_types, support->input_types, input_count,
	                                     support->result_type, false);
	for (int i = 0; i < input_count; i++)
	{
		if (support->input_types[i] == ANYOID || IsPolymorphicType(support->input_types[i]))
			support->input_types[i] = input_types[i];
		if (!IsBinaryCoercible(input_types[i], support->input_types[i]))
			ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
			                errmsg("argument %d of aggregate \"%s\" must be of type %s, not %s",
			                       i + 1, format_procedure(support->aggregate),
			                       format_type_be(support->input_types[i]),
			                       format_type_be(input_types[i])),
			                errhint("Cast the argument.")));
	}
}

/* Raises the refusal for types whose values can't be stored. */
static void
check_types(const AggregateSupport *support)
{
	Oid unfit = InvalidOid;

	if (support->transition_type != INTERNALOID)
	{
		if (!type_can_be_stored(support->transition_type))
			unfit = support->transition_type;
	}
	else
	{
		/* such a state may contain values of the arguments, as array_agg's does */
		for (int i = 0; i < support->input_count; i++)
			if (support->input_types[i] != ANYOID &&
			    !type_can_be_stored(support->input_types[i]))
				unfit = support->input_types[i];
	}
	if (OidIsValid(unfit))
		aggregate_refuse(
		    support->aggregate,
		    psprintf("Its state has values of type %s, which can't be sent and received in "
		             "binary form.",
		             format_type_be(unfit)),
		    "Cast the argument to another type, for example text.");
}

/* Checks that the aggregate's owner may call a support function, as nodeAgg.c does. */
static void
prepare_function(FmgrInfo *function, Oid function_id, Oid aggregate_owner, Expr *expression)
{
	AclResult allowed = function_aclcheck(function_id, aggregate_owner);

	if (allowed != ACLCHECK_OK)
		aclcheck_error(allowed, OBJECT_FUNCTION, get_func_name(function_id));
	InvokeFunctionExecuteHook(function_id);
	fmgr_info(function_id, function);
	fmgr_info_set_expr((Node *) expression, function);
}

static void
prepare_storing(AggregateSupport *support, const AggregateRows *rows)
{
	Oid owner = rows->function->proowner;
	Oid function_id;
	bool is_varlena;
	Expr *expression;

	if (support->transition_type != INTERNALOID)
	{
		getTypeBinaryOutputInfo(support->transition_type, &function_id, &is_varlena);
		fmgr_info(function_id, &support->serialize);
		getTypeBinaryInputInfo(support->transition_type, &function_id,
		                       &support->receive_parameter);
		fmgr_info(function_id, &support->deserialize);
		return;
	}
	build_aggregate_serialfn_expr(rows->aggregate->aggserialfn, &expression);
	prepare_function(&support->serialize, rows->aggregate->aggserialfn, owner, expression);
	build_aggregate_deserialfn_expr(rows->aggregate->aggdeserialfn, &expression);
	prepare_function(&support->deserialize, rows->aggregate->aggdeserialfn, owner, expression);
}

static void
prepare_functions(AggregateSupport *support, const AggregateRows *rows)
{
	Form_pg_aggregate aggregate = rows->aggregate;
	Oid owner = rows->function->proowner;
	Expr *expression;

	build_aggregate_transfn_expr(support->input_types, support->input_count, 0,
	                             OidIsValid(rows->function->provariadic),
	                             support->transition_type, support->collation,
	                             aggregate->aggtransfn, InvalidOid, &expression, NULL);
	prepare_function(&support->transition, aggregate->aggtransfn, owner, expression);
	support->transition_call = palloc0(SizeForFunctionCallInfo(support->input_count + 1));
	InitFunctionCallInfoData(*support->transition_call, &support->transition,
	                         support->input_count + 1, support->collation,
	                         (fmNodePtr) support->caller, NULL);

	build_aggregate_transfn_expr(&support->transition_type, 1, 0, false,
	                             support->transition_type, support->collation,
	                             aggregate->aggcombinefn, InvalidOid, &expression, NULL);
	prepare_function(&support->combine, aggregate->aggcombinefn, owner, expression);

	support->has_final = OidIsValid(aggregate->aggfinalfn);
	if (support->has_final)
	{
		support->final_argument_count =
		    1 + (aggregate->aggfinalextra ? support->input_count : 0);
		build_aggregate_finalfn_expr(support->input_types, support->final_argument_count,
		                             support->transition_type, support->result_type,
		                             support->collation, aggregate->aggfinalfn, &expression);
		prepare_function(&support->final, aggregate->aggfinalfn, owner, expression);
	}

	/* CREATE AGGREGATE has seen to both; but functions can be altered */
	if (support->combine.fn_strict && support->transition_type == INTERNALOID)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
		         errmsg("combine function with transition type %s must not be declared STRICT",
		                format_type_be(support->transition_type))));
	if (support->transition.fn_strict && support->initial.is_null &&
	    (support->input_count == 0 ||
	     !(support->input_types[0] == ANYOID || IsPolymorphicType(support->input_types[0]) ||
	       IsBinaryCoercible(support->input_types[0], support->transition_type))))
		ereport(
		    ERROR,
		    (errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
		     errmsg("aggregate \"%s\" needs to have compatible input type and transition type",
		            format_procedure(support->aggregate))));
}

static void
load_initial_state(AggregateSupport *support, const AggregateRows *rows)
{
	Datum text_value = SysCacheGetAttr(AGGFNOID, rows->aggregate_tuple,
	                                   Anum_pg_aggregate_agginitval, &support->initial.is_null);

	support->initial.no_value = support->initial.is_null;
	if (!support->initial.is_null)
	{
		Oid input_function;
		Oid input_parameter;

		getTypeInputInfo(support->transition_type, &input_function, &input_parameter);
		support->initial.value =
		    OidInputFunctionCall(input_function, TextDatumGetCString(text_value),
		                         input_parameter, -1);
	}
}

/* What AggCheckCallContext(), AggGetAggref() and their like shall find. */
static void
prepare_caller(AggregateSupport *support)
{
	Aggref *call = makeNode(Aggref);

	call->aggfnoid = support->aggregate;
	call->aggtype = support->result_type;
	call->aggcollid = get_typcollation(support->result_type);
	call->inputcollid = support->collation;
	call->aggtranstype = support->transition_type;
	call->aggkind = AGGKIND_NORMAL;
	call->aggsplit = AGGSPLIT_SIMPLE;
	call->location = -1;
	for (int i = 0; i < support->input_count; i++)
	{
		Param *input = makeNode(Param);

		input->paramkind = PARAM_EXEC;
		input->paramid = -1;
		input->paramtype = support->input_types[i];
		input->paramtypmod = -1;
		input->paramcollid = get_typcollation(support->input_types[i]);
		input->location = -1;
		call->aggargtypes = lappend_oid(call->aggargtypes, support->input_types[i]);
		call->args = lappend(call->args, makeTargetEntry((Expr *) input, i + 1, NULL, false));
	}

	support->caller_aggregate.aggref = call;
	support->caller_transition.aggref = call;
	support->caller = makeNode(AggState);
	support->caller->peragg = &support->caller_aggregate;
	support->caller->pertrans = &support->caller_transition;
	support->caller->numaggs = 1;
	support->caller->numtrans = 1;
}

AggregateSupport *
aggregate_support_load(Oid aggregate, int input_count, const Oid *input_types, Oid collation)
{
	AggregateSupport *support;
	AggregateRows rows;

	open_aggregate(aggregate, &rows);
	privileges_check_routine(aggregate);
	InvokeFunctionExecuteHook(aggregate);
	check_kind(aggregate, &rows);

	support = palloc0(sizeof(AggregateSupport));
	support->aggregate = aggregate;
	support->collation = collation;
	resolve_types(support, &rows, input_count, input_types);
	check_types(support);
	get_typlenbyval(support->transition_type, &support->transition_length,
	                &support->transition_by_value);
	get_typlenbyval(support->result_type, &support->result_length, &support->result_by_value);
	prepare_caller(support);
	load_initial_state(support, &rows);
	prepare_functions(support, &rows);
	prepare_storing(support, &rows);
	close_aggregate(&rows);
	return support;
}
