/*-------------------------------------------------------------------------
 *
 * log_check.c
 *	  Compare a stream's checkpoint with the topic.
 *
 * Finds facts.  What becomes of a stream whose log has lost something is left to
 * data_loss.c, what users are told about a healthy one to stream_verify.c.
 *
 * An offset means something in one log only.  That it is the same log is known from the
 * cluster's id, the topic's id (which older libraries and brokers don't
 * tell), and messages that were read: within a log, offset and leader epoch belong to
 * one message for ever.  The last one tells what has happened since; the first one, that the log has
 * been another one for some time, if nobody noticed it when it happened.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "log_check.h"

#include "miscadmin.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define PEEK_AT_ONCE 1000

/* What is looked at in one partition. */
typedef struct Peek
{
	const PartitionPosition *position;
	LogFinding *finding;
	int64 from;
	bool first_message; /* shall be compared */
	bool first_agrees;  /* has been, and is the one that was read */
	bool last_message;  /* shall be compared */
	bool next_message;  /* its timestamp is wanted */
	bool started;
} Peek;

static void
note(LogFinding *finding, LogFindingKind kind)
{
	if (kind > finding->kind)
		finding->kind = kind;
}

static void
compare_range(LogFinding *finding)
{
	if (finding->next_offset < finding->low)
		note(finding, LOG_START_PASSED);
	else if (finding->next_offset > finding->high)
		note(finding, LOG_ENDS_BEFORE);
}

LogFinding
log_check_range(KafkaConsumer *consumer, const PartitionPosition *position)
{
	LogFinding finding = {.partition = position->partition,
	                      .next_offset = position->next_offset,
	                      .next_message = -1,
	                      .next_message_ms = -1};
	KafkaPartitionOffset low = {.partition = position->partition,
	                            .timestamp_ms = KAFKA_OFFSET_EARLIEST};
	KafkaPartitionOffset high = {.partition = position->partition,
	                             .timestamp_ms = KAFKA_OFFSET_LATEST};

	kafka_consumer_lookup_offsets(consumer, &low, 1);
	kafka_consumer_lookup_offsets(consumer, &high, 1);
	finding.low = low.offset;
	finding.high = high.offset;
	compare_range(&finding);
	return finding;
}

/* --- a look at single messages --- */

bool
log_same_message(const PartitionPosition *position, const KafkaMessage *message)
{
	int32 epoch;

	if (message->offset != position->last_offset)
		return message->timestamp_ms == position->first_message_ms;
	epoch = kafka_message_leader_epoch(message);
	return message->timestamp_ms == position->last_message_ms &&
	       (epoch < 0 || position->leader_epoch < 0 || epoch == position->leader_epoch);
}

/* Looks at a message; true when nothing more is wanted of its partition. */
static bool
peek_at_message(Peek *peek, const KafkaMessage *message)
{
	const PartitionPosition *position = peek->position;

	if (peek->first_message && message->offset < position->first_offset)
		return false;
	if (peek->first_message && message->offset > position->first_offset)
		peek->finding->first_message_gone = true;
	else if (peek->first_message)
	{
		peek->first_agrees = log_same_message(position, message);
		if (!peek->first_agrees)
		{
			note(peek->finding, LOG_OTHER_MESSAGE);
			peek->finding->read_on = true;
		}
	}
	if (peek->last_message && message->offset == position->last_offset &&
	    !log_same_message(position, message))
		note(peek->finding, LOG_OTHER_MESSAGE);
	if (peek->next_message && message->offset >= position->next_offset)
	{
		peek->finding->next_message = message->offset;
		peek->finding->next_message_ms = message->timestamp_ms;
	}
	else if (peek->next_message)
		return false;
	return true;
}

static void
end_peek(KafkaConsumer *consumer, Peek *peek, int *left)
{
	if (!peek->started)
		return;
	kafka_consumer_stop_partition(consumer, peek->position->partition);
	peek->started = false;
	(*left)--;
}

