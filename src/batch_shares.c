/*-------------------------------------------------------------------------
 *
 * batch_shares.c
 *	  max_offsets_per_trigger: which messages of each partition a batch takes,
 *	  and those that are held for later ones.
 *
 * A share of each partition means that more may have to be fetched than is taken: a
 * long backlog of one partition can stand in the queue before the few messages of
 * another.  What is held is kept by partition, so that a batch costs what it takes,
 * however much waits.  When to fetch is left to stream_reader.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "batch_shares.h"

/*
 * This worker's part of max_offsets_per_trigger: the limit is the stream's, and what its
 * workers take together.  Those that have no partition take nothing.
 */
static int64
own_limit(const StreamReader *reader)
{
	int64 limit = reader->stream->max_offsets_per_trigger;
	int readers = Min(reader->stream->workers, reader->checkpoint->count);

	return limit / readers + (reader->worker < limit % readers ? 1 : 0);
}

/*
 * Shares max_offsets_per_trigger among the partitions by what they have
 * waiting, as Spark does; nobody who has something waiting gets nothing.
 */
static void
share_quota(StreamReader *reader)
{
	Checkpoint *checkpoint = reader->checkpoint;
	int64 limit = Min(own_limit(reader), max_batch_messages);
	int64 total = 0;
	int64 shared = 0;
	int largest = -1;

	for (int i = 0; i < checkpoint->count; i++)
	{
		int64 high;
		int64 backlog;

		reader->quota[i] = 0;
		reader->quota_is_backlog[i] = false;
		if (!stream_reader_owns(reader, i))
			continue;
		high = stream_reader_high_watermark(reader, i);
		backlog = high - checkpoint->positions[i].next_offset;
		reader->quota_is_backlog[i] = backlog > 0;
		/* what came since the last look, or before the first, may be taken, too */
		reader->quota[i] = Max(backlog, 1);
		total += reader->quota[i];
	}
	for (int i = 0; i < checkpoint->count; i++)
	{
		if (!stream_reader_owns(reader, i))
			continue;
		if (total > limit)
			reader->quota[i] =
			    Max((int64) ((double) reader->quota[i] * limit / total), INT64CONST(1));
		shared += reader->quota[i];
		if (largest < 0 || reader->quota[i] > reader->quota[largest])
			largest = i;
	}
	if (largest < 0)
		return;
	/* rounding up the small ones must not pass the limit; what is left over goes to the largest */
	reader->quota[largest] = Max(reader->quota[largest] + limit - shared, INT64CONST(1));
}

/* Takes into the batch what it may of the messages held of a partition. */
static void
take_share(StreamReader *reader, int32 partition)
{
	KafkaMessageBatch *held = reader->held[partition];
	int taken = held == NULL ? 0 : (int) Min(held->count, reader->quota[partition]);

	if (taken <= 0)
		return;
	reader->quota[partition] -= taken;
	reader->read_up_to[partition] = held->messages[taken - 1].offset + 1;
	reader->held_count -= taken;
	reader->held_bytes -= kafka_message_batch_take(held, reader->batch, taken);
}

void
batch_shares_hold(StreamReader *reader)
{
	KafkaMessageBatch *fetched = reader->fetched;

	while (fetched->count > 0)
	{
		int32 partition = fetched->messages[0].partition;
		int count = 1;

		while (count < fetched->count && fetched->messages[count].partition == partition)
			count++;
		if (reader->held[partition] == NULL)
		{
			MemoryContext old_context = MemoryContextSwitchTo(reader->context);

			reader->held[partition] = kafka_message_batch_create();
			MemoryContextSwitchTo(old_context);
		}
		reader->held_count += count;
		reader->held_bytes += kafka_message_batch_take(fetched, reader->held[partition], count);
		take_share(reader, partition);
	}
}

void
batch_shares_begin(StreamReader *reader)
{
	share_quota(reader);
	if (reader->held_count == 0)
		return;
	for (int i = 0; i < reader->checkpoint->count; i++)
		take_share(reader, i);
}

bool
batch_shares_left(const StreamReader *reader)
{
	for (int i = 0; i < reader->checkpoint->count; i++)
		if (reader->quota[i] > 0 && reader->quota_is_backlog[i])
			return true;
	return false;
}
