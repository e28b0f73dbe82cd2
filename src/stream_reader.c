/*-------------------------------------------------------------------------
 *
 * stream_reader.c
 *	  A stream's side towards Kafka: fetch from the checkpoint on, and gather
 *	  the messages of the next micro-batch.
 *
 * Decides which messages make a batch; under max_offsets_per_trigger with
 * batch_shares.c.  Knows nothing of what becomes of them; waiting is left to worker.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_reader.h"

#include "batch_shares.h"
#include "data_loss.h"
#include "progress.h"
#include "topic_identity.h"

/* with a limit per partition: messages taken from the queue at once */
#define FETCH_AT_ONCE 1000

/* Makes room for what is kept by partition: known are there already, or 0. */
static void
allocate_partitions(StreamReader *reader, int known)
{
	int count = reader->checkpoint->count;

	if (reader->read_up_to == NULL)
	{
		reader->read_up_to = palloc(sizeof(int64) * count);
		reader->fetched_up_to = palloc(sizeof(int64) * count);
		reader->end_seen = palloc(sizeof(int64) * count);
		reader->quota = palloc(sizeof(int64) * count);
		reader->quota_is_backlog = palloc(sizeof(bool) * count);
		reader->held = palloc(sizeof(KafkaMessageBatch *) * count);
	}
	else
	{
		reader->read_up_to = repalloc(reader->read_up_to, sizeof(int64) * count);
		reader->fetched_up_to = repalloc(reader->fetched_up_to, sizeof(int64) * count);
		reader->end_seen = repalloc(reader->end_seen, sizeof(int64) * count);
		reader->quota = repalloc(reader->quota, sizeof(int64) * count);
		reader->quota_is_backlog = repalloc(reader->quota_is_backlog, sizeof(bool) * count);
		reader->held = repalloc(reader->held, sizeof(KafkaMessageBatch *) * count);
	}
	for (int i = known; i < count; i++)
		reader->held[i] = NULL;
	topic_identity_allocate(reader, known);
}

static bool
partition_at_end(const StreamReader *reader, int32 partition, int64 position)
{
	int64 end = reader->checkpoint->positions[partition].end_offset;

	return end >= 0 && position >= end;
}

bool
stream_reader_restart_partition(StreamReader *reader, int32 partition, int64 from_offset)
{
	int64 next_offset = reader->checkpoint->positions[partition].next_offset;
	KafkaMessageBatch *held = reader->held[partition];

	reader->read_up_to[partition] = next_offset;
	reader->fetched_up_to[partition] = next_offset;
	reader->end_seen[partition] = -1;
	reader->quota[partition] = 0;
	if (held != NULL)
	{
		reader->held_count -= held->count;
		reader->held_bytes -= held->bytes;
		kafka_message_batch_clear(held);
	}
	if (!stream_reader_owns(reader, partition) ||
	    partition_at_end(reader, partition, next_offset))
		return false;
	kafka_consumer_start_partition(reader->consumer, partition, from_offset);
	return true;
}

static void
start_partition(StreamReader *reader, int32 partition)
{
	(void) stream_reader_restart_partition(
	    reader, partition, reader->checkpoint->positions[partition].next_offset);
}

void
stream_reader_count_partitions(StreamReader *reader)
{
	int known = reader->checkpoint->count;

	reader->partition_count = kafka_consumer_find_partitions(reader->consumer);
	/* unlike for a new stream, an unknown topic is one that is gone */
	if (reader->partition_count == 0)
		data_loss_topic_gone(reader->stream, reader->topic, "The cluster knows no such topic.");
	if (reader->partition_count < known)
		data_loss_topic_gone(reader->stream, reader->topic,
		                     psprintf("The checkpoint has %d partition(s), the topic %d.",
		                              known, reader->partition_count));
}

StreamReader *
stream_reader_open(const Stream *stream, int worker, const char *topic,
                   const KafkaConnection *connection, Checkpoint *checkpoint)
{
	StreamReader *reader = palloc0(sizeof(StreamReader));
	LogShare share = {.worker = worker, .workers = stream->workers};

	reader->stream = stream;
	reader->worker = worker;
	reader->topic = topic;
	reader->checkpoint = checkpoint;
	reader->consumer = kafka_consumer_open(connection, topic, CurrentMemoryContext);
	reader->context = CurrentMemoryContext;
	reader->batch = kafka_message_batch_create();
	reader->fetched = kafka_message_batch_create();
	reader->log = log_check(reader->consumer, checkpoint, share, LOG_PEEK_LAST);
	/* the next batch has another one */
	for (int i = 0; i < Min(checkpoint->count, reader->log->finding_count); i++)
		if (reader->log->findings[i].first_message_gone)
			checkpoint->positions[i].first_offset = -1;
	reader->partition_count = reader->log->partition_count;
	return reader;
}

