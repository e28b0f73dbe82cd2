/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  Starts the workers of every stream that shall run, and again when they end.
 *
 * The launcher knows slots (progress.h), not catalogs: a slot is made "wanted"
 * by SQL functions at COMMIT and, after a restart, by database_scan.c.  What a
 * worker does is left to worker.c.  The launcher sleeps on its latch until
 * somebody wakes it (a commit, a worker's exit) or the next restart is due.
 *
 * A worker runs once (BGW_NEVER_RESTART): it is the launcher that starts the
 * next one, after a delay that grows with the failures in a row.  Workers
 * outlive the launcher; its successor finds them in their slots.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "launcher.h"

#include "database_scan.h"
#include "progress_slots.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define LIBRARY_NAME        "kafka_ingest"
#define STARTS_PER_WINDOW   8 /* so that 100 streams don't stampede */
#define WINDOW_US           (100 * INT64CONST(1000))
#define NO_PROCESS_RETRY_US (5 * USECS_PER_SEC)
#define WARNING_INTERVAL_US (60 * USECS_PER_SEC)

/* Workers that the postmaster was told to start, and that have not attached yet. */
typedef struct StartingWorker
{
	BackgroundWorkerHandle *handle; /* NULL: none */
	uint32 generation;              /* of the slot */
} StartingWorker;

static StartingWorker *starting_workers; /* one per slot */

/* A stream whose worker is to be started now. */
typedef struct DueStream
{
	int index; /* of the slot */
	uint32 generation;
	Oid database_id;
} DueStream;

/* ---------------------------------------------------------------------
 * Processes
 * ---------------------------------------------------------------------
 */

static void
fill_process(BackgroundWorker *worker, const char *main_function, const char *type,
             const char *name)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	strlcpy(worker->bgw_library_name, LIBRARY_NAME, sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, main_function, sizeof(worker->bgw_function_name));
	strlcpy(worker->bgw_type, type, sizeof(worker->bgw_type));
	strlcpy(worker->bgw_name, name, sizeof(worker->bgw_name));
}

void
launcher_register(void)
{
	BackgroundWorker worker;

	fill_process(&worker, "kafka_launcher_main", "kafka_ingest launcher",
	             "kafka_ingest launcher");
	worker.bgw_restart_time = 1;
	RegisterBackgroundWorker(&worker);
}

BackgroundWorkerHandle *
launcher_start_process(const char *main_function, const char *type, const char *name,
                       Datum main_argument, const void *extra, Size extra_size)
{
	static TimestampTz last_warning = 0;
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	TimestampTz now;

	Assert(extra_size <= BGW_EXTRALEN);

	fill_process(&worker, main_function, type, name);
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = main_argument;
	memcpy(worker.bgw_extra, extra, extra_size);
	if (RegisterDynamicBackgroundWorker(&worker, &handle))
		return handle;

	now = GetCurrentTimestamp();
	if (now - last_warning >= WARNING_INTERVAL_US)
	{
		last_warning = now;
		ereport(WARNING, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
		                  errmsg("cannot start \"%s\": out of background worker slots", name),
		                  errhint("Increase max_worker_processes: every worker of a running "
		                          "stream takes one, beside two for kafka_ingest itself.")));
	}
	return NULL;
}

/* ---------------------------------------------------------------------
 * Streams
 * ---------------------------------------------------------------------
 */

/*
 * A worker that died before it attached (or whose start was cancelled) can't
 * say so itself.  Also forgets the handles of those that did attach, which
 * will say when they end.
 */
static void
reap_starting_worker(int index)
{
	StreamSlot *slot = &progress_shared->slots[index];
	StartingWorker *worker = &starting_workers[index];
	pid_t pid;
	bool pending = slot->in_use && slot->starting;

	if (worker->handle != NULL && pending && worker->generation == slot->generation &&
	    GetBackgroundWorkerPid(worker->handle, &pid) != BGWH_STOPPED)
		return;

	if (pending)
	{
		slot->starting = false;
		/* without a handle it was a previous launcher's, and may still come */
		if (worker->handle != NULL)
			progress_note_failure(slot);
		ConditionVariableBroadcast(progress_condition(slot->database_id, slot->stream_id));
	}
	if (worker->handle != NULL)
	{
		pfree(worker->handle);
		worker->handle = NULL;
	}
}

static bool
needs_worker(const StreamSlot *slot)
{
	return slot->in_use && slot->wanted && !slot->starting && slot->worker_pid == 0 &&
	       slot->stop_requests == 0;
}

/* Streams whose worker is to be started now; lowers *next_due to when others are. */
static DueStream *
find_due_streams(TimestampTz now, TimestampTz *next_due, int *count)
{
	int64 longest_delay = (int64) progress_max_restart_delay * USECS_PER_SEC;
	DueStream *due = palloc(progress_max_stream_workers * sizeof(DueStream));

	*count = 0;
	LWLockAcquire(progress_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < progress_max_stream_workers; i++)
	{
		StreamSlot *slot = &progress_shared->slots[i];

		reap_starting_worker(i);
		if (!needs_worker(slot))
			continue;
		/* the clock may have been set back, or the setting lowered */
		slot->next_start = Min(slot->next_start, now + longest_delay);
		if (slot->next_start > now)
		{
			*next_due = Min(*next_due, slot->next_start);
			continue;
		}
		due[*count].index = i;
		due[*count].generation = slot->generation;
		due[*count].database_id = slot->database_id;
		(*count)++;
	}
	LWLockRelease(progress_shared->lock);
	return due;
}

