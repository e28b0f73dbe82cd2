/*-------------------------------------------------------------------------
 *
 * database_scan.c
 *	  After a start of the launcher: which streams shall run, in all databases.
 *
 * Only a process that is connected to a database can read its catalogs.  So
 * the launcher starts a short-lived process for each database, a few at a
 * time, which gives every stream that was running a slot in shared memory and
 * goes away; in a database without the extension it goes at once.  Starting
 * the streams' workers is left to launcher.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "database_scan.h"

#include "catalog.h"
#include "launcher.h"
#include "progress_slots.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* A database that is still to be looked at. */
typedef struct PendingScan
{
	Oid database_id;
	int failures;
	TimestampTz next_try;
} PendingScan;

/* A process that looks at one. */
typedef struct RunningScan
{
	PendingScan *scan; /* NULL: none */
	BackgroundWorkerHandle *handle;
	uint64 ticket; /* what it leaves in finished_scans when it has come to its end */
} RunningScan;

/* Its arguments, in bgw_extra. */
typedef struct DatabaseScanArguments
{
	Oid database_id;
	int process;
	uint64 ticket;
} DatabaseScanArguments;

static List *pending_scans = NIL; /* of PendingScan, those that run not among them */
static RunningScan running_scans[PROGRESS_DATABASE_SCANS];

/* ---------------------------------------------------------------------
 * In the launcher
 * ---------------------------------------------------------------------
 */

List *
database_list(void)
{
	MemoryContext result_context = CurrentMemoryContext;
	List *databases = NIL;
	Relation relation;
	TableScanDesc scan;
	HeapTuple tuple;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old_context;
		DatabaseInfo *database;

		/* what an interrupted DROP DATABASE left */
		if (database_is_invalid_form(form))
			continue;
		old_context = MemoryContextSwitchTo(result_context);
		database = palloc(sizeof(DatabaseInfo));
		database->database_id = form->oid;
		database->allows_connections = form->datallowconn;
		databases = lappend(databases, database);
		MemoryContextSwitchTo(old_context);
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(result_context);
	return databases;
}

DatabaseInfo *
database_find(List *databases, Oid database_id)
{
	ListCell *cell;

	foreach (cell, databases)
	{
		DatabaseInfo *database = lfirst(cell);

		if (database->database_id == database_id)
			return database;
	}
	return NULL;
}

void
database_scan_begin(void)
{
	List *databases = database_list();
	MemoryContext old_context = MemoryContextSwitchTo(TopMemoryContext);
	ListCell *cell;

	foreach (cell, databases)
	{
		DatabaseInfo *database = lfirst(cell);
		PendingScan *scan;

		if (!database->allows_connections)
			continue;
		scan = palloc0(sizeof(PendingScan));
		scan->database_id = database->database_id;
		pending_scans = lappend(pending_scans, scan);
	}
	MemoryContextSwitchTo(old_context);
}

/* Puts a look that did not come to its end back, to be tried again after a delay. */
static void
retry_later(PendingScan *scan, TimestampTz now)
{
	MemoryContext old_context = MemoryContextSwitchTo(TopMemoryContext);

	scan->failures++;
	scan->next_try = now + progress_restart_delay(scan->failures);
	pending_scans = lappend(pending_scans, scan);
	MemoryContextSwitchTo(old_context);
}

static void
reap_scan(int process, TimestampTz now)
{
	RunningScan *running = &running_scans[process];
	pid_t pid;

	if (running->scan == NULL || GetBackgroundWorkerPid(running->handle, &pid) != BGWH_STOPPED)
		return;

	if (progress_shared->finished_scans[process] == running->ticket)
		pfree(running->scan);
	else
		retry_later(running->scan, now);
	pfree(running->handle);
	running->scan = NULL;
}

static void
start_scan(int process, PendingScan *scan, TimestampTz now)
{
	static uint32 tickets = 0;
	RunningScan *running = &running_scans[process];
	DatabaseScanArguments arguments;
	MemoryContext old_context;
	char name[BGW_MAXLEN];

	/* unique among launchers too: one started by our predecessor may still run */
	running->ticket = ((uint64) MyProcPid << 32) | ++tickets;

	memset(&arguments, 0, sizeof(arguments));
	arguments.database_id = scan->database_id;
	arguments.process = process;
	arguments.ticket = running->ticket;
	snprintf(name, sizeof(name), "kafka_ingest start-up of database %u", scan->database_id);

	old_context = MemoryContextSwitchTo(TopMemoryContext);
	running->handle =
	    launcher_start_process("kafka_database_scan_main", "kafka_ingest start-up", name,
	                           (Datum) 0, &arguments, sizeof(arguments));
	MemoryContextSwitchTo(old_context);

	if (running->handle != NULL)
		running->scan = scan;
	else
		retry_later(scan, now);
}

