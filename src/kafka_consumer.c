/*-------------------------------------------------------------------------
 *
 * kafka_consumer.c
 *	  Open and close a consumer, fetch messages.
 *
 * librdkafka's simple consumer: partitions are started one by one at given
 * offsets into one queue, without a consumer group, because ownership of
 * partitions and offsets is kept in PostgreSQL.  Questions to the cluster are in
 * kafka_lookup.c.
 *
 * Nothing may be raised while a librdkafka object is not yet, or no more, in
 * the KafkaConsumer, whose memory context's reset closes it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "kafka_client.h"

/* Our pipe, and about what librdkafka opens with a few brokers. */
#define DESCRIPTORS_PER_CONSUMER 8

static bool exiting = false;
static dlist_head open_consumers = DLIST_STATIC_INIT(open_consumers);

static void
close_with_context(void *argument)
{
	KafkaCloser *closer = argument;

	if (closer->consumer != NULL)
		kafka_consumer_close(closer->consumer);
}

/*
 * librdkafka's threads must be gone before exit() runs the destructors of
 * the libraries that they use.
 */
static void
close_at_exit(int code, Datum argument)
{
	exiting = true;
	while (!dlist_is_empty(&open_consumers))
		kafka_consumer_close(
		    dlist_container(KafkaConsumer, node, dlist_head_node(&open_consumers)));
	kafka_clients_closed(code);
}

static void
reserve_descriptors(KafkaConsumer *consumer)
{
	while (consumer->reserved_descriptors < DESCRIPTORS_PER_CONSUMER)
	{
		if (!AcquireExternalFD())
			ereport(ERROR, (errcode_for_file_access(),
			                errmsg("could not open a connection to Kafka server \"%s\": %m",
			                       consumer->server_name),
			                errhint("There are too many open files in this process. Raise "
			                        "max_files_per_process or use fewer topic tables in one "
			                        "query.")));
		consumer->reserved_descriptors++;
	}
	if (pipe2(consumer->wake_pipe, O_NONBLOCK | O_CLOEXEC) != 0)
	{
		consumer->wake_pipe[0] = consumer->wake_pipe[1] = -1;
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not create a pipe: %m")));
	}
}

KafkaConsumer *
kafka_consumer_open(const KafkaConnection *connection, const char *topic, MemoryContext context)
{
	static bool exit_callback_registered = false;
	KafkaCloser *closer = MemoryContextAllocZero(context, sizeof(KafkaCloser));
	MemoryContext own_context;
	KafkaConsumer *consumer;
	char reason[512] = "";

	if (!exit_callback_registered)
	{
		before_shmem_exit(close_at_exit, 0);
		exit_callback_registered = true;
	}

	/* outlives "context" when the client can't be closed in time */
	own_context =
	    AllocSetContextCreate(TopMemoryContext, "kafka consumer", ALLOCSET_DEFAULT_SIZES);
	consumer = MemoryContextAllocZero(own_context, sizeof(KafkaConsumer));
	consumer->context = own_context;
	consumer->topic_name = MemoryContextStrdup(own_context, topic);
	consumer->server_name = MemoryContextStrdup(own_context, connection->server_name);
	consumer->lookup_timeout_ms = connection->lookup_timeout_ms;
	consumer->wake_pipe[0] = consumer->wake_pipe[1] = -1;
	dlist_push_head(&open_consumers, &consumer->node);
	closer->consumer = consumer;
	closer->callback.func = close_with_context;
	closer->callback.arg = closer;
	consumer->closer = closer;
	MemoryContextRegisterResetCallback(context, &closer->callback);

	reserve_descriptors(consumer);
	consumer->peer = kafka_peer_create(own_context);
	consumer->client = kafka_client_create(consumer, connection, reason, sizeof(reason));
	if (consumer->client == NULL)
	{
		kafka_consumer_close(consumer);
		ereport(ERROR, (errcode(ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION),
		                errmsg("could not set up a connection to Kafka server \"%s\"",
		                       connection->server_name),
		                errdetail_internal("%s.", reason),
		                errhint("Check the options of the server and of the user mapping.")));
	}
	kafka_flow_start(consumer, connection);
	rd_kafka_set_log_queue(consumer->client, NULL);
	consumer->topic = rd_kafka_topic_new(consumer->client, topic, NULL);
	if (consumer->topic == NULL)
	{
		kafka_consumer_close(consumer);
		ereport(ERROR, (errcode(ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION),
		                errmsg("could not set up topic \"%s\" of Kafka server \"%s\"", topic,
		                       connection->server_name),
		                errdetail_internal("%s.", rd_kafka_err2str(rd_kafka_last_error()))));
	}
	consumer->fetch_queue = rd_kafka_queue_new(consumer->client);
	consumer->main_queue = rd_kafka_queue_get_main(consumer->client);
	rd_kafka_queue_io_event_enable(consumer->fetch_queue, consumer->wake_pipe[1], "", 1);
	rd_kafka_queue_io_event_enable(consumer->main_queue, consumer->wake_pipe[1], "", 1);
	return consumer;
}

