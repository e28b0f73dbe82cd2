/*-------------------------------------------------------------------------
 *
 * micro_batch.c
 *	  Run one micro-batch: rows and positions in one transaction.
 *
 * The one place where source, sink and checkpoint meet.  Which messages make
 * a batch is left to stream_reader.c, what becomes of an error in the end to
 * worker.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "micro_batch.h"

#include "access/xact.h"
#include "catalog.h"
#include "commands/trigger.h"
#include "error_class.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "progress.h"
#include "stream_query.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* What an attempt to write some of the messages came to. */
typedef struct Attempt
{
	ErrorData *error; /* NULL: committed */
	int failed_at;    /* index of the message being decoded at the error, or -1 */
	bool gone;        /* stream or extension does not exist any more */
} Attempt;

bool
micro_batch_begin_transaction(const Stream *stream)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (!catalog_exists())
	{
		CommitTransactionCommand();
		return false;
	}
	stream_lock(stream->stream_id, AccessShareLock);
	return true;
}

void
become_owner(const Stream *stream, OwnerIdentity *saved)
{
	GetUserIdAndSecContext(&saved->user_id, &saved->security_context);
	SetUserIdAndSecContext(stream->owner, saved->security_context |
	                                          SECURITY_LOCAL_USERID_CHANGE |
	                                          SECURITY_RESTRICTED_OPERATION);
}

void
restore_identity(const OwnerIdentity *saved)
{
	SetUserIdAndSecContext(saved->user_id, saved->security_context);
}

/*
 * What the messages [first, last) move.  The last part of a batch also takes
 * the partitions to where the reader has come without messages.
 */
static CheckpointMove *
gather_moves(const StreamRun *run, int first, int last, int *count)
{
	const StreamReader *reader = run->reader;
	const Checkpoint *checkpoint = reader->checkpoint;
	CheckpointMove *by_partition = palloc0(sizeof(CheckpointMove) * checkpoint->count);
	CheckpointMove *moves = palloc(sizeof(CheckpointMove) * checkpoint->count);

	for (int i = 0; i < checkpoint->count; i++)
	{
		by_partition[i].partition = i;
		by_partition[i].from_offset = checkpoint->positions[i].next_offset;
		by_partition[i].to_offset = checkpoint->positions[i].next_offset;
		by_partition[i].last_offset = -1;
		by_partition[i].last_message_ms = -1;
	}
	for (int i = first; i < last; i++)
	{
		const KafkaMessage *message = &reader->batch->messages[i];
		CheckpointMove *move = &by_partition[message->partition];

		move->to_offset = message->offset + 1;
		move->last_offset = message->offset;
		move->last_message_ms = message->timestamp_ms;
		move->messages++;
		move->bytes += message->key_length + message->value_length;
	}

	*count = 0;
	for (int i = 0; i < checkpoint->count; i++)
	{
		if (last == reader->batch->count)
			by_partition[i].to_offset = Max(by_partition[i].to_offset, reader->read_up_to[i]);
		if (by_partition[i].to_offset == by_partition[i].from_offset)
			continue;
		by_partition[i].high_watermark = stream_reader_high_watermark(run->reader, i);
		moves[(*count)++] = by_partition[i];
	}
	return moves;
}

/* After COMMIT: the memory's copy of the checkpoint, and the status. */
static void
report_batch(StreamRun *run, BatchProgress *progress, const CheckpointMove *moves, int count)
{
	BatchPartition *partitions = palloc(sizeof(BatchPartition) * Max(count, 1));

	for (int i = 0; i < count; i++)
	{
		const CheckpointMove *move = &moves[i];
		int64 high = move->high_watermark;

		run->reader->checkpoint->positions[move->partition].next_offset = move->to_offset;
		progress_set_partition(move->partition, move->to_offset, -1, high,
		                       move->last_message_ms);
		partitions[i].partition = move->partition;
		partitions[i].start_offset = move->from_offset;
		partitions[i].end_offset = move->to_offset;
		partitions[i].behind_latest = high < 0 ? -1 : Max(high - move->to_offset, 0);
		progress->input_rows += move->messages;
		progress->input_bytes += move->bytes;
	}
	progress->partition_count = count;
	progress_batch_committed(progress, partitions);
	run->last_batch_end = GetCurrentTimestamp();
}

static void
ensure_sink(StreamRun *run)
{
	MemoryContext old_context;

	if (run->sink != NULL && !append_sink_is_stale(run->sink))
		return;
	run->sink = NULL;
	MemoryContextReset(run->sink_context);
	old_context = MemoryContextSwitchTo(run->sink_context);
	run->sink = append_sink_create(run->stream, run->topic_table);
	MemoryContextSwitchTo(old_context);
}

