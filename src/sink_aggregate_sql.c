/*-------------------------------------------------------------------------
 *
 * sink_aggregate_sql.c
 *	  The statements of an aggregate stream.
 *
 * The state table is the row type "s" of all expressions: its columns k1 ... are what is
 * grouped by, a1 ... states of aggregates.  In a result, c1 ... are the output columns.
 * Rows are compared as images (*=), which needs nothing of the columns' types and
 * sees what = does not, such as a numeric's scale.
 *
 * What is written is written in the order of the keys, so that streams with
 * the same target don't deadlock.  All look-ups by key in the state and, in update mode,
 * in the target go through unique indexes whatever the planner estimates: by ON CONFLICT, or
 * by a sub-select per row.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "sink_aggregate_sql.h"

#include "access/genam.h"
#include "access/relation.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "parser/parse_coerce.h"
#include "sink_aggregate_sessions.h"
#include "stream_query.h"
#include "stream_state.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

/* nullable key columns of which all combinations get a sub-select of their own, for the index */
#define MAX_NULLABLE_KEYS 4

/*
 * True, once all is deleted that is to be: what is inserted by the same statement may
 * take its place in a unique index.
 */
#define AFTER_REMOVAL "(SELECT count(*) >= 0 FROM removed)"

/* An output column, and where it goes. */
typedef struct TargetColumn
{
	char *name; /* quoted */
	Form_pg_attribute attribute;
	char *expression; /* over "s" */
	bool is_key;
} TargetColumn;

typedef struct Target
{
	Relation relation;
	char *name;    /* qualified and quoted */
	List *columns; /* of TargetColumn *: c1 ... of a result */
	bool by_key;   /* a unique index tells rows by the columns that are keys */
	bool keys_not_null;
} Target;

/* "x1, x2, ...": a list of numbered columns. */
static char *
numbered(const char *prefix, int count)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 1; i <= count; i++)
		appendStringInfo(&list, "%s%s%d", i > 1 ? ", " : "", prefix, i);
	return list.data;
}

/* "p.a, p.b, ...": the target's columns, all or those of the keys. */
static char *
target_columns(const Target *target, const char *prefix, bool keys_only)
{
	StringInfoData list;
	ListCell *cell;

	initStringInfo(&list);
	foreach (cell, target->columns)
	{
		TargetColumn *column = lfirst(cell);

		if (column->is_key || !keys_only)
			appendStringInfo(&list, "%s%s%s", list.len > 0 ? ", " : "", prefix, column->name);
	}
	return list.data;
}

/* "p.c1, p.c3, ...": the same columns of a result. */
static char *
result_columns(const Target *target, const char *prefix, bool keys_only)
{
	StringInfoData list;
	ListCell *cell;

	initStringInfo(&list);
	foreach (cell, target->columns)
	{
		TargetColumn *column = lfirst(cell);

		if (column->is_key || !keys_only)
			appendStringInfo(&list, "%s%sc%d", list.len > 0 ? ", " : "", prefix,
			                 foreach_current_index(cell) + 1);
	}
	return list.data;
}

/* The keys of a result in the order of the target's columns, whatever the query's is. */
static char *
key_order(const Target *target)
{
	StringInfoData list;
	ListCell *cell;

	initStringInfo(&list);
	for (int attnum = 1; attnum <= RelationGetNumberOfAttributes(target->relation); attnum++)
	{
		foreach (cell, target->columns)
		{
			TargetColumn *column = lfirst(cell);

			if (column->is_key && column->attribute->attnum == attnum)
				appendStringInfo(&list, "%sr.c%d", list.len > 0 ? ", " : "",
				                 foreach_current_index(cell) + 1);
		}
	}
	return list.data;
}

/* --- the target --- */

