/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The process that runs a stream, or its share of the partitions.
 *
 * Has the stream opened by worker_open.c, waits for messages without a transaction, has
 * micro_batch.c write them, and asks worker_errors.c about errors.  Everything it
 * knows is in the catalog: after an error that may pass it throws all away
 * and begins anew.  When workers start is left to launcher.c.  The workers of one
 * stream share nothing but the catalog: each has its own partitions and batches.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "worker.h"

#include "catalog.h"
#include "launcher.h"
#include "micro_batch.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "progress.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "stream_lock.h"
#include "tcop/tcopprot.h"
#include "utils/timestamp.h"
#include "worker_errors.h"
#include "worker_open.h"

/* how long to wait for a sign of life from a cluster in trouble */
#define REACHABLE_TIMEOUT_MS 500

/* how often a stream to which nothing comes says where Kafka is: behind an open transaction, that moves on */
#define REPORT_MS 5000

int max_batch_messages = 1000000;
int max_batch_kilobytes = 65536;
static int metadata_refresh_interval = 30;

/* shown as a wait event */
static uint32 wait_for_messages;

/* for the error context */
static StreamRun *current_run = NULL;

typedef enum RunOutcome
{
	RUN_STOPPED, /* asked to: whoever asked knows what comes next */
	RUN_FINISHED, /* nothing to run any more: stopped, failed, dropped, available_now at its end */
	RUN_RELOAD    /* something has changed: open again */
} RunOutcome;

