/*-------------------------------------------------------------------------
 *
 * kafka_lookup.c
 *	  Questions to the cluster: partitions of a topic, offsets for times.
 *
 * librdkafka's look-ups block and cannot be interrupted.  They are made in
 * slices, short at first, with a check for interrupts between them, until an
 * answer is here or the connection's lookup_timeout_ms has passed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#include "kafka_client.h"

#define FIRST_SLICE_MS   100
#define LONGEST_SLICE_MS 2000

/* Time left for a look-up. */
typedef struct LookupClock
{
	instr_time started;
	int limit_ms;
	int slice_ms;
	uint32 authentication_failures; /* before */
} LookupClock;

static void
start_clock(LookupClock *clock, KafkaConsumer *consumer)
{
	INSTR_TIME_SET_CURRENT(clock->started);
	clock->limit_ms = consumer->lookup_timeout_ms;
	clock->slice_ms = FIRST_SLICE_MS;
	clock->authentication_failures = consumer->reports.authentication_failures;
}

static int
remaining_ms(LookupClock *clock)
{
	instr_time elapsed;

	INSTR_TIME_SET_CURRENT(elapsed);
	INSTR_TIME_SUBTRACT(elapsed, clock->started);
	return Max(clock->limit_ms - (int) INSTR_TIME_GET_MILLISEC(elapsed), 0);
}

/* Duration of the next attempt, or 0 when the time is over. */
static int
next_slice(LookupClock *clock)
{
	int slice_ms = Min(clock->slice_ms, remaining_ms(clock));

	clock->slice_ms = Min(clock->slice_ms * 2, LONGEST_SLICE_MS);
	return slice_ms;
}

pg_noreturn static void
raise_unknown_topic(KafkaConsumer *consumer, const char *reason)
{
	ereport(ERROR,
	        (errcode(ERRCODE_UNDEFINED_OBJECT),
	         errmsg("Kafka topic \"%s\" does not exist on server \"%s\"", consumer->topic_name,
	                consumer->server_name),
	         errdetail_internal("%s.", reason),
	         errhint(
	             "Check that it has not been deleted, and the option \"topic\" of the topic "
	             "table: names of topics are case sensitive.")));
}

pg_noreturn static void
raise_authentication_failed(KafkaConsumer *consumer)
{
	/* until 2.6.1 it sends a nonce that Kafka takes no more (confluentinc/librdkafka#4895) */
	bool library_is_too_old =
	    strstr(consumer->reports.last_error_text, "mechanism SCRAM") != NULL &&
	    rd_kafka_version() < 0x020601ff;

	ereport(ERROR,
	        (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
	         errmsg("authentication at the Kafka cluster of server \"%s\" failed",
	                consumer->server_name),
	         errdetail_internal("%s.", consumer->reports.last_error_text),
	         library_is_too_old
	             ? errhint("Check the user mapping. If it is right: librdkafka %s cannot "
	                       "authenticate by SCRAM at Kafka 3.8.1 and later, which takes "
	                       "librdkafka 2.6.1.",
	                       rd_kafka_version_str())
	             : errhint("Check the user mapping, and the options security_protocol and "
	                       "sasl_mechanism of the server.")));
}

pg_noreturn static void
raise_unreachable(KafkaConsumer *consumer, rd_kafka_resp_err_t code)
{
	const char *reason = kafka_consumer_last_error(consumer);
	const char *hint = "Check that the brokers are running, and the options bootstrap_servers, "
	                   "security_protocol and socket_timeout_ms of the server.";
	char refusal[512];

	if (kafka_peer_refusal(consumer->peer, refusal, sizeof(refusal), &hint))
		reason = refusal;
	/* librdkafka reports a repeated failure every 30 s only: this may be an old one */
	else if (reason &&
	         kafka_report_classify(consumer->reports.last_error) == KAFKA_EVENT_UNAUTHORIZED)
		raise_authentication_failed(consumer);
	else if (reason && strstr(reason, "alert") != NULL)
		hint = "The broker has refused the connection: it may want a certificate, given as "
		       "ssl_certificate_pem and ssl_key_pem in the user mapping.";
	ereport(ERROR, (errcode(ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION),
	                errmsg("could not reach the Kafka cluster of server \"%s\"",
	                       consumer->server_name),
	                reason ? errdetail_internal("%s.", reason)
	                       : errdetail("No answer within %d ms: %s.",
	                                   consumer->lookup_timeout_ms, rd_kafka_err2str(code)),
	                errhint("%s", hint)));
}