/* Can the column keep the groups apart?  A narrower type would make two groups one row. */
static bool
column_keeps_key(const GroupKey *key, Form_pg_attribute attribute)
{
	Oid type = getBaseType(attribute->atttypid);
	Oid key_type = getBaseType(key->type);

	if (OidIsValid(attribute->attcollation) && attribute->attcollation != key->collation &&
	    OidIsValid(key->collation) &&
	    (!get_collation_isdeterministic(attribute->attcollation) ||
	     !get_collation_isdeterministic(key->collation)))
		return false;
	if (type == TEXTOID || type == VARCHAROID)
		return key_type == TEXTOID || key_type == VARCHAROID;
	if (attribute->atttypmod >= 0 && attribute->atttypmod != key->typmod)
		return false;
	if (type == INT8OID)
		return key_type == INT8OID || key_type == INT4OID || key_type == INT2OID;
	if (type == INT4OID)
		return key_type == INT4OID || key_type == INT2OID;
	return type == key_type;
}

/* Is there a unique index on exactly these columns, with at most one row per key? */
static bool
has_key_index(const Target *target, const List *attnums)
{
	bool found = false;
	List *indexes = RelationGetIndexList(target->relation);
	ListCell *cell;

	foreach (cell, indexes)
	{
		HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(cell)));
		Form_pg_index index;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for index %u", lfirst_oid(cell));
		index = (Form_pg_index) GETSTRUCT(tuple);
		if (index->indisunique && index->indimmediate && index->indisvalid &&
		    index->indnkeyatts == list_length(attnums) &&
		    heap_attisnull(tuple, Anum_pg_index_indpred, NULL) &&
		    heap_attisnull(tuple, Anum_pg_index_indexprs, NULL) &&
		    (target->keys_not_null || index->indnullsnotdistinct))
		{
			bool all = true;

			for (int i = 0; i < index->indnkeyatts; i++)
				all = all && list_member_int(attnums, index->indkey.values[i]);
			found = found || all;
		}
		ReleaseSysCache(tuple);
	}
	list_free(indexes);
	return found;
}

/* Finds out whether rows of the target can be told by their groups; in update mode they must. */
static void
find_target_keys(Target *target, const StreamAggregate *aggregate, bool required)
{
	List *attnums = NIL;
	StringInfoData names;
	ListCell *cell;
	bool kept = true;

	initStringInfo(&names);
	target->keys_not_null = true;
	foreach (cell, aggregate->keys)
	{
		GroupKey *key = lfirst(cell);
		TargetColumn *column;

		if (key->output < 0)
		{
			if (required)
				stream_query_refuse(
				    psprintf("%s must be in the select list in update mode", key->text),
				    "Rows of the target are found by all that the query groups by.",
				    "Select it too, or use mode => 'complete'.");
			kept = false;
			continue;
		}
		column = list_nth(target->columns, key->output);
		if (!column_keeps_key(key, column->attribute))
		{
			if (required)
				ereport(
				    ERROR,
				    (errcode(ERRCODE_DATATYPE_MISMATCH),
				     errmsg("column %s of target \"%s\" can't hold what the query groups by",
				            column->name, RelationGetRelationName(target->relation)),
				     errdetail("Its type is %s, that of %s is %s: different groups could "
				               "become one row.",
				               format_type_with_typemod(column->attribute->atttypid,
				                                        column->attribute->atttypmod),
				               key->text, format_type_with_typemod(key->type, key->typmod)),
				     errhint("Give the column the type of the expression.")));
			kept = false;
		}
		column->is_key = true;
		target->keys_not_null = target->keys_not_null && column->attribute->attnotnull;
		attnums = list_append_unique_int(attnums, column->attribute->attnum);
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", column->name);
	}
	target->by_key = kept && attnums != NIL && has_key_index(target, attnums);
	if (required && !target->by_key)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
		         errmsg("target \"%s\" has no unique index on what the query groups by",
		                RelationGetRelationName(target->relation)),
		         errdetail("Update mode finds the row of a group by (%s)%s.", names.data,
		                   target->keys_not_null ? "" : ", where columns may be null"),
		         errhint("Use ALTER TABLE %s ADD UNIQUE %s(%s).", target->name,
		                 target->keys_not_null ? "" : "NULLS NOT DISTINCT ", names.data)));
}

