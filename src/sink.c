/*-------------------------------------------------------------------------
 *
 * sink.c
 *	  Which sink a stream has.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "sink.h"

#include "privileges.h"
#include "sink_aggregate.h"
#include "sink_append.h"
#include "sink_deduplicate.h"
#include "sink_procedure.h"
#include "sink_upsert.h"
#include "stream_query.h"
#include "stream_state.h"
#include "watermark.h"

/* Is there a result to be kept up to date, rather than rows to be handed on? */
static bool
has_groups(const Stream *stream)
{
	return stream->foreach_batch == NULL && stream_query_aggregates(stream->source);
}

/*
 * A state belongs to all partitions, and so does the watermark: workers would wait for
 * each other's groups, and close windows that others still fill.
 */
static void
refuse_workers(const Stream *stream)
{
	const char *reason = NULL;

	if (stream->workers == 1)
		return;
	if (stream->watermark_column != NULL)
		reason = "The watermark follows the messages of all partitions.";
	else if (stream->deduplicate_by != NIL)
		reason = "The keys that have been seen are those of all partitions.";
	else if (has_groups(stream))
		reason = "The groups of an aggregation take messages of all partitions.";
	if (reason != NULL)
		ereport(
		    ERROR,
		    (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		     errmsg("stream \"%s\" can't have more than one worker", stream->name),
		     errdetail("%s", reason),
		     errhint(
		         "Use workers => 1. Modes \"append\" and \"update\" without aggregation, and "
		         "foreach_batch, can have more.")));
}

/* Other modes say themselves what becomes of a row that is there already. */
static void
refuse_on_conflict(const Stream *stream)
{
	if (stream->mode == MODE_APPEND || !stream->ignore_conflicts)
		return;
	ereport(ERROR,
	        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
	         errmsg("on_conflict => 'ignore' is for mode \"append\" only"),
	         errdetail("In modes \"update\" and \"complete\" a row that is there already is "
	                   "changed."),
	         errhint("Leave it out, or use mode \"append\" to keep the first row of a "
	                 "key.")));
}

Sink *
sink_create(const Stream *stream, Oid topic_table)
{
	refuse_workers(stream);
	if (stream->mode != MODE_UPDATE)
		upsert_refuse_options(stream);
	privileges_check_server(topic_table);
	privileges_check_schemas(stream);
	if (stream->foreach_batch != NULL)
		return procedure_sink_create(stream, topic_table);
	stream_query_check_mode(stream);
	refuse_on_conflict(stream);
	if (has_groups(stream))
		return aggregate_sink_create(stream, topic_table);
	if (stream->deduplicate_by != NIL)
		return deduplicate_sink_create(stream, topic_table);
	if (stream->mode == MODE_UPDATE)
		return upsert_sink_create(stream, topic_table);
	return append_sink_create(stream, topic_table);
}

void
sink_create_objects(const Stream *stream)
{
	Oid topic_table = stream_query_topic_table(stream->source);

	if (stream->foreach_batch != NULL)
		return;
	stream_query_check_mode(stream);
	if (has_groups(stream))
		aggregate_sink_create_state(stream, topic_table);
	else if (stream->deduplicate_by != NIL)
		stream_state_create(stream, deduplicate_state_definition(stream));
}

void
sink_note_names(const Stream *stream)
{
	if (has_groups(stream) && stream_state_is_of_query(stream))
		aggregate_sink_check_state(stream, stream_query_topic_table(stream->source));
}

void
sink_alter_objects(const Stream *stream)
{
	/* a state that has something in it stays; sink_create() says whether it will do */
	if (!stream_state_is_empty(stream))
	{
		if (stream->foreach_batch != NULL)
			stream_state_refuse(stream, "A procedure of foreach_batch keeps none.");
		if (!has_groups(stream) && stream->deduplicate_by == NIL)
			stream_state_refuse(stream, "Without aggregation and deduplicate_by there is "
			                            "nothing for the state.");
		return;
	}
	sink_drop_objects(stream);
	sink_create_objects(stream);
}

void
sink_drop_objects(const Stream *stream)
{
	if (OidIsValid(stream_state_find(stream)))
		stream_state_drop(stream);
}

void
sink_reset_objects(const Stream *stream)
{
	/* a table that somebody has dropped is made anew */
	if (OidIsValid(stream_state_find(stream)))
		stream_state_clear(stream);
	else
		sink_create_objects(stream);
	watermark_delete(stream->name);
}
