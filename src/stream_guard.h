/*-------------------------------------------------------------------------
 *
 * stream_guard.h
 *	  Looks at whose code is about to run with the rights of a stream's owner.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STREAM_GUARD_H
#define STREAM_GUARD_H

#include "postgres.h"

/*
 * From now on, functions that would be called with the rights of this role in a
 * security-restricted operation must be those of somebody who has its rights anyway;
 * until stream_guard_end(), or an error that ends the (sub)transaction.  Guards nest: the last
 * one counts.  ERRCODE_PROGRAM_LIMIT_EXCEEDED when they nest too deeply.
 */
extern void stream_guard_begin(Oid owner);
extern void stream_guard_end(void);

#endif /* STREAM_GUARD_H */
