/*-------------------------------------------------------------------------
 *
 * worker_errors.c
 *	  What a worker does about an error: again at once, again after a pause, or never.
 *
 * What an error means by itself is in error_class.c; here is what counts with those before it.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "worker_errors.h"

#include "catalog.h"
#include "common/pg_prng.h"
#include "data_loss.h"
#include "error_class.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "progress.h"
#include "storage/latch.h"
#include "stream_failure.h"
#include "stream_lock.h"
#include "utils/timestamp.h"

#define BACKOFF_FIRST_MS 1000

/* errors in a row that somebody must act on, before the stream gives up */
#define SURPRISES_BELIEVED 2

/* shown as a wait event */
static uint32 wait_for_retry;

static int failures = 0;    /* in a row */
static int surprises = 0;   /* in a row, that somebody must act on */
static int losses_seen = 0; /* in a row, without a good start between them */

void
worker_errors_define(void)
{
	wait_for_retry = WaitEventExtensionNew("KafkaIngestRetry");
}

void
worker_errors_started(void)
{
	losses_seen = 0;
}

void
worker_errors_progressed(void)
{
	failures = 0;
	surprises = 0;
}

bool
worker_errors_loss_confirmed(void)
{
	return losses_seen >= SURPRISES_BELIEVED;
}

/* Sleeps until the next attempt; true when the worker shall end. */
static bool
back_off(const ErrorData *error)
{
	int64 delay_ms = BACKOFF_FIRST_MS;
	TimestampTz retry_at;

	for (int i = 1; i < failures && delay_ms < progress_max_restart_delay * INT64CONST(1000);
	     i++)
		delay_ms *= 2;
	delay_ms = Min(delay_ms, progress_max_restart_delay * INT64CONST(1000));
	delay_ms = (int64) (delay_ms * (0.75 + 0.5 * pg_prng_double(&pg_global_prng_state)));
	retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay_ms);
	progress_set_backing_off(error, retry_at);
	pgstat_report_activity(STATE_IDLE, "backing off");

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();

		CHECK_FOR_INTERRUPTS();
		if (progress_stop_requested())
			return true;
		if (now >= retry_at || progress_look_again())
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
		                 TimestampDifferenceMilliseconds(now, retry_at) + 1, wait_for_retry);
		ResetLatch(MyLatch);
	}
}

/*
 * Says what to do about errors that say it themselves only in a session.  A name that isn't found is most
 * often one that a trigger or function takes from a search_path.
 */
static void
explain_error(ErrorData *error)
{
	if (error->hint == NULL && error->context != NULL &&
	    (error->sqlerrcode == ERRCODE_UNDEFINED_TABLE ||
	     error->sqlerrcode == ERRCODE_UNDEFINED_FUNCTION ||
	     error->sqlerrcode == ERRCODE_UNDEFINED_OBJECT))
		error->hint =
		    pstrdup("Workers run with an empty search_path: qualify the names in triggers and "
		            "functions, or give these a SET search_path.");

	if (error->hint == NULL && error->sqlerrcode == ERRCODE_INVALID_TRANSACTION_TERMINATION)
		error->hint =
		    pstrdup("A batch and its offsets commit together: leave COMMIT and ROLLBACK "
		            "out of the procedure of foreach_batch.");

	/* no right to grant would help: it is where the code runs */
	if (error->hint == NULL && error->message_id != NULL &&
	    strstr(error->message_id, "security-restricted operation") != NULL)
		error->hint =
		    pstrdup("This can't be done in a batch, whoever owns the stream: leave it "
		            "out of procedures, triggers and functions.");

	/* a row that row security refuses has the same SQLSTATE, and a hint that says it already */
	if (error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE &&
	    (error->hint == NULL || strstr(error->hint, "kafka.start_stream") == NULL))
		error->hint = psprintf("%s Then kafka.start_stream goes on.",
		                       error->hint != NULL ? error->hint
		                                           : "The stream runs as its owner: grant that "
		                                             "role what is missing.");
}

/* The stream is failed from now on, for the reason given, and its other workers end. */
static void
give_up(int64 stream_id, ErrorData *error)
{
	explain_error(error);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (catalog_exists())
	{
		stream_lock(stream_id, AccessShareLock);
		stream_record_failure(stream_id, error);
	}
	CommitTransactionCommand();
	progress_tell_workers(stream_id);
}

ErrorAnswer
worker_errors_answer(int64 stream_id, ErrorData *error)
{
	ErrorClass class = classify_error(error);
	bool loss = data_loss_raised(error);

	failures++;
	surprises = class == ERROR_OF_DEFINITION ? surprises + 1 : 0;
	losses_seen = loss ? losses_seen + 1 : 0;
	/*
	 * What the stream is defined on may change in mid-run, and a broker that
	 * has just started may not know a topic yet: what is seen at once and after a
	 * pause from a fresh start is true.  For a loss only having seen the loss counts.
	 */
	if (class == ERROR_OF_MESSAGE ||
	    (surprises > SURPRISES_BELIEVED && (!loss || losses_seen > SURPRISES_BELIEVED)))
	{
		give_up(stream_id, error);
		return ERROR_GIVEN_UP;
	}
	if (surprises != 1 && back_off(error))
		return ERROR_STOPPED;
	return ERROR_TRY_AGAIN;
}
