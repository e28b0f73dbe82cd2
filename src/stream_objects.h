/*-------------------------------------------------------------------------
 *
 * stream_objects.h
 *	  What a stream is made of: is it there, and does it stay?
 *
 *-------------------------------------------------------------------------
 */
#ifndef STREAM_OBJECTS_H
#define STREAM_OBJECTS_H

#include "postgres.h"
#include "stream.h"

/*
 * Says by name which of the objects that a stream is made of has been dropped:
 * ERRCODE_UNDEFINED_TABLE, ERRCODE_UNDEFINED_OBJECT.  Waits for who is dropping the source, and keeps it
 * from being dropped until the transaction ends.
 */
extern void stream_check_objects(const Stream *stream);

/*
 * The same for source and target, which is locked as for writing.  Not for those who wait while the
 * stream writes: somebody who wants to change the target would wait for them, and the stream for him.
 */
extern void stream_lock_objects(const Stream *stream);

/* The same without waiting: false when somebody is in the way. */
extern bool stream_try_lock_objects(const Stream *stream);

/* Waits until nobody is in the way of one and then of the other.  Nothing is locked when it returns, or looked at. */
extern void stream_wait_for_objects(const Stream *stream);

#endif /* STREAM_OBJECTS_H */
