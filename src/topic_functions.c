/*-------------------------------------------------------------------------
 *
 * topic_functions.c
 *	  SQL functions that ask Kafka about a topic table's topic.
 *
 * They see what a SELECT from the topic table would: the caller needs SELECT on
 * it, and the caller's user mapping is used.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "function_arguments.h"
#include "topic_read.h"
#include "topic_schema.h"

PG_FUNCTION_INFO_V1(kafka_topic_partitions);
PG_FUNCTION_INFO_V1(kafka_offsets_for_timestamp);
PG_FUNCTION_INFO_V1(kafka_library_version_text);

/* Connects on behalf of the caller. */
static TopicRead *
open_topic_table(Oid topic_table)
{
	TopicSchema *schema = topic_schema_load(topic_table);
	AclResult allowed = pg_class_aclcheck(topic_table, GetUserId(), ACL_SELECT);

	if (allowed != ACLCHECK_OK)
		aclcheck_error(allowed, OBJECT_FOREIGN_TABLE, get_rel_name(topic_table));
	return topic_read_open(schema, GetUserId());
}

/* SQL: kafka.topic_partitions(topic_table) */
Datum
kafka_topic_partitions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result;
	TopicRead *read;

	InitMaterializedSRF(fcinfo, 0);
	result = (ReturnSetInfo *) fcinfo->resultinfo;
	read = open_topic_table(relation_argument(fcinfo, 0, "topic_table"));
	for (int i = 0; i < read->partition_count; i++)
	{
		Datum values[3] = {Int32GetDatum(i), Int64GetDatum(read->partitions[i].low),
		                   Int64GetDatum(read->partitions[i].high)};
		bool nulls[3] = {false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	topic_read_close(read);
	return (Datum) 0;
}

/* SQL: kafka.offsets_for_timestamp(topic_table, start_time) */
Datum
kafka_offsets_for_timestamp(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result;
	TopicRead *read;
	TopicBounds bounds;
	int64 *timestamps;
	const KafkaMessage *message;

	InitMaterializedSRF(fcinfo, 0);
	result = (ReturnSetInfo *) fcinfo->resultinfo;
	read = open_topic_table(relation_argument(fcinfo, 0, "topic_table"));
	topic_bounds_init(&bounds);
	require_argument(fcinfo, 1, "start_time");
	bounds.since_ms = kafka_timestamp_to_ms(PG_GETARG_TIMESTAMPTZ(1));

	/* Kafka's answer has no timestamp here: it is that of the message itself. */
	timestamps = palloc(read->partition_count * sizeof(int64));
	for (int i = 0; i < read->partition_count; i++)
		timestamps[i] = -1;
	topic_read_start(read, &bounds);
	while ((message = topic_read_next(read)) != NULL)
	{
		timestamps[message->partition] = message->timestamp_ms;
		topic_read_skip_rest(read, message->partition);
	}

	for (int i = 0; i < read->partition_count; i++)
	{
		Datum values[3] = {Int32GetDatum(i), Int64GetDatum(read->partitions[i].start), 0};
		bool nulls[3] = {false, false, timestamps[i] < 0};

		if (!nulls[2])
			values[2] = TimestampTzGetDatum(kafka_timestamp_from_ms(timestamps[i]));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	topic_read_close(read);
	return (Datum) 0;
}

/* SQL: kafka.library_version() */
Datum
kafka_library_version_text(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(kafka_library_version()));
}
