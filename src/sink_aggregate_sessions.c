/*-------------------------------------------------------------------------
 *
 * sink_aggregate_sessions.c
 *	  How a batch goes into a state whose groups are sessions.
 *
 * Each message is the session [time, time + gap) by itself; sessions of the same other
 * keys that overlap or touch are one, as in Spark and Flink.  A batch is first made sessions
 * of its own.  Those that it meets are taken out of the state, all are made sessions once
 * more, and the result is put back.  Stored sessions that meet none of the batch stay as they
 * are: they don't meet each other.
 *
 * The session is the last key, kn.  When sessions are over is left to sink_aggregate_sql.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "sink_aggregate_sessions.h"

#include "stream_query.h"
#include "stream_state.h"
#include "utils/builtins.h"
#include "utils/regproc.h"

/* keys of which all combinations of nulls get a sub-select of their own, for the index */
#define MAX_KEYS_BY_INDEX 4

/* "prefix1, prefix2, ..." with a comma after each. */
static char *
numbered(const char *prefix, int count)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 1; i <= count; i++)
		appendStringInfo(&list, "%s%d, ", prefix, i);
	return list.data;
}

/*
 * The rows of "source", which have the keys k1 ..., as "i" with the number of their island: rows
 * whose sessions meet, or are joined by others in between, have the same number.
 */
static char *
islands(const char *source, int session)
{
	char *partition =
	    session > 1 ? psprintf("PARTITION BY %s", numbered("r.k", session - 1)) : pstrdup("");
	size_t length = strlen(partition);

	if (length > 0)
		partition[length - 2] = '\0';
	/* rows that are equal by ORDER BY are counted together, whatever their order */
	return psprintf("(SELECT r.*, count(*) FILTER (WHERE r.starts) OVER (%s ORDER BY r.k%d) "
	                "AS island FROM (SELECT r.*, (lower(r.k%d) <= max(upper(r.k%d)) OVER "
	                "(%s ORDER BY r.k%d ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) "
	                "IS NOT TRUE AS starts FROM (%s) r) r) i",
	                partition, session, session, session, partition, session, source);
}

/* The keys of an island, and what to group by to get them. */
static char *
island_keys(int session)
{
	return psprintf("%ststzrange(min(lower(i.k%d)), max(upper(i.k%d))) AS k%d",
	                numbered("i.k", session - 1), session, session, session);
}

static char *
island_group(int session)
{
	return psprintf("%si.island", numbered("i.k", session - 1));
}

/* kafka.partial_state() over the columns of the rows query, or ... */
static char *
partial_states(const StreamAggregate *aggregate)
{
	StringInfoData list;
	ListCell *cell;

	initStringInfo(&list);
	foreach (cell, aggregate->aggregates)
	{
		Aggref *call = ((GroupAggregate *) lfirst(cell))->call;
		int number = foreach_current_index(cell) + 1;

		appendStringInfo(&list, ", kafka.partial_state(%s::regprocedure",
		                 quote_literal_cstr(format_procedure_qualified(call->aggfnoid)));
		for (int i = 1; i <= list_length(call->args); i++)
			appendStringInfo(&list, ", i.x%d_%d", number, i);
		appendStringInfoChar(&list, ')');
		if (call->aggfilter != NULL)
			appendStringInfo(&list, " FILTER (WHERE i.f%d)", number);
		appendStringInfo(&list, " AS a%d", number);
	}
	return list.data;
}

/* ... of all states together. */
static char *
combined_states(const StreamAggregate *aggregate)
{
	StringInfoData list;
	ListCell *cell;

	initStringInfo(&list);
	foreach (cell, aggregate->aggregates)
	{
		Aggref *call = ((GroupAggregate *) lfirst(cell))->call;

		appendStringInfo(&list, ", kafka.combined_state(%s::regprocedure, i.a%d)",
		                 quote_literal_cstr(format_procedure_qualified(call->aggfnoid)),
		                 foreach_current_index(cell) + 1);
	}
	return list.data;
}

