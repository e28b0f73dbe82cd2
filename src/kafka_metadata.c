/*-------------------------------------------------------------------------
 *
 * kafka_metadata.c
 *	  Count the questions about topics that the cluster has been asked.
 *
 * When a topic is deleted and another created with its name, the library goes on in the
 * new log at the old position, and says nothing.  It does ask the cluster
 * for the topic's metadata before: the broker has not known the partition that was to be
 * fetched.  So the number of such requests, whoever has made them, tells when there is
 * something to verify, at no cost as long as all is well.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "kafka_client.h"

#define API_KEY_METADATA 3 /* Kafka's protocol */

/* On a thread of the library; the answer comes after it. */
static rd_kafka_resp_err_t
count_request(rd_kafka_t *client, int socket, const char *broker, int32_t broker_id,
              int16_t api_key, int16_t api_version, int32_t correlation_id, size_t size,
              void *opaque)
{
	KafkaConsumer *consumer = opaque;

	if (api_key == API_KEY_METADATA)
	{
		pg_atomic_fetch_add_u32(&consumer->metadata_requests, 1);
		/* wakes whoever waits; a pipe that is full does, too */
		if (write(consumer->wake_pipe[1], "", 1) < 0)
			return RD_KAFKA_RESP_ERR_NO_ERROR;
	}
	return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t
watch_requests(rd_kafka_t *client, const rd_kafka_conf_t *configuration, void *opaque,
               char *reason, size_t size)
{
	return rd_kafka_interceptor_add_on_request_sent(client, "kafka_ingest", count_request,
	                                                opaque);
}

bool
kafka_metadata_install(rd_kafka_conf_t *configuration, KafkaConsumer *consumer)
{
	pg_atomic_init_u32(&consumer->metadata_requests, 0);
	return rd_kafka_conf_interceptor_add_on_new(configuration, "kafka_ingest", watch_requests,
	                                            consumer) == RD_KAFKA_RESP_ERR_NO_ERROR;
}

uint32
kafka_consumer_metadata_requests(KafkaConsumer *consumer)
{
	return pg_atomic_read_u32(&consumer->metadata_requests);
}
