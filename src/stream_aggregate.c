/*-------------------------------------------------------------------------
 *
 * stream_aggregate.c
 *	  An aggregate query taken apart: its groups, its aggregates, its window.
 *
 * Works on PostgreSQL's own trees, and refuses what can't be kept up to date from states.
 * What becomes of the parts is left to stream_aggregate_query.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_aggregate.h"

#include "access/relation.h"
#include "access/transam.h"
#include "aggregate_state.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_coerce.h"
#include "parser/parse_func.h"
#include "rewrite/rewriteHandler.h"
#include "stream_query.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

int
stream_aggregate_find_key(const StreamAggregate *aggregate, Node *expression)
{
	ListCell *cell;

	foreach (cell, aggregate->keys)
	{
		GroupKey *key = lfirst(cell);

		if (equal(key->expression, expression))
			return foreach_current_index(cell);
	}
	return -1;
}

int
stream_aggregate_find_call(const StreamAggregate *aggregate, Aggref *call)
{
	ListCell *cell;

	foreach (cell, aggregate->aggregates)
	{
		GroupAggregate *group_aggregate = lfirst(cell);

		if (equal(group_aggregate->call, call))
			return foreach_current_index(cell);
	}
	return -1;
}

/* Is an aggregate known to be exact, and the same for its arguments in any order? */
static bool
takes_any_order(const Aggref *call)
{
	static const char *const names[] = {"count",   "sum",      "avg",     "min",
	                                    "max",     "bool_and", "bool_or", "every",
	                                    "bit_and", "bit_or",   "bit_xor"};
	char *name = get_func_name(call->aggfnoid);
	ListCell *cell;

	/* sums of these depend on it in their last digits */
	foreach (cell, call->aggargtypes)
		if (lfirst_oid(cell) == FLOAT4OID || lfirst_oid(cell) == FLOAT8OID)
			return false;
	for (int i = 0; i < lengthof(names); i++)
		if (call->aggfnoid < FirstUnpinnedObjectId && strcmp(name, names[i]) == 0)
			return true;
	return false;
}

bool
stream_aggregate_depends_on_order(const StreamAggregate *aggregate)
{
	ListCell *cell;

	foreach (cell, aggregate->aggregates)
		if (!takes_any_order(((GroupAggregate *) lfirst(cell))->call))
			return true;
	return false;
}

/* A group's equality must be that of the state table's unique index. */
static void
check_key(const GroupKey *key, const SortGroupClause *clause)
{
	TypeCacheEntry *type = lookup_type_cache(key->type, TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR);

	if (get_typtype(key->type) == TYPTYPE_PSEUDO)
		stream_query_refuse(psprintf("grouping by %s is not supported in a stream", key->text),
		                    psprintf("Its type %s can't be stored in a table.",
		                             format_type_be(key->type)),
		                    "Group by its fields instead.");
	if (!OidIsValid(type->lt_opr) || !OidIsValid(type->eq_opr) ||
	    (clause != NULL && clause->eqop != type->eq_opr))
		stream_query_refuse(psprintf("grouping by %s is not supported in a stream", key->text),
		                    psprintf("Groups are found by an index on their keys, but type %s "
		                             "has no such order.",
		                             format_type_be(key->type)),
		                    "Group by a cast to another type, such as text.");
	if (contain_volatile_functions(key->expression))
		stream_query_refuse(psprintf("grouping by the volatile expression %s is not supported "
		                             "in a stream",
		                             key->text),
		                    "The same message would belong to another group each time that "
		                    "it is read.",
		                    "Group by what the message says.");
}

static void
add_key(StreamAggregate *result, Node *expression, const SortGroupClause *clause)
{
	GroupKey *key = palloc0(sizeof(GroupKey));

	if (stream_aggregate_find_key(result, expression) >= 0)
		return;
	key->expression = expression;
	key->text = stream_query_expression_text(result->query, expression);
	key->type = exprType(expression);
	key->typmod = exprTypmod(expression);
	key->collation = exprCollation(expression);
	key->output = -1;
	check_key(key, clause);
	result->keys = lappend(result->keys, key);
	if (list_length(result->keys) > INDEX_MAX_KEYS)
		stream_query_refuse(
		    psprintf("a stream can't group by more than %d expressions", INDEX_MAX_KEYS),
		    "Groups are found by an index on their keys.", "Group by fewer expressions.");
}

static bool
collect_aggregates(Node *node, StreamAggregate *result)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref))
	{
		Aggref *call = (Aggref *) node;

		if (stream_aggregate_find_call(result, call) < 0)
		{
			GroupAggregate *aggregate = palloc(sizeof(GroupAggregate));

			aggregate_state_check(call);
			aggregate->call = call;
			aggregate->text = stream_query_expression_text(result->query, node);
			result->aggregates = lappend(result->aggregates, aggregate);
		}
		return false;
	}
	if (IsA(node, SubLink))
		stream_query_refuse("sub-selects in the select list or in HAVING of an aggregation are "
		                    "not supported in a stream",
		                    "The result is computed from the state of the groups alone.",
		                    "Join the other table in FROM, or use the sub-select when reading "
		                    "the target.");
	if (IsA(node, GroupingFunc))
		stream_query_refuse("GROUPING is not supported in a stream",
		                    "Without GROUPING SETS it is always 0.", "Leave it out.");
	return expression_tree_walker(node, collect_aggregates, (void *) result);
}