void
worker_define_settings(void)
{
	DefineCustomIntVariable("kafka_ingest.max_batch_messages",
	                        "Most messages that a micro-batch takes.", NULL,
	                        &max_batch_messages, 1000000, 1, 10000000, PGC_SIGHUP, 0, NULL,
	                        NULL, NULL);
	DefineCustomIntVariable("kafka_ingest.max_batch_size",
	                        "Bytes of messages after which a micro-batch is full.", NULL,
	                        &max_batch_kilobytes, 65536, 1, MAX_KILOBYTES, PGC_SIGHUP,
	                        GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("kafka_ingest.metadata_refresh_interval",
	                        "Time between looks for new partitions and dropped streams.", NULL,
	                        &metadata_refresh_interval, 30, 1, 86400, PGC_SIGHUP, GUC_UNIT_S,
	                        NULL, NULL, NULL);
}

static void
worker_error_context(void *argument)
{
	if (current_run == NULL || current_run->stream == NULL)
		return;
	if (IsTransactionState() && current_run->reader != NULL)
		errcontext("kafka stream \"%s\", batch %lld", current_run->stream->name,
		           (long long) micro_batch_next_id(current_run));
	else
		errcontext("kafka stream \"%s\"", current_run->stream->name);
}

/* --- running --- */

/*
 * Looks at what changes rarely: the stream's existence, and new partitions.
 * The empty transaction takes in what other sessions have changed.
 */
static bool
refresh(StreamRun *run)
{
	MemoryContext run_context = CurrentMemoryContext;
	bool exists;

	if (!micro_batch_begin_transaction(run->stream))
		return false;
	exists = stream_load_by_id(run->stream->stream_id) != NULL;
	CommitTransactionCommand();
	MemoryContextSwitchTo(run_context);
	if (!exists)
		return false;
	/* on an idle topic no message tells that the broker is back */
	if (run->reader->in_trouble &&
	    !kafka_consumer_reachable(run->reader->consumer, REACHABLE_TIMEOUT_MS))
		return true;
	run->reader->in_trouble = false;

	stream_reader_count_partitions(run->reader);
	return worker_take_up_new_partitions(run);
}

/*
 * available_now: this worker is done.  Whose commit was the last stops the stream in the
 * catalog, unless it was changed meanwhile.
 */
static void
finish_available_now(StreamRun *run)
{
	const Stream *stored;
	bool at_end = false;

	if (!micro_batch_begin_transaction(run->stream))
		return;
	stored = stream_load_by_id(run->stream->stream_id);
	if (stored != NULL && !stored->failed)
		at_end = checkpoint_at_end(run->stream->name, run->topic);
	if (at_end)
		stream_set_enabled(run->stream->stream_id, false);
	CommitTransactionCommand();
	if (!at_end)
		return;
	ereport(LOG, (errmsg("kafka stream \"%s\" has processed all that was available",
	                     run->stream->name)));
}

/* The connection's trouble as an error that users see in the status. */
static void
report_trouble(const StreamRun *run)
{
	ErrorData error = {0};

	error.elevel = WARNING;
	error.sqlerrcode = run->reader->trouble.type == KAFKA_EVENT_UNAUTHORIZED
	                       ? ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION
	                       : ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION;
	error.message =
	    psprintf("could not read topic \"%s\": %s", run->topic, run->reader->trouble.message);
	error.hint = "The worker goes on by itself when the cluster answers again.";
	progress_set_backing_off(&error, 0);
	ereport(LOG, (errcode(error.sqlerrcode),
	              errmsg("kafka stream \"%s\": %s", run->stream->name, error.message)));
	pfree(error.message);
}

static void
set_state(StreamState state)
{
	static const char *const activity[] = {"starting", "processing a batch",
	                                       "waiting for messages", "backing off"};

	progress_set_state(state);
	if (state == STREAM_IDLE)
		pgstat_report_stat(true); /* nothing may come for long */
	if (state == STREAM_RUNNING)
		pgstat_report_activity(STATE_RUNNING, activity[state]);
	else
		pgstat_report_activity(STATE_IDLE, activity[state]);
}

/* Processes batches until something ends it; errors come out as such. */
static RunOutcome
run_stream(int64 stream_id, int worker)
{
	StreamRun *run = palloc0(sizeof(StreamRun));
	StreamReader *reader;
	TimestampTz next_refresh;
	TimestampTz next_trigger = 0;
	bool reported_trouble = false;

	current_run = run;
	switch (worker_open_stream(run, stream_id, worker, worker_errors_loss_confirmed()))
	{
		case OPEN_NOTHING:
			return RUN_FINISHED;
		case OPEN_AGAIN:
			return RUN_RELOAD;
		case OPEN_RUNNING:
			worker_errors_started();
			break;
	}
	reader = run->reader;
	/* until something is known of what there is to read: an error may be about to come again */
	set_state(STREAM_STARTING);
	next_refresh =
	    TimestampTzPlusMilliseconds(GetCurrentTimestamp(), metadata_refresh_interval * 1000L);

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz wake_up = Min(next_refresh, TimestampTzPlusMilliseconds(now, REPORT_MS));

		CHECK_FOR_INTERRUPTS();
		if (progress_stop_requested())
			return RUN_STOPPED;
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (worker_connection_changed() || progress_look_again())
			return RUN_RELOAD;

		if (now >= next_refresh)
		{
			if (!refresh(run))
				return RUN_FINISHED;
			now = GetCurrentTimestamp();
			next_refresh = TimestampTzPlusMilliseconds(
			    now, (reader->in_trouble ? 1 : metadata_refresh_interval) * INT64CONST(1000));
			stream_reader_report(reader);
			continue;
		}

		if (run->stream->trigger == TRIGGER_AVAILABLE_NOW && stream_reader_at_end(reader))
		{
			if (run->sink->wants_batch_without_data != NULL &&
			    run->sink->wants_batch_without_data(run->sink) &&
			    !micro_batch_run_without_data(run))
				return RUN_FINISHED;
			finish_available_now(run);
			return RUN_FINISHED;
		}

		if (now >= next_trigger)
		{
			bool gathered = stream_reader_gather(reader);

			wake_up = Min(wake_up, reader->look_again_at);
			if (reader->must_reopen)
				return RUN_RELOAD;
			if (gathered)
			{
				/* to gather may take a while: the cluster may have been asked about the topic */
				if (run->stream->trigger_interval_ms > 0)
					now = GetCurrentTimestamp();
				set_state(STREAM_RUNNING);
				if (!micro_batch_run(run))
					return RUN_FINISHED;
				reported_trouble = false;
				next_trigger = now + run->stream->trigger_interval_ms * INT64CONST(1000);
				continue;
			}
			if (stream_reader_caught_up(reader) &&
			    run->sink->wants_batch_without_data != NULL &&
			    run->sink->wants_batch_without_data(run->sink))
			{
				set_state(STREAM_RUNNING);
				if (!micro_batch_run_without_data(run))
					return RUN_FINISHED;
				continue;
			}
			if (reader->in_trouble)
			{
				/* look soon whether server or user mapping has been mended */
				if (!reported_trouble)
				{
					next_refresh = TimestampTzPlusMilliseconds(now, 1000);
					report_trouble(run);
				}
				reported_trouble = true;
			}
			else
			{
				reported_trouble = false;
				stream_reader_report(reader);
			}
		}
		else
			wake_up = Min(wake_up, next_trigger);

		if (!reader->in_trouble && (run->progressed || stream_reader_has_seen_ends(reader)))
			set_state(STREAM_IDLE);
		kafka_consumer_wait(reader->consumer,
		                    Max(TimestampDifferenceMilliseconds(now, wake_up), 0) + 1,
		                    wait_for_messages);
	}
}