/* Releases messages taken but not handed out, of one partition or (-1) of all. */
static void
drop_taken(KafkaConsumer *consumer, int32 partition)
{
	int kept = 0;

	for (int i = consumer->taken_next; i < consumer->taken_count; i++)
	{
		rd_kafka_message_t *message = consumer->taken[i];

		if (partition < 0 || message->partition == partition)
			rd_kafka_message_destroy(message);
		else
			consumer->taken[kept++] = message;
	}
	consumer->taken_next = 0;
	consumer->taken_count = kept;
}

void
kafka_consumer_close(KafkaConsumer *consumer)
{
	int partition = -1;
	bool closed = true;

	kafka_resolve_give_up(consumer);
	kafka_message_batches_release(consumer);
	drop_taken(consumer, -1);
	while ((partition = bms_next_member(consumer->started, partition)) >= 0)
		rd_kafka_consume_stop(consumer->topic, partition);
	consumer->started = NULL;

	if (consumer->fetch_queue)
	{
		rd_kafka_queue_io_event_enable(consumer->fetch_queue, -1, NULL, 0);
		rd_kafka_queue_destroy(consumer->fetch_queue);
	}
	if (consumer->main_queue)
	{
		rd_kafka_queue_io_event_enable(consumer->main_queue, -1, NULL, 0);
		rd_kafka_queue_destroy(consumer->main_queue);
	}
	if (consumer->topic)
		rd_kafka_topic_destroy(consumer->topic);
	if (consumer->client)
		closed = kafka_client_close(consumer->client, exiting || consumer->partitions_vanished);
	consumer->fetch_queue = consumer->main_queue = NULL;
	consumer->topic = NULL;
	consumer->client = NULL;

	for (int i = 0; i < 2; i++)
	{
		if (consumer->wake_pipe[i] >= 0)
			close(consumer->wake_pipe[i]);
		consumer->wake_pipe[i] = -1;
	}
	for (; consumer->reserved_descriptors > 0; consumer->reserved_descriptors--)
		ReleaseExternalFD();

	dlist_delete(&consumer->node);
	consumer->closer->consumer = NULL;
	if (closed)
		MemoryContextDelete(consumer->context);
	else
		ereport(LOG,
		        (errmsg("librdkafka %s did not close its connection to Kafka server \"%s\" "
		                "in time",
		                rd_kafka_version_str(), consumer->server_name),
		         errdetail("Some of its threads stay until the process ends.")));
}

void
kafka_consumer_start_partition(KafkaConsumer *consumer, int32 partition, int64 offset)
{
	MemoryContext previous;

	kafka_consumer_stop_partition(consumer, partition);
	previous = MemoryContextSwitchTo(consumer->context);
	consumer->started = bms_add_member(consumer->started, partition);
	MemoryContextSwitchTo(previous);

	if (rd_kafka_consume_start_queue(consumer->topic, partition, offset,
	                                 consumer->fetch_queue) != 0)
	{
		consumer->started = bms_del_member(consumer->started, partition);
		ereport(ERROR, (errcode(ERRCODE_FDW_ERROR),
		                errmsg("could not start reading topic \"%s\"", consumer->topic_name),
		                errdetail("Partition %d, offset " INT64_FORMAT ": %s.", partition,
		                          offset, rd_kafka_err2str(rd_kafka_last_error()))));
	}
}

void
kafka_consumer_stop_partition(KafkaConsumer *consumer, int32 partition)
{
	if (!bms_is_member(partition, consumer->started))
		return;
	rd_kafka_consume_stop(consumer->topic, partition);
	consumer->started = bms_del_member(consumer->started, partition);
	drop_taken(consumer, partition);
}

/*
 * Notes where events stand among the messages just taken.  Since 2.1 or so the library moves its position
 * behind an event as if a message had been delivered, also behind the end of a partition: what
 * comes there later would be passed over by whoever believed it.
 */
static void
note_events(KafkaConsumer *consumer)
{
	for (int i = 0; i < consumer->taken_count; i++)
	{
		const rd_kafka_message_t *message = consumer->taken[i];
		int count = consumer->event_position_count;

		if (!message->err || message->partition < 0)
			continue;
		if (message->partition >= count)
		{
			int wanted = message->partition + 1;
			MemoryContext previous = MemoryContextSwitchTo(consumer->context);

			consumer->event_positions =
			    count == 0 ? palloc(sizeof(int64) * wanted)
			               : repalloc(consumer->event_positions, sizeof(int64) * wanted);
			MemoryContextSwitchTo(previous);
			for (; count < wanted; count++)
				consumer->event_positions[count] = -1;
			consumer->event_position_count = count;
		}
		consumer->event_positions[message->partition] =
		    Max(consumer->event_positions[message->partition], message->offset + 1);
	}
}

