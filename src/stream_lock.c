/*-------------------------------------------------------------------------
 *
 * stream_lock.c
 *	  Locks on a stream: its definition, its count of errors, its workers.
 *
 * They are objects of kafka.stream in PostgreSQL's lock table, so pg_locks shows them, and the
 * deadlock detector knows them.  Who takes which, and in which order, is left to the callers.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_lock.h"

#include "catalog.h"
#include "miscadmin.h"
#include "storage/lock.h"

/* sub-objects of a stream in the lock table */
#define STREAM_LOCK_DEFINITION  0
#define STREAM_LOCK_ERROR_COUNT 1
#define STREAM_LOCK_WORKER      2 /* and the following ones */

static void
stream_lock_tag(LOCKTAG *tag, int64 stream_id, uint16 sub_object)
{
	/* stream ids come from a sequence of their own; 32 bits suffice for a lock */
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, catalog_stream_table(), (Oid) stream_id, sub_object);
}

void
stream_lock(int64 stream_id, LOCKMODE mode)
{
	LOCKTAG tag;

	stream_lock_tag(&tag, stream_id, STREAM_LOCK_DEFINITION);
	(void) LockAcquire(&tag, mode, false, false);
}

void
stream_lock_error_count(int64 stream_id)
{
	LOCKTAG tag;

	stream_lock_tag(&tag, stream_id, STREAM_LOCK_ERROR_COUNT);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

bool
stream_try_lock_worker(int64 stream_id, int worker)
{
	LOCKTAG tag;
	LockAcquireResult result;

	stream_lock_tag(&tag, stream_id, STREAM_LOCK_WORKER + worker);
	/* session locks of the default method are lost when a transaction aborts */
	tag.locktag_lockmethodid = USER_LOCKMETHOD;
	result = LockAcquire(&tag, AccessExclusiveLock, true, true);
	if (result == LOCKACQUIRE_ALREADY_HELD)
		LockRelease(&tag, AccessExclusiveLock, true);
	return result != LOCKACQUIRE_NOT_AVAIL;
}

Stream *
stream_lock_owned(const char *name, LOCKMODE mode)
{
	for (;;)
	{
		int64 stream_id = stream_load_owned(name, false)->stream_id;
		Stream *stream;

		stream_lock(stream_id, mode);
		/* meanwhile it may have been changed, or dropped and created again */
		stream = stream_load_owned(name, false);
		if (stream->stream_id == stream_id)
			return stream;
	}
}
