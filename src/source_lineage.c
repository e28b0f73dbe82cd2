/*-------------------------------------------------------------------------
 *
 * source_lineage.c
 *	  Which message, and which columns of the topic table, a row of a stream's
 *	  query comes from.
 *
 * Works on PostgreSQL's own trees after rewriting, when views have become
 * subqueries that carry the privileges of their owners: nothing of that is
 * changed here.  What a stream's query may be is left to stream_query.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "source_lineage.h"

#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"

#define INDEX_COLUMN "kafka_message"

/* A query, and those around it, innermost first. */
typedef List *QueryPath;

/*
 * The query that an entry of the range table stands for, as the path to it; NIL
 * if it stands for something else.  *cte is set if it is one.
 */
static QueryPath
path_of_entry(QueryPath path, RangeTblEntry *entry, CommonTableExpr **cte)
{
	Query *owner;
	ListCell *cell;

	*cte = NULL;
	if (entry->rtekind == RTE_SUBQUERY)
		return lcons(entry->subquery, list_copy(path));
	if (entry->rtekind != RTE_CTE || entry->self_reference)
		return NIL;
	owner = list_nth_node(Query, path, entry->ctelevelsup);
	foreach (cell, owner->cteList)
	{
		CommonTableExpr *candidate = lfirst_node(CommonTableExpr, cell);

		if (strcmp(candidate->ctename, entry->ctename) != 0)
			continue;
		*cte = candidate;
		return lcons(castNode(Query, candidate->ctequery),
		             list_copy_tail(path, entry->ctelevelsup));
	}
	return NIL;
}

/* --- the message of a row --- */

/* Makes the new column of a CTE's query known to the entry that reads it. */
static void
add_column_of_cte(RangeTblEntry *entry, CommonTableExpr *cte)
{
	cte->ctecolnames = lappend(cte->ctecolnames, makeString(pstrdup(INDEX_COLUMN)));
	cte->ctecoltypes = lappend_oid(cte->ctecoltypes, TIDOID);
	cte->ctecoltypmods = lappend_int(cte->ctecoltypmods, -1);
	cte->ctecolcollations = lappend_oid(cte->ctecolcollations, InvalidOid);
	entry->coltypes = lappend_oid(entry->coltypes, TIDOID);
	entry->coltypmods = lappend_int(entry->coltypmods, -1);
	entry->colcollations = lappend_oid(entry->colcollations, InvalidOid);
}

static AttrNumber
add_index(QueryPath path, Oid topic_table)
{
	Query *query = linitial_node(Query, path);
	ListCell *cell;
	int varno = 0;

	check_stack_depth();
	foreach (cell, query->rtable)
	{
		RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);
		AttrNumber column = InvalidAttrNumber;
		TargetEntry *target;

		varno++;
		if (entry->rtekind == RTE_RELATION && entry->relid == topic_table)
			column = SelfItemPointerAttributeNumber;
		else
		{
			CommonTableExpr *cte;
			QueryPath below = path_of_entry(path, entry, &cte);

			if (below != NIL)
				column = add_index(below, topic_table);
			if (column == InvalidAttrNumber)
				continue;
			entry->eref->colnames =
			    lappend(entry->eref->colnames, makeString(pstrdup(INDEX_COLUMN)));
			if (cte != NULL)
				add_column_of_cte(entry, cte);
		}

		/* no outer join makes it null: they preserve the topic table's side */
		target =
		    makeTargetEntry((Expr *) makeVar(varno, column, TIDOID, -1, InvalidOid, 0),
		                    list_length(query->targetList) + 1, pstrdup(INDEX_COLUMN), false);
		query->targetList = lappend(query->targetList, target);
		return target->resno;
	}
	return InvalidAttrNumber;
}

AttrNumber
source_lineage_add_index(Query *query, Oid topic_table)
{
	AttrNumber column = add_index(list_make1(query), topic_table);

	if (column == InvalidAttrNumber)
		elog(ERROR, "topic table %u not found in the query of a stream", topic_table);
	return column;
}

/* --- the columns of an expression --- */

typedef struct LineageContext
{
	QueryPath path;
	Oid topic_table;
	bool *impossible;
} LineageContext;

static Node *expand_mutator(Node *node, LineageContext *context);

static Node *
expand_var(Var *var, LineageContext *context)
{
	Query *query = linitial_node(Query, context->path);
	LineageContext below = *context;
	RangeTblEntry *entry;
	CommonTableExpr *cte;

	if (var->varlevelsup != 0 || var->varattno <= 0)
	{
		*context->impossible = true;
		return NULL;
	}
	entry = rt_fetch(var->varno, query->rtable);
	if (entry->rtekind == RTE_RELATION && entry->relid == context->topic_table)
		return (Node *) makeVar(1, var->varattno, var->vartype, var->vartypmod, var->varcollid,
		                        0);
	if (entry->rtekind == RTE_JOIN)
		return expand_mutator(list_nth(entry->joinaliasvars, var->varattno - 1), context);
	below.path = path_of_entry(context->path, entry, &cte);
	if (below.path != NIL)
	{
		TargetEntry *target =
		    get_tle_by_resno(linitial_node(Query, below.path)->targetList, var->varattno);

		if (target != NULL)
			return expand_mutator((Node *) target->expr, &below);
	}
	*context->impossible = true;
	return NULL;
}

static Node *
expand_mutator(Node *node, LineageContext *context)
{
	if (node == NULL || *context->impossible)
		return NULL;
	check_stack_depth();
	if (IsA(node, Var))
		return expand_var((Var *) node, context);
	if (IsA(node, SubLink))
	{
		*context->impossible = true;
		return NULL;
	}
	return expression_tree_mutator(node, expand_mutator, (void *) context);
}

Expr *
source_lineage_of(Query *query, Expr *expression, Oid topic_table)
{
	bool impossible = false;
	LineageContext context = {list_make1(query), topic_table, &impossible};
	Node *result = expand_mutator((Node *) expression, &context);

	return impossible ? NULL : (Expr *) result;
}
