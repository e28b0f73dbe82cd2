/*-------------------------------------------------------------------------
 *
 * stream_query.c
 *	  What a stream's query may be, and the INSERT that it becomes.
 *
 * The rules are those of Spark's UnsupportedOperationChecker for append mode.
 * A query is stored as a view: PostgreSQL itself keeps its names resolved and
 * its dependencies tracked.  Running the statement is left to sink_append.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_query.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parse_coerce.h"
#include "parser/parse_node.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/tcopprot.h"
#include "topic_scan.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

/* --- analysis and qualification of a query given as text --- */

char *
stream_query_qualify(const char *query_text)
{
	List *statements = pg_parse_query(query_text);
	List *queries;
	Query *query;
	int guc_nest_level;
	char *qualified;

	if (list_length(statements) != 1)
		ereport(ERROR,
		        (errcode(ERRCODE_SYNTAX_ERROR),
		         errmsg("query of a stream must be a single SELECT"),
		         errdetail("The text contains %d statements.", list_length(statements))));
	if (!IsA(linitial_node(RawStmt, statements)->stmt, SelectStmt))
		ereport(
		    ERROR,
		    (errcode(ERRCODE_SYNTAX_ERROR), errmsg("query of a stream must be a single SELECT"),
		     errhint("A stream inserts what its query selects; it runs no other statement.")));

	queries = pg_analyze_and_rewrite_fixedparams(linitial_node(RawStmt, statements), query_text,
	                                             NULL, 0, NULL);
	/* analysed again, without rewriting: views shall stay views in the stored text */
	query = parse_analyze_fixedparams(linitial_node(RawStmt, pg_parse_query(query_text)),
	                                  query_text, NULL, 0, NULL);
	if (list_length(queries) != 1 || query->commandType != CMD_SELECT || query->utilityStmt)
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
		                errmsg("query of a stream must be a single SELECT")));
	if (query->hasModifyingCTE)
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("data-modifying statements in WITH are not supported in a stream"),
		         errhint("Use a trigger on the target table for further writes.")));

	/* with only pg_catalog visible, the deparser qualifies all other names */
	guc_nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog", PGC_USERSET, PGC_S_SESSION,
	                         GUC_ACTION_SAVE, true, 0, false);
	qualified = pg_get_querydef(query, false);
	AtEOXact_GUC(true, guc_nest_level);
	return qualified;
}

/* --- rules --- */

typedef struct QueryRules
{
	List *topic_tables; /* OIDs, one entry per reference */
	bool in_sublink;
} QueryRules;

static bool rules_check_query(Query *query, QueryRules *rules);

/* A foreign table of our wrapper, whatever the wrapper is called now. */
static bool
is_topic_table(Oid relid)
{
	ForeignDataWrapper *wrapper;
	char *handler_name;

	if (get_rel_relkind(relid) != RELKIND_FOREIGN_TABLE)
		return false;
	wrapper = GetForeignDataWrapper(GetForeignServer(GetForeignTable(relid)->serverid)->fdwid);
	handler_name = OidIsValid(wrapper->fdwhandler) ? get_func_name(wrapper->fdwhandler) : NULL;
	return handler_name != NULL && strcmp(handler_name, "topic_scan_handler") == 0 &&
	       get_func_namespace(wrapper->fdwhandler) == get_namespace_oid("kafka", true);
}

pg_noreturn static void
refuse(const char *message, const char *detail, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg_internal("%s", message),
	                errdetail_internal("%s", detail), errhint("%s", hint)));
}

static bool
rules_sublink_walker(Node *node, QueryRules *rules)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
	{
		SubLink *sublink = (SubLink *) node;

		if (rules_check_query(castNode(Query, sublink->subselect), rules))
			refuse("a topic table in a sub-select expression is not supported in a stream",
			       "Each row would depend on all messages of the batch.",
			       "Name the topic table in FROM.");
	}
	return expression_tree_walker(node, rules_sublink_walker, (void *) rules);
}

/*
 * Does this part of a join tree read the topic table?  "streaming" has the
 * range table indexes that do.  On the way, outer joins are checked.
 */
