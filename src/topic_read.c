/*-------------------------------------------------------------------------
 *
 * topic_read.c
 *	  A bounded read of a topic, for direct SELECTs and for look-ups.
 *
 * The end of each partition is looked up when the read is opened.  A partition is done
 * when the position has reached the end: by a message, by a transaction marker,
 * or because Kafka says that nothing follows (compaction leaves gaps).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/wait_event.h"

#include "topic_read.h"

#define MESSAGES_AT_ONCE 1000
#define BYTES_AT_ONCE    (4 * 1024 * 1024)

/* How often to look at the clock while waiting. */
#define WAIT_MS 500

/* Looks up low and high of all partitions. */
static void
pin_ranges(TopicRead *read)
{
	KafkaPartitionOffset *items;

	read->partition_count = kafka_consumer_partition_count(read->consumer);
	read->partitions = palloc0(read->partition_count * sizeof(TopicReadPartition));
	items = palloc0(read->partition_count * sizeof(KafkaPartitionOffset));

	for (int i = 0; i < read->partition_count; i++)
	{
		items[i].partition = i;
		items[i].timestamp_ms = KAFKA_OFFSET_EARLIEST;
	}
	kafka_consumer_lookup_offsets(read->consumer, items, read->partition_count);
	for (int i = 0; i < read->partition_count; i++)
	{
		read->partitions[i].low = items[i].offset;
		items[i].timestamp_ms = KAFKA_OFFSET_LATEST;
	}
	kafka_consumer_lookup_offsets(read->consumer, items, read->partition_count);
	for (int i = 0; i < read->partition_count; i++)
		read->partitions[i].high = items[i].offset;
	pfree(items);
}

TopicRead *
topic_read_open(const TopicSchema *schema, Oid user_id)
{
	KafkaConnection *connection = kafka_connection_load(schema->server_id, user_id);
	TopicRead *read = palloc0(sizeof(TopicRead));

	connection->existing_only = true;
	read->topic = schema->topic;
	read->server_name = connection->server_name;
	read->timeout_ms = connection->lookup_timeout_ms;
	read->consumer = kafka_consumer_open(connection, schema->topic, CurrentMemoryContext);
	read->batch = kafka_message_batch_create();
	pin_ranges(read);
	return read;
}

static bool
partition_wanted(const TopicBounds *bounds, int partition)
{
	return !bounds->nothing && partition >= bounds->first_partition &&
	       partition <= bounds->last_partition &&
	       (!bounds->partitions_listed || list_member_int(bounds->partition_list, partition));
}

/* Moves the starts to the first message that is not older than a time. */
static void
start_at_timestamp(TopicRead *read, int64 since_ms)
{
	KafkaPartitionOffset *items = palloc(read->partition_count * sizeof(KafkaPartitionOffset));
	int count = 0;

	for (int i = 0; i < read->partition_count; i++)
	{
		if (read->partitions[i].done)
			continue;
		items[count].partition = i;
		items[count].timestamp_ms = since_ms;
		count++;
	}
	kafka_consumer_lookup_offsets(read->consumer, items, count);
	for (int i = 0; i < count; i++)
	{
		TopicReadPartition *partition = &read->partitions[items[i].partition];

		partition->start = items[i].offset < 0 ? Max(partition->start, partition->high)
		                                       : Max(partition->start, items[i].offset);
		partition->done = partition->start >= partition->end;
	}
	pfree(items);
}

void
topic_read_start(TopicRead *read, const TopicBounds *bounds)
{
	kafka_message_batch_clear(read->batch);
	read->next = 0;
	read->event.type = KAFKA_EVENT_NONE;
	for (int i = 0; i < read->partition_count; i++)
	{
		TopicReadPartition *partition = &read->partitions[i];

		kafka_consumer_stop_partition(read->consumer, i);
		partition->start = Max(partition->low, bounds->first_offset);
		partition->end = partition->high;
		if (bounds->last_offset < partition->high)
			partition->end = bounds->last_offset + 1;
		partition->done = !partition_wanted(bounds, i) || partition->start >= partition->end;
	}
	if (bounds->since_ms >= 0)
		start_at_timestamp(read, bounds->since_ms);

	read->partitions_left = 0;
	for (int i = 0; i < read->partition_count; i++)
	{
		TopicReadPartition *partition = &read->partitions[i];

		partition->position = partition->start;
		if (partition->done)
			continue;
		read->partitions_left++;
		kafka_consumer_start_partition(read->consumer, i, partition->start);
	}
}

void
topic_read_skip_rest(TopicRead *read, int32 partition)
{
	if (read->partitions[partition].done)
		return;
	read->partitions[partition].done = true;
	read->partitions_left--;
	kafka_consumer_stop_partition(read->consumer, partition);
}

/* The position moved without a message.  Returns whether that was news. */
static bool
advance(TopicRead *read, int32 number, int64 position)
{
	TopicReadPartition *partition = &read->partitions[number];
	bool moved = position > partition->position;

	if (moved)
		partition->position = position;
	if (partition->position >= partition->end)
		topic_read_skip_rest(read, number);
	return moved;
}

/* The next message that is here already and belongs to the range, or NULL. */
static const KafkaMessage *
next_here(TopicRead *read)
{
	while (read->next < read->batch->count)
	{
		const KafkaMessage *message = &read->batch->messages[read->next++];
		TopicReadPartition *partition = &read->partitions[message->partition];
		bool in_range = !partition->done && message->offset < partition->end;

		if (partition->done)
			continue;
		advance(read, message->partition, message->offset + 1);
		if (in_range)
		{
			read->messages_read++;
			return message;
		}
	}
	return NULL;
}

