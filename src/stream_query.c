/*-------------------------------------------------------------------------
 *
 * stream_query.c
 *	  What a stream's query may be: the rules of its mode.
 *
 * The rules are those of Spark's UnsupportedOperationChecker, in terms of SQL.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_query.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "topic_schema.h"
#include "utils/rel.h"

/* --- rules --- */

typedef struct QueryRules
{
	List *topic_tables; /* OIDs, one entry per reference */
	bool top_aggregates;
} QueryRules;

static bool rules_check_query(Query *query, QueryRules *rules, bool is_top);

void
stream_query_refuse(const char *message, const char *detail, const char *hint)
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

		if (rules_check_query(castNode(Query, sublink->subselect), rules, false))
			stream_query_refuse(
			    "a topic table in a sub-select expression is not supported in a stream",
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
			stream_query_refuse(
			    "an outer join must preserve the topic table's side",
			    "Rows without a match would come again with every batch.",
			    "Put the topic table on the side whose rows are all kept, or use an inner "
			    "join.");
		contains = left || right;
	}
	return contains;
}

static bool
query_aggregates(const Query *query)
{
	return query->hasAggs || query->groupClause != NIL || query->groupingSets != NIL ||
	       query->havingQual != NULL || query->distinctClause != NIL;
}

/* Refuses what a stream can't honour at a level above the topic, whatever its mode. */
static void
rules_check_level(const Query *query, const QueryRules *rules, bool is_top)
{
	if (query->groupingSets)
		stream_query_refuse("GROUPING SETS, ROLLUP and CUBE are not supported in a stream",
		                    "Each group is kept by one key.",
		                    "Create one stream per grouping, or aggregate further when reading "
		                    "the target.");
	if (query->hasDistinctOn)
		stream_query_refuse("DISTINCT ON is not supported in a stream",
		                    "Which row is the first may change with every message.",
		                    "Use mode => 'update', where the last message of a key wins.");
	if (!is_top && query_aggregates(query))
	{
		if (rules->top_aggregates)
			stream_query_refuse(
			    "an aggregation over an aggregation is not supported in a stream",
			    "The outer one would have to take back what it has counted "
			    "when a group of the inner one changes.",
			    "Do the outer one when reading the target.");
		stream_query_refuse("aggregation below the top level of a query is not supported in a "
		                    "stream",
		                    "The groups of a stream are those of its query itself.",
		                    "Aggregate in the stream's query, and do the rest when reading the "
		                    "target.");
	}
	if (query->hasWindowFuncs)
		stream_query_refuse("window functions are not supported in a stream",
		                    "A window would see the rows of one batch only.",
		                    "Use the window function when reading the target.");
	if (query->setOperations)
		stream_query_refuse("UNION, INTERSECT and EXCEPT are not supported in a stream",
		                    "A stream reads one topic table, once.",
		                    "Create one stream per topic table; several may write into one "
		                    "target.");
	if (query->limitOffset)
		stream_query_refuse("OFFSET is not supported in a stream",
		                    "What comes before would change with every message.",
		                    "Use OFFSET when reading the target.");
	if (!is_top && query->limitCount)
		stream_query_refuse("LIMIT below the top level of a query is not supported in a stream",
		                    "It would count the rows of one batch only.",
		                    "Use LIMIT when reading the target.");
	if (!is_top && query->sortClause)
		stream_query_refuse(
		    "ORDER BY below the top level of a query is not supported in a stream",
		    "A table has no order, and a batch is only a part of the result.",
		    "Use ORDER BY when reading the target.");
	if (query->rowMarks)
		stream_query_refuse("FOR UPDATE and FOR SHARE are not supported in a stream",
		                    "Rows of a topic can't be locked.",
		                    "Leave the locking clause out.");
	if (query->hasRecursive)
		stream_query_refuse("WITH RECURSIVE over a topic table is not supported",
		                    "A recursive query would need the topic table more than once.",
		                    "Use the recursive query when reading the target.");
}

