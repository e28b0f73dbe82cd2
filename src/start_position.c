/*-------------------------------------------------------------------------
 *
 * start_position.c
 *	  Where a stream starts: from what the user says to one number per
 *	  partition.
 *
 * Options and their precedence are those of Spark's Kafka source.  Storing
 * the numbers is left to checkpoint.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "start_position.h"

#include <cjson/cJSON.h>

#include "utils/timestamp.h"

/* cJSON holds numbers as doubles: beyond this they'd no longer be exact */
#define LARGEST_EXACT_NUMBER 9007199254740992.0

/* --- JSON documents: {"0": 23, "1": -2}, or the same below the topic's name --- */

pg_noreturn static void
bad_document(const char *option, const char *detail)
{
	ereport(ERROR,
	        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid %s", option),
	         errdetail_internal("%s", detail),
	         strcmp(option, "starting_offsets") == 0
	             ? errhint("Give one number per partition, for example {\"0\": 23, \"1\": -2}; "
	                       "-2 means earliest and -1 latest.")
	             : errhint("Give milliseconds since 1970 per partition, for example "
	                       "{\"0\": 1793491200000}.")));
}

/* cJSON allocates with malloc: freed with the context, whatever happens. */
static void
free_document(void *document)
{
	cJSON_Delete((cJSON *) document);
}

/*
 * Reads the number of every partition into numbers[]; every one of the
 * topic's partitions must be there, and no other.
 */
static void
read_document(const char *option, int64 lowest, const char *text, const char *topic,
              int64 *numbers, int count)
{
	bool *seen = palloc0(sizeof(bool) * Max(count, 1));
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	cJSON *document = cJSON_ParseWithOpts(text, NULL, true);
	cJSON *member;
	StringInfoData missing;

	if (document == NULL)
		bad_document(option,
		             strcmp(option, "starting_offsets") == 0
		                 ? psprintf("\"%s\" is not JSON, \"earliest\" or \"latest\".", text)
		                 : psprintf("\"%s\" is not JSON.", text));
	callback->func = free_document;
	callback->arg = document;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);

	if (!cJSON_IsObject(document))
		bad_document(option, "The document is not a JSON object.");
	if (document->child != NULL && cJSON_IsObject(document->child))
	{
		/* Spark's shape: {"orders": {"0": 23}} */
		if (document->child->next != NULL || strcmp(document->child->string, topic) != 0)
			bad_document(option,
			             psprintf("The document must be about topic \"%s\" alone.", topic));
		document = document->child;
	}
	cJSON_ArrayForEach(member, document)
	{
		char *end;
		long partition;

		errno = 0;
		partition = strtol(member->string, &end, 10);
		if (member->string[0] < '0' || member->string[0] > '9' || *end != '\0' || errno != 0 ||
		    (member->string[0] == '0' && member->string[1] != '\0'))
			bad_document(option,
			             psprintf("\"%s\" is not the number of a partition.", member->string));
		if (partition >= count)
			bad_document(option,
			             psprintf("Topic \"%s\" has no partition %s; it has %d partition(s).",
			                      topic, member->string, count));
		if (seen[partition])
			bad_document(option, psprintf("Partition %ld is given twice.", partition));
		if (!cJSON_IsNumber(member) || !(member->valuedouble >= (double) lowest) ||
		    !(member->valuedouble <= LARGEST_EXACT_NUMBER) ||
		    member->valuedouble != (double) (int64) member->valuedouble)
			bad_document(option,
			             psprintf("The value of partition %ld is not a whole number from "
			                      "%lld to 2^53.",
			                      partition, (long long) lowest));
		seen[partition] = true;
		numbers[partition] = (int64) member->valuedouble;
	}

	initStringInfo(&missing);
	for (int i = 0; i < count; i++)
		if (!seen[i])
			appendStringInfo(&missing, "%s%d", missing.len > 0 ? ", " : "", i);
	if (missing.len > 0)
		bad_document(option, psprintf("No value is given for partition(s) %s of topic \"%s\".",
		                              missing.data, topic));
}

/* --- resolution --- */

static KafkaPartitionOffset *
make_positions(int count, int64 timestamp_ms)
{
	KafkaPartitionOffset *positions = palloc0(sizeof(KafkaPartitionOffset) * count);

	for (int i = 0; i < count; i++)
	{
		positions[i].partition = i;
		positions[i].timestamp_ms = timestamp_ms;
		positions[i].offset = -1;
	}
	return positions;
}