/* Waits for the messages of partitions that have been started. */
static void
run_peeks(KafkaConsumer *consumer, Peek *peeks, int count, int left)
{
	KafkaMessageBatch *batch = kafka_message_batch_create();
	int timeout_ms = kafka_consumer_lookup_timeout_ms(consumer);
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);

	while (left > 0)
	{
		int left_before = left;
		KafkaEvent event;

		(void) kafka_consumer_poll(consumer, batch, PEEK_AT_ONCE, SIZE_MAX, &event);
		for (int i = 0; i < batch->count; i++)
		{
			Peek *peek = &peeks[batch->messages[i].partition];

			if (peek->started && peek_at_message(peek, &batch->messages[i]))
				end_peek(consumer, peek, &left);
		}
		/* an end, or an error of this place: there is nothing to compare, which is no finding */
		if (event.partition >= 0 && event.partition < count && event.type != KAFKA_EVENT_NONE &&
		    event.type != KAFKA_EVENT_UNAVAILABLE)
			end_peek(consumer, &peeks[event.partition], &left);
		CHECK_FOR_INTERRUPTS();

		if (left < left_before)
			deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
		else if (batch->count == 0 && event.type == KAFKA_EVENT_NONE)
		{
			TimestampTz now = GetCurrentTimestamp();

			if (now >= deadline)
				kafka_consumer_raise_unreachable(consumer);
			kafka_consumer_wait(consumer, TimestampDifferenceMilliseconds(now, deadline) + 1,
			                    PG_WAIT_EXTENSION);
		}
		kafka_message_batch_clear(batch);
	}
}

static void
peek_at_messages(KafkaConsumer *consumer, const Checkpoint *checkpoint, LogCheck *check,
                 LogShare share, LogPeek messages)
{
	int count = Min(checkpoint->count, check->partition_count);
	Peek *peeks = palloc0(sizeof(Peek) * Max(count, 1));
	int left = 0;

	for (int i = 0; i < count; i++)
	{
		Peek *peek = &peeks[i];
		const PartitionPosition *position = &checkpoint->positions[i];

		peek->position = position;
		peek->finding = &check->findings[i];
		if (peek->finding->kind != LOG_AGREES || i % share.workers != share.worker)
			continue;
		peek->last_message =
		    position->last_offset >= peek->finding->low && position->last_message_ms >= 0;
		if (messages == LOG_PEEK_LAST_AT_END &&
		    (position->next_offset < peek->finding->high ||
		     (check->topic_id != NULL && position->topic_id != NULL)))
			continue;
		peek->next_message =
		    messages == LOG_PEEK_LAST_AND_NEXT && position->next_offset < peek->finding->high;
		peek->from = peek->last_message ? position->last_offset : position->next_offset;
		if (!peek->last_message && !peek->next_message)
			continue;
		kafka_consumer_start_partition(consumer, i, peek->from);
		peek->started = true;
		left++;
	}
	run_peeks(consumer, peeks, count, left);
	pfree(peeks);
}

/* Starts to look at the first message of a partition, if that can tell anything; the number started. */
static int
start_first_peek(KafkaConsumer *consumer, const LogCheck *check, Peek *peek)
{
	const PartitionPosition *position = peek->position;

	if (peek->finding->kind != LOG_AGREES || peek->finding->first_message_gone ||
	    peek->first_message || position->first_offset < 0 ||
	    (check->topic_id != NULL && position->topic_id != NULL))
		return 0;
	kafka_consumer_start_partition(consumer, position->partition, position->first_offset);
	peek->first_message = peek->started = true;
	return 1;
}

/*
 * A topic is recreated as a whole: where the first message of one partition is still there, and the same, the others
 * need not be looked at.
 */
