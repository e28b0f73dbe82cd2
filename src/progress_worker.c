/*-------------------------------------------------------------------------
 *
 * progress_worker.c
 *	  The stream worker's side of its slot: attach, detach, report.
 *
 * When a worker is started is left to launcher.c, what it does to worker.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "progress_slots.h"

#include <math.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#define QUIET_PERIOD_US (60 * USECS_PER_SEC) /* after so long, earlier failures don't count */

static StreamSlot *my_slot = NULL;
static uint32 seen_start_requests; /* slot->start_requests when we attached */
static bool exit_expected = false; /* told to stop, or progress_not_wanted() was called */

static StreamDetail *
my_detail(void)
{
	return &progress_shared->details[my_slot - progress_shared->slots];
}

/* The caller holds the mutex. */
static void
end_commit(StreamSlot *slot)
{
	slot->commits += slot->commits % 2;
}

static void
announce_change(void)
{
	ConditionVariableBroadcast(progress_condition(my_slot->database_id, my_slot->stream_id));
}

/* ---------------------------------------------------------------------
 * Attach and detach
 * ---------------------------------------------------------------------
 */

static void
detach_worker(int code, Datum arg)
{
	TimestampTz now = GetCurrentTimestamp();
	bool failed;
	bool unexplained;

	if (my_slot == NULL)
		return;

	LWLockAcquire(progress_shared->lock, LW_EXCLUSIVE);
	/* told to end, even if the request has been cancelled before we could */
	failed = !exit_expected && my_slot->stop_requests == 0 && !my_slot->told_to_end;
	unexplained = failed && my_slot->last_error.at < my_slot->worker_since;
	if (failed)
	{
		if (now - my_slot->worker_since >= QUIET_PERIOD_US)
			my_slot->failures = 0;
		progress_note_failure(my_slot);
	}
	else
		my_slot->next_start = 0;
	my_slot->worker_pid = 0;

	SpinLockAcquire(&my_slot->mutex);
	my_slot->state = STREAM_STARTING;
	my_slot->state_since = now;
	end_commit(my_slot);
	SpinLockRelease(&my_slot->mutex);
	if (unexplained)
		progress_set_error(my_slot, ERRCODE_OPERATOR_INTERVENTION,
		                   "the stream's worker ended unexpectedly", NULL,
		                   "The server log says why.");

	if (my_slot->release_at_exit && progress_slot_unused(my_slot))
		progress_release_slot(my_slot);
	else
		announce_change();
	LWLockRelease(progress_shared->lock);

	my_slot = NULL;
	progress_wake_launcher();
}

StreamSlot *
progress_attach_worker(int slot_index, uint32 generation)
{
	StreamSlot *slot = &progress_shared->slots[slot_index];
	bool ours;
	bool other_worker;
	pid_t other_pid;

	/* clean-up first, then the state that it cleans */
	before_shmem_exit(detach_worker, 0);

	LWLockAcquire(progress_shared->lock, LW_EXCLUSIVE);
	ours = slot->in_use && slot->generation == generation;
	other_pid = ours ? slot->worker_pid : 0;
	other_worker = other_pid != 0;
	/* not "starting": the launcher has given up on us and may start another worker */
	ours = ours && !other_worker && slot->starting;
	if (ours)
	{
		slot->starting = false;
		if (slot->stop_requests > 0)
			ours = false;
		else
		{
			slot->worker_pid = MyProcPid;
			slot->worker_procno = MyProcNumber;
			slot->release_at_exit = slot->look_again = slot->told_to_end = false;
			seen_start_requests = slot->start_requests;
			my_slot = slot;

			SpinLockAcquire(&slot->mutex);
			slot->state = STREAM_STARTING;
			slot->state_since = slot->worker_since = GetCurrentTimestamp();
			end_commit(slot);
			slot->rows = slot->bytes = 0;
			slot->rows_per_second = 0;
			slot->rate_at = 0;
			SpinLockRelease(&slot->mutex);
		}
	}
	ConditionVariableBroadcast(progress_condition(slot->database_id, slot->stream_id));
	LWLockRelease(progress_shared->lock);

	if (!ours)
	{
		if (other_worker)
			ereport(LOG,
			        (errmsg("process %d is this worker of the stream already, this one exits",
			                (int) other_pid)));
		progress_wake_launcher();
		proc_exit(0);
	}
	return slot;
}

bool
progress_stop_requested(void)
{
	/* unlocked: whoever sets it sets our latch afterwards */
	if (*(volatile int *) &my_slot->stop_requests == 0)
		return false;
	/* even if the request is rolled back before we are gone */
	exit_expected = true;
	return true;
}

void
progress_refuse_in_worker(int64 stream_id, const char *action)
{
	if (my_slot != NULL && my_slot->stream_id == stream_id)
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("stream \"%s\" cannot %s itself", my_slot->stream_name, action),
		         errdetail(
		             "A procedure or trigger that runs in a batch of the stream asks for it."),
		         errhint("Do it in another session.")));
}

bool
progress_look_again(void)
{
	bool look_again;

	/* unlocked: whoever sets it sets our latch afterwards */
	if (!*(volatile bool *) &my_slot->look_again)
		return false;
	LWLockAcquire(progress_shared->lock, LW_EXCLUSIVE);
	look_again = my_slot->look_again;
	my_slot->look_again = false;
	LWLockRelease(progress_shared->lock);
	return look_again;
}

