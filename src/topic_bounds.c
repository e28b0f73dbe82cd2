/*-------------------------------------------------------------------------
 *
 * topic_bounds.c
 *	  Restriction clauses on a topic table's metadata columns, as bounds of
 *	  what is read from Kafka.
 *
 * A partition has no order but that of its offsets.  So partition and offset can
 * be bound on both sides, while a timestamp bounds from below only: Kafka finds the
 * first message that is not older than it, and there is none such before that;
 * after it, messages may be of any age.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "utils/array.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "kafka_consumer.h"
#include "topic_bounds.h"

/* "column operator value", whatever way round it was written */
typedef struct BoundClause
{
	TopicBoundKind kind;
	StrategyNumber strategy; /* of a btree */
	bool value_is_array;     /* "= ANY (value)" */
	Expr *value;
	ExprState *value_state;
	Oid value_type; /* of the array's elements, if it is one */
} BoundClause;

struct TopicBoundsState
{
	BoundClause *clauses;
	int count;
};

void
topic_bounds_init(TopicBounds *bounds)
{
	bounds->nothing = false;
	bounds->first_partition = 0;
	bounds->last_partition = PG_INT32_MAX;
	bounds->partitions_listed = false;
	bounds->partition_list = NIL;
	bounds->first_offset = 0;
	bounds->last_offset = PG_INT64_MAX;
	bounds->since_ms = -1;
}

static bool
is_integer_type(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/* A metadata column that can be bound, of a type that we know how to compare? */
static bool
is_bound_column(Expr *expression, Index relid, const TopicSchema *schema, TopicBoundKind *kind)
{
	Var *var = (Var *) expression;
	const TopicColumn *column;

	if (!IsA(expression, Var) || var->varno != relid || var->varlevelsup != 0 ||
	    var->varattno <= 0 || (column = topic_schema_column(schema, var->varattno)) == NULL)
		return false;

	switch (column->source)
	{
		case COLUMN_FROM_PARTITION:
			*kind = BOUND_PARTITION;
			return is_integer_type(var->vartype);
		case COLUMN_FROM_OFFSET:
			*kind = BOUND_OFFSET;
			return is_integer_type(var->vartype);
		case COLUMN_FROM_TIMESTAMP:
			*kind = BOUND_TIMESTAMP;
			return var->vartype == TIMESTAMPTZOID;
		default:
			return false;
	}
}

/* Known when the scan starts, and the same until it ends? */
static bool
is_constant_during_scan(Expr *value)
{
	return !contain_var_clause((Node *) value) && !contain_subplans((Node *) value) &&
	       !contain_volatile_functions((Node *) value);
}

static bool
match_clause(Expr *clause, Index relid, const TopicSchema *schema, BoundClause *match)
{
	Oid operator_id;
	Expr *column;
	Oid family;

	if (IsA(clause, OpExpr) && list_length(((OpExpr *) clause)->args) == 2)
	{
		OpExpr *comparison = (OpExpr *) clause;

		operator_id = comparison->opno;
		column = linitial(comparison->args);
		match->value = lsecond(comparison->args);
		match->value_is_array = false;
		if (!is_bound_column(column, relid, schema, &match->kind))
		{
			column = lsecond(comparison->args);
			match->value = linitial(comparison->args);
			operator_id = get_commutator(operator_id);
			if (!OidIsValid(operator_id))
				return false;
		}
		match->value_type = exprType((Node *) match->value);
	}
	else if (IsA(clause, ScalarArrayOpExpr) && ((ScalarArrayOpExpr *) clause)->useOr)
	{
		ScalarArrayOpExpr *comparison = (ScalarArrayOpExpr *) clause;

		operator_id = comparison->opno;
		column = linitial(comparison->args);
		match->value = lsecond(comparison->args);
		match->value_is_array = true;
		match->value_type = get_element_type(exprType((Node *) match->value));
	}
	else
		return false;

	if (!is_bound_column(column, relid, schema, &match->kind) ||
	    !is_constant_during_scan(match->value))
		return false;
	if (match->kind == BOUND_TIMESTAMP
	        ? match->value_type != TIMESTAMPTZOID && match->value_type != TIMESTAMPOID &&
	              match->value_type != DATEOID
	        : !is_integer_type(match->value_type))
		return false;

	family = lookup_type_cache(match->kind == BOUND_TIMESTAMP ? TIMESTAMPTZOID : INT8OID,
	                           TYPECACHE_BTREE_OPFAMILY)
	             ->btree_opf;
	match->strategy = get_op_opfamily_strategy(operator_id, family);

	if (match->value_is_array)
		return match->strategy == BTEqualStrategyNumber && match->kind == BOUND_PARTITION;
	if (match->kind == BOUND_TIMESTAMP)
		return match->strategy >= BTEqualStrategyNumber;
	return match->strategy != InvalidStrategy;
}

bool
topic_bounds_match(Expr *clause, Index relid, const TopicSchema *schema, TopicBoundKind *kind)
{
	BoundClause match;

	if (!match_clause(clause, relid, schema, &match))
		return false;
	*kind = match.kind;
	return true;
}

TopicBoundsState *
topic_bounds_prepare(List *clauses, Index relid, const TopicSchema *schema, PlanState *parent)
{
	TopicBoundsState *state = palloc0(sizeof(TopicBoundsState));
	ListCell *cell;

	state->clauses = palloc0(Max(list_length(clauses), 1) * sizeof(BoundClause));
	foreach (cell, clauses)
	{
		BoundClause *clause = &state->clauses[state->count];

		if (!match_clause(lfirst(cell), relid, schema, clause))
			elog(ERROR, "clause of a topic scan is no bound");
		clause->value_state = ExecInitExpr(clause->value, parent);
		state->count++;
	}
	return state;
}

static int64
integer_value(Datum value, Oid type)
{
	switch (type)
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		default:
			return DatumGetInt64(value);
	}
}

