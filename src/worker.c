/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The process that runs a stream, or its share of the partitions: open, loop,
 *	  back off, give up.
 *
 * Loads the stream, waits for messages without a transaction, has
 * micro_batch.c write them, and decides what an error means.  Everything it
 * knows is in the catalog: after an error that may pass it throws all away
 * and begins anew.  When workers start is left to launcher.c.  The workers of one
 * stream share nothing but the catalog: each has its own partitions and batches.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "worker.h"

#include "catalog.h"
#include "common/pg_prng.h"
#include "data_loss.h"
#include "error_class.h"
#include "kafka_hosts.h"
#include "launcher.h"
#include "micro_batch.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "privileges.h"
#include "progress.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "stream_query.h"
#include "stream_trust.h"
#include "tcop/tcopprot.h"
#include "topic_schema.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "stream_lock.h"
#include "stream_failure.h"

#define BACKOFF_FIRST_MS 1000

/* errors in a row that somebody must act on, before the stream gives up */
#define SURPRISES_BELIEVED 2

/* how long to wait for a sign of life from a cluster in trouble */
#define REACHABLE_TIMEOUT_MS 500

int max_batch_messages = 100000;
int max_batch_kilobytes = 32768;
static int metadata_refresh_interval = 30;

/* set by cache invalidation: server, user mapping or topic table has changed */
static bool connection_changed = false;

/* kafka_hosts_changes when the connection was made */
static uint32 hosts_changes_seen = 0;

/* shown as wait events */
static uint32 wait_for_messages;
static uint32 wait_for_retry;

/* the same loss of data has been seen as often as errors must be to be believed */
static bool loss_confirmed = false;

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
	                        &max_batch_messages, 100000, 1, 10000000, PGC_SIGHUP, 0, NULL, NULL,
	                        NULL);
	DefineCustomIntVariable("kafka_ingest.max_batch_size",
	                        "Bytes of messages after which a micro-batch is full.", NULL,
	                        &max_batch_kilobytes, 32768, 1, MAX_KILOBYTES, PGC_SIGHUP,
	                        GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("kafka_ingest.metadata_refresh_interval",
	                        "Time between looks for new partitions and dropped streams.", NULL,
	                        &metadata_refresh_interval, 30, 1, 86400, PGC_SIGHUP, GUC_UNIT_S,
	                        NULL, NULL, NULL);
}