/*
 * Moves the key of the window to the front, where the unique index is a range of time;
 * that of a session to the end, where the sessions of the other keys are found together.
 */
static void
find_window(StreamAggregate *result, const Stream *stream, Oid topic_table)
{
	ListCell *cell;

	result->window.kind = WINDOW_NONE;
	result->window_key = 1;
	if (stream->watermark_column == NULL || stream->mode == MODE_COMPLETE)
		return;
	foreach (cell, result->keys)
	{
		GroupKey *key = lfirst(cell);

		if (event_time_find_window(result->query, key->expression, topic_table,
		                           stream->watermark_column, &result->window) &&
		    result->window.kind == WINDOW_SESSION)
		{
			result->keys = foreach_delete_current(result->keys, cell);
			result->keys = lappend(result->keys, key);
			result->window_key = list_length(result->keys);
			return;
		}
	}
	result->window.kind = WINDOW_NONE;
	foreach (cell, result->keys)
	{
		GroupKey *key = lfirst(cell);

		if (event_time_find_window(result->query, key->expression, topic_table,
		                           stream->watermark_column, &result->window))
		{
			result->keys = foreach_delete_current(result->keys, cell);
			result->keys = lcons(key, result->keys);
			return;
		}
	}
}

/* A session grows, so that it can only be the one thing by which rows are kept apart in time. */
static void
check_sessions(const StreamAggregate *result, const Stream *stream)
{
	ListCell *cell;

	foreach (cell, result->keys)
	{
		GroupKey *key = lfirst(cell);

		if (!event_time_calls_session_window(result->query, key->expression))
			continue;
		if (stream->mode != MODE_APPEND)
			stream_query_refuse("session windows are supported in append mode only",
			                    "A message can extend a session or join two, and the rows "
			                    "that had been written for them would have to go.",
			                    "Use mode => 'append' with a watermark_column: a session is "
			                    "written once, when it is over.");
		if (result->window.kind != WINDOW_SESSION ||
		    foreach_current_index(cell) + 1 != result->window_key)
			stream_query_refuse(
			    psprintf("grouping by %s is not supported in a stream", key->text),
			    "Sessions are made of the event times of messages, one kind in a stream.",
			    psprintf("Group by kafka.session_window(\"%s\", gap) itself, once, and use it "
			             "in the select list.",
			             stream->watermark_column));
	}
}

StreamAggregate *
stream_aggregate_load(const Stream *stream, Oid topic_table)
{
	StreamAggregate *result = palloc0(sizeof(StreamAggregate));
	Relation source = relation_open(stream->source, AccessShareLock);
	Query *query;
	ListCell *cell;
	int output = 0;

	Assert(source->rd_rel->relkind == RELKIND_VIEW);
	query = flatten_query_aliases(copyObject(get_view_query(source)));
	relation_close(source, NoLock);

	/* DISTINCT is grouping by all columns */
	if (query->distinctClause != NIL && query->groupClause == NIL && !query->hasAggs &&
	    query->havingQual == NULL)
	{
		query->groupClause = query->distinctClause;
		query->distinctClause = NIL;
	}
	if (query->distinctClause != NIL)
		stream_query_refuse("DISTINCT over an aggregation is not supported in a stream",
		                    "It would be an aggregation over an aggregation.",
		                    "Use DISTINCT when reading the target.");
	result->query = query;

	foreach (cell, query->groupClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, cell);

		add_key(result, (Node *) get_sortgroupclause_tle(clause, query->targetList)->expr,
		        clause);
	}
	foreach (cell, query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		int key = stream_aggregate_find_key(result, (Node *) entry->expr);

		if (key >= 0)
		{
			GroupKey *group_key = list_nth(result->keys, key);

			if (!entry->resjunk && group_key->output < 0)
				group_key->output = output;
		}
		else
		{
			collect_aggregates((Node *) entry->expr, result);
			if (expression_returns_set((Node *) entry->expr))
				stream_query_refuse("a set-returning function over an aggregation is not "
				                    "supported in a stream",
				                    "Each group is one row of the result.",
				                    "Use the function when reading the target.");
		}
		if (!entry->resjunk)
			output++;
	}
	collect_aggregates(query->havingQual, result);
	if (result->keys == NIL && result->aggregates == NIL)
		stream_query_refuse(
		    "HAVING without GROUP BY and aggregates is not supported in a stream",
		    "There is nothing to keep up to date.", "Use WHERE instead.");
	find_window(result, stream, topic_table);
	check_sessions(result, stream);
	if (stream->mode == MODE_APPEND && result->window.kind == WINDOW_NONE)
		stream_query_refuse(
		    "aggregation in append mode needs a window on the watermark column",
		    "A group is written once, when the watermark has passed its end; "
		    "these groups have none.",
		    psprintf("Group by date_bin() of \"%s\" with a constant interval, by "
		             "kafka.sliding_window() or kafka.session_window() of it, or by itself.",
		             stream->watermark_column));
	return result;
}
