/*-------------------------------------------------------------------------
 *
 * sink_aggregate.c
 *	  Streams that aggregate, in any mode.
 *
 * Per group, the stream keeps transition states of its aggregates in a table
 * instead of the messages.  A batch's partial states are combined with those; then what
 * the mode asks for is written to the target: the groups that changed, the
 * whole result, or the windows that are over.  The statements are those of
 * sink_aggregate_sql.c, run by sink_statements.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "sink_aggregate.h"

#include "catalog/pg_type.h"
#include "sink_aggregate_sql.h"
#include "stream_aggregate.h"
#include "stream_state.h"

static StateDefinition *
state_definition(const StreamAggregate *aggregate)
{
	StateDefinition *definition = palloc0(sizeof(StateDefinition));
	ListCell *cell;

	foreach (cell, aggregate->keys)
	{
		GroupKey *key = lfirst(cell);

		definition->columns =
		    lappend(definition->columns,
		            stream_state_column(psprintf("k%d", foreach_current_index(cell) + 1),
		                                key->type, key->typmod, key->collation, true,
		                                key->text));
	}
	if (aggregate->keys == NIL)
		definition->columns =
		    list_make1(stream_state_column("k1", BOOLOID, -1, InvalidOid, true,
		                                   "the whole topic is one group"));
	foreach (cell, aggregate->aggregates)
	{
		GroupAggregate *group_aggregate = lfirst(cell);

		definition->columns =
		    lappend(definition->columns,
		            stream_state_column(psprintf("a%d", foreach_current_index(cell) + 1),
		                                BYTEAOID, -1, InvalidOid, false,
		                                group_aggregate->text));
	}
	if (aggregate->window.kind == WINDOW_RANGE || aggregate->window.kind == WINDOW_SESSION)
		definition->expiry = psprintf("upper(k%d)", aggregate->window_key);
	return definition;
}

void
aggregate_sink_create_state(const Stream *stream, Oid topic_table)
{
	StreamAggregate *aggregate = stream_aggregate_load(stream, topic_table);

	/* as in Spark, which says nothing */
	if (stream->mode == MODE_UPDATE && stream->watermark_column != NULL &&
	    aggregate->window.kind == WINDOW_NONE)
		ereport(NOTICE,
		        (errmsg("watermark of stream \"%s\" has nothing to close", stream->name),
		         errdetail("The query does not group by a window of \"%s\": no message is "
		                   "late, and the state of every group is kept.",
		                   stream->watermark_column),
		         errhint("Group by date_bin() of \"%s\" or kafka.sliding_window() of it to "
		                 "have the state of old windows forgotten.",
		                 stream->watermark_column)));
	stream_state_create(stream, state_definition(aggregate));
}

void
aggregate_sink_check_state(const Stream *stream, Oid topic_table)
{
	(void) stream_state_check(stream,
	                          state_definition(stream_aggregate_load(stream, topic_table)));
}

Sink *
aggregate_sink_create(const Stream *stream, Oid topic_table)
{
	StreamAggregate *aggregate = stream_aggregate_load(stream, topic_table);
	Oid state_table = stream_state_check(stream, state_definition(aggregate));

	return statement_sink_create(stream, topic_table,
	                             aggregate_statements(stream, aggregate, state_table),
	                             aggregate->window.kind != WINDOW_NONE);
}
