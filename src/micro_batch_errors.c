/*-------------------------------------------------------------------------
 *
 * micro_batch_errors.c
 *	  What becomes of a micro-batch when an attempt to write it fails.
 *
 * Finds the messages to blame with rejects.c, and says what can be done about an error
 * that remains.  Whether the worker tries again then is left to worker_errors.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "micro_batch_errors.h"

#include "access/xact.h"
#include "error_class.h"
#include "stream_trust.h"
#include "utils/snapmgr.h"

/* How many messages of this batch may be rejected. */
static int64
allowed_rejects(const StreamRun *run)
{
	const Stream *stream = run->stream;
	int64 allowed = PG_INT64_MAX;

	if (stream->on_error == ON_ERROR_STOP)
		return 0;
	if (stream->max_errors_per_batch > 0)
		allowed = stream->max_errors_per_batch;
	if (stream->max_errors > 0)
		allowed =
		    Min(allowed, Max(stream->max_errors - run->reader->checkpoint->error_count, 0));
	return allowed;
}

/* Rejects what can't be decoded from "first" on; returns the number. */
static int
reject_undecodable(StreamRun *run, const TopicScanBatch *scan, int first)
{
	MemoryContext old_context = MemoryContextSwitchTo(run->batch_context);
	OwnerIdentity saved;
	int rejected = 0;

	if (micro_batch_begin_transaction(run->stream))
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		become_owner(run->stream, &saved);
		MemoryContextSwitchTo(run->batch_context);
		stream_trust_check(run->stream);
		rejected = rejects_add_undecodable(run->rejects, scan, run->reader->batch->messages,
		                                   first, run->reader->batch->count);
		restore_identity(&saved);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	MemoryContextSwitchTo(old_context);
	return rejected;
}

/* Raises the error of a message that may not be rejected, with what can be done about it. */
pg_noreturn static void
stop_at_bad_message(const StreamRun *run, ErrorData *error)
{
	MemoryContext old_context = MemoryContextSwitchTo(run->batch_context);
	const Stream *stream = run->stream;

	if (stream->on_error == ON_ERROR_STOP)
		add_to_error_hint(error, "Then kafka.start_stream goes on at this message; or leave it "
		                         "out with kafka.skip_message, or set on_error.");
	else
	{
		bool batch_is_full = stream->max_errors_per_batch > 0 &&
		                     run->rejects->count >= stream->max_errors_per_batch;

		error->hint = psprintf("The stream has used up %s (%lld). Correct the cause, or raise "
		                       "the limit with kafka.alter_stream, then use "
		                       "kafka.start_stream.",
		                       batch_is_full ? "max_errors_per_batch" : "max_errors",
		                       (long long) (batch_is_full ? stream->max_errors_per_batch
		                                                  : stream->max_errors));
	}
	MemoryContextSwitchTo(old_context);
	ReThrowError(error);
}

/* As micro_batch_handle_error(), for an error that one of the messages is to blame for. */
static void
handle_bad_message(StreamRun *run, const BatchAttempt *attempt, BadMessageSearch *search)
{
	int first = search->first;
	const KafkaMessage *messages = run->reader->batch->messages;
	Rejects *rejects = run->rejects;

	if (attempt->failed_at >= 0 && rejects_allow_more(rejects) &&
	    reject_undecodable(run, &attempt->scan, attempt->failed_at) > 0)
		return;

	if (search->end - first == 1)
	{
		/* without the message it failed as well: not its fault alone */
		if (rejects->excluded[first])
			ReThrowError(attempt->error);
		if (attempt->failed_at < 0)
		{
			MemoryContext old_context = MemoryContextSwitchTo(run->batch_context);

			blame_message(run->topic, &messages[first], attempt->error);
			MemoryContextSwitchTo(old_context);
		}
		if (!rejects_allow_more(rejects))
			stop_at_bad_message(run, attempt->error);
		rejects_add(rejects, first, attempt->error);
		search_begin(search, first, run->reader->batch->count);
	}
	else if (run->sink != NULL && run->sink->accepts_parts && rejects_allow_more(rejects) &&
	         !run->careful)
		run->careful = true;
	else
		search_failed(search, attempt->suspect);
}

/*
 * An error that stops the stream or passes, whatever on_error says.  Where code of the user's has raised it, or the
 * executor was at a message when it stopped the stream, what is before the message is committed first: then the
 * stream stands at that message, and kafka.skip_message can leave it out.  Other errors of the environment (locks,
 * memory) seldom have to do with the message, and trying parts of the batch would meet them again and again.
 */
static void
handle_other_error(const StreamRun *run, const BatchAttempt *attempt, BadMessageSearch *search,
                   bool passes)
{
	int count = search->end - search->first; /* 0: the watermark has closed windows */
	bool raised_by_code = error_is_raised_by_code(attempt->error);
	int at = attempt->suspect;

	if ((at > search->first && (raised_by_code || !passes)) ||
	    (at < 0 && count > 1 && raised_by_code))
	{
		search_failed(search, at);
		return;
	}
	if (at < 0 && count == 1)
		at = search->first;
	if (at >= 0)
	{
		MemoryContext old_context = MemoryContextSwitchTo(run->batch_context);

		mention_message(run->topic, &run->reader->batch->messages[at], attempt->failed_at >= 0,
		                passes, attempt->error);
		MemoryContextSwitchTo(old_context);
	}
	ReThrowError(attempt->error);
}

Rejects *
micro_batch_rejects(const StreamRun *run)
{
	return rejects_create(run->reader->batch->count, allowed_rejects(run));
}

void
micro_batch_handle_error(StreamRun *run, const BatchAttempt *attempt, BadMessageSearch *search)
{
	ErrorClass class = attempt->failed_at >= 0 ? classify_decoding_error(attempt->error)
	                                           : classify_error(attempt->error);

	if (class == ERROR_OF_MESSAGE && search->end > search->first)
		handle_bad_message(run, attempt, search);
	else if (class == ERROR_OF_MESSAGE)
		ReThrowError(attempt->error);
	else
		handle_other_error(run, attempt, search, class == ERROR_OF_ENVIRONMENT);
}