/* Are the keys but the session those of "b"?  Those in "nulls" are null in both. */
static char *
same_keys(const StreamAggregate *aggregate, uint32 nulls)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 1; i < aggregate->window_key; i++)
	{
		GroupKey *key = list_nth(aggregate->keys, i - 1);

		if (nulls & (1U << (i - 1)))
			appendStringInfo(&text, "x.k%d IS NULL AND b.k%d IS NULL AND ", i, i);
		else
			appendStringInfo(&text, "x.k%d %s b.k%d AND ", i, stream_query_equality(key->type),
			                 i);
	}
	return text.data;
}

/* The places in the state of the sessions that those of "batch" overlap or touch. */
static char *
find_touched(const Stream *stream, const StreamAggregate *aggregate)
{
	int session = aggregate->window_key;
	bool by_index = session - 1 <= MAX_KEYS_BY_INDEX;
	uint32 patterns = by_index ? 1U << (session - 1) : 1;
	StringInfoData text;

	initStringInfo(&text);
	for (uint32 nulls = 0; nulls < patterns; nulls++)
	{
		char *match;

		if (by_index)
			match = same_keys(aggregate, nulls);
		else
		{
			/* records are equal where they have nulls */
			char *stored = numbered("x.k", session - 1);
			char *arrived = numbered("b.k", session - 1);

			match =
			    psprintf("ROW(%.*s)::record = ROW(%.*s)::record AND ", (int) strlen(stored) - 2,
			             stored, (int) strlen(arrived) - 2, arrived);
		}
		appendStringInfo(
		    &text,
		    "%sSELECT x.ctid AS place FROM %s x WHERE %s(x.k%d && b.k%d OR x.k%d -|- b.k%d)",
		    nulls > 0 ? " UNION ALL " : "", stream_state_name(stream), match, session, session,
		    session, session);
	}
	/* OFFSET 0 keeps it a sub-select that is run per session: with an index */
	return psprintf("SELECT f.place FROM batch b CROSS JOIN LATERAL "
	                "(SELECT * FROM (%s) u OFFSET 0) f",
	                text.data);
}

void
append_session_merge(StringInfo sql, const Stream *stream, const StreamAggregate *aggregate)
{
	int session = aggregate->window_key;
	int aggregate_count = list_length(aggregate->aggregates);
	char *state = stream_state_name(stream);
	char *columns = psprintf("%s%s", numbered("k", session), numbered("a", aggregate_count));
	char *in_time = psprintf("(upper(r.k%d) > $1) IS TRUE", session);

	columns[strlen(columns) - 2] = '\0';
	/* late is a message, not the session that others make of it */
	appendStringInfo(sql, "WITH arrived AS MATERIALIZED (%s), ",
	                 stream_aggregate_rows_query(aggregate));
	appendStringInfo(sql, "batch AS MATERIALIZED (SELECT %s%s FROM %s GROUP BY %s), ",
	                 island_keys(session), partial_states(aggregate),
	                 islands(psprintf("SELECT r.* FROM arrived r WHERE %s", in_time), session),
	                 island_group(session));
	appendStringInfo(
	    sql, "touched AS (DELETE FROM %s s WHERE s.ctid = ANY (ARRAY(%s)) RETURNING s.*), ",
	    state, find_touched(stream, aggregate));
	/* the last sort is after all that is taken out, so that a key may come back */
	appendStringInfo(
	    sql, "merged AS (INSERT INTO %s AS s (%s) SELECT %s%s FROM %s GROUP BY %s ORDER BY ",
	    state, columns, island_keys(session), combined_states(aggregate),
	    islands(psprintf("SELECT %s FROM batch UNION ALL SELECT %s FROM touched", columns,
	                     columns),
	            session),
	    island_group(session));
	for (int i = 1; i <= session; i++)
		appendStringInfo(sql, "%s%d", i > 1 ? ", " : "", i);
	appendStringInfo(sql,
	                 " RETURNING 1), late AS (SELECT count(*) AS rows FROM arrived r WHERE "
	                 "NOT (%s))",
	                 in_time);
}
