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

#include "catalog.h"
#include "catalog/namespace.h"
#include "utils/array.h"
#include "storage/lmgr.h"
#include "stream_lock.h"
#include "stream_view.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#define STREAM_COLUMNS                                                                         \
	"s.name, s.stream_id, s.owner::oid, s.source::oid, s.query_view, s.target::oid,"           \
	" s.on_conflict OPERATOR(pg_catalog.=) 'ignore',"                                          \
	" s.trigger OPERATOR(pg_catalog.=) 'available_now',"                                       \
	" (extract(epoch FROM s.trigger_interval) OPERATOR(pg_catalog.*) 1000)::bigint,"           \
	" coalesce(s.max_offsets_per_trigger, 0),"                                                 \
	" s.enabled,"                                                                              \
	" coalesce(s.started_in_system OPERATOR(pg_catalog.=) $2"                                  \
	"  AND s.started_in_database OPERATOR(pg_catalog.=) $3, false),"                           \
	" s.error_at IS NOT NULL,"                                                                 \
	" s.mode, s.key_columns, s.on_tombstone OPERATOR(pg_catalog.=) 'ignore',"                  \
	" s.version_column, s.watermark_column, s.watermark_delay, s.deduplicate_by,"              \
	" s.foreach_batch, s.notify,"                                                              \
	" s.on_error, coalesce(s.max_errors, 0), coalesce(s.max_errors_per_batch, 0), s.workers,"  \
	" s.fail_on_data_loss"

/* Columns of kafka.stream that users choose: the parameters $1, $2, ... of stream_settings(). */
#define STREAM_SETTINGS 21
#define STREAM_SETTING_NAMES                                                                   \
	"source, query_view, target, on_conflict, trigger, trigger_interval,"                      \
	" max_offsets_per_trigger, mode, key_columns, on_tombstone, version_column,"               \
	" watermark_column, watermark_delay, deduplicate_by, foreach_batch, notify, on_error, "    \
	"max_errors,"                                                                              \
	" max_errors_per_batch, workers, fail_on_data_loss"
#define STREAM_SETTING_PARAMETERS                                                              \
	"$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, "   \
	"$20, $21"

static const char *const mode_names[] = {"append", "update", "complete"};
static const char *const on_error_names[] = {"stop", "skip", "dead_letter"};

/* A column of the current row as a string in "context"; NULL for NULL. */
static char *
row_string(MemoryContext context, int column)
{
	char *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);

	return value ? MemoryContextStrdup(context, value) : NULL;
}

static Datum
row_datum(int column)
{
	bool isnull;

	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull);
}

/* A column of type text[] as a list of strings; NIL for NULL. */
static List *
row_strings(MemoryContext context, int column)
{
	MemoryContext old_context = MemoryContextSwitchTo(context);
	Datum array = row_datum(column);
	List *strings = NIL;

	if (DatumGetPointer(array) != NULL)
	{
		Datum *elements;
		int count;

		deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT,
		                  &elements, NULL, &count);
		for (int i = 0; i < count; i++)
			strings = lappend(strings, TextDatumGetCString(elements[i]));
	}
	MemoryContextSwitchTo(old_context);
	return strings;
}

/* Constraints keep such rows out, until a superuser takes the constraints away. */
pg_noreturn static void
raise_damaged(const char *detail)
{
	ereport(ERROR,
	        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
	         errmsg("a row of kafka.stream is damaged"), errdetail_internal("%s", detail),
	         errhint("Correct it, or delete it and create the stream again.")));
}

/* The index of a column's word in a list of words. */
static int
row_word(int column, const char *const *words, int count)
{
	char *word = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);

	for (int i = 0; i < count && word != NULL; i++)
		if (strcmp(word, words[i]) == 0)
			return i;
	raise_damaged(word ? psprintf("There is no \"%s\".", word) : "A column is null.");
}

