/*-------------------------------------------------------------------------
 *
 * stream_aggregate.c
 *	  An aggregate query taken apart: its groups, its aggregates, the query
 *	  that makes partial states of a batch, and the result in terms of stored states.
 *
 * Works on PostgreSQL's own trees and writes them back as SQL.  In the query of
 * a batch, each aggregate becomes kafka.partial_state() of it; in the
 * result, kafka.final_value() of a column of the state table, and what is grouped by becomes
 * a column, too.  Nothing else may be left of the query in the result: that
 * is what is refused here.  Which statements use these parts is left to
 * sink_aggregate.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_aggregate.h"

#include "access/relation.h"
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

/* --- deparsing --- */

/*
 * The SQL of an expression of the query: deparsed as that of a SELECT without
 * FROM, whose range table still gives the names.
 */
static char *
expression_text(const Query *query, Node *expression)
{
	Query *select = makeNode(Query);
	RangeTblEntry *entry = makeNode(RangeTblEntry);
	TargetEntry *target = makeTargetEntry((Expr *) expression, 1, "e", false);
	ListCell *cell;
	char *text;
	size_t length;

	entry->rtekind = RTE_RESULT;
	entry->eref = makeAlias("*RESULT*", NIL);
	select->commandType = CMD_SELECT;
	select->canSetTag = true;
	/* with more than one relation names are always qualified */
	select->rtable = lappend(list_copy(query->rtable), entry);
	/* a join that is not in FROM can't be deparsed, and is not referred to any more */
	foreach (cell, select->rtable)
	{
		if (lfirst_node(RangeTblEntry, cell)->rtekind == RTE_JOIN)
			lfirst(cell) = entry;
	}
	select->jointree = makeFromExpr(NIL, NULL);
	select->targetList = list_make1(target);
	text = stream_query_deparse(select);

	/* "SELECT ... AS e", or "SELECT ..." of a column called e */
	while (*text == ' ')
		text++;
	Assert(strncmp(text, "SELECT ", 7) == 0);
	text += 7;
	length = strlen(text);
	if (length > 5 && strcmp(text + length - 5, " AS e") == 0)
		text[length - 5] = '\0';
	return text;
}

/* Has a cast that the parser added written out, so that its result keeps its type. */
static Node *
show_cast(Node *node)
{
	if (IsA(node, RelabelType))
		((RelabelType *) node)->relabelformat = COERCE_EXPLICIT_CAST;
	else if (IsA(node, CoerceViaIO))
		((CoerceViaIO *) node)->coerceformat = COERCE_EXPLICIT_CAST;
	else if (IsA(node, ArrayCoerceExpr))
		((ArrayCoerceExpr *) node)->coerceformat = COERCE_EXPLICIT_CAST;
	else if (IsA(node, ConvertRowtypeExpr))
		((ConvertRowtypeExpr *) node)->convertformat = COERCE_EXPLICIT_CAST;
	else if (IsA(node, CoerceToDomain))
		((CoerceToDomain *) node)->coercionformat = COERCE_EXPLICIT_CAST;
	else if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcformat == COERCE_IMPLICIT_CAST)
		((FuncExpr *) node)->funcformat = COERCE_EXPLICIT_CAST;
	return node;
}

/* --- taking the query apart --- */

/* The group by which something is grouped; -1: none. */
static int
find_key(const List *keys, Node *expression)
{
	ListCell *cell;

	foreach (cell, keys)
	{
		GroupKey *key = lfirst(cell);

		if (equal(key->expression, expression))
			return foreach_current_index(cell);
	}
	return -1;
}

static int
find_aggregate(const List *aggregates, Aggref *call)
{
	ListCell *cell;

	foreach (cell, aggregates)
	{
		GroupAggregate *aggregate = lfirst(cell);

		if (equal(aggregate->call, call))
			return foreach_current_index(cell);
	}
	return -1;
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

	if (find_key(result->keys, expression) >= 0)
		return;
	key->expression = expression;
	key->text = expression_text(result->query, expression);
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

		if (find_aggregate(result->aggregates, call) < 0)
		{
			GroupAggregate *aggregate = palloc(sizeof(GroupAggregate));

			aggregate_state_check(call);
			aggregate->call = call;
			aggregate->text = expression_text(result->query, node);
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
		int key = find_key(result->keys, (Node *) entry->expr);

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

/* --- the query of a batch --- */

static Const *
aggregate_constant(Oid aggregate)
{
	return makeConst(REGPROCEDUREOID, -1, InvalidOid, sizeof(Oid), ObjectIdGetDatum(aggregate),
	                 false, true);
}

static Oid
kafka_function(const char *name, int argument_count, const Oid *types)
{
	return LookupFuncName(list_make2(makeString("kafka"), makeString(pstrdup(name))),
	                      argument_count, types, false);
}

/* kafka.partial_state() of an aggregate and its arguments, in place of it. */
static Aggref *
partial_call(Aggref *call)
{
	Oid types[2] = {REGPROCEDUREOID, ANYOID};
	Aggref *partial = copyObject(call);
	ListCell *cell;
	AttrNumber number = 1;

	partial->aggfnoid = kafka_function("partial_state", call->args == NIL ? 1 : 2, types);
	partial->aggtype = BYTEAOID;
	partial->aggcollid = InvalidOid;
	partial->aggargtypes = lcons_oid(REGPROCEDUREOID, partial->aggargtypes);
	partial->aggstar = false;
	partial->aggvariadic = false;
	foreach (cell, partial->args)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);

		entry->resno = ++number;
		entry->expr = (Expr *) show_cast((Node *) entry->expr);
	}
	partial->args =
	    lcons(makeTargetEntry((Expr *) aggregate_constant(call->aggfnoid), 1, NULL, false),
	          partial->args);
	return partial;
}