static TimestampTz
timestamp_value(Datum value, Oid type)
{
	switch (type)
	{
		case DATEOID:
			value = DirectFunctionCall1(date_timestamptz, value);
			break;
		case TIMESTAMPOID:
			value = DirectFunctionCall1(timestamp_timestamptz, value);
			break;
		default:
			break;
	}
	return DatumGetTimestampTz(value);
}

/* Narrows the range [*first, *last] by "x operator value". */
static void
narrow_range(TopicBounds *bounds, int64 *first, int64 *last, StrategyNumber strategy,
             int64 value)
{
	bool below = strategy <= BTEqualStrategyNumber;
	bool above = strategy >= BTEqualStrategyNumber;

	if ((strategy == BTLessStrategyNumber && value == PG_INT64_MIN) ||
	    (strategy == BTGreaterStrategyNumber && value == PG_INT64_MAX))
	{
		bounds->nothing = true;
		return;
	}
	if (below)
		*last = Min(*last, strategy == BTLessStrategyNumber ? value - 1 : value);
	if (above)
		*first = Max(*first, strategy == BTGreaterStrategyNumber ? value + 1 : value);
	if (*first > *last)
		bounds->nothing = true;
}

/* Keeps only the partitions that are elements of an array. */
static void
narrow_list(TopicBounds *bounds, ArrayType *array, Oid element_type)
{
	List *partitions = NIL;
	int16 length;
	bool by_value;
	char alignment;
	Datum *elements;
	bool *nulls;
	int count;

	get_typlenbyvalalign(element_type, &length, &by_value, &alignment);
	deconstruct_array(array, element_type, length, by_value, alignment, &elements, &nulls,
	                  &count);
	for (int i = 0; i < count; i++)
	{
		int64 value = nulls[i] ? -1 : integer_value(elements[i], element_type);

		if (value >= 0 && value <= PG_INT32_MAX &&
		    (!bounds->partitions_listed ||
		     list_member_int(bounds->partition_list, (int) value)))
			partitions = list_append_unique_int(partitions, (int) value);
	}
	bounds->partitions_listed = true;
	bounds->partition_list = partitions;
	if (partitions == NIL)
		bounds->nothing = true;
}

void
topic_bounds_evaluate(TopicBoundsState *state, ExprContext *econtext, TopicBounds *bounds)
{
	topic_bounds_init(bounds);
	for (int i = 0; i < state->count; i++)
	{
		BoundClause *clause = &state->clauses[i];
		bool isnull;
		Datum value = ExecEvalExprSwitchContext(clause->value_state, econtext, &isnull);

		if (isnull)
			bounds->nothing = true; /* a comparison with NULL is never true */
		else if (clause->value_is_array)
			narrow_list(bounds, DatumGetArrayTypeP(value), clause->value_type);
		else if (clause->kind == BOUND_PARTITION)
			narrow_range(bounds, &bounds->first_partition, &bounds->last_partition,
			             clause->strategy, integer_value(value, clause->value_type));
		else if (clause->kind == BOUND_OFFSET)
			narrow_range(bounds, &bounds->first_offset, &bounds->last_offset, clause->strategy,
			             integer_value(value, clause->value_type));
		else
			bounds->since_ms =
			    Max(bounds->since_ms,
			        kafka_timestamp_to_ms(timestamp_value(value, clause->value_type)));
	}
}