int
kafka_consumer_lookup_timeout_ms(const KafkaConsumer *consumer)
{
	return consumer->lookup_timeout_ms;
}

void
kafka_consumer_limit_lookups(KafkaConsumer *consumer, int timeout_ms)
{
	consumer->lookup_timeout_ms = Min(consumer->lookup_timeout_ms, timeout_ms);
}

void
kafka_consumer_raise_unreachable(KafkaConsumer *consumer)
{
	raise_unreachable(consumer, RD_KAFKA_RESP_ERR__TIMED_OUT);
}

/*
 * Looks at an error of an attempt: raises it when trying again cannot
 * help, returns when it can.
 */
static void
raise_if_final(KafkaConsumer *consumer, rd_kafka_resp_err_t code)
{
	switch (kafka_report_classify(code))
	{
		case KAFKA_EVENT_UNKNOWN_TOPIC:
			raise_unknown_topic(consumer, rd_kafka_err2str(code));
			break;
		case KAFKA_EVENT_UNAUTHORIZED:
			ereport(ERROR,
			        (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
			         errmsg("permission denied by Kafka for topic \"%s\" of server \"%s\"",
			                consumer->topic_name, consumer->server_name),
			         errdetail_internal("%s.", rd_kafka_err2str(code)),
			         errhint("Grant the user of the mapping READ and DESCRIBE on the topic.")));
			break;
		default:
			break;
	}
}

/* Between two attempts: a wrong password needs no waiting. */
static void
check_connection(KafkaConsumer *consumer, const LookupClock *clock)
{
	kafka_report_serve(consumer);
	if (consumer->reports.authentication_failures != clock->authentication_failures)
		raise_authentication_failed(consumer);
	CHECK_FOR_INTERRUPTS();
}

/*
 * One attempt.  *partition_count is set when the answer is complete; an error that
 * is returned may go away.
 */
static rd_kafka_resp_err_t
ask_for_partitions(KafkaConsumer *consumer, int timeout_ms, int *partition_count)
{
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t code;

	pgstat_report_wait_start(PG_WAIT_EXTENSION);
	code = rd_kafka_metadata(consumer->client, 0, consumer->topic, &metadata, timeout_ms);
	pgstat_report_wait_end();
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		return code;

	if (metadata->topic_cnt != 1)
		code = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
	else
	{
		code = metadata->topics[0].err;
		*partition_count = metadata->topics[0].partition_cnt;
		if (code == RD_KAFKA_RESP_ERR_NO_ERROR && *partition_count == 0)
			code = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
	}
	rd_kafka_metadata_destroy(metadata);
	return code;
}

/* librdkafka knows the id once it has got metadata. */
static void
remember_cluster_id(KafkaConsumer *consumer)
{
	char cluster_id[256];
	char *answer;

	if (consumer->cluster_id || (answer = rd_kafka_clusterid(consumer->client, 0)) == NULL)
		return;
	strlcpy(cluster_id, answer, sizeof(cluster_id));
	rd_kafka_mem_free(consumer->client, answer);
	consumer->cluster_id = MemoryContextStrdup(consumer->context, cluster_id);
}

int
kafka_consumer_partition_count(KafkaConsumer *consumer)
{
	int count = kafka_consumer_find_partitions(consumer);

	if (count == 0)
		raise_unknown_topic(consumer,
		                    rd_kafka_err2str(RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART));
	return count;
}

int
kafka_consumer_find_partitions(KafkaConsumer *consumer)
{
	rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR__TIMED_OUT;
	LookupClock clock;
	int slice_ms;

	start_clock(&clock, consumer);
	while ((slice_ms = next_slice(&clock)) > 0)
	{
		int partition_count = 0;
		rd_kafka_resp_err_t attempt = ask_for_partitions(consumer, slice_ms, &partition_count);

		if (attempt == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			kafka_report_serve(consumer);
			kafka_report_all_well(consumer);
			remember_cluster_id(consumer);
			return partition_count;
		}
		code = attempt;
		if (kafka_report_classify(code) == KAFKA_EVENT_UNKNOWN_TOPIC)
			return 0;
		raise_if_final(consumer, code);
		check_connection(consumer, &clock);
		/* a broker that answers, but does not know the leaders yet */
		if (code == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE)
			pg_usleep(Min(slice_ms, FIRST_SLICE_MS) * 1000L);
	}
	raise_unreachable(consumer, code);
}