static void
load_target(Target *target, const Stream *stream, const StreamAggregate *aggregate,
            Oid state_table)
{
	ListCell *cell;
	List *outputs;

	/* checks that columns fit, as for any stream */
	(void) stream_query_insert_statement(stream);
	target->relation = relation_open(stream->target, AccessShareLock);
	if (stream->mode != MODE_APPEND && target->relation->rd_rel->relkind != RELKIND_RELATION &&
	    target->relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
		                errmsg("target \"%s\" is not a table",
		                       RelationGetRelationName(target->relation)),
		                errdetail("Rows that are there already must be found and changed."),
		                errhint("Use a table as the target.")));
	target->name =
	    quote_qualified_identifier(get_namespace_name(RelationGetNamespace(target->relation)),
	                               RelationGetRelationName(target->relation));
	/* only complete mode compares a result with rows; elsewhere an INSERT converts it */
	outputs = stream_aggregate_outputs(aggregate, state_table,
	                                   stream->mode == MODE_COMPLETE || aggregate->keys == NIL
	                                       ? target->relation
	                                       : NULL);
	foreach (cell, outputs)
	{
		AggregateOutput *output = lfirst(cell);
		TargetColumn *column = palloc0(sizeof(TargetColumn));

		column->name = pstrdup(quote_identifier(output->name));
		column->attribute = TupleDescAttr(RelationGetDescr(target->relation),
		                                  get_attnum(stream->target, output->name) - 1);
		column->expression = output->expression;
		target->columns = lappend(target->columns, column);
	}
	if (stream->mode != MODE_APPEND)
		find_target_keys(target, aggregate,
		                 stream->mode == MODE_UPDATE && aggregate->keys != NIL);
}

/* --- parts of statements --- */

/* "expression AS c1, ..." */
static char *
result_list(const Target *target)
{
	StringInfoData list;
	ListCell *cell;

	initStringInfo(&list);
	foreach (cell, target->columns)
		appendStringInfo(&list, "%s%s AS c%d", list.len > 0 ? ", " : "",
		                 ((TargetColumn *) lfirst(cell))->expression,
		                 foreach_current_index(cell) + 1);
	return list.data;
}

/*
 * Is r's key that of a row of the target?  Of the nullable columns, those in
 * "pattern" are null in both.
 */
static char *
key_match(const Target *target, const char *row, uint32 pattern)
{
	StringInfoData text;
	ListCell *cell;
	int nullable = 0;

	initStringInfo(&text);
	foreach (cell, target->columns)
	{
		TargetColumn *column = lfirst(cell);
		int number = foreach_current_index(cell) + 1;

		if (!column->is_key)
			continue;
		appendStringInfoString(&text, text.len > 0 ? " AND " : "");
		if (!column->attribute->attnotnull && (pattern & (1U << nullable++)))
			appendStringInfo(&text, "r.c%d IS NULL AND %s.%s IS NULL", number, row,
			                 column->name);
		else
			appendStringInfo(&text, "%s.%s %s r.c%d", row, column->name,
			                 stream_query_equality(column->attribute->atttypid), number);
	}
	return text.data;
}

/* The same for joins of whole tables. */
static char *
key_match_any(const Target *target, const char *row)
{
	if (target->keys_not_null)
		return key_match(target, row, 0);
	/* records are equal where they have nulls */
	return psprintf("ROW(%s)::record = ROW(%s)::record",
	                target_columns(target, psprintf("%s.", row), true),
	                result_columns(target, "r.", true));
}

/* The places of the rows of the target for the groups in "result" that are not kept. */
static char *
find_rows_to_remove(const Target *target)
{
	StringInfoData text;
	ListCell *cell;
	int nullable = 0;
	uint32 patterns;

	foreach (cell, target->columns)
	{
		TargetColumn *column = lfirst(cell);

		nullable += column->is_key && !column->attribute->attnotnull;
	}
	patterns = nullable > MAX_NULLABLE_KEYS ? 1 : 1U << nullable;

	initStringInfo(&text);
	for (uint32 pattern = 0; pattern < patterns; pattern++)
		appendStringInfo(&text,
		                 "%sSELECT x.tableoid AS relation, x.ctid AS place FROM %s x WHERE %s",
		                 pattern > 0 ? " UNION ALL " : "", target->name,
		                 nullable > MAX_NULLABLE_KEYS ? key_match_any(target, "x")
		                                              : key_match(target, "x", pattern));
	/* OFFSET 0 keeps it a sub-select that is run per group: with an index */
	return psprintf("SELECT f.relation, f.place FROM result r CROSS JOIN LATERAL "
	                "(SELECT * FROM (%s) u OFFSET 0) f WHERE NOT r.keep",
	                text.data);
}