static void
peek_at_first_messages(KafkaConsumer *consumer, const Checkpoint *checkpoint, LogCheck *check,
                       LogShare share)
{
	int count = Min(checkpoint->count, check->partition_count);
	Peek *peeks = palloc0(sizeof(Peek) * Max(count, 1));
	bool agrees = false;
	int left = 0;

	for (int i = share.worker; i < count; i += share.workers)
	{
		peeks[i].position = &checkpoint->positions[i];
		peeks[i].finding = &check->findings[i];
		check->findings[i].first_message_gone =
		    checkpoint->positions[i].first_offset < check->findings[i].low;
	}
	for (int i = share.worker; i < count && !agrees; i += share.workers)
	{
		if (start_first_peek(consumer, check, &peeks[i]) == 0)
			continue;
		run_peeks(consumer, peeks, count, 1);
		if (peeks[i].finding->kind == LOG_OTHER_MESSAGE)
			break;
		agrees = peeks[i].first_agrees;
	}
	for (int i = share.worker; i < count && !agrees; i += share.workers)
		left += start_first_peek(consumer, check, &peeks[i]);
	run_peeks(consumer, peeks, count, left);
	pfree(peeks);
}

int64
log_next_message(KafkaConsumer *consumer, int32 partition, int64 from, int64 *message_ms)
{
	PartitionPosition position = {.partition = partition, .next_offset = from};
	LogFinding finding = {.partition = partition, .next_message = -1, .next_message_ms = -1};
	Peek *peeks = palloc0(sizeof(Peek) * (partition + 1));

	peeks[partition].position = &position;
	peeks[partition].finding = &finding;
	peeks[partition].next_message = true;
	kafka_consumer_start_partition(consumer, partition, from);
	peeks[partition].started = true;
	run_peeks(consumer, peeks, partition + 1, 1);
	pfree(peeks);
	*message_ms = finding.next_message_ms;
	return finding.next_message;
}

/* --- all of it --- */

LogCheck *
log_check(KafkaConsumer *consumer, const Checkpoint *checkpoint, LogShare share,
          LogPeek messages)
{
	LogCheck *check = palloc0(sizeof(LogCheck));
	KafkaPartitionOffset *low;
	KafkaPartitionOffset *high;
	bool fewer;

	check->partition_count = kafka_consumer_find_partitions(consumer);
	check->cluster_id = kafka_consumer_cluster_id(consumer);
	if (check->cluster_id != NULL && checkpoint->cluster_id != NULL &&
	    strcmp(check->cluster_id, checkpoint->cluster_id) != 0)
	{
		check->other_cluster = true;
		return check;
	}
	if (check->partition_count > 0)
		check->topic_id = kafka_consumer_topic_id(consumer, &check->metadata_requests);
	fewer = check->partition_count > 0 && check->partition_count < checkpoint->count;

	check->finding_count = Max(checkpoint->count, check->partition_count);
	check->findings = palloc0(sizeof(LogFinding) * Max(check->finding_count, 1));
	low =
	    kafka_consumer_lookup_range(consumer, 0, check->partition_count, KAFKA_OFFSET_EARLIEST);
	high =
	    kafka_consumer_lookup_range(consumer, 0, check->partition_count, KAFKA_OFFSET_LATEST);
	for (int i = 0; i < check->finding_count; i++)
	{
		LogFinding *finding = &check->findings[i];

		finding->partition = i;
		finding->next_offset =
		    i < checkpoint->count ? checkpoint->positions[i].next_offset : -1;
		finding->low = i < check->partition_count ? low[i].offset : -1;
		finding->high = i < check->partition_count ? high[i].offset : -1;
		finding->next_message = finding->next_message_ms = -1;
		if (i >= check->partition_count)
			note(finding, LOG_PARTITION_GONE);
		else if (i >= checkpoint->count)
			note(finding, LOG_PARTITION_NEW);
		else if (i % share.workers == share.worker)
		{
			const char *topic_id = checkpoint->positions[i].topic_id;

			compare_range(finding);
			if (fewer || (check->topic_id != NULL && topic_id != NULL &&
			              strcmp(check->topic_id, topic_id) != 0))
				note(finding, LOG_OTHER_TOPIC);
		}
	}
	pfree(low);
	pfree(high);
	peek_at_messages(consumer, checkpoint, check, share, messages);
	peek_at_first_messages(consumer, checkpoint, check, share);
	return check;
}