pg_noreturn static void
raise_gone(TopicRead *read, const KafkaEvent *event)
{
	TopicReadPartition *partition = &read->partitions[event->partition];

	ereport(
	    ERROR,
	    (errcode(ERRCODE_FDW_ERROR), errmsg("messages of topic \"%s\" are gone", read->topic),
	     errdetail("Partition %d has no offset " INT64_FORMAT " any more; offsets " INT64_FORMAT
	               " to " INT64_FORMAT " were to be read.",
	               event->partition, partition->position, partition->start, partition->end - 1),
	     errhint("Retention, or a change of the topic, removed them while the query ran. "
	             "Run it again.")));
}

pg_noreturn static void
raise_event(TopicRead *read, const KafkaEvent *event)
{
	switch (event->type)
	{
		case KAFKA_EVENT_UNKNOWN_TOPIC:
			ereport(ERROR,
			        (errcode(ERRCODE_UNDEFINED_OBJECT),
			         errmsg("topic \"%s\" or a partition of it does not exist any more on "
			                "server \"%s\"",
			                read->topic, read->server_name),
			         errdetail_internal("%s.", event->message)));
			break;
		case KAFKA_EVENT_UNREADABLE:
			ereport(ERROR,
			        (errcode(ERRCODE_FDW_ERROR),
			         errmsg("could not read a message of topic \"%s\"", read->topic),
			         errdetail_internal("%s", kafka_event_detail(event)),
			         errhint("If it is too large, raise receive_message_max_bytes in the "
			                 "server's options.")));
			break;
		default:
			ereport(ERROR,
			        (errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
			         errmsg("permission denied by Kafka while reading topic \"%s\" of server "
			                "\"%s\"",
			                read->topic, read->server_name),
			         errdetail_internal("%s.", event->message)));
			break;
	}
}

/*
 * Handles an event that came after all messages before it were returned.
 * Returns true when it means progress.
 */
static bool
handle_event(TopicRead *read, const KafkaEvent *event)
{
	/* an event of a partition that is done may have been under way */
	if (event->partition >= 0 &&
	    (event->partition >= read->partition_count || read->partitions[event->partition].done))
		return false;

	switch (event->type)
	{
		case KAFKA_EVENT_NONE:
		case KAFKA_EVENT_UNAVAILABLE:
			return false; /* the clock decides */
		case KAFKA_EVENT_PARTITION_END:
			if (event->offset < read->partitions[event->partition].end)
				raise_gone(read, event); /* the log has been truncated */
			return advance(read, event->partition, event->offset);
		case KAFKA_EVENT_OUT_OF_RANGE:
			raise_gone(read, event);
			break;
		default:
			raise_event(read, event);
			break;
	}
}

/* Transaction markers move the position without a message. */
static bool
look_for_markers(TopicRead *read)
{
	bool moved = false;

	for (int i = 0; i < read->partition_count; i++)
	{
		if (!read->partitions[i].done &&
		    advance(read, i, kafka_consumer_position(read->consumer, i)))
			moved = true;
	}
	return moved;
}

pg_noreturn static void
raise_stalled(TopicRead *read)
{
	const char *reason = kafka_consumer_last_error(read->consumer);

	ereport(ERROR, (errcode(ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION),
	                errmsg("lost the Kafka cluster of server \"%s\" while reading topic \"%s\"",
	                       read->server_name, read->topic),
	                reason ? errdetail_internal("%s.", reason)
	                       : errdetail("No message came for %d ms.", 3 * read->timeout_ms),
	                errhint("Check that the brokers are running; the server's option "
	                        "socket_timeout_ms says how long to wait for them.")));
}

/* Waits for something to happen; an error when nothing has for too long. */
static void
wait_for_more(TopicRead *read, instr_time waiting_since)
{
	bool failing = kafka_consumer_last_error(read->consumer) != NULL;
	instr_time waited;

	/*
	 * Without an error of the connection be more patient: the partition may get
	 * a new leader, or much aborted data is being passed over.
	 */
	INSTR_TIME_SET_CURRENT(waited);
	INSTR_TIME_SUBTRACT(waited, waiting_since);
	if (INSTR_TIME_GET_MILLISEC(waited) >= (failing ? 1.0 : 3.0) * read->timeout_ms)
		raise_stalled(read);
	kafka_consumer_wait(read->consumer, Min(WAIT_MS, read->timeout_ms), PG_WAIT_EXTENSION);
}

const KafkaMessage *
topic_read_next(TopicRead *read)
{
	bool waiting = false;
	instr_time waiting_since;

	INSTR_TIME_SET_ZERO(waiting_since);
	for (;;)
	{
		const KafkaMessage *message = next_here(read);
		KafkaEvent event;
		bool progress;

		if (message)
			return message;
		CHECK_FOR_INTERRUPTS();

		event = read->event;
		read->event.type = KAFKA_EVENT_NONE;
		progress = handle_event(read, &event);
		if (read->partitions_left == 0)
			return NULL;

		kafka_message_batch_clear(read->batch);
		read->next = 0;
		if (kafka_consumer_poll(read->consumer, read->batch, MESSAGES_AT_ONCE, BYTES_AT_ONCE,
		                        &read->event) > 0)
			progress = true;
		else if (read->event.type != KAFKA_EVENT_NONE)
			continue;
		else if (look_for_markers(read))
			progress = true;

		if (progress)
			waiting = false;
		else if (!waiting)
		{
			INSTR_TIME_SET_CURRENT(waiting_since);
			waiting = true;
		}
		if (waiting)
			wait_for_more(read, waiting_since);
	}
}

void
topic_read_close(TopicRead *read)
{
	kafka_consumer_close(read->consumer);
}