bool
kafka_consumer_reachable(KafkaConsumer *consumer, int timeout_ms)
{
	int partition_count;
	rd_kafka_resp_err_t code = ask_for_partitions(consumer, timeout_ms, &partition_count);

	kafka_report_serve(consumer);
	if (code == RD_KAFKA_RESP_ERR__TRANSPORT || code == RD_KAFKA_RESP_ERR__TIMED_OUT ||
	    kafka_report_classify(code) == KAFKA_EVENT_UNAUTHORIZED)
		return false;
	kafka_report_all_well(consumer);
	return true;
}

const char *
kafka_consumer_cluster_id(KafkaConsumer *consumer)
{
	return consumer->cluster_id;
}

/* One attempt for all items; an error that is returned may go away. */
static rd_kafka_resp_err_t
ask_for_offsets(KafkaConsumer *consumer, KafkaPartitionOffset *items, int count, int timeout_ms)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(count);
	rd_kafka_resp_err_t code;

	for (int i = 0; i < count; i++)
		rd_kafka_topic_partition_list_add(list, consumer->topic_name, items[i].partition)
		    ->offset = items[i].timestamp_ms;

	pgstat_report_wait_start(PG_WAIT_EXTENSION);
	code = rd_kafka_offsets_for_times(consumer->client, list, timeout_ms);
	pgstat_report_wait_end();

	/*
	 * The offset is an answer only where neither the call nor the partition
	 * has an error: otherwise it still is the timestamp.
	 */
	for (int i = 0; i < count && code == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
		code = list->elems[i].err;
	for (int i = 0; i < count && code == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
	{
		int64 offset = list->elems[i].offset;

		if (offset < 0 && items[i].timestamp_ms < 0)
			code = RD_KAFKA_RESP_ERR__TIMED_OUT; /* a logical position is always there */
		items[i].offset = offset >= 0 ? offset : -1;
	}
	rd_kafka_topic_partition_list_destroy(list);
	return code;
}

/*
 * The library says "unknown", too, of a partition that has no leader right now, and newer ones of one
 * whose broker they can't connect to: only what the cluster says is final.
 */
static rd_kafka_resp_err_t
confirm_unknown(KafkaConsumer *consumer, rd_kafka_resp_err_t code,
                const KafkaPartitionOffset *items, int count, int timeout_ms)
{
	int partition_count = 0;
	rd_kafka_resp_err_t answer;

	if (code != RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION &&
	    code != RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC)
		return code;
	if (kafka_consumer_last_error(consumer) != NULL)
		return RD_KAFKA_RESP_ERR__TRANSPORT;
	answer = ask_for_partitions(consumer, timeout_ms, &partition_count);
	if (answer != RD_KAFKA_RESP_ERR_NO_ERROR)
		return answer;
	for (int i = 0; i < count; i++)
		if (items[i].partition >= partition_count)
			return code;
	return RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
}

void
kafka_consumer_lookup_offsets(KafkaConsumer *consumer, KafkaPartitionOffset *items, int count)
{
	rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR__TIMED_OUT;
	LookupClock clock;
	int slice_ms;

	if (count == 0)
		return;
	start_clock(&clock, consumer);
	while ((slice_ms = next_slice(&clock)) > 0)
	{
		code = ask_for_offsets(consumer, items, count, slice_ms);
		if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			kafka_report_serve(consumer);
			kafka_report_all_well(consumer);
			return;
		}
		kafka_report_serve(consumer);
		code = confirm_unknown(consumer, code, items, count, slice_ms);
		raise_if_final(consumer, code);
		check_connection(consumer, &clock);
		/* an answer that came at once would come again at once */
		if (code != RD_KAFKA_RESP_ERR__TIMED_OUT && code != RD_KAFKA_RESP_ERR__TRANSPORT)
			pg_usleep(Min(slice_ms, FIRST_SLICE_MS) * 1000L);
	}
	raise_unreachable(consumer, code);
}

KafkaPartitionOffset *
kafka_consumer_lookup_range(KafkaConsumer *consumer, int first, int count, int64 what)
{
	KafkaPartitionOffset *items = palloc0(sizeof(KafkaPartitionOffset) * Max(count, 1));

	for (int i = 0; i < count; i++)
	{
		items[i].partition = first + i;
		items[i].timestamp_ms = what;
		items[i].offset = -1;
	}
	kafka_consumer_lookup_offsets(consumer, items, count);
	return items;
}