/* "ON CONFLICT (keys) DO UPDATE ..." for columns that have changed. */
static char *
on_key_conflict(const Target *target)
{
	StringInfoData assignments;
	ListCell *cell;

	initStringInfo(&assignments);
	foreach (cell, target->columns)
	{
		TargetColumn *column = lfirst(cell);

		if (!column->is_key)
			appendStringInfo(&assignments, "%s%s = excluded.%s",
			                 assignments.len > 0 ? ", " : "", column->name, column->name);
	}
	if (assignments.len == 0)
		return psprintf("ON CONFLICT (%s) DO NOTHING", target_columns(target, "", true));
	return psprintf("ON CONFLICT (%s) DO UPDATE SET %s "
	                "WHERE ROW(%s)::record *<> ROW(%s)::record",
	                target_columns(target, "", true), assignments.data,
	                target_columns(target, "t.", false),
	                target_columns(target, "excluded.", false));
}

/* --- the statements --- */

/* "WITH batch ..., merged ..., late ...": the batch goes into the state. */
static void
append_merge(StringInfo sql, const Stream *stream, const StreamAggregate *aggregate)
{
	int key_count = Max(list_length(aggregate->keys), 1);
	int aggregate_count = list_length(aggregate->aggregates);
	char *keys = numbered("k", key_count);
	char *sorted = numbered("b.k", key_count);
	char *in_time = "true";
	ListCell *cell;

	if (aggregate->window.kind != WINDOW_NONE)
	{
		in_time = psprintf("%s > $1", event_window_end(&aggregate->window, "b.k1"));
		/* a group without a time is never done: in append mode it would never come out */
		in_time =
		    psprintf("(%s) IS %s", in_time, stream->mode == MODE_APPEND ? "TRUE" : "NOT FALSE");
	}

	appendStringInfo(sql, "WITH batch AS MATERIALIZED (%s), ",
	                 stream_aggregate_batch_query(aggregate));
	appendStringInfo(sql, "merged AS (INSERT INTO %s AS s (%s%s%s) ", stream_state_name(stream),
	                 keys, aggregate_count > 0 ? ", " : "", numbered("a", aggregate_count));
	appendStringInfo(sql, "SELECT %s%s%s FROM batch b WHERE %s ORDER BY %s ", sorted,
	                 aggregate_count > 0 ? ", " : "", numbered("b.a", aggregate_count), in_time,
	                 sorted);
	appendStringInfo(sql, "ON CONFLICT (%s) DO %s", keys,
	                 aggregate_count > 0 ? "UPDATE SET " : "NOTHING");
	foreach (cell, aggregate->aggregates)
	{
		GroupAggregate *group_aggregate = lfirst(cell);
		int number = foreach_current_index(cell) + 1;

		appendStringInfo(
		    sql, "%sa%d = kafka.combine_states(%s::regprocedure, s.a%d, excluded.a%d)",
		    number > 1 ? ", " : "", number,
		    quote_literal_cstr(format_procedure_qualified(group_aggregate->call->aggfnoid)),
		    number, number);
	}
	/* of the rows that are there now, those that were not locked before to be updated are new */
	appendStringInfo(sql, " RETURNING s.*, s.xmax = 0 AS is_new), late AS (SELECT ");
	if (aggregate->window.kind == WINDOW_NONE)
		appendStringInfoString(sql, "0 AS rows)");
	else
		appendStringInfo(sql,
		                 "coalesce(sum(b.input_rows), 0) AS rows FROM batch b WHERE NOT (%s))",
		                 in_time);
}

