/*-------------------------------------------------------------------------
 *
 * batch_moves.c
 *	  How far a batch takes each partition.
 *
 * Counted from the batch's messages, for the checkpoint and for the batch's progress.  Writing either is
 * left to micro_batch.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "batch_moves.h"

CheckpointMove *
batch_moves_gather(const StreamRun *run, int first, int last, int *count)
{
	const StreamReader *reader = run->reader;
	const Checkpoint *checkpoint = reader->checkpoint;
	CheckpointMove *by_partition = palloc0(sizeof(CheckpointMove) * checkpoint->count);
	CheckpointMove *moves = palloc(sizeof(CheckpointMove) * checkpoint->count);
	const KafkaMessage **last_message = palloc0(sizeof(KafkaMessage *) * checkpoint->count);

	for (int i = 0; i < checkpoint->count; i++)
	{
		by_partition[i].partition = i;
		by_partition[i].from_offset = checkpoint->positions[i].next_offset;
		by_partition[i].to_offset = checkpoint->positions[i].next_offset;
		by_partition[i].last_offset = -1;
		by_partition[i].last_message_ms = -1;
		by_partition[i].first_offset = checkpoint->positions[i].first_offset;
		by_partition[i].leader_epoch = -1;
	}
	for (int i = first; i < last; i++)
	{
		const KafkaMessage *message = &reader->batch->messages[i];
		CheckpointMove *move = &by_partition[message->partition];

		move->to_offset = message->offset + 1;
		move->last_offset = message->offset;
		move->last_message_ms = message->timestamp_ms;
		last_message[message->partition] = message;
		move->messages++;
		if (run->rejects->excluded[i])
			move->errors++;
		move->bytes += message->key_length + message->value_length;
	}

	*count = 0;
	for (int i = 0; i < checkpoint->count; i++)
	{
		if (last == reader->batch->count)
			by_partition[i].to_offset = Max(by_partition[i].to_offset, reader->read_up_to[i]);
		/* without data there is a move to nowhere: nobody else may have been faster */
		if (by_partition[i].to_offset == by_partition[i].from_offset &&
		    !(run->without_data && i == 0))
			continue;
		if (last_message[i] != NULL)
			by_partition[i].leader_epoch = kafka_message_leader_epoch(last_message[i]);
		by_partition[i].high_watermark = stream_reader_high_watermark(run->reader, i);
		moves[(*count)++] = by_partition[i];
	}
	return moves;
}

BatchPartition *
batch_moves_describe(BatchProgress *progress, const CheckpointMove *moves, int count)
{
	BatchPartition *partitions = palloc(sizeof(BatchPartition) * Max(count, 1));

	for (int i = 0; i < count; i++)
	{
		const CheckpointMove *move = &moves[i];

		partitions[i].partition = move->partition;
		partitions[i].start_offset = move->from_offset;
		partitions[i].end_offset = move->to_offset;
		partitions[i].behind_latest =
		    move->high_watermark < 0 ? -1 : Max(move->high_watermark - move->to_offset, 0);
		progress->input_rows += move->messages;
		progress->input_bytes += move->bytes;
	}
	progress->partition_count = count;
	return partitions;
}

int64
batch_moves_state_rows(const Checkpoint *checkpoint, const CheckpointMove *moves, int count)
{
	int64 rows = 0;

	for (int i = 0; i < checkpoint->count; i++)
		rows += checkpoint->positions[i].state_rows;
	for (int i = 0; i < count; i++)
		rows += moves[i].state_rows - checkpoint->positions[moves[i].partition].state_rows;
	return rows;
}
