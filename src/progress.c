/*-------------------------------------------------------------------------
 *
 * progress.c
 *	  The slots in shared memory: their set-up, who has one, and reading them.
 *
 * When a slot is wanted is decided in progress_requests.c (SQL functions) and
 * database_scan.c (after a restart); launcher.c starts workers for wanted
 * slots; progress_worker.c is the worker's side.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "progress_slots.h"

#include <limits.h>
#include <math.h>

#include "common/pg_prng.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define LOCK_TRANCHE       "kafka_ingest"
#define FIRST_DELAY_US     (1 * USECS_PER_SEC)
#define LONGEST_DELAY_US() ((int64) progress_max_restart_delay * USECS_PER_SEC)

int progress_max_stream_workers = 64;
int progress_max_stream_workers_per_role = -1;
int progress_max_restart_delay = 60;

ProgressShared *progress_shared = NULL;

static shmem_request_hook_type previous_shmem_request_hook = NULL;
static shmem_startup_hook_type previous_shmem_startup_hook = NULL;

/* ---------------------------------------------------------------------
 * Settings and set-up
 * ---------------------------------------------------------------------
 */

/* These settings are about workers: there are none unless the library is preloaded. */
void
progress_define_settings(void)
{
	DefineCustomIntVariable(
	    "kafka_ingest.max_stream_workers",
	    "Sets how many workers of streams the server can run at the same time, in all "
	    "databases.",
	    "A stream has one, or as many as its setting \"workers\" says. Each takes about 75 kB "
	    "of "
	    "shared memory, and one of max_worker_processes while it runs.",
	    &progress_max_stream_workers, 64, 1, 4096, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
	    "kafka_ingest.max_stream_workers_per_role",
	    "Sets how many workers the streams of a role may have at the same time, in all "
	    "databases.",
	    "Superusers may have as many as there are; -1 is no limit.",
	    &progress_max_stream_workers_per_role, -1, -1, 4096, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
	    "kafka_ingest.max_restart_delay",
	    "Sets the longest delay before a stream's worker that ended with an error is started "
	    "again.",
	    "The delay starts at one second and doubles with every failure in a row.",
	    &progress_max_restart_delay, 60, 1, 3600, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
}

static Size
slots_size(void)
{
	return MAXALIGN(add_size(offsetof(ProgressShared, slots),
	                         mul_size(progress_max_stream_workers, sizeof(StreamSlot))));
}

static Size
shared_size(void)
{
	return add_size(slots_size(), mul_size(progress_max_stream_workers, sizeof(StreamDetail)));
}

static void
request_shared_memory(void)
{
	if (previous_shmem_request_hook)
		previous_shmem_request_hook();
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche(LOCK_TRANCHE, 1);
}

static void
initialize_shared_memory(void)
{
	bool found;

	if (previous_shmem_startup_hook)
		previous_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	progress_shared = ShmemInitStruct("kafka_ingest", shared_size(), &found);
	if (!found)
	{
		memset(progress_shared, 0, shared_size());
		progress_shared->lock = &GetNamedLWLockTranche(LOCK_TRANCHE)->lock;
		progress_shared->launcher_procno = -1;
		progress_shared->details = (StreamDetail *) ((char *) progress_shared + slots_size());
		for (int i = 0; i < PROGRESS_CONDITIONS; i++)
			ConditionVariableInit(&progress_shared->stream_changed[i]);
		for (int i = 0; i < progress_max_stream_workers; i++)
		{
			SpinLockInit(&progress_shared->slots[i].mutex);
			LWLockInitialize(&progress_shared->details[i].lock, progress_shared->lock->tranche);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

void
progress_request_shared_memory(void)
{
	previous_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	previous_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = initialize_shared_memory;
}

bool
progress_available(void)
{
	return progress_shared != NULL;
}

void
progress_require_available(void)
{
	if (!progress_available())
		ereport(
		    ERROR,
		    (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		     errmsg(
		         "kafka_ingest must be loaded via \"shared_preload_libraries\" to run streams"),
		     errhint("Add kafka_ingest to shared_preload_libraries in postgresql.conf and "
		             "restart the server.")));
}

/* ---------------------------------------------------------------------
 * Slots
 * ---------------------------------------------------------------------
 */

ConditionVariable *
progress_condition(Oid database_id, int64 stream_id)
{
	uint32 number = (uint32) stream_id + database_id;

	return &progress_shared->stream_changed[number % PROGRESS_CONDITIONS];
}

StreamSlot *
progress_find_slot(Oid database_id, int64 stream_id, int worker)
{
	for (int i = 0; i < progress_max_stream_workers; i++)
	{
		StreamSlot *slot = &progress_shared->slots[i];

		if (slot->in_use && slot->stream_id == stream_id && slot->database_id == database_id &&
		    slot->worker == worker)
			return slot;
	}
	return NULL;
}

bool
progress_slot_unused(const StreamSlot *slot)
{
	return !slot->wanted && !slot->starting && slot->worker_pid == 0 &&
	       slot->pending_requests == 0;
}

void
progress_release_slot(StreamSlot *slot)
{
	StreamDetail *detail = &progress_shared->details[slot - progress_shared->slots];

	Assert(progress_slot_unused(slot));

	slot->in_use = false;
	LWLockAcquire(&detail->lock, LW_EXCLUSIVE);
	detail->partition_count = 0;
	history_clear(&detail->history);
	LWLockRelease(&detail->lock);
	ConditionVariableBroadcast(progress_condition(slot->database_id, slot->stream_id));
}

static void
name_slot(StreamSlot *slot, const char *stream_name, Oid owner)
{
	SpinLockAcquire(&slot->mutex);
	strlcpy(slot->stream_name, stream_name, sizeof(slot->stream_name));
	slot->owner = owner;
	SpinLockRelease(&slot->mutex);
}

StreamSlot *
progress_reserve_slot(Oid database_id, int64 stream_id, int worker, const char *stream_name,
                      Oid owner)
{
	StreamSlot *slot = progress_find_slot(database_id, stream_id, worker);
	StreamSlot *oldest = NULL;

	if (slot != NULL)
	{
		/* a worker knows better */
		if (slot->worker_pid == 0 && stream_name[0] != '\0')
			name_slot(slot, stream_name, owner);
		return slot;
	}

	for (int i = 0; i < progress_max_stream_workers && slot == NULL; i++)
	{
		StreamSlot *candidate = &progress_shared->slots[i];

		if (!candidate->in_use)
			slot = candidate;
		else if (progress_slot_unused(candidate) &&
		         (oldest == NULL || candidate->state_since < oldest->state_since))
			oldest = candidate;
	}
	if (slot == NULL)
	{
		if (oldest == NULL)
			return NULL;
		slot = oldest;
		progress_release_slot(slot);
	}

	slot->in_use = true;
	slot->database_id = database_id;
	slot->stream_id = stream_id;
	slot->worker = worker;
	slot->generation++;
	slot->wanted = slot->starting = slot->release_at_exit = slot->look_again = false;
	slot->stop_requests = slot->pending_requests = 0;
	slot->start_requests = 0;
	slot->worker_pid = 0;
	slot->last_start = slot->next_start = 0;
	slot->failures = 0;
	slot->restarts = 0;

	name_slot(slot, stream_name, owner);
	SpinLockAcquire(&slot->mutex);
	slot->state = STREAM_STARTING;
	slot->state_since = GetCurrentTimestamp();
	slot->worker_since = slot->retry_at = 0;
	memset(&slot->last_error, 0, sizeof(slot->last_error));
	slot->rows = slot->bytes = 0;
	slot->rows_per_second = 0;
	slot->rate_at = 0;
	SpinLockRelease(&slot->mutex);

	ConditionVariableBroadcast(progress_condition(database_id, stream_id));
	return slot;
}

bool
progress_want(Oid database_id, int64 stream_id, int worker, const char *stream_name, Oid owner)
{
	StreamSlot *slot;

	LWLockAcquire(progress_shared->lock, LW_EXCLUSIVE);
	slot = progress_reserve_slot(database_id, stream_id, worker, stream_name, owner);
	if (slot != NULL)
		slot->wanted = true;
	LWLockRelease(progress_shared->lock);

	if (slot != NULL)
		progress_wake_launcher();
	return slot != NULL;
}

int64
progress_restart_delay(int failures)
{
	double delay = ldexp(FIRST_DELAY_US, Min(Max(failures, 1) - 1, 30));

	delay = Min(delay, LONGEST_DELAY_US());
	/* many streams fail together when a broker goes: don't let them come back together */
	return (int64) (delay * (0.75 + 0.25 * pg_prng_double(&pg_global_prng_state)));
}

void
progress_note_failure(StreamSlot *slot)
{
	slot->failures++;
	slot->next_start = GetCurrentTimestamp() + progress_restart_delay(slot->failures);
}

void
progress_set_error(StreamSlot *slot, int sqlerrcode, const char *message, const char *detail,
                   const char *hint)
{
	ProgressError error;

	memset(&error, 0, sizeof(error));
	error.sqlerrcode = sqlerrcode;
	error.at = GetCurrentTimestamp();
#define COPY_TEXT(field, text)                                                                 \
	memcpy(error.field, text, pg_mbcliplen(text, strlen(text), sizeof(error.field) - 1))
	if (message != NULL)
		COPY_TEXT(message, message);
	if (detail != NULL)
		COPY_TEXT(detail, detail);
	if (hint != NULL)
		COPY_TEXT(hint, hint);
#undef COPY_TEXT

	SpinLockAcquire(&slot->mutex);
	slot->last_error = error;
	SpinLockRelease(&slot->mutex);
}

void
progress_wake_launcher(void)
{
	int procno = progress_shared->launcher_procno;

	/* if the launcher has just gone, this wakes a stranger for nothing */
	if (procno >= 0)
		SetLatch(&GetPGProcByNumber(procno)->procLatch);
}

/* ---------------------------------------------------------------------
 * Reading and waiting
 * ---------------------------------------------------------------------
 */

static void
copy_slot(StreamSlot *slot, StreamSlot *copy)
{
	SpinLockAcquire(&slot->mutex);
	memcpy(copy, slot, offsetof(StreamSlot, mutex));
	SpinLockRelease(&slot->mutex);
}

bool
progress_copy_slot(int index, StreamSlot *copy)
{
	StreamSlot *slot = &progress_shared->slots[index];
	bool in_use;

	LWLockAcquire(progress_shared->lock, LW_SHARED);
	in_use = slot->in_use;
	if (in_use)
		copy_slot(slot, copy);
	LWLockRelease(progress_shared->lock);
	return in_use;
}

/* Is the slot still the same stream's?  The caller holds the detail's lock. */
static bool
same_generation(int index, uint32 generation)
{
	StreamSlot *slot = &progress_shared->slots[index];

	/* who gives the slot away clears its detail, under the lock we hold, before it is reused */
	return slot->in_use && slot->generation == generation;
}

PartitionProgress *
progress_copy_partitions(int index, uint32 generation, int *count)
{
	StreamDetail *detail = &progress_shared->details[index];
	PartitionProgress *copy = palloc(sizeof(detail->partitions));

	LWLockAcquire(&detail->lock, LW_SHARED);
	*count = same_generation(index, generation) ? detail->partition_count : 0;
	memcpy(copy, detail->partitions, *count * sizeof(PartitionProgress));
	LWLockRelease(&detail->lock);
	return copy;
}

char *
progress_copy_batches(int index, uint32 generation, int *count)
{
	StreamDetail *detail = &progress_shared->details[index];
	char *copy = palloc(PROGRESS_HISTORY_BYTES);

	LWLockAcquire(&detail->lock, LW_SHARED);
	*count = same_generation(index, generation) ? detail->history.count : 0;
	if (*count > 0)
		history_copy(&detail->history, copy);
	LWLockRelease(&detail->lock);
	return copy;
}

double
progress_rows_per_second(const StreamSlot *slot, TimestampTz now)
{
	double idle = Max(now - slot->rate_at, 0) / (double) USECS_PER_SEC;
	double age = Max(now - slot->worker_since, USECS_PER_SEC) / (double) USECS_PER_SEC;

	if (slot->rate_at == 0 || slot->worker_pid == 0)
		return 0;
	/* a young worker has had less than the whole window to fill */
	return slot->rows_per_second * exp(-idle / PROGRESS_RATE_SECONDS) /
	       (1 - exp(-age / PROGRESS_RATE_SECONDS));
}

void
progress_wait_for_change(int64 stream_id, long timeout_ms)
{
	static uint32 wait_event = 0;

	progress_require_available();
	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("KafkaIngestStreamProgress");

	(void) ConditionVariableTimedSleep(progress_condition(MyDatabaseId, stream_id),
	                                   Max(Min(timeout_ms, INT_MAX), 0), wait_event);
}

static uint32
slot_commits(int index)
{
	StreamSlot *slot = &progress_shared->slots[index];
	uint32 commits;

	SpinLockAcquire(&slot->mutex);
	commits = slot->commits;
	SpinLockRelease(&slot->mutex);
	return commits;
}

uint32 *
progress_unreported_commits(int64 stream_id)
{
	uint32 *unreported = palloc0(sizeof(uint32) * progress_max_stream_workers);

	LWLockAcquire(progress_shared->lock, LW_SHARED);
	for (int i = 0; i < progress_max_stream_workers; i++)
	{
		const StreamSlot *slot = &progress_shared->slots[i];

		if (slot->in_use && slot->stream_id == stream_id && slot->database_id == MyDatabaseId)
			unreported[i] = slot_commits(i);
	}
	LWLockRelease(progress_shared->lock);
	return unreported;
}

bool
progress_commits_reported(const uint32 *unreported)
{
	for (int i = 0; i < progress_max_stream_workers; i++)
		if (unreported[i] % 2 == 1 && slot_commits(i) == unreported[i])
			return false;
	return true;
}

void
progress_end_wait(void)
{
	ConditionVariableCancelSleep();
}