static bool
rules_check_join(Node *node, const Bitmapset *streaming)
{
	bool contains = false;

	if (node == NULL)
		return false;
	if (IsA(node, RangeTblRef))
		return bms_is_member(((RangeTblRef *) node)->rtindex, streaming);
	if (IsA(node, FromExpr))
	{
		ListCell *cell;

		foreach (cell, ((FromExpr *) node)->fromlist)
			contains |= rules_check_join(lfirst(cell), streaming);
	}
	else if (IsA(node, JoinExpr))
	{
		JoinExpr *join = (JoinExpr *) node;
		bool left = rules_check_join(join->larg, streaming);
		bool right = rules_check_join(join->rarg, streaming);

		if ((join->jointype == JOIN_LEFT && right) || (join->jointype == JOIN_RIGHT && left) ||
		    (join->jointype == JOIN_FULL && (left || right)))
			refuse("an outer join must preserve the topic table's side",
			       "Rows without a match would come again with every batch.",
			       "Put the topic table on the side whose rows are all kept, or use an inner "
			       "join.");
		contains = left || right;
	}
	return contains;
}

/* Refuses what a stream in append mode can't honour at a level above the topic. */
static void
rules_check_level(const Query *query)
{
	const char *once = "Rows are appended once and never changed, but this result changes with "
	                   "later messages.";

	if (query->groupingSets)
		refuse("GROUPING SETS, ROLLUP and CUBE are not supported in a stream", once,
		       "Append the rows as they are and aggregate when reading the target.");
	if (query->hasAggs || query->groupClause || query->havingQual)
		refuse("aggregation is not supported in append mode", once,
		       "Append the rows as they are and aggregate when reading the target.");
	if (query->distinctClause)
		refuse("DISTINCT is not supported in append mode", once,
		       "Use a unique index on the target and on_conflict => 'ignore'.");
	if (query->hasWindowFuncs)
		refuse("window functions are not supported in a stream",
		       "A window would see the rows of one batch only.",
		       "Use the window function when reading the target.");
	if (query->setOperations)
		refuse("UNION, INTERSECT and EXCEPT are not supported in a stream",
		       "A stream reads one topic table, once.",
		       "Create one stream per topic table; several may write into one target.");
	if (query->limitCount || query->limitOffset)
		refuse("LIMIT and OFFSET are not supported in append mode",
		       "They would count the rows of one batch only.",
		       "Use LIMIT when reading the target.");
	if (query->sortClause)
		refuse("ORDER BY is not supported in append mode",
		       "A table has no order, and a batch is only a part of the result.",
		       "Use ORDER BY when reading the target.");
	if (query->rowMarks)
		refuse("FOR UPDATE and FOR SHARE are not supported in a stream",
		       "Rows of a topic can't be locked.", "Leave the locking clause out.");
	if (query->hasRecursive)
		refuse("WITH RECURSIVE over a topic table is not supported",
		       "A recursive query would need the topic table more than once.",
		       "Use the recursive query when reading the target.");
}

