/*-------------------------------------------------------------------------
 *
 * micro_batch.c
 *	  Run one micro-batch: rows and positions in one transaction.
 *
 * The one place where source, sink and checkpoint meet.  Which messages make
 * a batch is left to stream_reader.c, what becomes of an error to
 * micro_batch_errors.c, and in the end to worker.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "micro_batch.h"

#include "batch_moves.h"
#include "batch_notice.h"
#include "careful_write.h"
#include "catalog.h"
#include "dead_letter.h"
#include "micro_batch_errors.h"
#include "pgstat.h"
#include "privileges.h"
#include "storage/lmgr.h"
#include "stream_guard.h"
#include "stream_lock.h"
#include "stream_trust.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

int64
micro_batch_next_id(const StreamRun *run)
{
	int workers = run->stream->workers;
	int64 next = run->batch_id + 1;

	return next + (run->reader->worker + workers - next % workers) % workers;
}

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
	/* what code of the batch sets, in its own functions or others', ends with it */
	saved->guc_nest_level = NewGUCNestLevel();
	stream_guard_begin(stream->owner);
}

void
restore_identity(const OwnerIdentity *saved)
{
	stream_guard_end();
	AtEOXact_GUC(false, saved->guc_nest_level);
	SetUserIdAndSecContext(saved->user_id, saved->security_context);
}

/* After COMMIT: the memory's copy of the checkpoint, and the status. */
static void
report_batch(StreamRun *run, const BatchProgress *progress, const BatchPartition *partitions,
             const CheckpointMove *moves)
{
	for (int i = 0; i < progress->partition_count; i++)
	{
		const CheckpointMove *move = &moves[i];

		PartitionPosition *position = &run->reader->checkpoint->positions[move->partition];

		position->next_offset = move->to_offset;
		position->state_rows = move->state_rows;
		if (move->last_offset >= 0)
		{
			position->last_offset = move->last_offset;
			position->last_message_ms = move->last_message_ms;
			position->leader_epoch = move->leader_epoch;
			if (position->first_offset < 0 && move->last_message_ms >= 0)
			{
				position->first_offset = move->last_offset;
				position->first_message_ms = move->last_message_ms;
			}
		}
		progress_set_partition(move->partition, move->to_offset, -1, move->high_watermark,
		                       move->last_message_ms);
	}
	progress_batch_committed(progress, partitions);
	run->last_batch_end = GetCurrentTimestamp();
}

static void
ensure_sink(StreamRun *run)
{
	MemoryContext old_context;

	if (run->sink != NULL && !run->sink->is_stale(run->sink))
		return;
	run->sink = NULL;
	MemoryContextReset(run->sink_context);
	old_context = MemoryContextSwitchTo(run->sink_context);
	run->sink = sink_create(run->stream, run->topic_table);
	MemoryContextSwitchTo(old_context);
}

/* Dead letters of the messages [first, last). */
static void
store_dead_letters(const StreamRun *run, int first, int last)
{
	if (run->stream->on_error != ON_ERROR_DEAD_LETTER || run->rejects->count == 0)
		return;
	for (int i = first; i < last; i++)
		if (run->rejects->excluded[i])
			dead_letter_store(run->stream->name, run->topic, &run->reader->batch->messages[i],
			                  run->rejects->errors[i]);
}

/*
 * Waits for the lock on the target before there is a snapshot: somebody may
 * hold the table for hours, and no vacuum anywhere shall wait with us.
 */
static void
lock_target(const Stream *stream)
{
	if (!OidIsValid(stream->target))
		return;
	InvalidateCatalogSnapshot();
	LockRelationOid(stream->target, RowExclusiveLock);
}

/*
 * max_errors is the stream's: when other workers may have rejected messages meanwhile, looks
 * whether those of [first, last) may still be.  From here to COMMIT no other worker does.
 */