/* Checks a query and all that is below it; true when it reads a topic table. */
static bool
rules_check_query(Query *query, QueryRules *rules, bool is_top)
{
	Bitmapset *streaming = NULL;
	bool contains = false;
	ListCell *cell;
	int index = 0;

	check_stack_depth();
	if (is_top)
		rules->top_aggregates = query_aggregates(query);

	foreach (cell, query->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, cell);

		if (!IsA(cte->ctequery, Query) ||
		    castNode(Query, cte->ctequery)->commandType != CMD_SELECT)
			continue;
		if (rules_check_query(castNode(Query, cte->ctequery), rules, false))
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

			entry_contains = rules_check_query(copyObject(get_view_query(view)), rules, false);
			table_close(view, NoLock);
		}
		else if (entry->rtekind == RTE_RELATION && topic_schema_is_topic_table(entry->relid))
		{
			rules->topic_tables = lappend_oid(rules->topic_tables, entry->relid);
			entry_contains = true;
		}
		else if (entry->rtekind == RTE_SUBQUERY)
			entry_contains = rules_check_query(entry->subquery, rules, false);
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
					    rules_check_query(castNode(Query, cte->ctequery), &ignored, false);
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
		rules_check_level(query, rules, is_top);
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
	/* the view of a query given as text has a name that the user never gave */
	bool is_text = relation->rd_rel->relnamespace == get_namespace_oid("kafka", true);

	if (relation->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
		        (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("source \"%s\" is temporary", name),
		         errdetail("The worker of a stream has its own session.")));
	if (topic_schema_is_topic_table(source))
		rules.topic_tables = list_make1_oid(source);
	else if (relation->rd_rel->relkind == RELKIND_VIEW)
		(void) rules_check_query(copyObject(get_view_query(relation)), &rules, true);
	if (rules.topic_tables == NIL)
		ereport(ERROR,
		        (errcode(ERRCODE_WRONG_OBJECT_TYPE),
		         is_text ? errmsg("the query does not read a topic table")
		                 : errmsg("source \"%s\" does not read a topic table", name),
		         errdetail(
		             "A stream reads a foreign table of the foreign data wrapper kafka, or a "
		             "view over one."),
		         errhint("Use CREATE FOREIGN TABLE ... SERVER ... OPTIONS (topic '...').")));
	if (list_length(rules.topic_tables) > 1)
		stream_query_refuse(
		    "a stream reads one topic table, once",
		    is_text ? psprintf("The query names topic tables %d times.",
		                       list_length(rules.topic_tables))
		            : psprintf("The query of \"%s\" names topic tables %d times.", name,
		                       list_length(rules.topic_tables)),
		    "Create one stream per topic, and join their target tables when reading.");
	relation_close(relation, NoLock);
	return linitial_oid(rules.topic_tables);
}

bool
stream_query_aggregates(Oid source)
{
	Relation relation = relation_open(source, AccessShareLock);
	bool aggregates =
	    relation->rd_rel->relkind == RELKIND_VIEW && query_aggregates(get_view_query(relation));

	relation_close(relation, NoLock);
	return aggregates;
}

/* ORDER BY and LIMIT have a meaning for the whole result only. */
static void
check_order_and_limit(const Stream *stream, const char *mode)
{
	Relation relation = relation_open(stream->source, AccessShareLock);
	Query *query = relation->rd_rel->relkind == RELKIND_VIEW ? get_view_query(relation) : NULL;

	relation_close(relation, NoLock);
	if (query == NULL || (stream->mode == MODE_COMPLETE && query_aggregates(query)))
		return;
	if (query->limitCount)
		stream_query_refuse(psprintf("LIMIT is not supported in %s mode", mode),
		                    "It would count the rows of one batch only.",
		                    "Use LIMIT when reading the target, or aggregate in mode => "
		                    "'complete'.");
	if (query->sortClause)
		stream_query_refuse(psprintf("ORDER BY is not supported in %s mode", mode),
		                    "A table has no order, and a batch is only a part of the result.",
		                    "Use ORDER BY when reading the target.");
}

static void
refuse_setting(const char *setting, const char *detail, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
	                errmsg("%s has no meaning for this stream", setting),
	                errdetail_internal("%s", detail), errhint("%s", hint)));
}

void
stream_query_check_mode(const Stream *stream)
{
	static const char *const modes[] = {"append", "update", "complete"};
	bool aggregates = stream_query_aggregates(stream->source);

	check_order_and_limit(stream, modes[stream->mode]);
	if (stream->mode == MODE_COMPLETE && !aggregates)
		stream_query_refuse(
		    "complete mode needs an aggregation",
		    "Without one the whole result is every message so far, to be "
		    "compared with the target at each batch.",
		    "Use mode => 'append', or 'update' to keep the last message of each "
		    "key.");
	if (stream->mode == MODE_APPEND && aggregates && stream->watermark_column == NULL)
		stream_query_refuse("aggregation is not supported in append mode without a watermark",
		                    "Rows are appended once and never changed, but DISTINCT and the "
		                    "result of a group change with later messages.",
		                    "Use mode => 'update' or 'complete'; or group by a window of event "
		                    "time and give watermark_column and watermark_delay.");
	if (aggregates && stream->key_columns != NIL)
		refuse_setting("key_columns", "The keys of an aggregation are what it groups by.",
		               "Leave key_columns out.");
	if (aggregates && stream->version_column != NULL)
		refuse_setting("version_column", "The result of a group always is the newest.",
		               "Leave version_column out.");
	if (!aggregates && stream->deduplicate_by == NIL && stream->watermark_column != NULL)
		refuse_setting("watermark_column",
		               "Without aggregation and deduplicate_by no row is ever late.",
		               "Leave watermark_column and watermark_delay out.");
	if (stream->deduplicate_by == NIL)
		return;
	if (aggregates || stream->mode != MODE_APPEND)
		stream_query_refuse(
		    "deduplicate_by is supported in append mode without aggregation only",
		    aggregates ? "It would be an aggregation of what has been deduplicated."
		               : "Update mode keeps one row per key anyway.",
		    "Deduplicate in a stream of its own.");
	if (stream->watermark_column == NULL)
		stream_query_refuse("deduplicate_by needs a watermark",
		                    "Without one the stream would have to remember every key for ever.",
		                    "Give watermark_column and watermark_delay; or give the target a "
		                    "unique index and use on_conflict => 'ignore'.");
}
