/*-------------------------------------------------------------------------
 *
 * stream_trust.h
 *	  Whose code may run with the rights of a stream's owner.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STREAM_TRUST_H
#define STREAM_TRUST_H

#include "stream.h"

/*
 * Refuses tables, views and functions with code of somebody who lacks the
 * rights of the stream's owner: ERRCODE_INSUFFICIENT_PRIVILEGE.  Locks what it looks at as a
 * batch does, until the end of the transaction, so that it stays as it was seen.
 */
extern void stream_trust_check(const Stream *stream);

/* The same for a routine that a stream of this owner is told to call. */
extern void stream_trust_check_routine(Oid routine, Oid owner);

/*
 * From now on, functions that would be called with the rights of this role in a
 * security-restricted operation must be those of somebody who has its rights anyway;
 * until stream_trust_guard_end(), or an error that ends the (sub)transaction.  Guards nest: the last
 * one counts.  ERRCODE_PROGRAM_LIMIT_EXCEEDED when they nest too deeply.
 */
extern void stream_trust_guard_begin(Oid owner);
extern void stream_trust_guard_end(void);

#endif /* STREAM_TRUST_H */