/* Update mode: the rows of the groups that the batch has changed. */
static void
append_changed_groups(StringInfo sql, const StreamAggregate *aggregate, const Target *target,
                      Oid state_table)
{
	char *having = stream_aggregate_having(aggregate, state_table);

	appendStringInfo(sql, ", result AS MATERIALIZED (SELECT %s, %s AS keep FROM merged s)",
	                 result_list(target),
	                 having == NULL ? "true" : psprintf("coalesce((%s), false)", having));
	if (having != NULL)
	{
		char *places = find_rows_to_remove(target);

		if (target->relation->rd_rel->relkind == RELKIND_RELATION &&
		    !has_subclass(RelationGetRelid(target->relation)))
			appendStringInfo(sql,
			                 ", removed AS (DELETE FROM %s t WHERE t.ctid = ANY (ARRAY("
			                 "SELECT p.place FROM (%s) p)) RETURNING 1)",
			                 target->name, places);
		else
			appendStringInfo(
			    sql,
			    ", removed AS (DELETE FROM %s t USING (%s) p WHERE t.ctid = p.place"
			    " AND t.tableoid = p.relation RETURNING 1)",
			    target->name, places);
	}
	appendStringInfo(sql,
	                 ", written AS (INSERT INTO %s AS t (%s) SELECT %s FROM result r WHERE "
	                 "r.keep%s ORDER BY %s %s RETURNING 1)",
	                 target->name, target_columns(target, "", false),
	                 result_columns(target, "r.", false),
	                 having != NULL ? " AND " AFTER_REMOVAL : "", key_order(target),
	                 on_key_conflict(target));
	appendStringInfo(
	    sql,
	    " SELECT (SELECT count(*) FROM written)%s, (SELECT rows FROM late)::bigint, "
	    "(SELECT count(*) FROM merged WHERE is_new)",
	    having != NULL ? " + (SELECT count(*) FROM removed)" : "");
}

/* The target becomes the whole result; rows that are in both stay as they are. */
static char *
difference_statement(const Stream *stream, const StreamAggregate *aggregate,
                     const Target *target, Oid state_table)
{
	StringInfoData sql;
	char *having = stream_aggregate_having(aggregate, state_table);
	char *query =
	    psprintf("SELECT %s FROM %s s%s%s%s", result_list(target), stream_state_name(stream),
	             having != NULL ? " WHERE " : "", having != NULL ? having : "",
	             stream_aggregate_order(aggregate, state_table));
	char *columns = target_columns(target, "", false);
	char *result = result_columns(target, "r.", false);
	char *existing = target_columns(target, "t.", false);

	initStringInfo(&sql);
	if (target->by_key)
	{
		char *match = key_match_any(target, "t");

		appendStringInfo(&sql, "WITH result AS MATERIALIZED (%s)", query);
		appendStringInfo(
		    &sql,
		    ", removed AS (DELETE FROM %s t WHERE NOT EXISTS (SELECT FROM result r "
		    "WHERE %s) RETURNING 1)",
		    target->name, match);
		appendStringInfo(&sql,
		                 ", written AS (INSERT INTO %s AS t (%s) SELECT %s FROM result r "
		                 "WHERE " AFTER_REMOVAL
		                 " AND NOT EXISTS (SELECT FROM %s t WHERE %s AND ROW(%s)::record *= "
		                 "ROW(%s)::record) ORDER BY %s %s RETURNING 1)",
		                 target->name, columns, result, target->name, match, existing, result,
		                 key_order(target), on_key_conflict(target));
	}
	else
	{
		/* of equal rows, the n-th goes with the n-th */
		appendStringInfo(&sql,
		                 "WITH result AS MATERIALIZED (SELECT r.*, ROW(%s)::text AS image, "
		                 "row_number() OVER (PARTITION BY ROW(%s)::text) AS copy FROM (%s) r)",
		                 result, result, query);
		appendStringInfo(&sql,
		                 ", existing AS MATERIALIZED (SELECT t.tableoid AS relation, t.ctid AS "
		                 "place, ROW(%s)::text AS image, row_number() OVER (PARTITION BY "
		                 "ROW(%s)::text) AS copy FROM %s t)",
		                 existing, existing, target->name);
		appendStringInfo(
		    &sql,
		    ", removed AS (DELETE FROM %s t USING existing e WHERE t.ctid = e.place "
		    "AND t.tableoid = e.relation AND NOT EXISTS (SELECT FROM result r WHERE "
		    "r.image = e.image AND r.copy = e.copy) RETURNING 1)",
		    target->name);
		appendStringInfo(
		    &sql,
		    ", written AS (INSERT INTO %s (%s) SELECT %s FROM result r WHERE " AFTER_REMOVAL
		    " AND NOT EXISTS (SELECT FROM existing e WHERE e.image = r.image AND e.copy = "
		    "r.copy) ORDER BY r.image RETURNING 1)",
		    target->name, columns, result);
	}
	appendStringInfoString(&sql,
	                       " SELECT (SELECT count(*) FROM written) + (SELECT count(*) FROM "
	                       "removed), 0::bigint, 0::bigint");
	return sql.data;
}

