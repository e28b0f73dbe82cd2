/*-------------------------------------------------------------------------
 *
 * topic_identity.c
 *	  While a stream runs: is its topic still the one that it was opened for?
 *
 * A topic that was deleted and created again is read on at the old offset, without an error
 * when it has become as long meanwhile.  The library can't get there without asking for the
 * topic's metadata (kafka_metadata.c): when it has, what was fetched is
 * not used before the topic's id has been compared.  Where library or
 * broker have no ids, the last message of each partition is fetched once more, and
 * must be the one that was read.  So is the first message of one partition: a topic that was filled beyond the
 * position before the library heard of anything has been read on already, and its last message is
 * what was read, but not its first.
 *
 * What becomes of a stream whose topic is another one is found out by opening it
 * anew: log_check.c, data_loss.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "topic_identity.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

/* With ids, and without messages: so long is waited for an answer. */
#define IDLE_LOOKS   6
#define IDLE_LOOK_MS 500

/*
 * Without ids, time from one look at the last messages to the next, in which nothing is read when there is a new
 * doubt.  The library asks by itself, too, when it connects to brokers, and as long as a partition has no leader.
 */
#define PAUSE_MS 200

/* So many looks that found nothing, each with a new doubt at once and before a batch was written: enough. */
#define LOOKS_IN_A_ROW 5
#define AT_ONCE_MS     (2 * PAUSE_MS)

void
topic_identity_allocate(StreamReader *reader, int known)
{
	int count = reader->checkpoint->count;

	if (reader->awaited == NULL)
	{
		reader->awaited = palloc(sizeof(AwaitedMessage) * count);
		reader->metadata_requests = reader->log->metadata_requests;
		if (reader->log->topic_id == NULL)
			reader->metadata_requests = kafka_consumer_metadata_requests(reader->consumer);
		reader->look_again_at = DT_NOEND;
	}
	else
		reader->awaited = repalloc(reader->awaited, sizeof(AwaitedMessage) * count);
	for (int i = known; i < count; i++)
		reader->awaited[i] = AWAITED_NONE;
}

static bool
same_id(StreamReader *reader)
{
	char *topic_id = kafka_consumer_topic_id(reader->consumer, &reader->metadata_requests);
	bool same = topic_id != NULL && strcmp(topic_id, reader->log->topic_id) == 0;

	if (topic_id != NULL)
		pfree(topic_id);
	return same;
}

/* Does the cluster answer, in the time that is waited while there is nothing to do? */
static bool
cluster_answers(StreamReader *reader)
{
	const char *cause;

	for (int i = 0; i < IDLE_LOOKS; i++)
	{
		if (kafka_consumer_reachable(reader->consumer, IDLE_LOOK_MS))
			return true;
		CHECK_FOR_INTERRUPTS();
	}
	cause = kafka_consumer_last_error(reader->consumer);
	reader->in_trouble = true;
	reader->trouble =
	    (KafkaEvent){.type = KAFKA_EVENT_UNAVAILABLE, .partition = -1, .offset = -1};
	strlcpy(reader->trouble.message, cause != NULL ? cause : "no broker answers",
	        sizeof(reader->trouble.message));
	return false;
}

/* Fetches a partition again, from the last message on. */
static void
look_at_last_message(StreamReader *reader, int32 partition)
{
	const PartitionPosition *position = &reader->checkpoint->positions[partition];
	/* what was removed before the stream was opened can't be compared */
	bool comparable = position->last_offset >= 0 && position->last_message_ms >= 0 &&
	                  (partition >= reader->log->finding_count ||
	                   position->last_offset >= reader->log->findings[partition].low);
	int64 from = comparable ? position->last_offset : position->next_offset;

	reader->awaited[partition] = AWAITED_NONE;
	if (stream_reader_restart_partition(reader, partition, from) && comparable)
		reader->awaited[partition] = AWAITED_LAST;
}

/*
 * The partition of which the first message is looked at next, or -1.  One will do, since a topic is recreated as a
 * whole, and what is fetched for it is up to a megabyte that nobody wants.
 */
static int
choose_first_message(StreamReader *reader)
{
	int count = reader->checkpoint->count;

	for (int i = 1; i <= count; i++)
	{
		int partition = (reader->first_looked_at + i) % count;
		const PartitionPosition *position = &reader->checkpoint->positions[partition];

		/* where it is the last one too, that is looked at anyway */
		if (position->first_offset >= 0 && position->first_offset < position->last_offset &&
		    stream_reader_owns(reader, partition))
			return reader->first_looked_at = partition;
	}
	return -1;
}

