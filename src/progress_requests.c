/*-------------------------------------------------------------------------
 *
 * progress_requests.c
 *	  Starting and stopping streams, as part of the caller's transaction.
 *
 * A request takes effect in shared memory when the transaction ends, in the
 * order of the requests; only a stop holds the stream's worker off at once.
 * Requests of a rolled back subtransaction are undone with it.  The catalog
 * rows that go with a request are left to the callers; so is that two
 * transactions don't change one stream at the same time (they lock it).
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "progress_slots.h"

#include <signal.h>

#include "access/xact.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "stream.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define TERMINATE_AFTER_MS 1000 /* a worker that doesn't stop between batches */

typedef enum RequestKind
{
	REQUEST_START,
	REQUEST_STOP,
	REQUEST_FORGET /* stop, and release the slot */
} RequestKind;

/* About one worker of a stream. */
typedef struct StreamRequest
{
	dlist_node node;
	RequestKind kind;
	SubTransactionId subtransaction;
	StreamSlot *slot; /* stays this worker's while slot->pending_requests counts us */
	bool was_wanted;
} StreamRequest;

/* Of the current transaction, oldest first; in TopTransactionContext. */
static dlist_head requests = DLIST_STATIC_INIT(requests);

/* ---------------------------------------------------------------------
 * When a transaction ends.  Nothing in here may fail.
 * ---------------------------------------------------------------------
 */

static void
commit_request(StreamRequest *request)
{
	StreamSlot *slot = request->slot;

	if (request->kind == REQUEST_START)
	{
		slot->wanted = true;
		slot->start_requests++;
		slot->failures = 0;
		slot->next_start = 0;
		SpinLockAcquire(&slot->mutex);
		memset(&slot->last_error, 0, sizeof(slot->last_error));
		SpinLockRelease(&slot->mutex);
	}
	else
		slot->wanted = false;
}

static void
undo_request(StreamRequest *request)
{
	StreamSlot *slot = request->slot;

	if (request->kind != REQUEST_START && request->was_wanted)
		slot->wanted = true;
}

/* The request doesn't count any more; its slot may go. */
static void
close_request(StreamRequest *request)
{
	StreamSlot *slot = request->slot;

	slot->pending_requests--;
	if (request->kind != REQUEST_START)
		slot->stop_requests--;
	/* a slot that never had a worker tells nothing: a start or create that was undone */
	if (slot->in_use && progress_slot_unused(slot) &&
	    (request->kind == REQUEST_FORGET || slot->last_start == 0))
		progress_release_slot(slot);
	else
		ConditionVariableBroadcast(progress_condition(slot->database_id, slot->stream_id));
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	dlist_iter iter;

	if (dlist_is_empty(&requests))
		return;

	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			ereport(
			    ERROR,
			    (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			     errmsg("cannot PREPARE a transaction that has started or stopped a stream"),
			     errhint("Use COMMIT instead.")));
			break;

		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			LWLockAcquire(progress_shared->lock, LW_EXCLUSIVE);
			dlist_foreach(iter, &requests)
			{
				StreamRequest *request = dlist_container(StreamRequest, node, iter.cur);

				if (event == XACT_EVENT_COMMIT)
					commit_request(request);
				else
					undo_request(request);
			}
			/* only now: an earlier request must not release what a later one wants */
			dlist_foreach(iter, &requests)
			    close_request(dlist_container(StreamRequest, node, iter.cur));
			LWLockRelease(progress_shared->lock);
			dlist_init(&requests); /* the memory goes with the transaction */
			progress_wake_launcher();
			break;

		default:
			break;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subtransaction,
                      SubTransactionId parent, void *arg)
{
	dlist_mutable_iter iter;
	bool undone = false;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;

	dlist_foreach_modify(iter, &requests)
	{
		StreamRequest *request = dlist_container(StreamRequest, node, iter.cur);

		if (request->subtransaction != subtransaction)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
		{
			request->subtransaction = parent;
			continue;
		}
		LWLockAcquire(progress_shared->lock, LW_EXCLUSIVE);
		undo_request(request);
		close_request(request);
		LWLockRelease(progress_shared->lock);
		dlist_delete(&request->node);
		undone = true;
	}
	if (undone)
		progress_wake_launcher();
}

/* ---------------------------------------------------------------------
 * Making requests
 * ---------------------------------------------------------------------
 */

/* Reserves the worker's slot and remembers the request; false when there is no slot left. */
static bool
add_request(RequestKind kind, int64 stream_id, int worker, const char *stream_name, Oid owner)
{
	static bool callbacks_registered = false;
	StreamRequest *request;
	StreamSlot *slot;

	if (!callbacks_registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
		callbacks_registered = true;
	}

	/* all that can fail comes before the change of shared memory */
	request = MemoryContextAlloc(TopTransactionContext, sizeof(StreamRequest));
	request->kind = kind;
	request->subtransaction = GetCurrentSubTransactionId();

	LWLockAcquire(progress_shared->lock, LW_EXCLUSIVE);
	slot = progress_reserve_slot(MyDatabaseId, stream_id, worker, stream_name, owner);
	if (slot != NULL)
	{
		request->slot = slot;
		request->was_wanted = slot->wanted;
		slot->pending_requests++;
		if (kind != REQUEST_START)
		{
			slot->stop_requests++;
			if (slot->worker_pid != 0)
				SetLatch(&GetPGProcByNumber(slot->worker_procno)->procLatch);
		}
		dlist_push_tail(&requests, &request->node);
	}
	LWLockRelease(progress_shared->lock);

	if (slot == NULL)
		pfree(request);
	return slot != NULL;
}