static void
initialize_process(int slot_index, const StreamWorkerArguments *arguments)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	(void) progress_attach_worker(slot_index, arguments->generation);
	BackgroundWorkerInitializeConnectionByOid(arguments->database_id, InvalidOid, 0);

	wait_for_messages = WaitEventExtensionNew("KafkaIngestMessages");
	worker_errors_define();

	/* nothing of the database's or anybody's settings may change what a name means */
	SetConfigOption("search_path", "", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET,
	                PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("session_replication_role", "origin", PGC_SUSET, PGC_S_OVERRIDE);

	worker_watch_connection();
}

void
kafka_stream_worker_main(Datum main_arg)
{
	StreamWorkerArguments arguments;
	MemoryContext run_context;
	ErrorContextCallback context_callback;
	RunOutcome volatile outcome = RUN_RELOAD;

	memcpy(&arguments, MyBgworkerEntry->bgw_extra, sizeof(arguments));
	initialize_process(DatumGetInt32(main_arg), &arguments);

	StartTransactionCommand();
	if (catalog_exists() && !stream_try_lock_worker(arguments.stream_id, arguments.worker))
	{
		ereport(LOG, (errmsg("another process is worker %d of kafka stream %lld already",
		                     arguments.worker, (long long) arguments.stream_id)));
		proc_exit(1);
	}
	CommitTransactionCommand();

	run_context =
	    AllocSetContextCreate(TopMemoryContext, "kafka stream", ALLOCSET_DEFAULT_SIZES);
	context_callback.callback = worker_error_context;
	context_callback.arg = NULL;
	context_callback.previous = error_context_stack;
	error_context_stack = &context_callback;

	while (outcome == RUN_RELOAD)
	{
		ErrorData *volatile error = NULL;

		MemoryContextSwitchTo(run_context);
		PG_TRY();
		{
			outcome = run_stream(arguments.stream_id, arguments.worker);
		}
		PG_CATCH();
		{
			HOLD_INTERRUPTS();
			MemoryContextSwitchTo(TopMemoryContext);
			error = CopyErrorData();
			EmitErrorReport();
			FlushErrorState();
			AbortCurrentTransaction();
			RESUME_INTERRUPTS();
		}
		PG_END_TRY();

		if (current_run != NULL && current_run->progressed)
			worker_errors_progressed();
		/* messages, then the consumer, are let go by the context's callbacks */
		current_run = NULL;
		MemoryContextSwitchTo(TopMemoryContext);
		MemoryContextReset(run_context);
		if (error == NULL)
		{
			worker_errors_started();
			continue;
		}

		switch (worker_errors_answer(arguments.stream_id, error))
		{
			case ERROR_TRY_AGAIN:
				break;
			case ERROR_STOPPED:
				outcome = RUN_STOPPED;
				break;
			case ERROR_GIVEN_UP:
				outcome = RUN_FINISHED;
				break;
		}
		FreeErrorData(error);
	}

	if (outcome == RUN_FINISHED)
		progress_not_wanted(false);
	proc_exit(0);
}