/* Checks a query and all that is below it; true when it reads a topic table. */
static bool
rules_check_query(Query *query, QueryRules *rules)
{
	Bitmapset *streaming = NULL;
	bool contains = false;
	ListCell *cell;
	int index = 0;

	check_stack_depth();

	foreach (cell, query->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, cell);

		if (!IsA(cte->ctequery, Query) ||
		    castNode(Query, cte->ctequery)->commandType != CMD_SELECT)
			continue;
		if (rules_check_query(castNode(Query, cte->ctequery), rules))
		{
			contains = true;
			if (cte->cterefcount > 1)
				rules->topic_tables =
				    lappend_oid(rules->topic_tables, llast_oid(rules->topic_tables));
		}
	}

	foreach (cell, query->rtable)
	{
		RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);
		bool entry_contains = false;

		index++;
		if (entry->rtekind == RTE_RELATION && !entry->inFromCl)
			continue; /* a view's own OLD and NEW */
		else if (entry->rtekind == RTE_RELATION && entry->relkind == RELKIND_VIEW)
		{
			Relation view = table_open(entry->relid, AccessShareLock);

			entry_contains = rules_check_query(copyObject(get_view_query(view)), rules);
			table_close(view, NoLock);
		}
		else if (entry->rtekind == RTE_RELATION && is_topic_table(entry->relid))
		{
			if (entry->tablesample)
				refuse("TABLESAMPLE of a topic table is not supported",
				       "A sample of a batch is no sample of the topic.",
				       "Filter with WHERE instead.");
			rules->topic_tables = lappend_oid(rules->topic_tables, entry->relid);
			entry_contains = true;
		}
		else if (entry->rtekind == RTE_SUBQUERY)
			entry_contains = rules_check_query(entry->subquery, rules);
		else if (entry->rtekind == RTE_CTE)
		{
			/* found above; what matters here is on which side of a join it stands */
			QueryRules ignored = {0};
			ListCell *cte_cell;

			foreach (cte_cell, query->cteList)
			{
				CommonTableExpr *cte = lfirst_node(CommonTableExpr, cte_cell);

				if (entry->ctelevelsup == 0 && strcmp(cte->ctename, entry->ctename) == 0 &&
				    IsA(cte->ctequery, Query) && !cte->cterecursive)
					entry_contains =
					    rules_check_query(castNode(Query, cte->ctequery), &ignored);
			}
		}
		if (entry_contains)
			streaming = bms_add_member(streaming, index);
		contains |= entry_contains;
	}

	(void) query_tree_walker(query, rules_sublink_walker, (void *) rules,
	                         QTW_IGNORE_RT_SUBQUERIES | QTW_IGNORE_CTE_SUBQUERIES);

	if (contains)
	{
		rules_check_level(query);
		(void) rules_check_join((Node *) query->jointree, streaming);
	}
	return contains;
}

Oid
stream_query_topic_table(Oid source)
{
	QueryRules rules = {0};
	Relation relation = relation_open(source, AccessShareLock);
	char *name = RelationGetRelationName(relation);

	if (relation->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
		        (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("source \"%s\" is temporary", name),
		         errdetail("The worker of a stream has its own session.")));
	if (is_topic_table(source))
		rules.topic_tables = list_make1_oid(source);
	else if (relation->rd_rel->relkind == RELKIND_VIEW)
		(void) rules_check_query(copyObject(get_view_query(relation)), &rules);
	if (rules.topic_tables == NIL)
		ereport(ERROR,
		        (errcode(ERRCODE_WRONG_OBJECT_TYPE),
		         errmsg("source \"%s\" does not read a topic table", name),
		         errdetail(
		             "A stream reads a foreign table of the foreign data wrapper kafka, or a "
		             "view over one."),
		         errhint("Use CREATE FOREIGN TABLE ... SERVER ... OPTIONS (topic '...').")));
	if (list_length(rules.topic_tables) > 1)
		refuse("a stream reads one topic table, once",
		       psprintf("The query of \"%s\" names topic tables %d times.", name,
		                list_length(rules.topic_tables)),
		       "Create one stream per topic, and join their target tables when reading.");
	relation_close(relation, NoLock);
	return linitial_oid(rules.topic_tables);
}

/* --- the INSERT --- */

static void
check_target(Relation target)
{
	const char *name = RelationGetRelationName(target);

	switch (target->rd_rel->relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
		case RELKIND_VIEW:
			break;
		case RELKIND_FOREIGN_TABLE:
			if (is_topic_table(RelationGetRelid(target)))
				ereport(ERROR,
				        (errcode(ERRCODE_WRONG_OBJECT_TYPE),
				         errmsg("target \"%s\" is a topic table", name),
				         errdetail("Topic tables are read only."),
				         errhint("Create a table: CREATE TABLE ... (LIKE \"%s\").", name)));
			break;
		default:
			ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
			                errmsg("target \"%s\" is not a table or view", name)));
	}
	if (target->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
		        (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("target \"%s\" is temporary", name),
		         errdetail("The worker of a stream has its own session.")));
	if (target->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		ereport(ERROR,
		        (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("target \"%s\" is unlogged", name),
		         errdetail(
		             "A crash would empty the table but not the checkpoint: its rows would be "
		             "lost."),
		         errhint("Use ALTER TABLE ... SET LOGGED.")));
}