static Stream *
stream_fetch(const char *condition, Oid type, Datum value)
{
	MemoryContext context = CurrentMemoryContext;
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
		Interval *delay = DatumGetIntervalP(row_datum(19));

		stream = MemoryContextAllocZero(context, sizeof(Stream));
		stream->name = row_string(context, 1);
		stream->stream_id = DatumGetInt64(row_datum(2));
		stream->owner = DatumGetObjectId(row_datum(3));
		stream->source = DatumGetObjectId(row_datum(4));
		stream->query_view = DatumGetBool(row_datum(5));
		stream->target = DatumGetObjectId(row_datum(6));
		stream->ignore_conflicts = DatumGetBool(row_datum(7));
		stream->trigger =
		    DatumGetBool(row_datum(8)) ? TRIGGER_AVAILABLE_NOW : TRIGGER_PROCESSING_TIME;
		stream->trigger_interval_ms = DatumGetInt64(row_datum(9));
		stream->max_offsets_per_trigger = DatumGetInt64(row_datum(10));
		stream->enabled = DatumGetBool(row_datum(11));
		stream->started_here = DatumGetBool(row_datum(12));
		stream->failed = DatumGetBool(row_datum(13));
		stream->mode = (StreamMode) row_word(14, mode_names, lengthof(mode_names));
		stream->key_columns = row_strings(context, 15);
		stream->ignore_tombstones = DatumGetBool(row_datum(16));
		stream->version_column = row_string(context, 17);
		stream->watermark_column = row_string(context, 18);
		if (delay != NULL)
		{
			stream->watermark_delay = MemoryContextAlloc(context, sizeof(Interval));
			*stream->watermark_delay = *delay;
		}
		stream->deduplicate_by = row_strings(context, 20);
		stream->foreach_batch = row_string(context, 21);
		stream->notify = row_string(context, 22);
		stream->on_error =
		    (StreamOnError) row_word(23, on_error_names, lengthof(on_error_names));
		stream->max_errors = DatumGetInt64(row_datum(24));
		stream->max_errors_per_batch = DatumGetInt64(row_datum(25));
		stream->workers = DatumGetInt32(row_datum(26));
		stream->fail_on_data_loss = DatumGetBool(row_datum(27));
		if (stream->name == NULL || strlen(stream->name) >= NAMEDATALEN)
			raise_damaged("A name has from 1 to 63 bytes.");
		if (stream->workers < 1 || stream->workers > STREAM_MAX_WORKERS)
			raise_damaged(
			    psprintf("Stream \"%s\" has %d workers.", stream->name, stream->workers));
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

static Datum
strings_datum(List *strings)
{
	Datum *elements = palloc(sizeof(Datum) * Max(list_length(strings), 1));
	ListCell *cell;
	int count = 0;

	foreach (cell, strings)
		elements[count++] = CStringGetTextDatum((char *) lfirst(cell));
	return PointerGetDatum(construct_array(elements, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/* What the statement's parameters $1 ... $21 are. */
static void
stream_settings(const Stream *stream, Oid *types, Datum *values, char *nulls)
{
	Interval *interval = palloc0(sizeof(Interval));
	int count = 0;

	interval->time = stream->trigger_interval_ms * INT64CONST(1000);
	memset(nulls, ' ', STREAM_SETTINGS);

#define SETTING(type, is_null, value)                                                          \
	do                                                                                         \
	{                                                                                          \
		types[count] = (type);                                                                 \
		nulls[count] = (is_null) ? 'n' : ' ';                                                  \
		values[count] = (is_null) ? (Datum) 0 : (value);                                       \
		count++;                                                                               \
	} while (0)

	SETTING(OIDOID, false, ObjectIdGetDatum(stream->source));
	SETTING(BOOLOID, false, BoolGetDatum(stream->query_view));
	SETTING(OIDOID, !OidIsValid(stream->target), ObjectIdGetDatum(stream->target));
	SETTING(TEXTOID, false, CStringGetTextDatum(stream->ignore_conflicts ? "ignore" : "error"));
	SETTING(TEXTOID, false,
	        CStringGetTextDatum(stream->trigger == TRIGGER_AVAILABLE_NOW ? "available_now"
	                                                                     : "processing_time"));
	SETTING(INTERVALOID, false, IntervalPGetDatum(interval));
	SETTING(INT8OID, stream->max_offsets_per_trigger == 0,
	        Int64GetDatum(stream->max_offsets_per_trigger));
	SETTING(TEXTOID, false, CStringGetTextDatum(mode_names[stream->mode]));
	SETTING(TEXTARRAYOID, stream->key_columns == NIL, strings_datum(stream->key_columns));
	SETTING(TEXTOID, false,
	        CStringGetTextDatum(stream->ignore_tombstones ? "ignore" : "delete"));
	SETTING(TEXTOID, stream->version_column == NULL,
	        CStringGetTextDatum(stream->version_column));
	SETTING(TEXTOID, stream->watermark_column == NULL,
	        CStringGetTextDatum(stream->watermark_column));
	SETTING(INTERVALOID, stream->watermark_delay == NULL,
	        IntervalPGetDatum(stream->watermark_delay));
	SETTING(TEXTARRAYOID, stream->deduplicate_by == NIL, strings_datum(stream->deduplicate_by));
	SETTING(TEXTOID, stream->foreach_batch == NULL, CStringGetTextDatum(stream->foreach_batch));
	SETTING(TEXTOID, stream->notify == NULL, CStringGetTextDatum(stream->notify));
	SETTING(TEXTOID, false, CStringGetTextDatum(on_error_names[stream->on_error]));
	SETTING(INT8OID, stream->max_errors == 0, Int64GetDatum(stream->max_errors));
	SETTING(INT8OID, stream->max_errors_per_batch == 0,
	        Int64GetDatum(stream->max_errors_per_batch));
	SETTING(INT4OID, false, Int32GetDatum(stream->workers));
	SETTING(BOOLOID, false, BoolGetDatum(stream->fail_on_data_loss));
#undef SETTING
	Assert(count == STREAM_SETTINGS);
}

/* Does this query about a role give a row? */
static bool
holds_for_role(const char *query, Oid role)
{
	Oid types[1] = {OIDOID};
	Datum values[1] = {ObjectIdGetDatum(role)};

	return catalog_execute(SPI_OK_SELECT, query, 1, types, values, NULL) > 0;
}

static bool
owner_is_recorded(Oid owner)
{
	return holds_for_role("SELECT FROM pg_class c, aclexplode(c.relacl) a"
	                      " WHERE c.oid = 'kafka.stream'::regclass AND a.grantee = $1",
	                      owner);
}

/*
 * PostgreSQL knows no dependency of a row on a role, but one of a table's
 * privileges: whoever has streams is named in those of kafka.stream.  The caller has
 * just written to it: nobody can be about to forget the owner.
 */
static void
record_owner(Oid owner)
{
	if (owner_is_recorded(owner))
		return;
	/* one at a time: privileges are a single row of pg_class; there is no stream 0 */
	stream_lock(0, AccessExclusiveLock);
	AcceptInvalidationMessages();
	if (!owner_is_recorded(owner))
		catalog_execute(SPI_OK_UTILITY,
		                psprintf("GRANT SELECT ON kafka.stream TO %s",
		                         quote_identifier(GetUserNameFromId(owner, false))),
		                0, NULL, NULL, NULL);
}

/*
 * After the last stream of an owner.  While somebody else writes to kafka.stream
 * it is left for another time: too much on record does no harm.
 */
static void
forget_owner(Oid owner)
{
	char *name = GetUserNameFromId(owner, true);

	if (name != NULL &&
	    ConditionalLockRelationOid(catalog_stream_table(), ShareRowExclusiveLock) &&
	    !holds_for_role("SELECT FROM kafka.stream WHERE owner = $1 LIMIT 1", owner))
		catalog_execute(SPI_OK_UTILITY,
		                psprintf("REVOKE SELECT ON kafka.stream FROM %s",
		                         quote_identifier(name)),
		                0, NULL, NULL, NULL);
}

void
stream_change_owner(Stream *stream, Oid owner)
{
	CatalogAccess access;
	Oid types[2] = {INT8OID, OIDOID};
	Datum values[2] = {Int64GetDatum(stream->stream_id), ObjectIdGetDatum(owner)};
	const char *name = quote_identifier(GetUserNameFromId(owner, false));
	Oid previous = stream->owner;

	catalog_begin(&access);
	catalog_execute(SPI_OK_UPDATE, "UPDATE kafka.stream SET owner = $2 WHERE stream_id = $1", 2,
	                types, values, NULL);
	catalog_execute(SPI_OK_UTILITY,
	                psprintf("ALTER VIEW IF EXISTS kafka.%s OWNER TO %s",
	                         stream_view_name(stream->stream_id), name),
	                0, NULL, NULL, NULL);
	record_owner(owner);
	forget_owner(previous);
	catalog_end(&access);
	stream->owner = owner;
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
	types[STREAM_SETTINGS] = TEXTOID;
	values[STREAM_SETTINGS] = CStringGetTextDatum(stream->name);
	types[STREAM_SETTINGS + 1] = INT8OID;
	values[STREAM_SETTINGS + 1] = Int64GetDatum(stream->stream_id);
	types[STREAM_SETTINGS + 2] = OIDOID;
	values[STREAM_SETTINGS + 2] = ObjectIdGetDatum(stream->owner);
	memset(nulls + STREAM_SETTINGS, ' ', 3);

	catalog_begin(&access);
	inserted =
	    catalog_execute(SPI_OK_INSERT,
	                    "INSERT INTO kafka.stream (" STREAM_SETTING_NAMES
	                    ", name, stream_id, owner,"
	                    " enabled) VALUES (" STREAM_SETTING_PARAMETERS ", $22, $23, $24, false)"
	                    " ON CONFLICT (name) DO NOTHING",
	                    lengthof(types), types, values, nulls);
	record_owner(stream->owner);
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
	types[STREAM_SETTINGS] = INT8OID;
	values[STREAM_SETTINGS] = Int64GetDatum(stream->stream_id);
	nulls[STREAM_SETTINGS] = ' ';

	catalog_begin(&access);
	catalog_execute(SPI_OK_UPDATE,
	                "UPDATE kafka.stream SET (" STREAM_SETTING_NAMES
	                ") = ROW (" STREAM_SETTING_PARAMETERS ") WHERE stream_id = $22",
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
stream_delete(const Stream *stream)
{
	CatalogAccess access;
	Oid types[1] = {INT8OID};
	Datum values[1] = {Int64GetDatum(stream->stream_id)};

	catalog_begin(&access);
	catalog_execute(SPI_OK_DELETE, "DELETE FROM kafka.stream WHERE stream_id = $1", 1, types,
	                values, NULL);
	forget_owner(stream->owner);
	if (stream->query_view)
		catalog_execute(SPI_OK_UTILITY,
		                psprintf("DROP VIEW IF EXISTS kafka.%s",
		                         stream_view_name(stream->stream_id)),
		                0, NULL, NULL, NULL);
	catalog_end(&access);
}
