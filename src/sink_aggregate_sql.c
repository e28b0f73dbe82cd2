/*-------------------------------------------------------------------------
 *
 * sink_aggregate_sql.c
 *	  The statements of an aggregate stream.
 *
 * The state table is the row type "s" of all expressions: its columns k1 ... are what is
 * grouped by, a1 ... states of aggregates.  In a result, c1 ... are the output columns.
 * Rows are compared as images (row_image.c), which needs nothing of the columns' types and
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

#include "access/relation.h"
#include "aggregate_target.h"
#include "lib/stringinfo.h"
#include "row_image.h"
#include "sink_aggregate_sessions.h"
#include "stream_query.h"
#include "stream_state.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"

/* nullable key columns of which all combinations get a sub-select of their own, for the index */
#define MAX_NULLABLE_KEYS 4

/*
 * True, once all is deleted that is to be: what is inserted by the same statement may
 * take its place in a unique index.
 */
#define AFTER_REMOVAL "(SELECT count(*) >= 0 FROM removed)"

/* how many groups are new, and how many there are in the batch */
#define GROUPS_TOUCHED                                                                         \
	"m.new, m.touched FROM (SELECT count(*) FILTER (WHERE is_new) AS new, count(*) AS "        \
	"touched FROM merged) m"

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

/*
 * "p.a, p.c, ...": the target's columns, all or those of the keys; or the same columns of a
 * result, "p.c1, p.c3, ...".
 */
static char *
column_list(const AggregateTarget *target, bool of_result, const char *prefix, bool keys_only)
{
	StringInfoData list;
	ListCell *cell;

	initStringInfo(&list);
	foreach (cell, target->columns)
	{
		TargetColumn *column = lfirst(cell);
		int number = foreach_current_index(cell) + 1;

		if (column->is_key || !keys_only)
			appendStringInfo(&list, "%s%s%s", list.len > 0 ? ", " : "", prefix,
			                 of_result ? psprintf("c%d", number) : column->name);
	}
	return list.data;
}

static char *
target_columns(const AggregateTarget *target, const char *prefix, bool keys_only)
{
	return column_list(target, false, prefix, keys_only);
}

static char *
result_columns(const AggregateTarget *target, const char *prefix, bool keys_only)
{
	return column_list(target, true, prefix, keys_only);
}

/* Is a row "t" of the target, whose keys are the same, another than "other": a result, or of the target's columns? */
static char *
rows_differ(const AggregateTarget *target, const char *other, bool is_result)
{
	StringInfoData text;
	List *existing = NIL;
	List *wanted = NIL;
	ListCell *cell;

	foreach (cell, target->columns)
	{
		TargetColumn *column = lfirst(cell);

		if (column->is_key)
			continue;
		existing = lappend(existing, psprintf("t.%s", column->name));
		wanted = lappend(wanted,
		                 is_result ? psprintf("%s.c%d", other, foreach_current_index(cell) + 1)
		                           : psprintf("%s.%s", other, column->name));
	}
	initStringInfo(&text);
	append_rows_differ(&text, existing, wanted);
	return text.data;
}

/* The keys of a result in the order of the target's index, as upserts have them, whatever the query's is. */
static char *
key_order(const AggregateTarget *target)
{
	StringInfoData list;
	ListCell *key;

	initStringInfo(&list);
	foreach (key, target->key_index)
	{
		ListCell *cell;

		foreach (cell, target->columns)
		{
			TargetColumn *column = lfirst(cell);

			if (column->is_key && column->attribute->attnum == lfirst_int(key))
				appendStringInfo(&list, "%sr.c%d", list.len > 0 ? ", " : "",
				                 foreach_current_index(cell) + 1);
		}
	}
	return list.data;
}

/* --- parts of statements --- */

/* "expression AS c1, ..." */
static char *
result_list(const AggregateTarget *target)
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
key_match(const AggregateTarget *target, const char *row, uint32 pattern)
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
key_match_any(const AggregateTarget *target, const char *row)
{
	if (target->keys_not_null)
		return key_match(target, row, 0);
	/* records are equal where they have nulls */
	return psprintf("ROW(%s)::record = ROW(%s)::record",
	                target_columns(target, psprintf("%s.", row), true),
	                result_columns(target, "r.", true));
}

/* The places of the rows of the target for the groups in "merged" that are not kept. */
static char *
find_rows_to_remove(const AggregateTarget *target)
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
	return psprintf("SELECT f.relation, f.place FROM merged r CROSS JOIN LATERAL "
	                "(SELECT * FROM (%s) u OFFSET 0) f WHERE NOT r.keep",
	                text.data);
}

/* ", removed AS (...)": deletes the rows of the target at the places that a query returns. */
static void
append_removal(StringInfo sql, const AggregateTarget *target, const char *places)
{
	if (target->is_one_table)
		appendStringInfo(sql,
		                 ", removed AS (DELETE FROM %s t WHERE t.ctid = ANY (ARRAY("
		                 "SELECT p.place FROM (%s) p)) RETURNING 1)",
		                 target->name, places);
	else
		appendStringInfo(sql,
		                 ", removed AS (DELETE FROM %s t USING (%s) p WHERE t.ctid = p.place"
		                 " AND t.tableoid = p.relation RETURNING 1)",
		                 target->name, places);
}