static void
connection_invalidated(Datum argument, int cache_id, uint32 hash_value)
{
	connection_changed = true;
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

/* --- opening --- */

/*
 * Takes up partitions that were found to have been added to the topic: stores
 * their positions before anything is read from them.  False when the extension is
 * gone.
 */
static bool
take_up_new_partitions(StreamRun *run)
{
	MemoryContext run_context = CurrentMemoryContext;
	KafkaPartitionOffset *added;
	Checkpoint *stored;
	int added_count;

	added = stream_reader_find_new_partitions(run->reader, &added_count);
	if (added_count == 0)
		return true;
	ereport(LOG, (errmsg("kafka stream \"%s\" takes up %d new partition(s) of topic \"%s\"",
	                     run->stream->name, added_count, run->topic)));
	if (!micro_batch_begin_transaction(run->stream))
		return false;
	checkpoint_add_partitions(run->stream->name, run->topic, added, added_count);
	/* another worker may have been faster, and their owner have moved already */
	MemoryContextSwitchTo(run_context);
	stored = checkpoint_load(run->stream->name, run->topic);
	CommitTransactionCommand();
	MemoryContextSwitchTo(run_context);
	stream_reader_add_partitions(run->reader, stored);
	pfree(stored->positions);
	pfree(stored);
	pfree(added);
	return true;
}

/*
 * Takes the stream over what Kafka has lost, in a transaction of its own, which shows as a
 * batch without messages.  False when the extension is gone.
 */
static bool
pass_loss(StreamRun *run, const CheckpointJump *jumps, int count)
{
	const LogCheck *check = run->reader->log;
	const Stream *stream = run->stream;
	MemoryContext run_context = CurrentMemoryContext;
	BatchProgress progress = {.started_at = GetCurrentTimestamp(),
	                          .batch_id = micro_batch_next_id(run),
	                          .decode_us = -1,
	                          .state_rows = -1,
	                          .partition_count = count};
	BatchPartition *partitions = palloc(sizeof(BatchPartition) * count);

	if (!micro_batch_begin_transaction(stream))
		return false;
	for (int i = 0; i < count; i++)
	{
		partitions[i].partition = jumps[i].partition;
		partitions[i].start_offset = jumps[i].from_offset;
		partitions[i].end_offset = jumps[i].to_offset;
		partitions[i].behind_latest =
		    jumps[i].removed ? -1 : jumps[i].log_end - jumps[i].to_offset;
		progress.lost_offsets += jumps[i].lost;
	}
	checkpoint_pass_loss(stream->name, run->topic, progress.batch_id, jumps, count,
	                     check->topic_id);
	checkpoint_remove_partitions(stream->name, run->topic, check->partition_count);
	progress.xid = U64FromFullTransactionId(GetTopFullTransactionId());
	CommitTransactionCommand();
	MemoryContextSwitchTo(run_context);

	data_loss_report(stream, run->topic, jumps, count);
	progress_forget_partitions();
	progress_batch_committed(&progress, partitions);
	loss_confirmed = false;
	return true;
}

/* Stores what the cluster has told about itself since the checkpoint was pinned. */
static bool
note_identity(StreamRun *run)
{
	MemoryContext run_context = CurrentMemoryContext;
	const Checkpoint *checkpoint = run->reader->checkpoint;
	const LogCheck *check = run->reader->log;

	bool complete = checkpoint->cluster_id != NULL || check->cluster_id == NULL;

	for (int i = 0; i < checkpoint->count && check->topic_id != NULL; i++)
		complete = complete && checkpoint->positions[i].topic_id != NULL;
	if (complete)
		return true;
	if (!micro_batch_begin_transaction(run->stream))
		return false;
	checkpoint_set_identity(run->stream->name, run->topic, check->cluster_id, check->topic_id);
	CommitTransactionCommand();
	MemoryContextSwitchTo(run_context);
	return true;
}

/*
 * Reads all that the stream needs, in one transaction that ends here; then
 * connects to Kafka.  NULL: the stream is not to be run, or (*outcome) to be opened again.
 */
static StreamRun *
open_stream(int64 stream_id, int worker, RunOutcome *outcome)
{
	MemoryContext run_context = CurrentMemoryContext;
	StreamRun *run = palloc0(sizeof(StreamRun));
	KafkaConnection *connection;
	Checkpoint *checkpoint;
	CheckpointJump *jumps;
	Stream *stream;
	TopicSchema *schema;
	OwnerIdentity saved;
	int lost;

	*outcome = RUN_FINISHED;
	current_run = run;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	connection_changed = false;
	hosts_changes_seen = kafka_hosts_changes;
	if (!catalog_exists())
	{
		CommitTransactionCommand();
		return NULL;
	}
	/* waits for a transaction that is about to change or drop the stream */
	stream_lock(stream_id, AccessShareLock);
	MemoryContextSwitchTo(run_context);
	run->stream = stream = stream_load_by_id(stream_id);
	if (stream == NULL || !stream->enabled || !stream->started_here || stream->failed ||
	    worker >= stream->workers)
	{
		CommitTransactionCommand();
		return NULL;
	}
	progress_set_name(stream->name, stream->owner);
	pgstat_report_appname(stream->workers == 1
	                          ? psprintf("kafka_ingest %s", stream->name)
	                          : psprintf("kafka_ingest %s %d", stream->name, worker));
	stream_check_objects(stream);

	run->sink_context =
	    AllocSetContextCreate(run_context, "kafka sink", ALLOCSET_DEFAULT_SIZES);
	run->batch_context =
	    AllocSetContextCreate(run_context, "kafka batch", ALLOCSET_DEFAULT_SIZES);

	PushActiveSnapshot(GetTransactionSnapshot());
	become_owner(stream, &saved);
	run->topic_table = stream_query_topic_table(stream->source);
	stream_trust_check(stream);
	privileges_check_server(run->topic_table);
	schema = topic_schema_load(run->topic_table);
	run->topic = schema->topic;
	connection = kafka_connection_load(schema->server_id, stream->owner);
	/* what is wrong with source, target or privileges shall show now, not with the first message */
	MemoryContextSwitchTo(run->sink_context);
	run->sink = sink_create(stream, run->topic_table);
	MemoryContextSwitchTo(run_context);
	restore_identity(&saved);
	PopActiveSnapshot();

	checkpoint = checkpoint_load(stream->name, run->topic);
	run->batch_id = checkpoint->last_batch_id;
	CommitTransactionCommand();
	MemoryContextSwitchTo(run_context);

	pgstat_report_activity(STATE_IDLE, NULL);
	run->reader = stream_reader_open(stream, worker, run->topic, connection, checkpoint);
	jumps = data_loss_examine(stream, run->topic, checkpoint, run->reader->log, loss_confirmed,
	                          &lost);
	if (lost > 0)
	{
		if (pass_loss(run, jumps, lost))
			*outcome = RUN_RELOAD;
		return NULL;
	}
	if (!note_identity(run))
		return NULL;
	stream_reader_start(run->reader);
	return take_up_new_partitions(run) ? run : NULL;
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
	return take_up_new_partitions(run);
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
	RunOutcome outcome;
	StreamRun *run = open_stream(stream_id, worker, &outcome);
	StreamReader *reader;
	TimestampTz next_refresh;
	TimestampTz next_trigger = 0;
	bool reported_trouble = false;

	if (run == NULL)
		return outcome;
	reader = run->reader;
	set_state(STREAM_IDLE);
	next_refresh =
	    TimestampTzPlusMilliseconds(GetCurrentTimestamp(), metadata_refresh_interval * 1000L);

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz wake_up = next_refresh;

		CHECK_FOR_INTERRUPTS();
		if (progress_stop_requested())
			return RUN_STOPPED;
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (connection_changed || progress_look_again() ||
		    hosts_changes_seen != kafka_hosts_changes)
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

			if (reader->must_reopen)
				return RUN_RELOAD;
			if (gathered)
			{
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

		if (!reader->in_trouble)
			set_state(STREAM_IDLE);
		kafka_consumer_wait(reader->consumer,
		                    Max(TimestampDifferenceMilliseconds(now, wake_up), 0) + 1,
		                    wait_for_messages);
	}
}

/* --- errors --- */

/* Sleeps until the next attempt; true when the worker shall end. */
static bool
back_off(const ErrorData *error, int failures)
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
 * The stream is failed from now on, for the reason given, and its other workers end.  A name that isn't
 * found is most often one that a trigger or function takes from a search_path.
 */
static void
give_up(int64 stream_id, ErrorData *error)
{
	if (error->hint == NULL && error->context != NULL &&
	    (error->sqlerrcode == ERRCODE_UNDEFINED_TABLE ||
	     error->sqlerrcode == ERRCODE_UNDEFINED_FUNCTION ||
	     error->sqlerrcode == ERRCODE_UNDEFINED_OBJECT))
		error->hint =
		    pstrdup("Workers run with an empty search_path: qualify the names in triggers and "
		            "functions, or give these a SET search_path.");

	if (error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE)
		error->hint = psprintf("%s Then kafka.start_stream goes on.",
		                       error->hint != NULL ? error->hint
		                                           : "The stream runs as its owner: grant that "
		                                             "role what is missing.");

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (catalog_exists())
	{
		stream_lock(stream_id, AccessShareLock);
		stream_record_failure(stream_id, error);
	}
	CommitTransactionCommand();
	progress_tell_other_workers();
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
	wait_for_retry = WaitEventExtensionNew("KafkaIngestRetry");

	/* nothing of the database's or anybody's settings may change what a name means */
	SetConfigOption("search_path", "", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET,
	                PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("session_replication_role", "origin", PGC_SUSET, PGC_S_OVERRIDE);

	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, connection_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, connection_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNTABLEREL, connection_invalidated, (Datum) 0);
}

void
kafka_stream_worker_main(Datum main_arg)
{
	StreamWorkerArguments arguments;
	MemoryContext run_context;
	ErrorContextCallback context_callback;
	int volatile failures = 0;
	int volatile surprises = 0;
	int volatile losses_seen = 0;
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
		ErrorClass class;

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
		{
			failures = 0;
			surprises = 0;
		}
		/* messages, then the consumer, are let go by the context's callbacks */
		current_run = NULL;
		MemoryContextSwitchTo(TopMemoryContext);
		MemoryContextReset(run_context);
		if (error == NULL)
		{
			losses_seen = 0;
			continue;
		}

		failures++;
		class = classify_error(error);
		surprises = class == ERROR_OF_DEFINITION ? surprises + 1 : 0;
		losses_seen = error->sqlerrcode == ERRCODE_DATA_CORRUPTED ? losses_seen + 1 : 0;
		loss_confirmed = losses_seen >= SURPRISES_BELIEVED;
		/*
		 * What the stream is defined on may change in mid-run, and a broker that
		 * has just started may not know a topic yet: what is seen at once and after a
		 * pause from a fresh start is true.
		 */
		if (class == ERROR_OF_MESSAGE || surprises > SURPRISES_BELIEVED)
		{
			give_up(arguments.stream_id, error);
			outcome = RUN_FINISHED;
		}
		else if (surprises != 1 && back_off(error, failures))
			outcome = RUN_STOPPED;
		FreeErrorData(error);
	}

	if (outcome == RUN_FINISHED)
		progress_not_wanted(false);
	proc_exit(0);
}
