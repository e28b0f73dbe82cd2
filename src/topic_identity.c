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
 * must be the one that was read.
 *
 * What becomes of a stream whose topic is another one is found out by opening it
 * anew: log_check.c, data_loss.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "topic_identity.h"

#include "utils/timestamp.h"

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

	if (reader->last_awaited == NULL)
	{
		reader->last_awaited = palloc(sizeof(bool) * count);
		reader->metadata_requests = reader->log->metadata_requests;
		if (reader->log->topic_id == NULL)
			reader->metadata_requests = kafka_consumer_metadata_requests(reader->consumer);
		reader->look_again_at = DT_NOEND;
	}
	else
		reader->last_awaited = repalloc(reader->last_awaited, sizeof(bool) * count);
	for (int i = known; i < count; i++)
		reader->last_awaited[i] = false;
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

/* Drops what is here, and fetches again from the last message on. */
static void
look_at_last_messages(StreamReader *reader)
{
	kafka_message_batch_clear(reader->batch);
	for (int i = 0; i < reader->checkpoint->count; i++)
	{
		const PartitionPosition *position = &reader->checkpoint->positions[i];
		/* what was removed before the stream was opened can't be compared */
		bool comparable = position->last_offset >= 0 && position->last_message_ms >= 0 &&
		                  (i >= reader->log->finding_count ||
		                   position->last_offset >= reader->log->findings[i].low);

		if (stream_reader_restart_partition(
		        reader, i, comparable ? position->last_offset : position->next_offset))
			reader->last_awaited[i] = comparable;
	}
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
	look_at_last_messages(reader);
	return false;
}

void
topic_identity_compare(StreamReader *reader, const KafkaMessage *message)
{
	const PartitionPosition *position = &reader->checkpoint->positions[message->partition];

	if (!reader->last_awaited[message->partition] || message->offset < position->last_offset)
		return;
	/* behind it: it has been removed since, and nothing can be said */
	reader->last_awaited[message->partition] = false;
	if (message->offset == position->last_offset && !log_same_message(position, message))
		reader->must_reopen = true;
}

bool
topic_identity_event(StreamReader *reader, const KafkaEvent *event)
{
	const PartitionPosition *position;

	if (event->partition < 0 || event->partition >= reader->checkpoint->count ||
	    !reader->last_awaited[event->partition])
		return false;
	position = &reader->checkpoint->positions[event->partition];
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
	reader->last_awaited[event->partition] = false;
	if (event->offset >= position->next_offset)
		return false;
	reader->must_reopen = true;
	return true;
}