/* Drops what is here, and fetches again from the last message on. */
static void
look_at_messages(StreamReader *reader)
{
	int first = choose_first_message(reader);

	kafka_message_batch_clear(reader->batch);
	for (int i = 0; i < reader->checkpoint->count; i++)
		if (i != first || !stream_reader_restart_partition(
		                      reader, i, reader->checkpoint->positions[i].first_offset))
			look_at_last_message(reader, i);
		else
			reader->awaited[i] = AWAITED_FIRST;
}

bool
topic_identity_must_wait(StreamReader *reader)
{
	TimestampTz next_look = TimestampTzPlusMilliseconds(reader->identity_checked_at, PAUSE_MS);

	reader->look_again_at = DT_NOEND;
	if (reader->log->topic_id != NULL || reader->looks_in_a_row == 0 ||
	    reader->metadata_requests == kafka_consumer_metadata_requests(reader->consumer) ||
	    GetCurrentTimestamp() >= next_look)
		return false;
	reader->look_again_at = next_look;
	return true;
}

bool
topic_identity_holds(StreamReader *reader)
{
	uint32 requests = kafka_consumer_metadata_requests(reader->consumer);

	if (reader->must_reopen)
		return false;
	if (requests == reader->metadata_requests)
	{
		if (reader->batch->count > 0)
			reader->looks_in_a_row = 0;
		return true;
	}
	if (reader->log->topic_id != NULL)
	{
		/* a broker that goes away leaves a doubt behind, which can wait for it as long as there are no messages */
		if (reader->batch->count == 0 && (reader->in_trouble || !cluster_answers(reader)))
			return false;
		reader->must_reopen = !same_id(reader);
		return !reader->must_reopen;
	}
	reader->metadata_requests = requests;
	if (GetCurrentTimestamp() >=
	    TimestampTzPlusMilliseconds(reader->identity_checked_at, AT_ONCE_MS))
		reader->looks_in_a_row = 0;
	if (reader->looks_in_a_row == LOOKS_IN_A_ROW)
	{
		reader->looks_in_a_row = 0;
		return true;
	}
	reader->looks_in_a_row++;
	reader->identity_checked_at = GetCurrentTimestamp();
	look_at_messages(reader);
	return false;
}

void
topic_identity_compare(StreamReader *reader, const KafkaMessage *message)
{
	PartitionPosition *position = &reader->checkpoint->positions[message->partition];
	AwaitedMessage awaited = reader->awaited[message->partition];
	int64 offset = awaited == AWAITED_FIRST ? position->first_offset : position->last_offset;

	if (awaited == AWAITED_NONE || message->offset < offset)
		return;
	/* behind it: it has been removed since, and nothing can be said */
	reader->awaited[message->partition] = AWAITED_NONE;
	if (message->offset == offset && !log_same_message(position, message))
		reader->must_reopen = true;
	else if (awaited == AWAITED_FIRST)
	{
		if (message->offset > offset)
			position->first_offset = -1;
		look_at_last_message(reader, message->partition);
	}
}

bool
topic_identity_event(StreamReader *reader, const KafkaEvent *event)
{
	PartitionPosition *position;
	AwaitedMessage awaited;

	if (event->partition < 0 || event->partition >= reader->checkpoint->count ||
	    reader->awaited[event->partition] == AWAITED_NONE)
		return false;
	position = &reader->checkpoint->positions[event->partition];
	awaited = reader->awaited[event->partition];
	if (event->type == KAFKA_EVENT_OUT_OF_RANGE)
	{
		/*
		 * Removed, or the log is another one, which may be filled beyond the position by the time that
		 * is asked for: whoever opens the stream anew compares all of it.
		 */
		reader->must_reopen = true;
		return true;
	}
	if (event->type != KAFKA_EVENT_PARTITION_END)
		return false;
	reader->awaited[event->partition] = AWAITED_NONE;
	if (event->offset < position->next_offset)
		reader->must_reopen = true;
	else if (awaited == AWAITED_FIRST)
	{
		position->first_offset = -1;
		look_at_last_message(reader, event->partition);
	}
	else
		return false;
	return true;
}