static bool
within_error_budget(StreamRun *run, int first, int last)
{
	const Stream *stream = run->stream;
	int rejected = 0;

	if (stream->max_errors == 0 || stream->workers == 1)
		return true;
	for (int i = first; i < last; i++)
		if (run->rejects->excluded[i])
			rejected++;
	if (rejected == 0)
		return true;
	stream_lock_error_count(stream->stream_id);
	run->reader->checkpoint->error_count = checkpoint_error_count(stream->name, run->topic);
	return run->reader->checkpoint->error_count + rejected <= stream->max_errors;
}

/*
 * Has the sink write the messages [first, last) as the stream's owner; returns the index up to which it
 * has: less than last only in a careful run.
 */
static int
run_sink(StreamRun *run, SinkBatch *batch, int first, int last)
{
	TopicScanBatch *scan = batch->messages;
	OwnerIdentity saved;
	int end = last;

	lock_target(run->stream);
	/* not waited for: whoever drops the extension may want the target as well */
	if (!catalog_lock(false))
		ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
		                errmsg("extension \"kafka_ingest\" is being dropped"),
		                errdetail("The batch is rolled back, and tried again should the "
		                          "extension stay.")));
	PushActiveSnapshot(GetTransactionSnapshot());
	become_owner(run->stream, &saved);
	/* what is deferred would run at COMMIT, as the wrong user and without a message to blame */
	AfterTriggerSetState(makeNode(ConstraintsSetStmt));
	stream_trust_check(run->stream);
	ensure_sink(run);
	privileges_check_server(run->topic_table);
	scan->topic_table = run->topic_table;
	scan->messages = run->reader->batch->messages + first;
	scan->count = last - first;
	scan->excluded = run->rejects->excluded + first;
	scan->current = -1;
	scan->decode_us = 0;
	if (run->careful && run->sink->accepts_parts && rejects_allow_more(run->rejects))
	{
		MemoryContext transaction_context = MemoryContextSwitchTo(run->batch_context);

		end = write_carefully(run->sink, batch, run->rejects, run->topic,
		                      run->reader->batch->messages, first, last);
		MemoryContextSwitchTo(transaction_context);
	}
	else
		run->sink->write(run->sink, batch);
	restore_identity(&saved);
	PopActiveSnapshot();
	return end;
}

/*
 * One transaction for the messages [first, last), or the first of them; returns the end.  -1, and nothing is
 * committed: they have too many errors.
 */
static int
write_messages(StreamRun *run, int first, int last, TopicScanBatch *scan)
{
	BatchProgress progress = {0};
	SinkBatch batch = {.messages = scan};
	CheckpointMove *moves;
	BatchPartition *partitions;
	int move_count;
	MemoryContext transaction_context;
	instr_time started;
	instr_time executed;
	instr_time committed;

	progress.started_at = GetCurrentTimestamp();
	progress.batch_id = micro_batch_next_id(run);
	progress.decode_us = -1;
	batch.batch_id = progress.batch_id;
	progress.wait_us = run->last_batch_end == 0
	                       ? 0
	                       : Max(progress.started_at - run->last_batch_end, INT64CONST(0));
	INSTR_TIME_SET_CURRENT(started);

	if (last > first || run->without_data)
	{
		last = run_sink(run, &batch, first, last);
		if (last == first && !run->without_data)
		{
			/* a careful run that could not take a step */
			CommitTransactionCommand();
			return last;
		}
		progress.output_rows = batch.output_rows;
		progress.late_rows = batch.late_rows;
		progress.watermark = batch.watermark;
		progress.oldest_event = batch.oldest;
		progress.newest_event = batch.newest;
		progress.decode_us = scan->decode_us;
	}

	/* needed after COMMIT */
	transaction_context = MemoryContextSwitchTo(run->batch_context);
	moves = batch_moves_gather(run, first, last, &move_count);
	partitions = batch_moves_describe(&progress, moves, move_count);
	MemoryContextSwitchTo(transaction_context);

	if (!within_error_budget(run, first, last))
		return -1;
	store_dead_letters(run, first, last);
	if (move_count > 0)
		moves[0].state_rows_added = batch.state_rows_added;
	checkpoint_advance(run->stream->name, run->topic, progress.batch_id, moves, move_count);
	progress.state_rows =
	    batch.keeps_state ? batch_moves_state_rows(run->reader->checkpoint, moves, move_count)
	                      : -1;
	if (run->stream->notify != NULL)
		batch_notice_queue(run->stream->notify, run->stream->name, &progress, partitions);
	progress.xid = U64FromFullTransactionId(GetTopFullTransactionId());
	INSTR_TIME_SET_CURRENT(executed);

	progress_batch_commits();
	CommitTransactionCommand();
	INSTR_TIME_SET_CURRENT(committed);

	INSTR_TIME_SUBTRACT(committed, executed);
	INSTR_TIME_SUBTRACT(executed, started);
	progress.execute_us = (int64) INSTR_TIME_GET_MICROSEC(executed);
	progress.commit_us = (int64) INSTR_TIME_GET_MICROSEC(committed);
	run->batch_id = progress.batch_id;
	run->progressed = true;

	MemoryContextSwitchTo(run->batch_context);
	report_batch(run, &progress, partitions, moves);
	pgstat_report_stat(false);
	return last;
}

