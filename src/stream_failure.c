/*-------------------------------------------------------------------------
 *
 * stream_failure.c
 *	  Why a stream has failed: recorded, and raised again.
 *
 * Which errors make a stream fail is left to the worker.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_failure.h"

#include "catalog.h"
#include "utils/builtins.h"

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
