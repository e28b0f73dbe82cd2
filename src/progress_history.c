/*-------------------------------------------------------------------------
 *
 * progress_history.c
 *	  A stream's recent batches: records of variable size in a ring of bytes,
 *	  in shared memory; the oldest give way.
 *
 * A record is a BatchProgress and its BatchPartition array.  Locking is left
 * to the callers.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "progress_slots.h"

/* Copies between the ring, from position on, and linear memory. */
static void
ring_write(BatchHistory *history, int position, const void *source, int length)
{
	int first = Min(length, PROGRESS_HISTORY_BYTES - position);

	memcpy(history->ring + position, source, first);
	memcpy(history->ring, (const char *) source + first, length - first);
}

static void
ring_read(const BatchHistory *history, int position, void *destination, int length)
{
	int first = Min(length, PROGRESS_HISTORY_BYTES - position);

	memcpy(destination, history->ring + position, first);
	memcpy((char *) destination + first, history->ring, length - first);
}

static int
record_size(const BatchProgress *batch)
{
	return sizeof(BatchProgress) + batch->partition_count * sizeof(BatchPartition);
}

void
history_clear(BatchHistory *history)
{
	history->start = history->used = history->count = 0;
}

/*
 * Adds a batch.  One with so many partitions that it would fill the ring alone
 * is kept without them.
 */
void
history_append(BatchHistory *history, const BatchProgress *batch,
               const BatchPartition *partitions)
{
	BatchProgress record = *batch;
	int size;
	int position;

	if (record.partition_count >
	    (int) ((PROGRESS_HISTORY_BYTES - sizeof(BatchProgress)) / sizeof(BatchPartition)))
		record.partition_count = 0;
	size = record_size(&record);

	while (history->used + size > PROGRESS_HISTORY_BYTES)
	{
		BatchProgress oldest;
		int oldest_size;

		ring_read(history, history->start, &oldest, sizeof(oldest));
		oldest_size = record_size(&oldest);
		history->start = (history->start + oldest_size) % PROGRESS_HISTORY_BYTES;
		history->used -= oldest_size;
		history->count--;
	}

	position = (history->start + history->used) % PROGRESS_HISTORY_BYTES;
	ring_write(history, position, &record, sizeof(record));
	if (record.partition_count > 0)
		ring_write(history, (position + sizeof(record)) % PROGRESS_HISTORY_BYTES, partitions,
		           record.partition_count * sizeof(BatchPartition));
	history->used += size;
	history->count++;
}

/* Copies all records, oldest first, into history->used bytes at destination. */
void
history_copy(const BatchHistory *history, char *destination)
{
	ring_read(history, history->start, destination, history->used);
}

void
progress_next_batch(char **cursor, BatchProgress *batch, BatchPartition **partitions)
{
	memcpy(batch, *cursor, sizeof(*batch));
	*partitions = (BatchPartition *) (*cursor + sizeof(*batch));
	*cursor += record_size(batch);
}
