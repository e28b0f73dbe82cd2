/*-------------------------------------------------------------------------
 *
 * stream_query_text.c
 *	  From the text of a query to its tree, and from trees to SQL text with every
 *	  name qualified.
 *
 * How a query is stored is left to stream_view.c, what it may be to stream_query.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_query.h"

#include "catalog/namespace.h"
#include "catalog/pg_operator.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/tcopprot.h"
#include "topic_schema.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

/* --- analysis of a query given as text --- */

/* PostgreSQL would say that a foreign table can't be sampled, but not what to do. */
static bool
refuse_samples(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTableSample))
	{
		Node *sampled = ((RangeTableSample *) node)->relation;
		Oid relation = IsA(sampled, RangeVar)
		                   ? RangeVarGetRelid((RangeVar *) sampled, NoLock, true)
		                   : InvalidOid;

		if (OidIsValid(relation) && topic_schema_is_topic_table(relation))
			stream_query_refuse("TABLESAMPLE of a topic table is not supported",
			                    "A sample of a batch is no sample of the topic.",
			                    "Filter with WHERE instead.");
	}
	return raw_expression_tree_walker(node, refuse_samples, context);
}

/* What PostgreSQL says of a type without equality gets its detail and hint here. */
static List *
analyze_and_rewrite(RawStmt *statement, const char *query_text)
{
	MemoryContext context = CurrentMemoryContext;
	List *queries = NIL;

	PG_TRY();
	{
		queries = pg_analyze_and_rewrite_fixedparams(statement, query_text, NULL, 0, NULL);
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		/* of functions and operators in the text PostgreSQL has hints of its own */
		if (error->sqlerrcode == ERRCODE_UNDEFINED_FUNCTION && error->detail == NULL &&
		    error->hint == NULL)
		{
			error->detail = pstrdup("Rows can't be grouped or made distinct by values that "
			                        "can't be compared.");
			error->hint = pstrdup("Cast to another type, such as jsonb or text.");
		}
		ReThrowError(error);
	}
	PG_END_TRY();
	return queries;
}

Query *
stream_query_analyze(const char *query_text)
{
	List *statements = pg_parse_query(query_text);
	List *queries;
	Query *query;

	if (list_length(statements) != 1)
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
		                errmsg("query of a stream must be a single SELECT"),
		                errdetail("The text contains %d statements.", list_length(statements)),
		                errhint("Create one stream per SELECT.")));
	if (!IsA(linitial_node(RawStmt, statements)->stmt, SelectStmt))
		ereport(
		    ERROR,
		    (errcode(ERRCODE_SYNTAX_ERROR), errmsg("query of a stream must be a single SELECT"),
		     errdetail("The text is another statement."),
		     errhint("A stream inserts what its query selects; it runs no other statement.")));

	(void) refuse_samples(linitial_node(RawStmt, statements)->stmt, NULL);
	queries = analyze_and_rewrite(linitial_node(RawStmt, statements), query_text);
	/* analysed again, without rewriting: views shall stay views in the stored text */
	query = parse_analyze_fixedparams(linitial_node(RawStmt, pg_parse_query(query_text)),
	                                  query_text, NULL, 0, NULL);
	if (list_length(queries) != 1 || query->commandType != CMD_SELECT || query->utilityStmt)
		ereport(
		    ERROR,
		    (errcode(ERRCODE_SYNTAX_ERROR), errmsg("query of a stream must be a single SELECT"),
		     errdetail("It becomes %d statements, or one that selects nothing.",
		               list_length(queries)),
		     errhint("A stream inserts what its query selects; it runs no other statement.")));
	if (query->hasModifyingCTE)
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("data-modifying statements in WITH are not supported in a stream"),
		         errdetail("A stream writes one table, its target."),
		         errhint("Use a trigger on the target table for further writes.")));

	return query;
}

/* With only pg_catalog visible, the deparser qualifies all other names. */
static int
begin_deparse(void)
{
	int guc_nest_level = NewGUCNestLevel();

	(void) set_config_option("search_path", "pg_catalog", PGC_USERSET, PGC_S_SESSION,
	                         GUC_ACTION_SAVE, true, 0, false);
	return guc_nest_level;
}

char *
stream_query_deparse(Query *query)
{
	int guc_nest_level = begin_deparse();
	char *text = pg_get_querydef(query, false);

	AtEOXact_GUC(true, guc_nest_level);
	return text;
}

char *
stream_query_deparse_expression(Node *expression, Oid table, const char *alias)
{
	int guc_nest_level = begin_deparse();
	char *text = deparse_expression(expression, deparse_context_for(alias, table), true, false);

	AtEOXact_GUC(true, guc_nest_level);
	return text;
}

char *
stream_query_operator(Oid operator_id)
{
	HeapTuple tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator_id));
	Form_pg_operator form;
	char *name;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator_id);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	name = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
	                NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return name;
}

char *
stream_query_equality(Oid type)
{
	return stream_query_operator(lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr);
}

/* Deparsed as that of a SELECT without FROM, whose range table still gives the names. */
char *
stream_query_expression_text(const Query *query, Node *expression)
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
