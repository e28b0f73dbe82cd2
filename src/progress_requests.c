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

typedef struct StreamRequest
{
	dlist_node node;
	RequestKind kind;
	SubTransactionId subtransaction;
	StreamSlot *slot; /* stays this stream's while slot->pending_requests counts us */
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
		ConditionVariableBroadcast(&slot->changed);
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

/*
 * Reserves the stream's slot and remembers the request; NULL when there is no
 * slot left.
 */
static StreamRequest *
add_request(RequestKind kind, int64 stream_id, const char *stream_name, Oid owner)
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
	slot = progress_reserve_slot(MyDatabaseId, stream_id, stream_name, owner);
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
	{
		pfree(request);
		return NULL;
	}
	return request;
}

void
progress_start_at_commit(int64 stream_id, const char *stream_name, Oid owner)
{
	progress_require_available();

	if (add_request(REQUEST_START, stream_id, stream_name, owner) == NULL)
		ereport(ERROR,
		        (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
		         errmsg("cannot start stream \"%s\": all %d slots for streams are in use",
		                stream_name, progress_max_streams),
		         errhint("Increase kafka_ingest.max_streams and restart the server, or "
		                 "stop another stream.")));
}

/* Waits until no worker has the slot; one that takes too long is sent SIGTERM. */
static void
wait_for_worker_exit(StreamSlot *slot)
{
	static uint32 wait_event = 0;
	TimestampTz terminate_at =
	    TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TERMINATE_AFTER_MS);

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("KafkaIngestStreamStop");

	ConditionVariablePrepareToSleep(&slot->changed);
	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		bool gone;

		LWLockAcquire(progress_shared->lock, LW_SHARED);
		gone = slot->worker_pid == 0 && !slot->starting;
		/* the process can't be gone: it detaches under the lock that we hold */
		if (slot->worker_pid != 0 && now >= terminate_at)
		{
			(void) kill(slot->worker_pid, SIGTERM);
			terminate_at = TimestampTzPlusMilliseconds(now, TERMINATE_AFTER_MS);
		}
		LWLockRelease(progress_shared->lock);

		if (gone)
			break;
		(void) ConditionVariableTimedSleep(
		    &slot->changed,
		    now < terminate_at ? TimestampDifferenceMilliseconds(now, terminate_at)
		                       : TERMINATE_AFTER_MS,
		    wait_event);
	}
	ConditionVariableCancelSleep();
}

void
progress_stop_now(int64 stream_id, bool forget)
{
	StreamSlot slot;
	StreamRequest *request;

	if (!progress_available())
		return;

	if (progress_read(MyDatabaseId, stream_id, &slot) && slot.worker_pid == MyProcPid)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
		                errmsg("stream \"%s\" cannot stop itself", slot.stream_name),
		                errhint("Stop it from another session.")));

	/*
	 * A stream that has no slot has no worker; the slot is for the start-up
	 * scan, which may find the stream before our transaction ends.  Where no
	 * slot is left, it won't get one either.
	 */
	request = add_request(forget ? REQUEST_FORGET : REQUEST_STOP, stream_id, "", InvalidOid);
	if (request != NULL)
		wait_for_worker_exit(request->slot);
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