static AttrNumber
find_attribute(TupleDesc descriptor, const char *name)
{
	for (int i = 0; i < descriptor->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(descriptor, i);

		if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), name) == 0)
			return attribute->attnum;
	}
	return InvalidAttrNumber;
}

/* Appends to "mismatches" why a column of the source can't go into the target. */
static void
check_column(Form_pg_attribute source, TupleDesc target, StringInfo mismatches)
{
	AttrNumber attnum = find_attribute(target, NameStr(source->attname));
	const char *name = NameStr(source->attname);
	Form_pg_attribute attribute;

	if (attnum == InvalidAttrNumber)
	{
		appendStringInfo(mismatches, "%sThe target has no column \"%s\".",
		                 mismatches->len > 0 ? " " : "", name);
		return;
	}
	attribute = TupleDescAttr(target, attnum - 1);
	if (attribute->attgenerated)
		appendStringInfo(mismatches, "%sColumn \"%s\" of the target is generated.",
		                 mismatches->len > 0 ? " " : "", name);
	else if (attribute->attidentity == ATTRIBUTE_IDENTITY_ALWAYS)
		appendStringInfo(
		    mismatches, "%sColumn \"%s\" of the target is an identity column GENERATED ALWAYS.",
		    mismatches->len > 0 ? " " : "", name);
	else if (!can_coerce_type(1, &source->atttypid, &attribute->atttypid, COERCION_ASSIGNMENT))
		appendStringInfo(mismatches,
		                 "%sColumn \"%s\" is of type %s in the source but %s in the target.",
		                 mismatches->len > 0 ? " " : "", name,
		                 format_type_with_typemod(source->atttypid, source->atttypmod),
		                 format_type_with_typemod(attribute->atttypid, attribute->atttypmod));
}

char *
stream_query_insert_statement(const Stream *stream)
{
	Relation source = relation_open(stream->source, AccessShareLock);
	Relation target = relation_open(stream->target, AccessShareLock);
	TupleDesc source_descriptor = RelationGetDescr(source);
	StringInfoData columns;
	StringInfoData mismatches;
	char *statement;

	check_target(target);
	initStringInfo(&columns);
	initStringInfo(&mismatches);
	for (int i = 0; i < source_descriptor->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(source_descriptor, i);

		if (attribute->attisdropped)
			continue;
		check_column(attribute, RelationGetDescr(target), &mismatches);
		appendStringInfo(&columns, "%s%s", columns.len > 0 ? ", " : "",
		                 quote_identifier(NameStr(attribute->attname)));
	}
	if (mismatches.len > 0)
		ereport(ERROR,
		        (errcode(ERRCODE_DATATYPE_MISMATCH),
		         stream->query_view
		             ? errmsg("columns of the query do not fit target \"%s\"",
		                      RelationGetRelationName(target))
		             : errmsg("columns of source \"%s\" do not fit target \"%s\"",
		                      RelationGetRelationName(source), RelationGetRelationName(target)),
		         errdetail_internal("%s", mismatches.data),
		         errhint("Columns are matched by name. Change the target, or give a query that "
		                 "selects what fits.")));
	if (columns.len == 0)
		ereport(ERROR,
		        (errcode(ERRCODE_DATATYPE_MISMATCH),
		         errmsg("source \"%s\" has no columns", RelationGetRelationName(source))));

	statement =
	    psprintf("INSERT INTO %s (%s) SELECT %s FROM %s%s",
	             quote_qualified_identifier(get_namespace_name(RelationGetNamespace(target)),
	                                        RelationGetRelationName(target)),
	             columns.data, columns.data,
	             quote_qualified_identifier(get_namespace_name(RelationGetNamespace(source)),
	                                        RelationGetRelationName(source)),
	             stream->ignore_conflicts ? " ON CONFLICT DO NOTHING" : "");
	relation_close(target, NoLock);
	relation_close(source, NoLock);
	return statement;
}

/* --- defaults for missing fields --- */

