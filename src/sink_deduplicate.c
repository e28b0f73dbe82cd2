/*-------------------------------------------------------------------------
 *
 * sink_deduplicate.c
 *	  Append mode with deduplicate_by: of rows with the same key, the first.
 *
 * As Spark's dropDuplicatesWithinWatermark: a key is remembered until the watermark
 * passes its event time plus the delay, so that duplicates whose event times differ by
 * less than the delay are found.  Rows without event time, and those behind the
 * watermark, are dropped: their keys may be forgotten already.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "sink_deduplicate.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "event_time.h"
#include "sink_statements.h"
#include "stream_query.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

StateDefinition *
deduplicate_state_definition(const Stream *stream)
{
	StateDefinition *definition = palloc0(sizeof(StateDefinition));
	Relation source = relation_open(stream->source, AccessShareLock);
	ListCell *cell;

	foreach (cell, stream->deduplicate_by)
	{
		char *name = lfirst(cell);
		AttrNumber attnum = get_attnum(stream->source, name);
		Form_pg_attribute attribute;

		if (attnum <= 0)
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
			                errmsg("column \"%s\" of deduplicate_by does not exist", name),
			                errdetail("Neither the source nor the query of the stream has it."),
			                errhint("Name columns that the stream writes.")));
		attribute = TupleDescAttr(RelationGetDescr(source), attnum - 1);
		if (!OidIsValid(lookup_type_cache(attribute->atttypid, TYPECACHE_LT_OPR)->lt_opr))
			stream_query_refuse(
			    psprintf("column \"%s\" can't be in deduplicate_by", name),
			    psprintf("Keys are found by an index, but type %s has no order.",
			             format_type_be(attribute->atttypid)),
			    "Use another column, or select a cast to text.");
		definition->columns =
		    lappend(definition->columns,
		            stream_state_column(psprintf("k%d", foreach_current_index(cell) + 1),
		                                attribute->atttypid, attribute->atttypmod,
		                                attribute->attcollation, true, name));
	}
	definition->columns =
	    lappend(definition->columns,
	            stream_state_column("expires", TIMESTAMPTZOID, -1, InvalidOid, false,
	                                "event time and the delay of the watermark"));
	definition->expiry = "expires";
	relation_close(source, NoLock);
	return definition;
}

/*
 * The source's columns as those of "batch" are called, c1 ..., and their names in the
 * target.  Only those of the keys, in their order, if there are keys.
 */
static char *
batch_columns(Relation source, const List *keys, const char *prefix)
{
	StringInfoData list;
	ListCell *cell;
	int number = 0;

	initStringInfo(&list);
	foreach (cell, keys)
		appendStringInfo(&list, "%s%sc%d", list.len > 0 ? ", " : "", prefix,
		                 get_attnum(RelationGetRelid(source), lfirst(cell)));
	for (int i = 0; keys == NIL && i < RelationGetNumberOfAttributes(source); i++)
	{
		number++;
		if (!TupleDescAttr(RelationGetDescr(source), i)->attisdropped)
			appendStringInfo(&list, "%s%sc%d", list.len > 0 ? ", " : "", prefix, number);
	}
	return list.data;
}

static char *
target_columns(Relation source)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < RelationGetNumberOfAttributes(source); i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(source), i);

		if (!attribute->attisdropped)
			appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "",
			                 quote_identifier(NameStr(attribute->attname)));
	}
	return list.data;
}

static char *
qualified_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
	                                  get_rel_name(relid));
}

/* "k1, k2, ..." */
static char *
state_keys(int count, const char *prefix)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 1; i <= count; i++)
		appendStringInfo(&list, "%s%sk%d", i > 1 ? ", " : "", prefix, i);
	return list.data;
}

static char *
merge_statement(const Stream *stream, Relation source, AttrNumber event_time)
{
	StringInfoData sql;
	List *keys = stream->deduplicate_by;
	char *batch_keys = batch_columns(source, keys, "b.");
	char *first_keys = batch_columns(source, keys, "f.");
	char *delay = DatumGetCString(
	    DirectFunctionCall1(interval_out, IntervalPGetDatum(stream->watermark_delay)));

	initStringInfo(&sql);
	appendStringInfo(
	    &sql,
	    "WITH batch AS MATERIALIZED (SELECT * FROM (SELECT r.*, row_number() OVER () "
	    "FROM %s r) b (%s, arrival)), ",
	    qualified_name(stream->source), batch_columns(source, NIL, ""));
	appendStringInfo(&sql,
	                 "firsts AS MATERIALIZED (SELECT DISTINCT ON (%s) b.* FROM batch b "
	                 "WHERE b.c%d > $1 ORDER BY %s, b.arrival), ",
	                 batch_keys, event_time, batch_keys);
	appendStringInfo(
	    &sql,
	    "fresh AS (INSERT INTO %s AS s (%s, expires) SELECT %s, f.c%d + %s::interval "
	    "FROM firsts f ORDER BY %s ON CONFLICT (%s) DO NOTHING RETURNING s.*), ",
	    stream_state_name(stream), state_keys(list_length(keys), ""), first_keys, event_time,
	    quote_literal_cstr(delay), first_keys, state_keys(list_length(keys), ""));
	/* records are equal where they have nulls */
	appendStringInfo(&sql,
	                 "written AS (INSERT INTO %s (%s) SELECT %s FROM firsts f JOIN fresh n ON "
	                 "ROW(%s)::record = ROW(%s)::record ORDER BY f.arrival%s RETURNING 1) ",
	                 qualified_name(stream->target), target_columns(source),
	                 batch_columns(source, NIL, "f."), first_keys,
	                 state_keys(list_length(keys), "n."),
	                 stream->ignore_conflicts ? " ON CONFLICT DO NOTHING" : "");
	appendStringInfo(&sql,
	                 "SELECT (SELECT count(*) FROM written), (SELECT count(*) FROM batch b "
	                 "WHERE (b.c%d > $1) IS NOT TRUE), (SELECT count(*) FROM fresh)",
	                 event_time);
	return sql.data;
}

Sink *
deduplicate_sink_create(const Stream *stream, Oid topic_table)
{
	SinkStatements statements = {0};
	Relation source = relation_open(stream->source, AccessShareLock);
	AttrNumber event_time =
	    event_time_output(stream->source, topic_table, stream->watermark_column);

	(void) stream_state_check(stream, deduplicate_state_definition(stream));
	/* for its checks: columns must fit as without deduplicate_by */
	(void) stream_query_insert_statement(stream);
	if (event_time == InvalidAttrNumber)
		stream_query_refuse(
		    psprintf("the query must select the watermark column \"%s\"",
		             stream->watermark_column),
		    "How long the key of a row is remembered depends on its event time.",
		    "Select the column as it is, under any name that the target has.");
	statements.merge = merge_statement(stream, source, event_time);
	statements.forget =
	    psprintf("WITH gone AS (DELETE FROM %s s WHERE s.expires <= $2 RETURNING 1) "
	             "SELECT 0::bigint, 0::bigint, - (SELECT count(*) FROM gone)",
	             stream_state_name(stream));
	relation_close(source, NoLock);
	return statement_sink_create(stream, topic_table, &statements, true);
}
