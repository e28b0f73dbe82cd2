/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The process that runs one stream.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WORKER_H
#define WORKER_H

#include "postgres.h"

/* Settings of workers; called from _PG_init. */
extern void worker_define_settings(void);

/* Entry point of the background worker; see StreamWorkerArguments in launcher.h. */
extern PGDLLEXPORT void kafka_stream_worker_main(Datum main_arg);

#endif /* WORKER_H */