static Aggref *
count_rows(void)
{
	Aggref *count = makeNode(Aggref);

	count->aggfnoid = LookupFuncName(list_make2(makeString("pg_catalog"), makeString("count")),
	                                 0, NULL, false);
	count->aggtype = INT8OID;
	count->aggstar = true;
	count->aggkind = AGGKIND_NORMAL;
	count->aggsplit = AGGSPLIT_SIMPLE;
	count->aggno = -1;
	count->aggtransno = -1;
	count->location = -1;
	return count;
}

static void
append_target(Query *query, Expr *expression, char *name, Index sort_group)
{
	TargetEntry *entry =
	    makeTargetEntry(expression, list_length(query->targetList) + 1, name, false);

	entry->ressortgroupref = sort_group;
	query->targetList = lappend(query->targetList, entry);
}

/* Where the rows come from, without what is selected and how it is grouped. */
static Query *
copy_source(const StreamAggregate *aggregate)
{
	Query *query = copyObject(aggregate->query);

	query->targetList = NIL;
	query->groupClause = NIL;
	query->havingQual = NULL;
	query->sortClause = NIL;
	query->limitCount = NULL;
	query->constraintDeps = NIL;
	return query;
}

char *
stream_aggregate_batch_query(const StreamAggregate *aggregate)
{
	Query *query = copy_source(aggregate);
	ListCell *cell;

	foreach (cell, aggregate->keys)
	{
		GroupKey *key = lfirst(cell);
		Index number = foreach_current_index(cell) + 1;
		SortGroupClause *clause = makeNode(SortGroupClause);
		TypeCacheEntry *type =
		    lookup_type_cache(key->type, TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR);

		clause->tleSortGroupRef = number;
		clause->eqop = type->eq_opr;
		clause->sortop = type->lt_opr;
		query->groupClause = lappend(query->groupClause, clause);
		append_target(query, copyObject((Expr *) key->expression), psprintf("k%u", number),
		              number);
	}
	if (aggregate->keys == NIL)
		append_target(query, (Expr *) makeBoolConst(true, false), "k1", 0);
	foreach (cell, aggregate->aggregates)
	{
		GroupAggregate *group_aggregate = lfirst(cell);

		append_target(query, (Expr *) partial_call(group_aggregate->call),
		              psprintf("a%d", foreach_current_index(cell) + 1), 0);
	}
	if (aggregate->window.kind != WINDOW_NONE)
		append_target(query, (Expr *) count_rows(), "input_rows", 0);
	query->hasAggs = true;
	return stream_query_deparse(query);
}

char *
stream_aggregate_rows_query(const StreamAggregate *aggregate)
{
	Query *query = copy_source(aggregate);
	ListCell *cell;

	foreach (cell, aggregate->keys)
		append_target(query, copyObject((Expr *) ((GroupKey *) lfirst(cell))->expression),
		              psprintf("k%d", foreach_current_index(cell) + 1), 0);
	foreach (cell, aggregate->aggregates)
	{
		Aggref *call = copyObject(((GroupAggregate *) lfirst(cell))->call);
		int number = foreach_current_index(cell) + 1;
		ListCell *argument;

		foreach (argument, call->args)
			append_target(query,
			              (Expr *) show_cast((Node *) lfirst_node(TargetEntry, argument)->expr),
			              psprintf("x%d_%d", number, foreach_current_index(argument) + 1), 0);
		if (call->aggfilter != NULL)
			append_target(query, call->aggfilter, psprintf("f%d", number), 0);
	}
	query->hasAggs = false;
	return stream_query_deparse(query);
}

/* --- the result, from the state --- */

