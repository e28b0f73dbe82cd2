/*-------------------------------------------------------------------------
 *
 * stream_objects.c
 *	  What a stream is made of: is it there, and does it stay?
 *
 * Owner, source and target.  What the query reads, and a partition of the target, are locked by who uses them.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_objects.h"

#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

void
stream_check_objects(const Stream *stream)
{
	/* no vacuum anywhere shall wait with us */
	InvalidateCatalogSnapshot();
	LockRelationOid(stream->source, AccessShareLock);
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(stream->owner)))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
		                errmsg("owner of stream \"%s\" does not exist", stream->name),
		                errhint("Use kafka.alter_stream_owner to give the stream to another "
		                        "role.")));
	if (get_rel_relkind(stream->source) == '\0')
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
		                errmsg("source of stream \"%s\" does not exist", stream->name),
		                errdetail("It has been dropped, or was never there."),
		                errhint("Use kafka.drop_stream and create the stream again, with the "
		                        "offsets of kafka.stream_offset as starting_offsets where it "
		                        "shall go on.")));
	if (stream->foreach_batch == NULL && get_rel_relkind(stream->target) == '\0')
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
		                errmsg("target of stream \"%s\" does not exist", stream->name),
		                errdetail("It has been dropped, or was never there."),
		                errhint("Use kafka.alter_stream to give it another target, then "
		                        "kafka.start_stream.")));
}

void
stream_lock_objects(const Stream *stream)
{
	InvalidateCatalogSnapshot();
	if (OidIsValid(stream->target))
		LockRelationOid(stream->target, RowExclusiveLock);
	stream_check_objects(stream);
}

static void
wait_for_relation(Oid relid, LOCKMODE mode)
{
	LockRelationOid(relid, mode);
	UnlockRelationOid(relid, mode);
}

void
stream_wait_for_objects(const Stream *stream)
{
	InvalidateCatalogSnapshot();
	wait_for_relation(stream->source, AccessShareLock);
	if (OidIsValid(stream->target))
		wait_for_relation(stream->target, RowExclusiveLock);
}

bool
stream_try_lock_objects(const Stream *stream)
{
	if (!ConditionalLockRelationOid(stream->source, AccessShareLock) ||
	    (OidIsValid(stream->target) &&
	     !ConditionalLockRelationOid(stream->target, RowExclusiveLock)))
		return false;
	stream_check_objects(stream);
	return true;
}