/* "ON CONFLICT (keys) DO UPDATE ..." for columns that have changed. */
static char *
on_key_conflict(const AggregateTarget *target)
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
	return psprintf("ON CONFLICT (%s) DO UPDATE SET %s WHERE %s",
	                target_columns(target, "", true), assignments.data,
	                rows_differ(target, "excluded", false));
}

/* --- the statements --- */

/*
 * "WITH batch ..., merged ..., late ...": the batch goes into the state.  "merged" has a row for
 * each group that it has touched, with is_new, and what "returned" says of the state s.
 */
static void
append_merge(StringInfo sql, const Stream *stream, const StreamAggregate *aggregate,
             const char *returned)
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

	/* without a window only "merged" reads it: it need not be kept */
	appendStringInfo(sql, "WITH batch AS %s(%s), ",
	                 aggregate->window.kind == WINDOW_NONE ? "" : "MATERIALIZED ",
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
	appendStringInfo(sql, " RETURNING %ss.xmax = 0 AS is_new), late AS (SELECT ", returned);
	if (aggregate->window.kind == WINDOW_NONE)
		appendStringInfoString(sql, "0 AS rows)");
	else
		appendStringInfo(sql,
		                 "coalesce(sum(b.input_rows), 0) AS rows FROM batch b WHERE NOT (%s))",
		                 in_time);
}

/* Update mode: the batch goes into the state, and the groups that it has changed into the target. */
static void
append_changed_groups(StringInfo sql, const Stream *stream, const StreamAggregate *aggregate,
                      const AggregateTarget *target, Oid state_table)
{
	char *having = stream_aggregate_having(aggregate, state_table);

	/* results, not states, are kept until they are written: these are smaller */
	append_merge(sql, stream, aggregate,
	             psprintf("%s, %s AS keep, ", result_list(target),
	                      having == NULL ? "true" : psprintf("coalesce((%s), false)", having)));
	if (having != NULL)
		append_removal(sql, target, find_rows_to_remove(target));
	appendStringInfo(sql,
	                 ", written AS (INSERT INTO %s AS t (%s) SELECT %s FROM merged r WHERE "
	                 "r.keep%s ORDER BY %s %s RETURNING 1)",
	                 target->name, target_columns(target, "", false),
	                 result_columns(target, "r.", false),
	                 having != NULL ? " AND " AFTER_REMOVAL : "", key_order(target),
	                 on_key_conflict(target));
	appendStringInfo(sql,
	                 " SELECT (SELECT count(*) FROM written)%s, (SELECT rows FROM "
	                 "late)::bigint, " GROUPS_TOUCHED,
	                 having != NULL ? " + (SELECT count(*) FROM removed)" : "");
}

/* The target becomes the whole result; rows that are in both stay as they are. */
static char *
difference_statement(const Stream *stream, const StreamAggregate *aggregate,
                     const AggregateTarget *target, Oid state_table)
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
	if (target->key_index != NIL)
	{
		/* one pass over both; what is the same, mostly nearly all, is not kept */
		appendStringInfo(
		    &sql,
		    "WITH changed AS MATERIALIZED (SELECT r.*, t.tableoid AS relation, t.ctid AS place "
		    "FROM (SELECT true AS is_result, q.* FROM (%s) q) r FULL JOIN %s t ON %s WHERE "
		    "r.is_result IS NULL OR t.ctid IS NULL OR %s)",
		    query, target->name, key_match_any(target, "t"), rows_differ(target, "r", true));
		append_removal(&sql, target,
		               "SELECT c.relation, c.place FROM changed c WHERE c.is_result IS NULL");
		appendStringInfo(
		    &sql,
		    ", written AS (INSERT INTO %s AS t (%s) SELECT %s FROM changed r WHERE "
		    "r.is_result AND " AFTER_REMOVAL " ORDER BY %s %s RETURNING 1)",
		    target->name, columns, result, key_order(target), on_key_conflict(target));
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
append_statement(const Stream *stream, const StreamAggregate *aggregate,
                 const AggregateTarget *target, Oid state_table)
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
	AggregateTarget *target = aggregate_target_load(stream, aggregate, state_table);
	StringInfoData merge;

	initStringInfo(&merge);
	if (stream->mode == MODE_UPDATE && aggregate->keys != NIL)
		append_changed_groups(&merge, stream, aggregate, target, state_table);
	else
	{
		if (aggregate->window.kind == WINDOW_SESSION)
			append_session_merge(&merge, stream, aggregate);
		else
			append_merge(&merge, stream, aggregate, "");
		appendStringInfo(&merge, " SELECT 0::bigint, (SELECT rows FROM late)::bigint, %s",
		                 aggregate->window.kind == WINDOW_SESSION ? SESSION_STATE_ROWS_ADDED
		                                                          : GROUPS_TOUCHED);
	}
	statements->merge = merge.data;
	statements->in_any_order = !stream_aggregate_depends_on_order(aggregate);

	if (stream->mode == MODE_APPEND)
		statements->write = append_statement(stream, aggregate, target, state_table);
	else if (stream->mode == MODE_COMPLETE || aggregate->keys == NIL)
		statements->write = difference_statement(stream, aggregate, target, state_table);
	else if (aggregate->window.kind != WINDOW_NONE)
		statements->forget =
		    psprintf("WITH %s SELECT 0::bigint, 0::bigint, - (SELECT count(*) FROM closed)",
		             closed_groups(stream, aggregate));
	relation_close(target->relation, NoLock);
	return statements;
}
