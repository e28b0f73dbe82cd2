/*-------------------------------------------------------------------------
 *
 * stream.c
 *	  A stream's row in kafka.stream as a C struct: read, create, change.
 *
 * Checks who may touch a stream.  What makes a definition valid is left to
 * stream_query.c and stream_functions.c, offsets to checkpoint.c, processes
 * to progress.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* sub-objects of a stream in the lock table */
#define STREAM_LOCK_DEFINITION 0
#define STREAM_LOCK_WORKER     1

#define STREAM_COLUMNS                                                                         \
	"s.name, s.stream_id, s.owner::oid, s.source::oid, s.query_view, s.target::oid,"           \
	" s.on_conflict OPERATOR(pg_catalog.=) 'ignore',"                                          \
	" s.trigger OPERATOR(pg_catalog.=) 'available_now',"                                       \
	" (extract(epoch FROM s.trigger_interval) OPERATOR(pg_catalog.*) 1000)::bigint,"           \
	" coalesce(s.max_offsets_per_trigger, 0),"                                                 \
	" s.enabled,"                                                                              \
	" coalesce(s.started_in_system OPERATOR(pg_catalog.=) $2"                                  \
	"  AND s.started_in_database OPERATOR(pg_catalog.=) $3, false),"                           \
	" s.error_at IS NOT NULL"

static void
stream_lock_tag(LOCKTAG *tag, int64 stream_id, uint16 sub_object)
{
	/* stream ids come from a sequence of their own; 32 bits suffice for a lock */
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, catalog_stream_table(), (Oid) stream_id, sub_object);
}

void
stream_lock(int64 stream_id, LOCKMODE mode)
{
	LOCKTAG tag;

	stream_lock_tag(&tag, stream_id, STREAM_LOCK_DEFINITION);
	(void) LockAcquire(&tag, mode, false, false);
}

bool
stream_try_lock_worker(int64 stream_id)
{
	LOCKTAG tag;
	LockAcquireResult result;

	stream_lock_tag(&tag, stream_id, STREAM_LOCK_WORKER);
	/* session locks of the default method are lost when a transaction aborts */
	tag.locktag_lockmethodid = USER_LOCKMETHOD;
	result = LockAcquire(&tag, AccessExclusiveLock, true, true);
	if (result == LOCKACQUIRE_ALREADY_HELD)
		LockRelease(&tag, AccessExclusiveLock, true);
	return result != LOCKACQUIRE_NOT_AVAIL;
}

static Stream *
stream_fetch(const char *condition, Oid type, Datum value)
{
	MemoryContext caller_context = CurrentMemoryContext;
	CatalogAccess access;
	Stream *stream = NULL;
	Oid types[3] = {type, INT8OID, OIDOID};
	Datum values[3] = {value, Int64GetDatum((int64) GetSystemIdentifier()),
	                   ObjectIdGetDatum(MyDatabaseId)};
	char *sql;

	catalog_begin(&access);
	sql = psprintf("SELECT " STREAM_COLUMNS " FROM kafka.stream s WHERE %s", condition);
	if (catalog_execute(SPI_OK_SELECT, sql, 3, types, values, NULL) > 0)
	{
		HeapTuple row = SPI_tuptable->vals[0];
		TupleDesc descriptor = SPI_tuptable->tupdesc;
		Datum column[13];
		bool isnull;

		for (int i = 0; i < lengthof(column); i++)
			column[i] = SPI_getbinval(row, descriptor, i + 1, &isnull);

		stream = MemoryContextAllocZero(caller_context, sizeof(Stream));
		stream->name = MemoryContextStrdup(caller_context, TextDatumGetCString(column[0]));
		stream->stream_id = DatumGetInt64(column[1]);
		stream->owner = DatumGetObjectId(column[2]);
		stream->source = DatumGetObjectId(column[3]);
		stream->query_view = DatumGetBool(column[4]);
		stream->target = DatumGetObjectId(column[5]);
		stream->ignore_conflicts = DatumGetBool(column[6]);
		stream->trigger =
		    DatumGetBool(column[7]) ? TRIGGER_AVAILABLE_NOW : TRIGGER_PROCESSING_TIME;
		stream->trigger_interval_ms = DatumGetInt64(column[8]);
		stream->max_offsets_per_trigger = DatumGetInt64(column[9]);
		stream->enabled = DatumGetBool(column[10]);
		stream->started_here = DatumGetBool(column[11]);
		stream->failed = DatumGetBool(column[12]);
	}
	catalog_end(&access);
	return stream;
}

Stream *
stream_load(const char *name, bool missing_ok)
{
	Stream *stream =
	    stream_fetch("s.name OPERATOR(pg_catalog.=) $1", TEXTOID, CStringGetTextDatum(name));

	if (stream == NULL && !missing_ok)
		ereport(ERROR,
		        (errcode(ERRCODE_UNDEFINED_OBJECT),
		         errmsg("stream \"%s\" does not exist", name),
		         errhint("The view kafka.stream_status lists the streams of this database.")));
	return stream;
}

