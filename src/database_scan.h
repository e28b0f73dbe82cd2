/*-------------------------------------------------------------------------
 *
 * database_scan.h
 *	  After a start of the launcher: which streams shall run, in all databases.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DATABASE_SCAN_H
#define DATABASE_SCAN_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

typedef struct DatabaseInfo
{
	Oid database_id;
	bool allows_connections;
} DatabaseInfo;

/* All databases as a list of DatabaseInfo, in the current memory context; opens a transaction. */
extern List *database_list(void);

/* The one with that OID in such a list, or NULL. */
extern DatabaseInfo *database_find(List *databases, Oid database_id);

/* For the launcher, once: notes all databases to be looked at. */
extern void database_scan_begin(void);

/*
 * For the launcher, in every cycle: starts processes that look, a few at a time,
 * and learns what became of those started before.  Lowers *next_due to the time
 * at which it wants to be called again; the end of a process wakes the caller's
 * latch.
 */
extern void database_scan_continue(TimestampTz now, TimestampTz *next_due);

extern PGDLLEXPORT void kafka_database_scan_main(Datum main_arg);

#endif /* DATABASE_SCAN_H */
