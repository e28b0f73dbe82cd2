/*
 * For test_second_worker.py: starts another worker for a stream, with the
 * arguments that the launcher gave the first, so that two run into each other.
 */
#include "postgres.h"

#include "fmgr.h"
#include "launcher.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"

PG_MODULE_MAGIC;
PG_FUNCTION_INFO_V1(start_second_worker);

/* (slot int, generation int, stream_id bigint) returns the process id */
Datum
start_second_worker(PG_FUNCTION_ARGS)
{
	StreamWorkerArguments arguments = {.generation = PG_GETARG_INT32(1),
	                                   .database_id = MyDatabaseId,
	                                   .stream_id = PG_GETARG_INT64(2)};
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;
	pid_t pid;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strcpy(worker.bgw_library_name, "kafka_ingest");
	strcpy(worker.bgw_function_name, "kafka_stream_worker_main");
	strcpy(worker.bgw_name, "second worker");
	worker.bgw_main_arg = Int32GetDatum(PG_GETARG_INT32(0));
	memcpy(worker.bgw_extra, &arguments, sizeof(arguments));
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		elog(ERROR, "no process is free");
	if (WaitForBackgroundWorkerStartup(handle, &pid) == BGWH_POSTMASTER_DIED)
		elog(ERROR, "the postmaster died");
	(void) WaitForBackgroundWorkerShutdown(handle);
	PG_RETURN_INT32(pid);
}