/* The Var under implicit casts, or NULL. */
static Var *
strip_to_var(Node *node)
{
	while (node != NULL)
	{
		if (IsA(node, Var))
			return (Var *) node;
		else if (IsA(node, RelabelType))
			node = (Node *) ((RelabelType *) node)->arg;
		else if (IsA(node, CoerceViaIO))
			node = (Node *) ((CoerceViaIO *) node)->arg;
		else if (IsA(node, CoerceToDomain))
			node = (Node *) ((CoerceToDomain *) node)->arg;
		else if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcformat == COERCE_IMPLICIT_CAST)
			node = (Node *) linitial(((FuncExpr *) node)->args);
		else
			return NULL;
	}
	return NULL;
}

/* Follows a Var down to a column of the topic table; InvalidAttrNumber when it isn't one. */
static AttrNumber
resolve_topic_column(Query *query, Var *var, Oid topic_table)
{
	RangeTblEntry *entry;

	if (var == NULL || var->varlevelsup != 0 || var->varattno <= 0)
		return InvalidAttrNumber;
	entry = rt_fetch(var->varno, query->rtable);
	switch (entry->rtekind)
	{
		case RTE_RELATION:
			return entry->relid == topic_table ? var->varattno : InvalidAttrNumber;
		case RTE_SUBQUERY:
		{
			TargetEntry *target = get_tle_by_resno(entry->subquery->targetList, var->varattno);

			if (target == NULL)
				return InvalidAttrNumber;
			return resolve_topic_column(entry->subquery, strip_to_var((Node *) target->expr),
			                            topic_table);
		}
		case RTE_JOIN:
			return resolve_topic_column(
			    query, strip_to_var(list_nth(entry->joinaliasvars, var->varattno - 1)),
			    topic_table);
		default:
			return InvalidAttrNumber;
	}
}

List *
stream_query_missing_defaults(Query *insert, Oid topic_table)
{
	List *defaults = NIL;
	Bitmapset *seen = NULL;
	Bitmapset *ambiguous = NULL;
	Relation target;
	Relation topic;
	ListCell *cell;

	if (insert->commandType != CMD_INSERT || insert->resultRelation == 0)
		return NIL;
	target =
	    relation_open(rt_fetch(insert->resultRelation, insert->rtable)->relid, AccessShareLock);
	topic = relation_open(topic_table, AccessShareLock);

	foreach (cell, insert->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		AttrNumber attnum =
		    resolve_topic_column(insert, strip_to_var((Node *) entry->expr), topic_table);
		Form_pg_attribute attribute;
		Node *expression;

		if (attnum == InvalidAttrNumber || entry->resjunk)
			continue;
		/* one column for two target columns: which default would it have? */
		if (bms_is_member(attnum, seen))
		{
			ambiguous = bms_add_member(ambiguous, attnum);
			continue;
		}
		seen = bms_add_member(seen, attnum);

		expression = build_column_default(target, entry->resno);
		if (expression == NULL)
			continue;
		attribute = TupleDescAttr(RelationGetDescr(topic), attnum - 1);
		expression = coerce_to_target_type(NULL, expression, exprType(expression),
		                                   attribute->atttypid, attribute->atttypmod,
		                                   COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
		if (expression != NULL)
		{
			TopicColumnDefault *column_default = palloc(sizeof(TopicColumnDefault));

			column_default->attnum = attnum;
			column_default->expression = expression_planner((Expr *) expression);
			defaults = lappend(defaults, column_default);
		}
	}
	foreach (cell, defaults)
	{
		if (bms_is_member(((TopicColumnDefault *) lfirst(cell))->attnum, ambiguous))
			defaults = foreach_delete_current(defaults, cell);
	}
	relation_close(topic, NoLock);
	relation_close(target, NoLock);
	return defaults;
}

/* --- privileges that no plan checks --- */

void
stream_query_check_server_usage(Oid topic_table)
{
	Oid server_id = GetForeignTable(topic_table)->serverid;
	AclResult result = foreign_server_aclcheck(server_id, GetUserId(), ACL_USAGE);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_FOREIGN_SERVER, GetForeignServer(server_id)->servername);
}