Stream *
stream_load_by_id(int64 stream_id)
{
	if (!catalog_exists())
		return NULL;
	return stream_fetch("s.stream_id OPERATOR(pg_catalog.=) $1", INT8OID,
	                    Int64GetDatum(stream_id));
}

Stream *
stream_load_owned(const char *name, bool missing_ok)
{
	Stream *stream = stream_load(name, missing_ok);

	if (stream != NULL && !has_privs_of_role(GetUserId(), stream->owner))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		                errmsg("must be owner of stream \"%s\"", name)));
	return stream;
}

int64
stream_next_id(void)
{
	CatalogAccess access;
	int64 stream_id;
	bool isnull;

	catalog_begin(&access);
	catalog_execute(SPI_OK_SELECT, "SELECT nextval('kafka.stream_stream_id_seq')", 0, NULL,
	                NULL, NULL);
	stream_id =
	    DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	catalog_end(&access);
	return stream_id;
}

#define STREAM_SETTINGS 7
static void
stream_settings(const Stream *stream, Oid *types, Datum *values, char *nulls)
{
	Interval *interval = palloc0(sizeof(Interval));

	interval->time = stream->trigger_interval_ms * INT64CONST(1000);

	types[0] = OIDOID;
	values[0] = ObjectIdGetDatum(stream->source);
	types[1] = BOOLOID;
	values[1] = BoolGetDatum(stream->query_view);
	types[2] = OIDOID;
	values[2] = ObjectIdGetDatum(stream->target);
	types[3] = TEXTOID;
	values[3] = CStringGetTextDatum(stream->ignore_conflicts ? "ignore" : "error");
	types[4] = TEXTOID;
	values[4] = CStringGetTextDatum(
	    stream->trigger == TRIGGER_AVAILABLE_NOW ? "available_now" : "processing_time");
	types[5] = INTERVALOID;
	values[5] = IntervalPGetDatum(interval);
	types[6] = INT8OID;
	values[6] = Int64GetDatum(stream->max_offsets_per_trigger);
	memset(nulls, ' ', STREAM_SETTINGS);
	if (stream->max_offsets_per_trigger == 0)
		nulls[6] = 'n';
}

void
stream_insert(Stream *stream)
{
	CatalogAccess access;
	Oid types[STREAM_SETTINGS + 3];
	Datum values[STREAM_SETTINGS + 3];
	char nulls[STREAM_SETTINGS + 4] = {0};
	uint64 inserted;

	stream_settings(stream, types, values, nulls);
	types[7] = TEXTOID;
	values[7] = CStringGetTextDatum(stream->name);
	types[8] = INT8OID;
	values[8] = Int64GetDatum(stream->stream_id);
	types[9] = OIDOID;
	values[9] = ObjectIdGetDatum(stream->owner);
	memset(nulls + STREAM_SETTINGS, ' ', 3);

	catalog_begin(&access);
	inserted = catalog_execute(
	    SPI_OK_INSERT,
	    "INSERT INTO kafka.stream (source, query_view, target, on_conflict, trigger,"
	    " trigger_interval, max_offsets_per_trigger, name, stream_id, owner, mode, on_error,"
	    " enabled) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'append', 'stop', false)"
	    " ON CONFLICT (name) DO NOTHING",
	    lengthof(types), types, values, nulls);
	catalog_end(&access);

	if (inserted == 0)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
		                errmsg("stream \"%s\" already exists", stream->name)));
}

void
stream_update(const Stream *stream)
{
	CatalogAccess access;
	Oid types[STREAM_SETTINGS + 1];
	Datum values[STREAM_SETTINGS + 1];
	char nulls[STREAM_SETTINGS + 2] = {0};

	stream_settings(stream, types, values, nulls);
	types[7] = INT8OID;
	values[7] = Int64GetDatum(stream->stream_id);
	nulls[7] = ' ';

	catalog_begin(&access);
	catalog_execute(SPI_OK_UPDATE,
	                "UPDATE kafka.stream SET source = $1, query_view = $2, target = $3,"
	                " on_conflict = $4, trigger = $5, trigger_interval = $6,"
	                " max_offsets_per_trigger = $7 WHERE stream_id = $8",
	                lengthof(types), types, values, nulls);
	catalog_end(&access);
}

void
stream_set_enabled(int64 stream_id, bool enabled)
{
	CatalogAccess access;
	Oid types[4] = {INT8OID, BOOLOID, INT8OID, OIDOID};
	Datum values[4] = {Int64GetDatum(stream_id), BoolGetDatum(enabled),
	                   Int64GetDatum((int64) GetSystemIdentifier()),
	                   ObjectIdGetDatum(MyDatabaseId)};

	catalog_begin(&access);
	catalog_execute(SPI_OK_UPDATE,
	                "UPDATE kafka.stream SET enabled = $2, started_in_system = $3,"
	                " started_in_database = $4, error_at = NULL, error_sqlstate = NULL,"
	                " error_message = NULL, error_detail = NULL, error_hint = NULL"
	                " WHERE stream_id = $1",
	                4, types, values, NULL);
	catalog_end(&access);
}

