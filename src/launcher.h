/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  The process that starts the streams' workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LAUNCHER_H
#define LAUNCHER_H

#include "postgres.h"
#include "postmaster/bgworker.h"

/* What kafka_stream_worker_main finds in bgw_extra; bgw_main_arg is the slot's index. */
typedef struct StreamWorkerArguments
{
	uint32 generation; /* for progress_attach_worker */
	Oid database_id;
	int64 stream_id;
	int worker; /* number among the stream's workers, from 0 */
} StreamWorkerArguments;

/* Registers the launcher with the postmaster; for _PG_init of a preloaded library. */
extern void launcher_register(void);

/*
 * Registers a worker of this library that runs once, and tells the calling
 * process (by SIGUSR1) when it starts and ends.  main_function and the argument
 * of so many bytes (at most BGW_EXTRALEN) are the worker's; name and type are
 * for pg_stat_activity and the log.  Returns NULL, after a WARNING at most once a
 * minute, when max_worker_processes is exhausted; else a handle, palloc'd in
 * the current memory context.
 */
extern BackgroundWorkerHandle *launcher_start_process(const char *main_function,
                                                      const char *type, const char *name,
                                                      Datum main_argument, const void *extra,
                                                      Size extra_size);

extern PGDLLEXPORT void kafka_launcher_main(Datum main_arg);

#endif /* LAUNCHER_H */
