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
 * From now on, whatever would run with the rights of this role in a security-restricted
 * operation must be code of somebody who has its rights anyway, or harmless: functions, tables,
 * views, aggregates and domains, else ERRCODE_INSUFFICIENT_PRIVILEGE.  Until
 * stream_guard_end(), or an error that ends the (sub)transaction.  Guards nest: the last
 * one counts.  ERRCODE_PROGRAM_LIMIT_EXCEEDED when they nest too deeply.
 */
extern void stream_guard_begin(Oid owner);
extern void stream_guard_end(void);

/*
 * Within a guard: looks at a relation that is read or written, and locked, unless that has been
 * done since the catalogs changed.
 */
extern void stream_guard_look_at(Oid relid, bool written);

#endif /* STREAM_GUARD_H */