KafkaConsumer *
stream_open_lookup_consumer(Oid server_id, const char *topic, Oid owner)
{
	return kafka_consumer_open(kafka_connection_load(server_id, owner), topic,
	                           CurrentMemoryContext);
}

void
stream_reader_start(StreamReader *reader)
{
	allocate_partitions(reader, 0);
	progress_forget_partitions();
	for (int i = 0; i < reader->checkpoint->count; i++)
	{
		const LogFinding *finding = &reader->log->findings[i];

		if (stream_reader_owns(reader, i))
			progress_set_partition(i, finding->next_offset, finding->low, finding->high, -1);
		start_partition(reader, i);
	}
}

KafkaPartitionOffset *
stream_reader_find_new_partitions(StreamReader *reader, int *count)
{
	int known = reader->checkpoint->count;

	/* available_now reads what was there at its start */
	*count =
	    reader->stream->trigger == TRIGGER_AVAILABLE_NOW ? 0 : reader->partition_count - known;
	if (*count == 0)
		return NULL;
	return kafka_consumer_lookup_range(reader->consumer, known, *count, KAFKA_OFFSET_EARLIEST);
}

void
stream_reader_add_partitions(StreamReader *reader, const Checkpoint *stored)
{
	Checkpoint *checkpoint = reader->checkpoint;
	int known = checkpoint->count;

	checkpoint->positions =
	    repalloc(checkpoint->positions, sizeof(PartitionPosition) * stored->count);
	memcpy(checkpoint->positions + known, stored->positions + known,
	       sizeof(PartitionPosition) * (stored->count - known));
	checkpoint->count = stored->count;
	allocate_partitions(reader, known);
	for (int i = known; i < checkpoint->count; i++)
		start_partition(reader, i);
}

int64
stream_reader_high_watermark(StreamReader *reader, int32 partition)
{
	int64 low;
	int64 high;

	return kafka_consumer_watermarks(reader->consumer, partition, &low, &high) ? high : -1;
}

/* --- fetching --- */

/*
 * Is a message that came from Kafka wanted?  It is when it stands at or after the
 * expected position (a re-sent one must not come twice) and before the end of
 * available_now.
 */
static bool
wanted_message(const KafkaMessage *message, void *argument)
{
	StreamReader *reader = argument;
	int32 partition = message->partition;

	if (partition_at_end(reader, partition, message->offset))
	{
		reader->end_seen[partition] = reader->checkpoint->positions[partition].end_offset;
		return false;
	}
	topic_identity_compare(reader, message);
	if (message->offset < reader->fetched_up_to[partition])
		return false;
	reader->fetched_up_to[partition] = message->offset + 1;
	return true;
}

/* Takes into the batch what has been fetched and its limits allow. */
static void
take_fetched(StreamReader *reader, int first)
{
	if (reader->stream->max_offsets_per_trigger > 0)
	{
		kafka_message_batch_filter(reader->fetched, first, wanted_message, reader);
		batch_shares_hold(reader);
	}
	else
	{
		kafka_message_batch_filter(reader->batch, first, wanted_message, reader);
		for (int i = first; i < reader->batch->count; i++)
		{
			const KafkaMessage *message = &reader->batch->messages[i];

			reader->read_up_to[message->partition] = message->offset + 1;
		}
	}
}

static void
handle_event(StreamReader *reader, const KafkaEvent *event)
{
	if (topic_identity_event(reader, event))
		return;
	switch (event->type)
	{
		case KAFKA_EVENT_NONE:
			break;
		case KAFKA_EVENT_PARTITION_END:
			reader->in_trouble = false;
			reader->end_seen[event->partition] = event->offset;
			break;
		case KAFKA_EVENT_OUT_OF_RANGE:
		{
			LogFinding finding =
			    log_check_range(reader->consumer,
			                    &reader->checkpoint->positions[event->partition]);

			data_loss_out_of_range(reader->stream, reader->topic, &finding);
			reader->must_reopen = true;
			break;
		}
		case KAFKA_EVENT_UNKNOWN_TOPIC:
			data_loss_topic_gone(reader->stream, reader->topic, event->message);
			break;
		case KAFKA_EVENT_UNREADABLE:
			ereport(ERROR,
			        (errcode(ERRCODE_DATA_CORRUPTED),
			         errmsg("messages of topic \"%s\" can't be read", reader->topic),
			         errdetail_internal("%s", kafka_event_detail(event)),
			         errhint(
			             "If a message is too large, raise receive_message_max_bytes in the "
			             "server's options and start the stream again; damaged ones can only "
			             "be left out, with kafka.reset_stream.")));
			break;
		case KAFKA_EVENT_UNAUTHORIZED:
		case KAFKA_EVENT_UNAVAILABLE:
			reader->in_trouble = true;
			reader->trouble = *event;
			break;
	}
}

