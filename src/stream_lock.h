/*-------------------------------------------------------------------------
 *
 * stream_lock.h
 *	  Locks on a stream: its definition, its count of errors, its workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STREAM_LOCK_H
#define STREAM_LOCK_H

#include "postgres.h"
#include "storage/lockdefs.h"
#include "stream.h"

/*
 * Locks the definition of a stream until the end of the transaction.  A batch
 * holds AccessShareLock; whoever changes the stream takes AccessExclusiveLock.
 */
extern void stream_lock(int64 stream_id, LOCKMODE mode);

/*
 * The right to be the worker of this number, held by it for its life (a session
 * lock); false when another process has it.
 */
extern bool stream_try_lock_worker(int64 stream_id, int worker);

/*
 * Until the end of the transaction no other worker of the stream counts bad
 * messages against max_errors.
 */
extern void stream_lock_error_count(int64 stream_id);

/*
 * stream_load_owned() with the stream's definition locked until the transaction ends (stream_lock): as it is after
 * whoever held the lock is done.  ERRCODE_UNDEFINED_OBJECT when that has dropped it.
 */
extern Stream *stream_lock_owned(const char *name, LOCKMODE mode);

#endif /* STREAM_LOCK_H */