void
stream_record_failure(int64 stream_id, const ErrorData *error)
{
	CatalogAccess access;
	Oid types[5] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum values[5];
	char nulls[6] = "     ";

	values[0] = Int64GetDatum(stream_id);
	values[1] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
	values[2] = CStringGetTextDatum(error->message ? error->message : "");
	values[3] = (Datum) 0;
	values[4] = (Datum) 0;
	if (error->detail)
		values[3] = CStringGetTextDatum(error->detail);
	else
		nulls[3] = 'n';
	if (error->hint)
		values[4] = CStringGetTextDatum(error->hint);
	else
		nulls[4] = 'n';

	catalog_begin(&access);
	catalog_execute(SPI_OK_UPDATE,
	                "UPDATE kafka.stream SET error_at = clock_timestamp(), error_sqlstate = $2,"
	                " error_message = $3, error_detail = $4, error_hint = $5"
	                " WHERE stream_id = $1",
	                5, types, values, nulls);
	catalog_end(&access);
}

static char *
stream_view_name(int64 stream_id)
{
	return psprintf("kafka.stream_%lld_query", (long long) stream_id);
}

Oid
stream_create_query_view(const Stream *stream, const char *query)
{
	CatalogAccess access;
	char *view_name = stream_view_name(stream->stream_id);
	char *sql;
	Oid view_id;

	catalog_begin(&access);
	/* the query comes deparsed, with every name qualified: see stream_query.c */
	if (stream->query_view)
		catalog_execute(SPI_OK_UTILITY, psprintf("DROP VIEW IF EXISTS %s", view_name), 0, NULL,
		                NULL, NULL);
	sql = psprintf("CREATE VIEW %s AS %s", view_name, query);
	catalog_execute(SPI_OK_UTILITY, sql, 0, NULL, NULL, NULL);
	sql = psprintf("ALTER VIEW %s OWNER TO %s", view_name,
	               quote_identifier(GetUserNameFromId(stream->owner, false)));
	catalog_execute(SPI_OK_UTILITY, sql, 0, NULL, NULL, NULL);
	sql = psprintf("COMMENT ON VIEW %s IS %s", view_name,
	               quote_literal_cstr(psprintf("query of kafka stream %s", stream->name)));
	catalog_execute(SPI_OK_UTILITY, sql, 0, NULL, NULL, NULL);
	view_id =
	    get_relname_relid(view_name + strlen("kafka."), get_namespace_oid("kafka", false));
	catalog_end(&access);
	return view_id;
}

void
stream_delete(const Stream *stream)
{
	CatalogAccess access;
	Oid types[1] = {INT8OID};
	Datum values[1] = {Int64GetDatum(stream->stream_id)};

	catalog_begin(&access);
	catalog_execute(SPI_OK_DELETE, "DELETE FROM kafka.stream WHERE stream_id = $1", 1, types,
	                values, NULL);
	if (stream->query_view)
		catalog_execute(SPI_OK_UTILITY,
		                psprintf("DROP VIEW IF EXISTS %s", stream_view_name(stream->stream_id)),
		                0, NULL, NULL, NULL);
	catalog_end(&access);
}

void
stream_check_objects(const Stream *stream)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(stream->owner)))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
		                errmsg("owner of stream \"%s\" does not exist", stream->name),
		                errhint("Use kafka.drop_stream and create it again.")));
	if (get_rel_relkind(stream->source) == '\0')
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
		                errmsg("source of stream \"%s\" does not exist", stream->name),
		                errdetail("It has been dropped, or was never there."),
		                errhint("Use kafka.drop_stream and create the stream again.")));
	if (get_rel_relkind(stream->target) == '\0')
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
		                errmsg("target of stream \"%s\" does not exist", stream->name),
		                errdetail("It has been dropped, or was never there."),
		                errhint("Use kafka.alter_stream to give it another target, then "
		                        "kafka.start_stream.")));
}

void
stream_raise_failure(const Stream *stream)
{
	MemoryContext caller_context = CurrentMemoryContext;
	CatalogAccess access;
	Oid types[1] = {INT8OID};
	Datum values[1] = {Int64GetDatum(stream->stream_id)};
	char *column[4] = {NULL, NULL, NULL, NULL};

	catalog_begin(&access);
	if (catalog_execute(SPI_OK_SELECT,
	                    "SELECT error_sqlstate, error_message, error_detail, error_hint"
	                    " FROM kafka.stream WHERE stream_id = $1",
	                    1, types, values, NULL) > 0)
	{
		for (int i = 0; i < lengthof(column); i++)
		{
			char *text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1);

			if (text)
				column[i] = MemoryContextStrdup(caller_context, text);
		}
	}
	catalog_end(&access);

	ereport(ERROR,
	        (errcode(column[0] && strlen(column[0]) == 5
	                     ? MAKE_SQLSTATE(column[0][0], column[0][1], column[0][2], column[0][3],
	                                     column[0][4])
	                     : ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
	         errmsg("stream \"%s\" has failed: %s", stream->name, column[1] ? column[1] : ""),
	         column[2] ? errdetail_internal("%s", column[2]) : 0,
	         column[3] ? errhint("%s", column[3]) : 0));
}
