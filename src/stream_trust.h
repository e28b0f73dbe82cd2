/*-------------------------------------------------------------------------
 *
 * stream_trust.h
 *	  Whose code may run with the rights of a stream's owner.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STREAM_TRUST_H
#define STREAM_TRUST_H

#include "compat.h"

#include "stream.h"

/*
 * Refuses tables, views and functions with code of somebody who lacks the
 * rights of the stream's owner: ERRCODE_INSUFFICIENT_PRIVILEGE.  Locks what it looks at as a
 * batch does, until the end of the transaction, so that it stays as it was seen.  Within a guard
 * (stream_guard.h) of the stream's owner.
 */
extern void stream_trust_check(const Stream *stream);

/* The same for a routine that a stream of this owner is told to call. */
extern void stream_trust_check_routine(Oid routine, Oid owner);

/*
 * The same for a relation that a statement with the rights of "owner" reads or writes.  Written
 * ones are locked; a view's relations are looked at, too.
 */
extern void stream_trust_check_relation(Oid relid, bool written, Oid owner);

/* Does the role have the rights of "owner" anyway? */
extern bool stream_trusts_role(Oid role, Oid owner);

/* Does the function belong to a role that does not have the rights of "owner"? */
extern bool stream_function_is_of_stranger(Oid function, Oid owner);

/* Can the function do nothing with the rights of "owner" that its own owner can't? */
extern bool stream_trusts_function(Oid function, Oid owner);

/* Can the function do nothing but compute, whoever calls it? */
extern bool stream_function_only_computes(Oid function);

/* Raises the error that names a function that is not trusted, and its owner: ERRCODE_INSUFFICIENT_PRIVILEGE. */
pg_noreturn extern void stream_refuse_function(Oid function, Oid owner);

#endif /* STREAM_TRUST_H */