/* One transaction for the messages [first, last). */
static void
write_messages(StreamRun *run, int first, int last, TopicScanBatch *scan)
{
	BatchProgress progress = {0};
	CheckpointMove *moves;
	int move_count;
	OwnerIdentity saved;
	MemoryContext transaction_context;
	instr_time started;
	instr_time executed;
	instr_time committed;

	progress.started_at = GetCurrentTimestamp();
	progress.batch_id = run->batch_id + 1;
	progress.decode_us = -1;
	progress.wait_us = run->last_batch_end == 0
	                       ? 0
	                       : Max(progress.started_at - run->last_batch_end, INT64CONST(0));
	INSTR_TIME_SET_CURRENT(started);

	/* needed after COMMIT */
	transaction_context = MemoryContextSwitchTo(run->batch_context);
	moves = gather_moves(run, first, last, &move_count);
	MemoryContextSwitchTo(transaction_context);

	if (last > first)
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		become_owner(run->stream, &saved);
		/* what is deferred would run at COMMIT, as the wrong user and without a message to blame */
		AfterTriggerSetState(makeNode(ConstraintsSetStmt));
		ensure_sink(run);
		stream_query_check_server_usage(run->topic_table);
		scan->topic_table = run->topic_table;
		scan->messages = run->reader->batch->messages + first;
		scan->count = last - first;
		scan->current = -1;
		scan->decode_us = 0;
		progress.output_rows = (int64) append_sink_write(run->sink, scan);
		progress.decode_us = scan->decode_us;
		restore_identity(&saved);
		PopActiveSnapshot();
	}
	checkpoint_advance(run->stream->name, run->topic, progress.batch_id, moves, move_count);
	progress.xid = U64FromFullTransactionId(GetTopFullTransactionId());
	INSTR_TIME_SET_CURRENT(executed);

	CommitTransactionCommand();
	INSTR_TIME_SET_CURRENT(committed);

	INSTR_TIME_SUBTRACT(committed, executed);
	INSTR_TIME_SUBTRACT(executed, started);
	progress.execute_us = (int64) INSTR_TIME_GET_MICROSEC(executed);
	progress.commit_us = (int64) INSTR_TIME_GET_MICROSEC(committed);
	run->batch_id = progress.batch_id;

	MemoryContextSwitchTo(run->batch_context);
	report_batch(run, &progress, moves, move_count);
	pgstat_report_stat(false);
}

/* Tries to commit the messages [first, last); an error is caught and returned. */
static Attempt
try_messages(StreamRun *run, int first, int last)
{
	Attempt attempt = {.failed_at = -1};
	TopicScanBatch scan = {0};
	MemoryContext old_context = CurrentMemoryContext;

	PG_TRY();
	{
		if (!micro_batch_begin_transaction(run->stream))
			attempt.gone = true;
		else
			write_messages(run, first, last, &scan);
	}
	PG_CATCH();
	{
		ErrorData *error;

		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(run->batch_context);
		error = CopyErrorData();
		FlushErrorState();
		topic_scan_set_batch(NULL);
		AbortCurrentTransaction();
		attempt.error = error;
		if (scan.decoding)
			attempt.failed_at = first + scan.current;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old_context);
	return attempt;
}

/* Names the one message that an error came from, where the decoder hasn't. */
static void
blame_message(const StreamRun *run, const KafkaMessage *message, ErrorData *error,
              bool decoding)
{
	MemoryContext old_context = MemoryContextSwitchTo(run->batch_context);

	if (!decoding)
		error->detail = psprintf("%s%sTopic \"%s\", partition %d, offset %lld.",
		                         error->detail ? error->detail : "", error->detail ? " " : "",
		                         run->topic, message->partition, (long long) message->offset);
	if (error->hint == NULL)
		error->hint = pstrdup(
		    "Correct the target table, then kafka.start_stream goes on at this message; "
		    "or start behind it with kafka.reset_stream.");
	MemoryContextSwitchTo(old_context);
}

bool
micro_batch_run(StreamRun *run)
{
	int first = 0;
	int last = run->reader->batch->count;

	/*
	 * [first, last) is what is tried next; the whole batch most of the time.
	 * After an error of a message the part is halved, first half first, until
	 * one message stands alone.
	 */
	for (;;)
	{
		Attempt attempt = try_messages(run, first, last);

		if (attempt.gone)
			return false;
		if (attempt.error == NULL)
		{
			if (last == run->reader->batch->count)
				break;
			first = last;
			last = run->reader->batch->count;
			continue;
		}
		if (classify_error(attempt.error) != ERROR_OF_MESSAGE || last == first)
			ReThrowError(attempt.error);
		if (last - first == 1)
		{
			blame_message(run, &run->reader->batch->messages[first], attempt.error,
			              attempt.failed_at >= 0);
			ReThrowError(attempt.error);
		}
		/* the decoder knows its message: all before that is good to go */
		if (attempt.failed_at > first)
			last = attempt.failed_at;
		else if (attempt.failed_at == first)
			last = first + 1;
		else
			last = first + (last - first) / 2;
		FreeErrorData(attempt.error);
	}
	kafka_message_batch_clear(run->reader->batch);
	MemoryContextReset(run->batch_context);
	return true;
}