/* Takes the next database whose time has come off the list; NULL when there is none. */
static PendingScan *
next_scan(TimestampTz now)
{
	ListCell *cell;

	foreach (cell, pending_scans)
	{
		PendingScan *scan = lfirst(cell);
		DatabaseInfo *database;

		if (scan->next_try > now)
			continue;
		pending_scans = foreach_delete_current(pending_scans, cell);
		if (scan->failures == 0)
			return scan;
		/* perhaps it failed because the database has been dropped */
		database = database_find(database_list(), scan->database_id);
		if (database != NULL && database->allows_connections)
			return scan;
		pfree(scan);
	}
	return NULL;
}

void
database_scan_continue(TimestampTz now, TimestampTz *next_due)
{
	ListCell *cell;

	for (int i = 0; i < PROGRESS_DATABASE_SCANS; i++)
	{
		PendingScan *scan;

		reap_scan(i, now);
		if (running_scans[i].scan == NULL && (scan = next_scan(now)) != NULL)
			start_scan(i, scan, now);
	}

	/* those that are due now wait for the end of a running one, which wakes us */
	foreach (cell, pending_scans)
	{
		PendingScan *scan = lfirst(cell);

		if (scan->next_try > now)
			*next_due = Min(*next_due, scan->next_try);
	}
}

/* ---------------------------------------------------------------------
 * In the process that looks
 * ---------------------------------------------------------------------
 */

/* Gives slots to every stream that was running; false when there are not enough. */
static bool
want_enabled_streams(void)
{
	static Oid types[] = {INT8OID, OIDOID};
	Datum values[] = {Int64GetDatum((int64) GetSystemIdentifier()),
	                  ObjectIdGetDatum(MyDatabaseId)};
	CatalogAccess access;
	uint64 without_slot = 0; /* streams */

	catalog_begin(&access);
	catalog_execute(SPI_OK_SELECT,
	                "SELECT stream_id, name, owner::pg_catalog.oid, workers FROM kafka.stream"
	                " WHERE enabled AND error_at IS NULL"
	                " AND started_in_system OPERATOR(pg_catalog.=) $1"
	                " AND started_in_database OPERATOR(pg_catalog.=) $2",
	                2, types, values, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc descriptor = SPI_tuptable->tupdesc;
		bool isnull;
		int64 stream_id = DatumGetInt64(SPI_getbinval(row, descriptor, 1, &isnull));
		Oid owner = DatumGetObjectId(SPI_getbinval(row, descriptor, 3, &isnull));
		int workers = DatumGetInt32(SPI_getbinval(row, descriptor, 4, &isnull));
		const char *name = SPI_getvalue(row, descriptor, 2);
		bool complete = true;

		for (int worker = 0; worker < workers && complete; worker++)
			complete = progress_want(MyDatabaseId, stream_id, worker, name, owner);
		if (!complete)
			without_slot++;
	}
	catalog_end(&access);

	if (without_slot > 0)
		ereport(WARNING, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
		                  errmsg("cannot start all workers of %llu streams of database \"%s\": "
		                         "all %d slots for workers are in use",
		                         (unsigned long long) without_slot,
		                         get_database_name(MyDatabaseId), progress_max_stream_workers),
		                  errhint("Increase kafka_ingest.max_stream_workers and restart the "
		                          "server, or stop other streams.")));
	return without_slot == 0;
}

void
kafka_database_scan_main(Datum main_arg)
{
	DatabaseScanArguments arguments;
	bool finished = true;

	memcpy(&arguments, MyBgworkerEntry->bgw_extra, sizeof(arguments));
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	BackgroundWorkerInitializeConnectionByOid(arguments.database_id, InvalidOid, 0);
	/* whoever locks our catalog must not keep us, and the other databases, waiting */
	SetConfigOption("lock_timeout", "10s", PGC_SUSET, PGC_S_OVERRIDE);

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, "looking for streams to start");
	if (catalog_exists())
		finished = want_enabled_streams();
	PopActiveSnapshot();
	CommitTransactionCommand();

	if (finished)
		progress_shared->finished_scans[arguments.process] = arguments.ticket;
}