void
progress_tell_workers(int64 stream_id)
{
	LWLockAcquire(progress_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < progress_max_stream_workers; i++)
	{
		StreamSlot *slot = &progress_shared->slots[i];

		if (slot != my_slot && slot->in_use && slot->stream_id == stream_id &&
		    slot->database_id == MyDatabaseId && slot->worker_pid != 0)
		{
			slot->look_again = true;
			SetLatch(&GetPGProcByNumber(slot->worker_procno)->procLatch);
		}
	}
	LWLockRelease(progress_shared->lock);
}

void
progress_not_wanted(bool release_slot)
{
	LWLockAcquire(progress_shared->lock, LW_EXCLUSIVE);
	if (my_slot->start_requests == seen_start_requests)
	{
		my_slot->wanted = false;
		my_slot->release_at_exit = release_slot;
	}
	LWLockRelease(progress_shared->lock);
	exit_expected = true;
}

/* ---------------------------------------------------------------------
 * Reports
 * ---------------------------------------------------------------------
 */

void
progress_set_name(const char *stream_name, Oid owner)
{
	SpinLockAcquire(&my_slot->mutex);
	strlcpy(my_slot->stream_name, stream_name, sizeof(my_slot->stream_name));
	my_slot->owner = owner;
	SpinLockRelease(&my_slot->mutex);
}

static void
change_state(StreamState state, TimestampTz retry_at)
{
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&my_slot->mutex);
	if (my_slot->state != state)
		my_slot->state_since = now;
	my_slot->state = state;
	my_slot->retry_at = retry_at;
	end_commit(my_slot);
	SpinLockRelease(&my_slot->mutex);
	announce_change();
}

void
progress_set_state(StreamState state)
{
	Assert(state != STREAM_BACKING_OFF);
	/* nobody else writes it: no lock needed to see that it stays as it is */
	if (my_slot->state != state)
		change_state(state, 0);
}

void
progress_set_backing_off(const ErrorData *error, TimestampTz retry_at)
{
	progress_set_error(my_slot, error->sqlerrcode, error->message, error->detail, error->hint);
	change_state(STREAM_BACKING_OFF, retry_at);
}

/* Index of the first partition that is not less than the given one. */
static int
partition_position(const StreamDetail *detail, int32 partition)
{
	int low = 0;
	int high = detail->partition_count;

	while (low < high)
	{
		int middle = (low + high) / 2;

		if (detail->partitions[middle].partition < partition)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void
progress_set_partition(int32 partition, int64 next_offset, int64 low, int64 high,
                       int64 last_message_ms)
{
	StreamDetail *detail = my_detail();
	PartitionProgress *position;
	int index;

	LWLockAcquire(&detail->lock, LW_EXCLUSIVE);
	index = partition_position(detail, partition);
	position = &detail->partitions[index];
	if (index == detail->partition_count || position->partition != partition)
	{
		if (detail->partition_count == PROGRESS_MAX_PARTITIONS)
		{
			LWLockRelease(&detail->lock);
			return;
		}
		memmove(position + 1, position,
		        (detail->partition_count - index) * sizeof(PartitionProgress));
		detail->partition_count++;
	}
	position->partition = partition;
	position->next_offset = next_offset;
	position->low_watermark = low;
	position->high_watermark = high;
	position->last_message_ms = last_message_ms;
	LWLockRelease(&detail->lock);
}

void
progress_forget_partitions(void)
{
	StreamDetail *detail = my_detail();

	LWLockAcquire(&detail->lock, LW_EXCLUSIVE);
	detail->partition_count = 0;
	LWLockRelease(&detail->lock);
}

void
progress_batch_commits(void)
{
	SpinLockAcquire(&my_slot->mutex);
	my_slot->commits |= 1;
	SpinLockRelease(&my_slot->mutex);
}

void
progress_batch_committed(const BatchProgress *batch, const BatchPartition *partitions)
{
	StreamDetail *detail = my_detail();
	TimestampTz now = GetCurrentTimestamp();
	double decay =
	    exp(-Max(now - my_slot->rate_at, 0) / (PROGRESS_RATE_SECONDS * USECS_PER_SEC));

	/* a look without the lock: what it misses, the next batch sees */
	if (my_slot->failures != 0)
	{
		LWLockAcquire(progress_shared->lock, LW_EXCLUSIVE);
		my_slot->failures = 0;
		LWLockRelease(progress_shared->lock);
	}

	LWLockAcquire(&detail->lock, LW_EXCLUSIVE);
	history_append(&detail->history, batch, partitions);
	LWLockRelease(&detail->lock);

	SpinLockAcquire(&my_slot->mutex);
	my_slot->rows += batch->input_rows;
	my_slot->bytes += batch->input_bytes;
	my_slot->rows_per_second =
	    my_slot->rows_per_second * decay + batch->input_rows / PROGRESS_RATE_SECONDS;
	my_slot->rate_at = now;
	end_commit(my_slot);
	SpinLockRelease(&my_slot->mutex);
	announce_change();
}