/* Has the stream a slot for a worker of this number, from now or from before? */
static bool
has_slot(int64 stream_id, int worker)
{
	bool found;

	LWLockAcquire(progress_shared->lock, LW_SHARED);
	found = progress_find_slot(MyDatabaseId, stream_id, worker) != NULL;
	LWLockRelease(progress_shared->lock);
	return found;
}

/* Raises an error when the stream would give its owner too many workers. */
static void
check_limit_of_role(int64 stream_id, int workers, const char *stream_name, Oid owner)
{
	int others = 0;

	if (progress_max_stream_workers_per_role < 0 || superuser_arg(owner))
		return;
	LWLockAcquire(progress_shared->lock, LW_SHARED);
	for (int i = 0; i < progress_max_stream_workers; i++)
	{
		const StreamSlot *slot = &progress_shared->slots[i];

		if (slot->in_use && slot->owner == owner &&
		    (slot->wanted || slot->pending_requests > 0) && slot->stop_requests == 0 &&
		    !(slot->database_id == MyDatabaseId && slot->stream_id == stream_id))
			others++;
	}
	LWLockRelease(progress_shared->lock);
	if (others + workers > progress_max_stream_workers_per_role)
		ereport(ERROR,
		        (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
		         errmsg("cannot start stream \"%s\": role \"%s\" may have %d worker(s)",
		                stream_name, GetUserNameFromId(owner, false),
		                progress_max_stream_workers_per_role),
		         errdetail("Its other streams have %d, this one needs %d.", others, workers),
		         errhint("Stop another one, or ask the administrator to increase "
		                 "kafka_ingest.max_stream_workers_per_role.")));
}

void
progress_start_at_commit(int64 stream_id, int workers, const char *stream_name, Oid owner)
{
	progress_require_available();
	check_limit_of_role(stream_id, workers, stream_name, owner);

	for (int worker = 0; worker < workers; worker++)
		if (!add_request(REQUEST_START, stream_id, worker, stream_name, owner))
			ereport(
			    ERROR,
			    (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			     errmsg("cannot start stream \"%s\": all %d slots for workers of streams are "
			            "in use",
			            stream_name, progress_max_stream_workers),
			     workers > 1 ? errdetail("The stream has %d workers.", workers) : 0,
			     errhint("Increase kafka_ingest.max_stream_workers and restart the server, or "
			             "stop another stream.")));
	for (int worker = workers; worker < STREAM_MAX_WORKERS; worker++)
		if (has_slot(stream_id, worker))
			(void) add_request(REQUEST_FORGET, stream_id, worker, "", InvalidOid);
}

/*
 * Is none of the stream's workers there, or on its way?  Those that are there are
 * sent SIGTERM, if that is wanted.
 */
static bool
workers_gone(int64 stream_id, bool terminate)
{
	bool gone = true;

	LWLockAcquire(progress_shared->lock, LW_SHARED);
	for (int i = 0; i < progress_max_stream_workers; i++)
	{
		StreamSlot *slot = &progress_shared->slots[i];

		if (!slot->in_use || slot->stream_id != stream_id || slot->database_id != MyDatabaseId)
			continue;
		gone = gone && slot->worker_pid == 0 && !slot->starting;
		/* the process can't be gone: it detaches under the lock that we hold */
		if (slot->worker_pid == 0 || !terminate)
			continue;
		SpinLockAcquire(&slot->mutex);
		slot->told_to_end = true;
		SpinLockRelease(&slot->mutex);
		(void) kill(slot->worker_pid, SIGTERM);
	}
	LWLockRelease(progress_shared->lock);
	return gone;
}

/* Waits until the stream has no worker; one that takes too long is sent SIGTERM. */
static void
wait_for_workers_exit(int64 stream_id)
{
	static uint32 wait_event = 0;
	ConditionVariable *changed = progress_condition(MyDatabaseId, stream_id);
	TimestampTz terminate_at =
	    TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TERMINATE_AFTER_MS);

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("KafkaIngestStreamStop");

	ConditionVariablePrepareToSleep(changed);
	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		bool terminate = now >= terminate_at;

		if (workers_gone(stream_id, terminate))
			break;
		if (terminate)
			terminate_at = TimestampTzPlusMilliseconds(now, TERMINATE_AFTER_MS);
		(void) ConditionVariableTimedSleep(changed,
		                                   TimestampDifferenceMilliseconds(now, terminate_at),
		                                   wait_event);
	}
	ConditionVariableCancelSleep();
}

void
progress_stop_now(int64 stream_id, int workers, bool forget)
{
	RequestKind kind = forget ? REQUEST_FORGET : REQUEST_STOP;

	if (!progress_available())
		return;
	progress_refuse_in_worker(stream_id, "stop");

	/*
	 * What has no slot has no worker; the slots are for the start-up scan, which
	 * may find the stream before our transaction ends.  Where no slot is left, it
	 * won't get one either.
	 */
	for (int worker = 0; worker < STREAM_MAX_WORKERS; worker++)
		if (worker < workers || has_slot(stream_id, worker))
			(void) add_request(kind, stream_id, worker, "", InvalidOid);
	wait_for_workers_exit(stream_id);
}

bool
progress_request_is_pending(int64 stream_id)
{
	dlist_iter iterator;

	dlist_foreach(iterator, &requests)
	{
		StreamRequest *request = dlist_container(StreamRequest, node, iterator.cur);

		if (request->slot->stream_id == stream_id && request->slot->database_id == MyDatabaseId)
			return true;
	}
	return false;
}
