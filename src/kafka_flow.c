/*-------------------------------------------------------------------------
 *
 * kafka_flow.c
 *	  Keep librdkafka fetching after its queue has been full.
 *
 * When the queue of fetched messages has reached its limit, the library's
 * thread for a broker stops asking for more and sleeps.  From 2.2 on it looks again
 * after fetch.queue.backoff.ms; before, only after up to a second, in which a
 * fast reader empties the queue and waits.  There, the threads are woken whenever
 * a part of the queue's limit has been taken out.
 *
 * The one public call that wakes them without a request to the cluster is
 * rd_kafka_sasl_set_credentials(): it is given what the client has already.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/memutils.h"

#include "kafka_client.h"

/* The version that has fetch.queue.backoff.ms. */
#define VERSION_WITH_BACKOFF 0x020200ff

/* Bytes taken between two wake-ups, as a part of the limit. */
#define PART_OF_LIMIT 4

void
kafka_flow_start(KafkaConsumer *consumer, const KafkaConnection *connection)
{
	KafkaFlow *flow = &consumer->flow;
	char limit[32] = "";
	size_t length = sizeof(limit);
	ListCell *cell;

	if (rd_kafka_version() >= VERSION_WITH_BACKOFF)
		return;
	if (rd_kafka_conf_get(rd_kafka_conf(consumer->client), "queued.max.messages.kbytes", limit,
	                      &length) != RD_KAFKA_CONF_OK)
		return;
	flow->wake_after = (size_t) atol(limit) * 1024 / PART_OF_LIMIT;

	/* a client without SASL does not look at them */
	flow->username = flow->password = "";
	foreach (cell, connection->properties)
	{
		const KafkaProperty *property = lfirst(cell);

		if (strcmp(property->name, "sasl.username") == 0)
			flow->username = MemoryContextStrdup(consumer->context, property->value);
		else if (strcmp(property->name, "sasl.password") == 0)
			flow->password = MemoryContextStrdup(consumer->context, property->value);
	}
}

void
kafka_flow_taken(KafkaConsumer *consumer, size_t bytes)
{
	KafkaFlow *flow = &consumer->flow;
	rd_kafka_error_t *error;

	if (flow->wake_after == 0)
		return;
	flow->taken += bytes;
	if (flow->taken < flow->wake_after)
		return;
	flow->taken = 0;
	error = rd_kafka_sasl_set_credentials(consumer->client, flow->username, flow->password);
	/* fetching is only slower then */
	if (error != NULL)
		rd_kafka_error_destroy(error);
}
