/*-------------------------------------------------------------------------
 *
 * stream_aggregate_query.c
 *	  An aggregate query written anew: the query that makes partial states of a batch,
 *	  and the result in terms of stored states.
 *
 * Declared in stream_aggregate.h.  Works on PostgreSQL's own trees and writes them back as
 * SQL.  In the query of a batch, each aggregate becomes kafka.partial_state() of it; in
 * the result, kafka.final_value() of a column of the state table, and what is grouped by
 * becomes a column, too.  Nothing else may be left of the query in the result.  Which
 * statements use these parts is left to sink_aggregate_sql.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_aggregate.h"

#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/tlist.h"
#include "parser/parse_coerce.h"
#include "parser/parse_func.h"
#include "stream_query.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

/* --- the query of a batch --- */

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
	index = stream_aggregate_find_key(aggregate, node);
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
		                    stream_aggregate_find_call(aggregate, call);
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
		             stream_query_expression_text(aggregate->query, node)),
		    "It depends on a primary key that is grouped by, but states are kept by what is "
		    "in GROUP BY alone.",
		    "Add it to GROUP BY.");
	return expression_tree_mutator(node, result_mutator, (void *) aggregate);
}

/* So that a comparison with the column knows by which collation, whatever the query's is. */
static Node *
with_collation_of(Node *node, Form_pg_attribute column)
{
	CollateExpr *collate;

	if (!OidIsValid(column->attcollation) || !OidIsValid(get_typcollation(exprType(node))) ||
	    exprCollation(node) == column->attcollation)
		return node;
	collate = makeNode(CollateExpr);
	collate->arg = (Expr *) node;
	collate->collOid = column->attcollation;
	collate->location = -1;
	return (Node *) collate;
}

/*
 * The SQL of an expression of the query, as one over a row "s" of the state table; for a
 * column of the target with its collation, and converted to its type.
 */
static char *
result_text(const StreamAggregate *aggregate, Oid state_table, Node *expression,
            Form_pg_attribute column, bool convert)
{
	Node *node = result_mutator(expression, aggregate);

	/* elements of arrays stay as they are: an explicit cast would cut them silently */
	if (convert && (column->atttypmod < 0 || !OidIsValid(get_element_type(column->atttypid))))
	{
		Node *converted = coerce_to_target_type(NULL, node, exprType(node), column->atttypid,
		                                        column->atttypmod, COERCION_ASSIGNMENT,
		                                        COERCE_EXPLICIT_CALL, -1);

		if (converted != NULL)
			node = converted;
	}
	if (column != NULL)
		node = with_collation_of(node, column);
	return stream_query_deparse_expression(node, state_table, "s");
}

List *
stream_aggregate_outputs(const StreamAggregate *aggregate, Oid state_table, Relation target,
                         bool convert)
{
	List *outputs = NIL;
	ListCell *cell;

	foreach (cell, aggregate->query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		AggregateOutput *output;
		Form_pg_attribute attribute;

		if (entry->resjunk)
			continue;
		attribute = TupleDescAttr(RelationGetDescr(target),
		                          get_attnum(RelationGetRelid(target), entry->resname) - 1);
		output = palloc(sizeof(AggregateOutput));
		output->name = entry->resname;
		output->expression =
		    result_text(aggregate, state_table, (Node *) entry->expr, attribute, convert);
		outputs = lappend(outputs, output);
	}
	return outputs;
}

char *
stream_aggregate_having(const StreamAggregate *aggregate, Oid state_table)
{
	if (aggregate->query->havingQual == NULL)
		return NULL;
	return result_text(aggregate, state_table, aggregate->query->havingQual, NULL, false);
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
		                 result_text(aggregate, state_table, (Node *) entry->expr, NULL, false),
		                 stream_query_operator(clause->sortop),
		                 clause->nulls_first ? "FIRST" : "LAST");
	}
	if (query->limitCount != NULL)
	{
		char *count = result_text(aggregate, state_table, query->limitCount, NULL, false);

		if (query->limitOption == LIMIT_OPTION_WITH_TIES)
			appendStringInfo(&text, " FETCH FIRST (%s) ROWS WITH TIES", count);
		else
			appendStringInfo(&text, " LIMIT (%s)", count);
	}
	return text.data;
}
