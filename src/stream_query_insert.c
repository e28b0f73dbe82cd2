/*-------------------------------------------------------------------------
 *
 * stream_query_insert.c
 *	  The INSERT that a source and a target make, and the defaults it hands down.
 *
 * Running the statement is left to sink_append.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_query.h"

#include "access/relation.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "topic_scan.h"
#include "topic_schema.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

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
			if (topic_schema_is_topic_table(RelationGetRelid(target)))
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
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
		                stream->query_view ? errmsg("the query has no columns")
		                                   : errmsg("source \"%s\" has no columns",
		                                            RelationGetRelationName(source)),
		                errdetail("There is nothing to write into \"%s\".",
		                          RelationGetRelationName(target)),
		                errhint("Select the columns that the target shall get.")));

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