/* Tries to commit the messages [first, last); an error is caught and returned. */
static BatchAttempt
try_messages(StreamRun *run, int first, int last)
{
	BatchAttempt attempt = {.failed_at = -1, .suspect = -1};
	TopicScanBatch scan = {.current = -1};
	MemoryContext old_context = CurrentMemoryContext;

	PG_TRY();
	{
		if (!micro_batch_begin_transaction(run->stream))
			attempt.gone = true;
		else
		{
			attempt.end = write_messages(run, first, last, &scan);
			if (attempt.end < 0)
			{
				AbortCurrentTransaction();
				attempt.over_budget = true;
			}
		}
	}
	PG_CATCH();
	{
		ErrorData *error;

		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(run->batch_context);
		error = CopyErrorData();
		topic_scan_keep_columns(&scan);
		attempt.scan = scan;
		FlushErrorState();
		topic_scan_set_batch(NULL);
		AbortCurrentTransaction();
		attempt.error = error;
		if (scan.current >= 0)
			attempt.suspect = first + scan.current;
		if (scan.decoding)
			attempt.failed_at = attempt.suspect;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old_context);
	return attempt;
}

bool
micro_batch_run(StreamRun *run)
{
	MemoryContext old_context = MemoryContextSwitchTo(run->batch_context);
	int count = run->reader->batch->count;
	BadMessageSearch search;

	run->rejects = micro_batch_rejects(run);
	MemoryContextSwitchTo(old_context);

	/* the whole batch at once, most of the time */
	search_begin(&search, 0, count);
	for (;;)
	{
		BatchAttempt attempt = try_messages(run, search.first, search.end);

		if (attempt.gone)
			return false;
		if (attempt.over_budget)
		{
			/* again, without the rejects, and with what is left of the budget */
			MemoryContextSwitchTo(run->batch_context);
			run->rejects = micro_batch_rejects(run);
			MemoryContextSwitchTo(old_context);
			search_begin(&search, search.first, count);
		}
		else if (attempt.error == NULL)
		{
			if (attempt.end == count)
				break;
			if (attempt.end == search.end)
				search_passed(&search, count, count);
			else if (attempt.end > search.first)
				search_begin(&search, attempt.end, count);
			else
			{
				/* no step further: the message is tried in a transaction of its own */
				run->careful = false;
				search_begin(&search, search.first, search.first + 1);
			}
		}
		else
			micro_batch_handle_error(run, &attempt, &search);
	}
	run->careful = run->careful && run->rejects->count > 0;
	run->reader->checkpoint->error_count += run->rejects->count;
	kafka_message_batch_clear(run->reader->batch);
	MemoryContextReset(run->batch_context);
	return true;
}

bool
micro_batch_run_without_data(StreamRun *run)
{
	bool exists;

	Assert(run->reader->batch->count == 0);
	run->without_data = true;
	exists = micro_batch_run(run);
	run->without_data = false;
	return exists;
}
