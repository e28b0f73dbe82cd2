/*-------------------------------------------------------------------------
 *
 * kafka_admin.c
 *	  Questions that librdkafka's Admin API answers: a topic's id and settings.
 *
 * Answers come as events of a queue of their own.  The library must get queue and
 * event back, whatever happens meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "kafka_client.h"

#define SLICE_MS 50

/* Waits for the answer to a request whose queue this is; NULL when the time is over. */
static rd_kafka_event_t *
wait_for_answer(KafkaConsumer *consumer, rd_kafka_queue_t *queue)
{
	TimestampTz deadline =
	    TimestampTzPlusMilliseconds(GetCurrentTimestamp(), consumer->lookup_timeout_ms);
	rd_kafka_event_t *answer = NULL;

	PG_TRY();
	{
		while (answer == NULL && GetCurrentTimestamp() < deadline)
		{
			answer = rd_kafka_queue_poll(queue, SLICE_MS);
			if (answer == NULL)
				CHECK_FOR_INTERRUPTS();
		}
	}
	PG_FINALLY();
	{
		rd_kafka_queue_destroy(queue);
	}
	PG_END_TRY();
	return answer;
}

static rd_kafka_AdminOptions_t *
request_options(KafkaConsumer *consumer, rd_kafka_admin_op_t operation)
{
	rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(consumer->client, operation);
	char reason[128];

	(void) rd_kafka_AdminOptions_set_request_timeout(options, consumer->lookup_timeout_ms,
	                                                 reason, sizeof(reason));
	return options;
}

#if RD_KAFKA_VERSION >= 0x020300ff

/* As Kafka's own tools show it, 22 characters of base64 for URLs; false: it has none. */
static bool
topic_id_text(const rd_kafka_Uuid_t *id, char *text, size_t size)
{
	if (id == NULL || (rd_kafka_Uuid_most_significant_bits(id) == 0 &&
	                   rd_kafka_Uuid_least_significant_bits(id) == 0))
		return false;
	strlcpy(text, rd_kafka_Uuid_base64str(id), size);
	for (char *p = text; *p != '\0'; p++)
	{
		if (*p == '+')
			*p = '-';
		else if (*p == '/')
			*p = '_';
		else if (*p == '=')
			*p = '\0';
		if (*p == '\0')
			break;
	}
	return true;
}

char *
kafka_consumer_topic_id(KafkaConsumer *consumer, uint32 *requests)
{
	const char *name = consumer->topic_name;
	rd_kafka_TopicCollection_t *names = rd_kafka_TopicCollection_of_topic_names(&name, 1);
	rd_kafka_AdminOptions_t *options =
	    request_options(consumer, RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(consumer->client);
	rd_kafka_event_t *answer;
	char text[64];
	bool found = false;

	*requests = kafka_consumer_metadata_requests(consumer);

	rd_kafka_DescribeTopics(consumer->client, names, options, queue);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_TopicCollection_destroy(names);
	answer = wait_for_answer(consumer, queue);
	if (answer == NULL)
		kafka_consumer_raise_unreachable(consumer);
	/* this was one, too; another that was sent meanwhile may have a later answer */
	if (kafka_consumer_metadata_requests(consumer) != *requests)
		(*requests)++;
	if (rd_kafka_event_error(answer) == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		size_t count;
		const rd_kafka_TopicDescription_t **topics =
		    rd_kafka_DescribeTopics_result_topics(rd_kafka_event_DescribeTopics_result(answer),
		                                          &count);

		if (count == 1 && rd_kafka_error_code(rd_kafka_TopicDescription_error(topics[0])) ==
		                      RD_KAFKA_RESP_ERR_NO_ERROR)
			found = topic_id_text(rd_kafka_TopicDescription_topic_id(topics[0]), text,
			                      sizeof(text));
	}
	rd_kafka_event_destroy(answer);
	return found ? pstrdup(text) : NULL;
}

#else

char *
kafka_consumer_topic_id(KafkaConsumer *consumer, uint32 *requests)
{
	*requests = kafka_consumer_metadata_requests(consumer);
	return NULL; /* the library does not tell */
}

#endif

/* Copies the wanted settings out of an answer; false when it is an error. */
static bool
copy_settings(const rd_kafka_event_t *answer, const char *const *names, char **values,
              int count)
{
	size_t resource_count;
	size_t entry_count;
	const rd_kafka_ConfigResource_t **resources;
	const rd_kafka_ConfigEntry_t **entries;

	if (rd_kafka_event_error((rd_kafka_event_t *) answer) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return false;
	resources = rd_kafka_DescribeConfigs_result_resources(
	    rd_kafka_event_DescribeConfigs_result((rd_kafka_event_t *) answer), &resource_count);
	if (resource_count != 1 ||
	    rd_kafka_ConfigResource_error(resources[0]) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return false;
	entries = rd_kafka_ConfigResource_configs(resources[0], &entry_count);
	for (size_t i = 0; i < entry_count; i++)
	{
		const char *name = rd_kafka_ConfigEntry_name(entries[i]);
		const char *value = rd_kafka_ConfigEntry_value(entries[i]);

		for (int j = 0; j < count; j++)
			if (value != NULL && strcmp(name, names[j]) == 0)
				values[j] = pstrdup(value);
	}
	return true;
}

bool
kafka_consumer_topic_settings(KafkaConsumer *consumer, const char *const *names, char **values,
                              int count)
{
	rd_kafka_ConfigResource_t *resource =
	    rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, consumer->topic_name);
	rd_kafka_AdminOptions_t *options =
	    request_options(consumer, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(consumer->client);
	rd_kafka_event_t *answer;
	bool told = false;

	memset(values, 0, sizeof(char *) * count);
	rd_kafka_DescribeConfigs(consumer->client, &resource, 1, options, queue);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_ConfigResource_destroy(resource);
	answer = wait_for_answer(consumer, queue);
	if (answer == NULL)
		return false;
	PG_TRY();
	{
		told = copy_settings(answer, names, values, count);
	}
	PG_FINALLY();
	{
		rd_kafka_event_destroy(answer);
	}
	PG_END_TRY();
	return told;
}