/* Polls once into "batch"; false when nothing is left for now. */
static bool
fetch_into(StreamReader *reader, KafkaMessageBatch *batch, int max_messages, size_t max_bytes)
{
	KafkaEvent event;
	int first = batch->count;
	int polled = kafka_consumer_poll(reader->consumer, batch, max_messages, max_bytes, &event);

	CHECK_FOR_INTERRUPTS();
	if (polled > 0)
	{
		reader->in_trouble = false;
		take_fetched(reader, first);
	}
	handle_event(reader, &event);
	return polled > 0 || event.type != KAFKA_EVENT_NONE;
}

/*
 * Behind the last message of a partition there may be transaction markers and
 * gaps: where nothing of a partition is held back, the position is as far as
 * the library has come, or the end that Kafka has reported.
 */
static void
pass_markers(StreamReader *reader)
{
	for (int i = 0; i < reader->checkpoint->count; i++)
	{
		int64 end = reader->checkpoint->positions[i].end_offset;
		int64 position;

		if (!stream_reader_owns(reader, i) ||
		    (reader->held[i] != NULL && reader->held[i]->count > 0))
			continue;
		position = Max(reader->end_seen[i], kafka_consumer_position(reader->consumer, i));
		/* what is behind the end of available_now has been dropped, not read */
		if (end >= 0)
			position = Min(position, end);
		reader->read_up_to[i] = Max(reader->read_up_to[i], position);
	}
}

/* Takes what is here until the batch is full or nothing is left. */
static void
gather_all(StreamReader *reader, size_t max_bytes)
{
	KafkaMessageBatch *batch = reader->batch;

	while (batch->count < max_batch_messages && batch->bytes < max_bytes)
	{
		if (!fetch_into(reader, batch, max_batch_messages - batch->count, max_bytes))
			break;
	}
}

/* The same under max_offsets_per_trigger. */
static void
gather_shares(StreamReader *reader, size_t max_bytes)
{
	batch_shares_begin(reader);
	/* however long the messages held last, log lines and errors of the connection don't wait */
	kafka_consumer_serve(reader->consumer);

	/*
	 * Not before something is gathered, or the queue is empty, may this stop:
	 * events wait in the same queue, and only an empty one wakes the worker up.  Whoever has
	 * a batch comes back without waiting, and an event behind messages is for what follows
	 * them: a batch that those held have filled takes nothing from the queue, or
	 * small ones would have ever more to hold.
	 */
	while (reader->batch->bytes < max_bytes && reader->held_bytes < max_bytes)
	{
		if (reader->batch->count > 0 && !batch_shares_left(reader))
			break;
		if (!fetch_into(reader, reader->fetched, FETCH_AT_ONCE, max_bytes))
			break;
	}
}

bool
stream_reader_gather(StreamReader *reader)
{
	size_t max_bytes = (size_t) max_batch_kilobytes * 1024;

	kafka_message_batch_clear(reader->batch);
	if (topic_identity_must_wait(reader))
		return false;
	if (reader->stream->max_offsets_per_trigger > 0)
		gather_shares(reader, max_bytes);
	else
		gather_all(reader, max_bytes);

	if (!topic_identity_holds(reader))
		return false;
	pass_markers(reader);
	if (reader->batch->count > 0)
		return true;
	for (int i = 0; i < reader->checkpoint->count; i++)
		if (reader->read_up_to[i] > reader->checkpoint->positions[i].next_offset)
			return true;
	return false;
}

bool
stream_reader_at_end(const StreamReader *reader)
{
	for (int i = 0; i < reader->checkpoint->count; i++)
		if (stream_reader_owns(reader, i) &&
		    !partition_at_end(reader, i, reader->checkpoint->positions[i].next_offset))
			return false;
	return true;
}

void
stream_reader_report(StreamReader *reader)
{
	for (int i = 0; i < reader->checkpoint->count; i++)
	{
		int64 low;
		int64 high;

		if (stream_reader_owns(reader, i) &&
		    kafka_consumer_watermarks(reader->consumer, i, &low, &high))
			progress_set_partition(i, reader->checkpoint->positions[i].next_offset, low, high,
			                       -1);
	}
}

bool
stream_reader_caught_up(StreamReader *reader)
{
	if (reader->held_count > 0 || reader->batch->count > 0 ||
	    !stream_reader_has_seen_ends(reader))
		return false;
	for (int i = 0; i < reader->checkpoint->count; i++)
	{
		int64 next_offset = reader->checkpoint->positions[i].next_offset;

		if (!stream_reader_owns(reader, i))
			continue;
		if (next_offset < reader->end_seen[i] ||
		    next_offset < stream_reader_high_watermark(reader, i))
			return false;
	}
	return true;
}

bool
stream_reader_has_seen_ends(const StreamReader *reader)
{
	for (int i = 0; i < reader->checkpoint->count; i++)
		if (stream_reader_owns(reader, i) && reader->end_seen[i] < 0)
			return false;
	return true;
}