static Node *
result_mutator(Node *node, const StreamAggregate *aggregate)
{
	int index;

	if (node == NULL)
		return NULL;
	index = find_key(aggregate->keys, node);
	if (index >= 0)
	{
		GroupKey *key = list_nth(aggregate->keys, index);

		return (Node *) makeVar(1, index + 1, key->type, key->typmod, key->collation, 0);
	}
	if (IsA(node, Aggref))
	{
		Aggref *call = (Aggref *) node;
		Oid types[3] = {REGPROCEDUREOID, BYTEAOID, ANYELEMENTOID};
		AttrNumber attnum = Max(list_length(aggregate->keys), 1) + 1 +
		                    find_aggregate(aggregate->aggregates, call);
		FuncExpr *value = makeFuncExpr(
		    kafka_function("final_value", 3, types), call->aggtype,
		    list_make3(aggregate_constant(call->aggfnoid),
		               makeVar(1, attnum, BYTEAOID, -1, InvalidOid, 0),
		               makeNullConst(call->aggtype, -1, get_typcollation(call->aggtype))),
		    get_typcollation(call->aggtype), InvalidOid, COERCE_EXPLICIT_CALL);
		CollateExpr *collate;

		if (!OidIsValid(call->aggcollid) || call->aggcollid == get_typcollation(call->aggtype))
			return (Node *) value;
		collate = makeNode(CollateExpr);
		collate->arg = (Expr *) value;
		collate->collOid = call->aggcollid;
		collate->location = -1;
		return (Node *) collate;
	}
	if (IsA(node, Var))
		stream_query_refuse(
		    psprintf("column %s must appear in the GROUP BY clause of a stream",
		             expression_text(aggregate->query, node)),
		    "It depends on a primary key that is grouped by, but states are kept by what is "
		    "in GROUP BY alone.",
		    "Add it to GROUP BY.");
	return expression_tree_mutator(node, result_mutator, (void *) aggregate);
}

/* The SQL of an expression of the query, as one over a row "s" of the state table. */
static char *
result_text(const StreamAggregate *aggregate, Oid state_table, Node *expression,
            Form_pg_attribute convert_to)
{
	Node *node = result_mutator(expression, aggregate);

	/* elements of arrays stay as they are: an explicit cast would cut them silently */
	if (convert_to != NULL &&
	    (convert_to->atttypmod < 0 || !OidIsValid(get_element_type(convert_to->atttypid))))
	{
		Node *converted = coerce_to_target_type(NULL, node, exprType(node),
		                                        convert_to->atttypid, convert_to->atttypmod,
		                                        COERCION_ASSIGNMENT, COERCE_EXPLICIT_CALL, -1);

		if (converted != NULL)
			node = converted;
	}
	return stream_query_deparse_expression(node, state_table, "s");
}

List *
stream_aggregate_outputs(const StreamAggregate *aggregate, Oid state_table, Relation target)
{
	List *outputs = NIL;
	ListCell *cell;

	foreach (cell, aggregate->query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		AggregateOutput *output;
		Form_pg_attribute attribute = NULL;

		if (entry->resjunk)
			continue;
		if (target != NULL)
			attribute = TupleDescAttr(RelationGetDescr(target),
			                          get_attnum(RelationGetRelid(target), entry->resname) - 1);
		output = palloc(sizeof(AggregateOutput));
		output->name = entry->resname;
		output->expression =
		    result_text(aggregate, state_table, (Node *) entry->expr, attribute);
		outputs = lappend(outputs, output);
	}
	return outputs;
}

char *
stream_aggregate_having(const StreamAggregate *aggregate, Oid state_table)
{
	if (aggregate->query->havingQual == NULL)
		return NULL;
	return result_text(aggregate, state_table, aggregate->query->havingQual, NULL);
}

char *
stream_aggregate_order(const StreamAggregate *aggregate, Oid state_table)
{
	const Query *query = aggregate->query;
	StringInfoData text;
	ListCell *cell;

	initStringInfo(&text);
	foreach (cell, query->sortClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, cell);
		TargetEntry *entry = get_sortgroupclause_tle(clause, query->targetList);

		if (IsA(entry->expr, Const))
			continue; /* would be taken for the number of a column */
		appendStringInfo(&text, "%s%s USING %s NULLS %s", text.len > 0 ? ", " : " ORDER BY ",
		                 result_text(aggregate, state_table, (Node *) entry->expr, NULL),
		                 stream_query_operator(clause->sortop),
		                 clause->nulls_first ? "FIRST" : "LAST");
	}
	if (query->limitCount != NULL)
	{
		char *count = result_text(aggregate, state_table, query->limitCount, NULL);

		if (query->limitOption == LIMIT_OPTION_WITH_TIES)
			appendStringInfo(&text, " FETCH FIRST (%s) ROWS WITH TIES", count);
		else
			appendStringInfo(&text, " LIMIT (%s)", count);
	}
	return text.data;
}