/* A worker can't be started: says so in the status, and lets the stream be due later. */
static void
postpone_start(const DueStream *stream, TimestampTz until, int sqlerrcode, const char *message,
               const char *hint)
{
	StreamSlot *slot = &progress_shared->slots[stream->index];

	LWLockAcquire(progress_shared->lock, LW_EXCLUSIVE);
	if (slot->generation == stream->generation)
	{
		slot->starting = false;
		slot->next_start = until;
		progress_set_error(slot, sqlerrcode, message, NULL, hint);
		ConditionVariableBroadcast(progress_condition(slot->database_id, slot->stream_id));
	}
	LWLockRelease(progress_shared->lock);
}

/* Its database is gone: nobody will ever want the stream again. */
static void
forget_stream(const DueStream *stream)
{
	StreamSlot *slot = &progress_shared->slots[stream->index];

	LWLockAcquire(progress_shared->lock, LW_EXCLUSIVE);
	if (slot->generation == stream->generation && needs_worker(slot))
	{
		slot->wanted = false;
		if (progress_slot_unused(slot))
			progress_release_slot(slot);
	}
	LWLockRelease(progress_shared->lock);
}

/* Starts the worker of a stream, if it still needs one; false when no process is to be had. */
static bool
start_stream_worker(const DueStream *stream)
{
	StreamSlot *slot = &progress_shared->slots[stream->index];
	StartingWorker *worker = &starting_workers[stream->index];
	StreamWorkerArguments arguments;
	char name[BGW_MAXLEN];
	MemoryContext old_context;

	StaticAssertStmt(sizeof(arguments) <= BGW_EXTRALEN, "arguments must fit into bgw_extra");
	memset(&arguments, 0, sizeof(arguments));

	LWLockAcquire(progress_shared->lock, LW_EXCLUSIVE);
	if (slot->generation != stream->generation || !needs_worker(slot))
	{
		LWLockRelease(progress_shared->lock);
		return true;
	}
	slot->starting = true;
	slot->last_start = GetCurrentTimestamp();
	if (slot->failures > 0)
		slot->restarts++;
	arguments.generation = slot->generation;
	arguments.database_id = slot->database_id;
	arguments.stream_id = slot->stream_id;
	arguments.worker = slot->worker;
	if (slot->worker > 0)
		snprintf(name, sizeof(name), "kafka_ingest stream %s, worker %d", slot->stream_name,
		         slot->worker);
	else
		snprintf(name, sizeof(name), "kafka_ingest stream %s", slot->stream_name);
	LWLockRelease(progress_shared->lock);

	old_context = MemoryContextSwitchTo(TopMemoryContext);
	worker->handle =
	    launcher_start_process("kafka_stream_worker_main", "kafka_ingest stream worker", name,
	                           Int32GetDatum(stream->index), &arguments, sizeof(arguments));
	worker->generation = stream->generation;
	MemoryContextSwitchTo(old_context);
	return worker->handle != NULL;
}

static void
start_streams(TimestampTz now, TimestampTz *next_due)
{
	static TimestampTz window_end = 0;
	static int started = 0; /* in the current window */
	int count;
	DueStream *due = find_due_streams(now, next_due, &count);
	List *databases = count > 0 ? database_list() : NIL;

	if (now >= window_end || window_end > now + WINDOW_US)
	{
		window_end = now + WINDOW_US;
		started = 0;
	}

	for (int i = 0; i < count; i++)
	{
		DatabaseInfo *database = database_find(databases, due[i].database_id);
		TimestampTz retry_at;

		if (started == STARTS_PER_WINDOW)
		{
			*next_due = Min(*next_due, window_end);
			break;
		}
		if (database == NULL)
			forget_stream(&due[i]);
		else if (!database->allows_connections)
		{
			retry_at = now + (int64) progress_max_restart_delay * USECS_PER_SEC;
			postpone_start(&due[i], retry_at, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			               "the stream's database does not accept connections",
			               "Use ALTER DATABASE ... ALLOW_CONNECTIONS true.");
			*next_due = Min(*next_due, retry_at);
		}
		else if (start_stream_worker(&due[i]))
			started++;
		else
		{
			retry_at = now + NO_PROCESS_RETRY_US;
			postpone_start(&due[i], retry_at, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
			               "out of background worker slots",
			               "Increase max_worker_processes and restart the server.");
			*next_due = Min(*next_due, retry_at);
		}
	}
}

/* ---------------------------------------------------------------------
 * The process
 * ---------------------------------------------------------------------
 */

static void
detach_launcher(int code, Datum arg)
{
	progress_shared->launcher_procno = -1;
}

void
kafka_launcher_main(Datum main_arg)
{
	MemoryContext cycle_context;
	uint32 wait_event;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	before_shmem_exit(detach_launcher, 0);
	progress_shared->launcher_procno = MyProcNumber;

	/* no database: the shared catalogs are all that is needed */
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	wait_event = WaitEventExtensionNew("KafkaIngestLauncher");

	starting_workers = MemoryContextAllocZero(TopMemoryContext, progress_max_stream_workers *
	                                                                sizeof(StartingWorker));
	cycle_context = AllocSetContextCreate(TopMemoryContext, "kafka_ingest launcher",
	                                      ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(cycle_context);
	database_scan_begin();

	for (;;)
	{
		TimestampTz now;
		TimestampTz next_due = DT_NOEND;
		long timeout = -1;
		int wake_events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

		/* before looking at the slots: what changes afterwards wakes us again */
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}

		now = GetCurrentTimestamp();
		start_streams(now, &next_due);
		database_scan_continue(now, &next_due);
		MemoryContextReset(cycle_context);

		if (next_due != DT_NOEND)
		{
			timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next_due);
			wake_events |= WL_TIMEOUT;
		}
		(void) WaitLatch(MyLatch, wake_events, timeout, wait_event);
	}
}