/* Turns an error that came in the place of a message into an event. */
static void
event_from_message(KafkaConsumer *consumer, rd_kafka_message_t *message, KafkaEvent *event)
{
	event->type = kafka_report_classify(message->err);
	consumer->partitions_vanished |= event->type == KAFKA_EVENT_UNKNOWN_TOPIC;
	event->partition = message->partition;
	event->offset = -1;
	if (event->type == KAFKA_EVENT_PARTITION_END || event->type == KAFKA_EVENT_OUT_OF_RANGE ||
	    event->type == KAFKA_EVENT_UNREADABLE)
		event->offset = message->offset;
	strlcpy(event->message, rd_kafka_message_errstr(message), sizeof(event->message));
}

int
kafka_consumer_poll(KafkaConsumer *consumer, KafkaMessageBatch *batch, int max_messages,
                    size_t max_bytes, KafkaEvent *event)
{
	int appended = 0;
	size_t bytes_before = batch->bytes;
	bool empty = false;

	event->type = KAFKA_EVENT_NONE;
	kafka_report_serve(consumer);

	while (appended < max_messages && batch->bytes < max_bytes)
	{
		rd_kafka_message_t *message;

		if (consumer->taken_next == consumer->taken_count)
		{
			int at_most = Min(TAKE_AT_ONCE, max_messages - appended);
			ssize_t taken;

			kafka_flow_taken(consumer, batch->bytes - bytes_before);
			bytes_before = batch->bytes;
			kafka_message_batch_reserve(batch, consumer, at_most);
			taken = rd_kafka_consume_batch_queue(consumer->fetch_queue, 0, consumer->taken,
			                                     at_most);
			consumer->taken_next = 0;
			consumer->taken_count = Max(taken, 0);
			if (taken <= 0)
			{
				empty = true;
				break;
			}
			note_events(consumer);
			kafka_report_all_well(consumer);
		}
		else
			kafka_message_batch_reserve(batch, consumer, 1);

		message = consumer->taken[consumer->taken_next++];
		if (message->err)
		{
			event_from_message(consumer, message, event);
			rd_kafka_message_destroy(message);
			return appended;
		}
		kafka_message_batch_append(batch, message);
		appended++;
	}

	if (empty)
		kafka_report_next_event(consumer, event);
	return appended;
}

void
kafka_consumer_serve(KafkaConsumer *consumer)
{
	kafka_report_serve(consumer);
}

void
kafka_consumer_wait(KafkaConsumer *consumer, long timeout_ms, uint32 wait_event)
{
	int reasons = WL_LATCH_SET | WL_SOCKET_READABLE | WL_EXIT_ON_PM_DEATH;
	char signals[64];

	if (timeout_ms >= 0)
		reasons |= WL_TIMEOUT;
	reasons =
	    WaitLatchOrSocket(MyLatch, reasons, consumer->wake_pipe[0], timeout_ms, wait_event);
	if (reasons & WL_LATCH_SET)
		ResetLatch(MyLatch);
	if (reasons & WL_SOCKET_READABLE)
	{
		while (read(consumer->wake_pipe[0], signals, sizeof(signals)) == sizeof(signals))
			;
	}
}

static int64
library_position(KafkaConsumer *consumer, int32 partition)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_topic_partition_t *item =
	    rd_kafka_topic_partition_list_add(list, consumer->topic_name, partition);
	int64 position = -1;

	if (rd_kafka_position(consumer->client, list) == RD_KAFKA_RESP_ERR_NO_ERROR &&
	    item->err == RD_KAFKA_RESP_ERR_NO_ERROR && item->offset >= 0)
		position = item->offset;
	rd_kafka_topic_partition_list_destroy(list);
	return position;
}

int64
kafka_consumer_position(KafkaConsumer *consumer, int32 partition)
{
	int64 position;

	/* the library counts as delivered what is still waiting here */
	for (int i = consumer->taken_next; i < consumer->taken_count; i++)
	{
		if (consumer->taken[i]->partition == partition)
			return consumer->taken[i]->offset;
	}
	position = library_position(consumer, partition);
	if (partition < consumer->event_position_count &&
	    position == consumer->event_positions[partition])
		return -1;
	return position;
}

bool
kafka_consumer_watermarks(KafkaConsumer *consumer, int32 partition, int64 *low, int64 *high)
{
	int64_t known_low;
	int64_t known_high;

	if (rd_kafka_get_watermark_offsets(consumer->client, consumer->topic_name, partition,
	                                   &known_low, &known_high) != RD_KAFKA_RESP_ERR_NO_ERROR ||
	    known_low < 0 || known_high < 0)
		return false;
	*low = known_low;
	*high = known_high;
	return true;
}
