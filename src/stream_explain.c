/*-------------------------------------------------------------------------
 *
 * stream_explain.c
 *	  kafka.explain_stream: how a batch of a stream is executed.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "fmgr.h"
#include "funcapi.h"
#include "function_arguments.h"
#include "micro_batch.h"
#include "sink.h"
#include "stream.h"
#include "stream_objects.h"
#include "stream_query.h"
#include "stream_trust.h"
#include "topic_schema.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(kafka_explain_stream);

static void
put_lines(ReturnSetInfo *result, char *text)
{
	char *next;

	for (char *line = text; line != NULL && *line != '\0'; line = next)
	{
		Datum value;
		bool isnull = false;

		next = strchr(line, '\n');
		if (next != NULL)
			*next++ = '\0';
		value = CStringGetTextDatum(line);
		tuplestore_putvalues(result->setResult, result->setDesc, &value, &isnull);
	}
}

Datum
kafka_explain_stream(PG_FUNCTION_ARGS)
{
	Stream *stream = stream_load_owned(required_text(fcinfo, 0, "name"), false);
	OwnerIdentity saved;
	StringInfoData text;
	TopicSchema *schema;
	Oid topic_table;
	Sink *sink;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);

	/* planned as the worker does: as the owner */
	stream_lock_objects(stream);
	become_owner(stream, &saved);
	stream_trust_check(stream);
	topic_table = stream_query_topic_table(stream->source);
	schema = topic_schema_load(topic_table);
	sink = sink_create(stream, topic_table);

	initStringInfo(&text);
	appendStringInfo(
	    &text, "Topic: %s, by topic table %s\n", schema->topic,
	    quote_qualified_identifier(get_namespace_name(get_rel_namespace(topic_table)),
	                               get_rel_name(topic_table)));
	sink->explain(sink, &text);
	restore_identity(&saved);

	put_lines((ReturnSetInfo *) fcinfo->resultinfo, text.data);
	return (Datum) 0;
}
