/*-------------------------------------------------------------------------
 *
 * stream_verify.c
 *	  What SQL calls to compare a stream's checkpoint with its topic.
 *
 * Changes nothing, and may be called while the stream runs.  The facts come from log_check.c;
 * what a worker would do about them is in data_loss.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include <math.h>

#include "checkpoint.h"
#include "function_arguments.h"
#include "funcapi.h"
#include "log_check.h"
#include "stream_query.h"
#include "stream_reader.h"
#include "topic_schema.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/timestamp.h"
#include "stream_objects.h"

PG_FUNCTION_INFO_V1(kafka_verify_stream);

#define MS_PER_HOUR    3600000.0
#define AT_RISK_HOURS  24.0
#define VERIFY_COLUMNS 9

/* What the topic's settings say about how long messages are kept. */
typedef struct Retention
{
	bool known;
	bool by_time; /* after ms */
	bool by_size; /* retention.bytes: nobody knows when */
	double ms;
} Retention;

static Retention
ask_for_retention(KafkaConsumer *consumer)
{
	static const char *const names[] = {"cleanup.policy", "retention.ms", "retention.bytes"};
	char *values[lengthof(names)];
	Retention retention = {0};

	if (!kafka_consumer_topic_settings(consumer, names, values, lengthof(names)) ||
	    values[0] == NULL || values[1] == NULL)
		return retention;
	retention.known = true;
	if (strstr(values[0], "delete") == NULL)
		return retention; /* compacted only: the last message of a key stays */
	retention.ms = strtod(values[1], NULL);
	retention.by_time = retention.ms >= 0;
	retention.by_size = values[2] != NULL && strtod(values[2], NULL) >= 0;
	return retention;
}

/*
 * Hours until Kafka may delete the message that the stream reads next; infinity: never; NaN: not
 * known, or there is none.
 */
static double
hours_left(const LogFinding *finding, const Retention *retention)
{
	double now_ms = GetCurrentTimestamp() / 1000.0 +
	                (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (double) SECS_PER_DAY * 1000.0;

	if (!retention->known || finding->next_offset >= finding->high)
		return get_float8_nan();
	if (!retention->by_time)
		return retention->by_size ? get_float8_nan() : get_float8_infinity();
	if (finding->next_message_ms < 0)
		return get_float8_nan();
	return (finding->next_message_ms + retention->ms - now_ms) / MS_PER_HOUR;
}

/* In words.  The words before the colon are stable: scripts may look at them. */
static char *
verdict(const LogFinding *finding, double hours, const Retention *retention)
{
	switch (finding->kind)
	{
		case LOG_START_PASSED:
			return psprintf("lost: offsets %lld to %lld are gone",
			                (long long) finding->next_offset, (long long) finding->low - 1);
		case LOG_ENDS_BEFORE:
			return psprintf("truncated or recreated: the log ends at offset %lld, before the "
			                "checkpoint",
			                (long long) finding->high);
		case LOG_OTHER_MESSAGE:
			return pstrdup("another log: another message stands where one was read");
		case LOG_OTHER_TOPIC:
			return pstrdup("another topic: it was deleted and created again");
		case LOG_PARTITION_GONE:
			return pstrdup("gone: the topic has no such partition any more");
		case LOG_PARTITION_NEW:
			return pstrdup("new: the stream will read it from its beginning");
		case LOG_AGREES:
			break;
	}
	if (finding->next_offset == finding->high)
		return pstrdup("ok: up to date");
	if (hours < AT_RISK_HOURS) /* not for NaN */
		return psprintf("at risk: retention may delete what is to be read next in %.1f hours",
		                Max(hours, 0));
	return psprintf("ok: %lld offset(s) behind%s",
	                (long long) (finding->high - finding->next_offset),
	                retention->by_size ? "; retention.bytes may delete them at any time" : "");
}

static void
set_offset(Datum *values, bool *nulls, int column, int64 offset)
{
	values[column] = Int64GetDatum(offset);
	nulls[column] = offset < 0;
}

static void
add_row(ReturnSetInfo *result, const LogFinding *finding, const Retention *retention)
{
	Datum values[VERIFY_COLUMNS] = {0};
	bool nulls[VERIFY_COLUMNS] = {false};
	bool in_log = finding->low >= 0 && finding->next_offset >= 0;
	double hours = get_float8_nan();

	if (finding->kind == LOG_AGREES)
		hours = hours_left(finding, retention);
	values[0] = Int32GetDatum(finding->partition);
	set_offset(values, nulls, 1, finding->next_offset);
	set_offset(values, nulls, 2, finding->low);
	set_offset(values, nulls, 3, finding->high);
	set_offset(values, nulls, 4,
	           in_log ? Max(finding->high - Max(finding->next_offset, finding->low), 0) : -1);
	set_offset(values, nulls, 5, in_log ? Max(finding->low - finding->next_offset, 0) : -1);
	values[6] = BoolGetDatum(finding->kind <= LOG_START_PASSED);
	/* the log has moved on, or there is nothing to compare with: nobody knows */
	nulls[6] = finding->kind == LOG_ENDS_BEFORE || finding->kind == LOG_PARTITION_NEW;
	values[7] = Float8GetDatum(hours);
	nulls[7] = isnan(hours);
	values[8] = CStringGetTextDatum(verdict(finding, hours, retention));
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* SQL: kafka.verify_stream(name) */
Datum
kafka_verify_stream(PG_FUNCTION_ARGS)
{
	char *name = required_text(fcinfo, 0, "name");
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Stream *stream;
	TopicSchema *schema;
	Checkpoint *checkpoint;
	KafkaConsumer *consumer;
	LogCheck *check;
	LogShare all = {.worker = 0, .workers = 1};
	Retention retention = {0};

	InitMaterializedSRF(fcinfo, 0);
	stream = stream_load_owned(name, false);
	stream_check_objects(stream);
	schema = topic_schema_load(stream_query_topic_table(stream->source));
	checkpoint = checkpoint_load(stream->name, schema->topic);
	consumer = stream_open_lookup_consumer(schema->server_id, schema->topic, stream->owner);
	check = log_check(consumer, checkpoint, all, LOG_PEEK_LAST_AND_NEXT);
	if (check->other_cluster)
		ereport(
		    ERROR,
		    (errcode(ERRCODE_DATA_CORRUPTED),
		     errmsg("stream \"%s\" is connected to another Kafka cluster than before", name),
		     errdetail("Its checkpoint is of cluster \"%s\"; the servers answer as \"%s\".",
		               checkpoint->cluster_id, check->cluster_id),
		     errhint("Correct the options of the server, or use kafka.reset_stream to start in "
		             "the new cluster.")));
	if (check->partition_count > 0)
		retention = ask_for_retention(consumer);
	for (int i = 0; i < check->finding_count; i++)
		add_row(result, &check->findings[i], &retention);
	kafka_consumer_close(consumer);
	return (Datum) 0;
}