/* "closed AS (...)": takes the windows that are over out of the state. */
static char *
closed_groups(const Stream *stream, const StreamAggregate *aggregate)
{
	return psprintf("closed AS (DELETE FROM %s s WHERE %s RETURNING s.*)",
	                stream_state_name(stream),
	                event_window_closed(&aggregate->window,
	                                    psprintf("s.k%d", aggregate->window_key), "$2"));
}

/* Append mode: windows come out once they are over. */
static char *
append_statement(const Stream *stream, const StreamAggregate *aggregate, const Target *target,
                 Oid state_table)
{
	char *having = stream_aggregate_having(aggregate, state_table);

	return psprintf(
	    "WITH %s, written AS (INSERT INTO %s (%s) SELECT %s FROM closed s%s%s "
	    "ORDER BY %s%s RETURNING 1) SELECT (SELECT count(*) FROM written), 0::bigint, "
	    "- (SELECT count(*) FROM closed)",
	    closed_groups(stream, aggregate), target->name, target_columns(target, "", false),
	    result_list(target), having != NULL ? " WHERE " : "", having != NULL ? having : "",
	    numbered("s.k", list_length(aggregate->keys)),
	    stream->ignore_conflicts ? " ON CONFLICT DO NOTHING" : "");
}

SinkStatements *
aggregate_statements(const Stream *stream, const StreamAggregate *aggregate, Oid state_table)
{
	SinkStatements *statements = palloc0(sizeof(SinkStatements));
	Target target = {0};
	StringInfoData merge;

	load_target(&target, stream, aggregate, state_table);
	initStringInfo(&merge);
	if (aggregate->window.kind == WINDOW_SESSION)
		append_session_merge(&merge, stream, aggregate);
	else
		append_merge(&merge, stream, aggregate);
	if (stream->mode == MODE_UPDATE && aggregate->keys != NIL)
		append_changed_groups(&merge, aggregate, &target, state_table);
	else
		appendStringInfo(&merge, " SELECT 0::bigint, (SELECT rows FROM late)::bigint, %s",
		                 aggregate->window.kind == WINDOW_SESSION
		                     ? SESSION_STATE_ROWS_ADDED
		                     : "(SELECT count(*) FROM merged WHERE is_new)");
	statements->merge = merge.data;

	if (stream->mode == MODE_APPEND)
		statements->write = append_statement(stream, aggregate, &target, state_table);
	else if (stream->mode == MODE_COMPLETE || aggregate->keys == NIL)
		statements->write = difference_statement(stream, aggregate, &target, state_table);
	else if (aggregate->window.kind != WINDOW_NONE)
		statements->forget =
		    psprintf("WITH %s SELECT 0::bigint, 0::bigint, - (SELECT count(*) FROM closed)",
		             closed_groups(stream, aggregate));
	relation_close(target.relation, NoLock);
	return statements;
}