static void
resolve_offsets(KafkaPartitionOffset *positions, const char *text, KafkaConsumer *consumer,
                const char *topic, int count)
{
	int64 *numbers = palloc(sizeof(int64) * count);
	KafkaPartitionOffset *low;
	KafkaPartitionOffset *high;

	if (pg_strcasecmp(text, "earliest") == 0 || pg_strcasecmp(text, "latest") == 0)
	{
		for (int i = 0; i < count; i++)
			numbers[i] = pg_strcasecmp(text, "earliest") == 0 ? KAFKA_OFFSET_EARLIEST
			                                                  : KAFKA_OFFSET_LATEST;
	}
	else
		read_document("starting_offsets", KAFKA_OFFSET_EARLIEST, text, topic, numbers, count);

	low = kafka_consumer_lookup_range(consumer, 0, count, KAFKA_OFFSET_EARLIEST);
	high = kafka_consumer_lookup_range(consumer, 0, count, KAFKA_OFFSET_LATEST);
	for (int i = 0; i < count; i++)
	{
		if (numbers[i] == KAFKA_OFFSET_EARLIEST)
			positions[i].offset = low[i].offset;
		else if (numbers[i] == KAFKA_OFFSET_LATEST)
			positions[i].offset = high[i].offset;
		else if (numbers[i] < low[i].offset || numbers[i] > high[i].offset)
			ereport(
			    ERROR,
			    (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			     errmsg("starting offset %lld of partition %d is not in topic \"%s\"",
			            (long long) numbers[i], i, topic),
			     errdetail("The partition holds offsets from %lld up to, not including, %lld.",
			               (long long) low[i].offset, (long long) high[i].offset),
			     errhint("Kafka has deleted what is before, or it was never written: give an "
			             "offset of that range, 'earliest' or 'latest'.")));
		else
			positions[i].offset = numbers[i];
	}
}

/* Looks .timestamp_ms up in every partition, and does what the strategy says where there is none. */
static void
resolve_timestamps(KafkaPartitionOffset *positions, const StartOptions *options,
                   KafkaConsumer *consumer, const char *topic, int count)
{
	KafkaPartitionOffset *high = NULL;

	kafka_consumer_lookup_offsets(consumer, positions, count);
	for (int i = 0; i < count; i++)
	{
		char *timestamp;

		if (positions[i].offset >= 0)
			continue;
		timestamp = pstrdup(
		    timestamptz_to_str(kafka_timestamp_from_ms(Max(positions[i].timestamp_ms, 0))));
		if (strcmp(options->starting_timestamp_strategy, "error") == 0)
			ereport(ERROR,
			        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			         errmsg("no message in partition %d of topic \"%s\" is as new as %s", i,
			                topic, timestamp),
			         errhint(
			             "With starting_timestamp_strategy => 'latest' such a partition starts "
			             "at its end.")));
		if (high == NULL)
			high = kafka_consumer_lookup_range(consumer, 0, count, KAFKA_OFFSET_LATEST);
		positions[i].offset = high[i].offset;
		ereport(NOTICE,
		        (errmsg("no message in partition %d of topic \"%s\" is as new as %s, it "
		                "starts at its end, offset %lld",
		                i, topic, timestamp, (long long) high[i].offset)));
	}
}

KafkaPartitionOffset *
start_position_resolve(const StartOptions *options, KafkaConsumer *consumer, const char *topic,
                       int *count)
{
	KafkaPartitionOffset *positions;

	if (strcmp(options->starting_timestamp_strategy, "latest") != 0 &&
	    strcmp(options->starting_timestamp_strategy, "error") != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("invalid starting_timestamp_strategy \"%s\"",
		                       options->starting_timestamp_strategy),
		                errhint("Valid values are \"latest\" and \"error\".")));

	*count = kafka_consumer_partition_count(consumer);
	positions = make_positions(*count, 0);

	if (options->has_timestamp)
	{
		if (TIMESTAMP_NOT_FINITE(options->starting_timestamp))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("a start timestamp must be finite"),
			                errhint("Use starting_offsets => 'earliest' or 'latest'.")));
		for (int i = 0; i < *count; i++)
			positions[i].timestamp_ms = kafka_timestamp_to_ms(options->starting_timestamp);
		resolve_timestamps(positions, options, consumer, topic, *count);
	}
	else if (options->starting_offsets_by_timestamp != NULL)
	{
		int64 *numbers = palloc(sizeof(int64) * *count);

		read_document("starting_offsets_by_timestamp", 0,
		              options->starting_offsets_by_timestamp, topic, numbers, *count);
		for (int i = 0; i < *count; i++)
			positions[i].timestamp_ms = numbers[i];
		resolve_timestamps(positions, options, consumer, topic, *count);
	}
	else
		resolve_offsets(positions, options->starting_offsets, consumer, topic, *count);
	return positions;
}
