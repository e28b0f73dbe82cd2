/*-------------------------------------------------------------------------
 *
 * catalog.c
 *	  SQL on the extension's own tables, as their owner.
 *
 * Users hold no privilege to write to these tables: functions and workers
 * reach them through here.  What the rows mean is left to stream.c and
 * checkpoint.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "catalog.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "access/htup_details.h"

/*
 * The extension and its table, as they were found last.  The table can't be there without the
 * extension: when it has the same OID still, nothing else has to be looked up.
 */
static Oid known_stream_table = InvalidOid;
static Oid known_extension = InvalidOid;

Oid
catalog_stream_table(void)
{
	Oid namespace_id = get_namespace_oid("kafka", true);
	Oid stream_table =
	    OidIsValid(namespace_id) ? get_relname_relid("stream", namespace_id) : InvalidOid;

	if (OidIsValid(stream_table) && stream_table != known_stream_table)
	{
		Oid extension = get_extension_oid("kafka_ingest", true);

		if (!OidIsValid(extension))
			return InvalidOid;
		known_extension = extension;
		known_stream_table = stream_table;
	}
	return stream_table;
}

bool
catalog_exists(void)
{
	return OidIsValid(catalog_stream_table());
}

bool
catalog_lock(bool wait)
{
	LOCKTAG tag;

	if (!OidIsValid(catalog_stream_table()))
		return true;
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, known_extension, 0);
	if (LockAcquire(&tag, AccessShareLock, false, !wait) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	AcceptInvalidationMessages();
	return true;
}

static Oid
catalog_owner(void)
{
	Oid relid = catalog_stream_table();
	HeapTuple tuple;
	Oid owner;

	if (!OidIsValid(relid))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
		                errmsg("extension \"kafka_ingest\" is not installed in this database"),
		                errhint("Use CREATE EXTENSION kafka_ingest.")));
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

void
catalog_begin(CatalogAccess *access)
{
	Oid owner;

	(void) catalog_lock(true);
	owner = catalog_owner();
	GetUserIdAndSecContext(&access->user_id, &access->security_context);
	SetUserIdAndSecContext(owner, access->security_context | SECURITY_LOCAL_USERID_CHANGE |
	                                  SECURITY_RESTRICTED_OPERATION);
	access->guc_nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
	                         GUC_ACTION_SAVE, true, 0, false);
	/* our tables have row security for their readers */
	(void) set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
	                         true, 0, false);
	/* a worker has none between its steps */
	access->snapshot_pushed = !ActiveSnapshotSet();
	if (access->snapshot_pushed)
		PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
}

void
catalog_end(CatalogAccess *access)
{
	SPI_finish();
	if (access->snapshot_pushed)
		PopActiveSnapshot();
	AtEOXact_GUC(true, access->guc_nest_level);
	SetUserIdAndSecContext(access->user_id, access->security_context);
}

uint64
catalog_execute(int expected, const char *sql, int nargs, Oid *types, Datum *values,
                const char *nulls)
{
	int result = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);

	if (result != expected)
		elog(ERROR, "unexpected result %s of \"%s\"", SPI_result_code_string(result), sql);
	return SPI_processed;
}

uint64
catalog_execute_kept(SPIPlanPtr *plan, int expected, const char *sql, int nargs, Oid *types,
                     Datum *values, const char *nulls)
{
	int result;

	if (*plan == NULL)
	{
		SPIPlanPtr prepared = SPI_prepare(sql, nargs, types);

		if (prepared == NULL)
			elog(ERROR, "could not prepare \"%s\": %s", sql,
			     SPI_result_code_string(SPI_result));
		SPI_keepplan(prepared);
		*plan = prepared;
	}
	result = SPI_execute_plan(*plan, values, nulls, false, 0);
	if (result != expected)
		elog(ERROR, "could not execute \"%s\": %s", sql, SPI_result_code_string(result));
	return SPI_processed;
}
