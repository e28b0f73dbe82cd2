/*-------------------------------------------------------------------------
 *
 * watermark.c
 *	  How far event time has come in a stream: kafka.stream_watermark.
 *
 * A watermark is max(event time) - delay over all messages so far.  It is computed at
 * the end of a batch, is valid from the next one on, and never moves backwards.
 * What is late and what is over by it is left to the statements of the sinks.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "watermark.h"

#include "catalog.h"
#include "catalog/pg_type.h"
#include "event_time.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

static TimestampTz
timestamp_or_none(HeapTuple row, TupleDesc descriptor, int column)
{
	bool isnull;
	Datum value = SPI_getbinval(row, descriptor, column, &isnull);

	return isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
}

StreamWatermark
watermark_load(const char *stream)
{
	StreamWatermark watermark = {DT_NOBEGIN, DT_NOBEGIN, DT_NOBEGIN, 0};
	CatalogAccess access;
	Oid types[1] = {TEXTOID};
	Datum values[1] = {CStringGetTextDatum(stream)};

	catalog_begin(&access);
	if (catalog_execute(SPI_OK_SELECT,
	                    "SELECT watermark, previous_watermark, max_event_time, late_rows"
	                    " FROM kafka.stream_watermark WHERE stream = $1",
	                    1, types, values, NULL) > 0)
	{
		HeapTuple row = SPI_tuptable->vals[0];
		TupleDesc descriptor = SPI_tuptable->tupdesc;
		bool isnull;

		watermark.watermark = timestamp_or_none(row, descriptor, 1);
		watermark.previous = timestamp_or_none(row, descriptor, 2);
		watermark.max_event_time = timestamp_or_none(row, descriptor, 3);
		watermark.late_rows = DatumGetInt64(SPI_getbinval(row, descriptor, 4, &isnull));
	}
	catalog_end(&access);
	return watermark;
}

void
watermark_store(const char *stream, const StreamWatermark *watermark)
{
	CatalogAccess access;
	Oid types[5] = {TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID};
	Datum values[5] = {CStringGetTextDatum(stream), TimestampTzGetDatum(watermark->watermark),
	                   TimestampTzGetDatum(watermark->previous),
	                   TimestampTzGetDatum(watermark->max_event_time),
	                   Int64GetDatum(watermark->late_rows)};

	char nulls[6] = "     ";

	if (TIMESTAMP_IS_NOBEGIN(watermark->watermark))
		nulls[1] = 'n';
	if (TIMESTAMP_IS_NOBEGIN(watermark->previous))
		nulls[2] = 'n';
	if (TIMESTAMP_IS_NOBEGIN(watermark->max_event_time))
		nulls[3] = 'n';
	catalog_begin(&access);
	catalog_execute(SPI_OK_INSERT,
	                "INSERT INTO kafka.stream_watermark AS w (stream, watermark,"
	                " previous_watermark, max_event_time, late_rows)"
	                " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (stream) DO UPDATE"
	                " SET watermark = excluded.watermark,"
	                " previous_watermark = excluded.previous_watermark,"
	                " max_event_time = excluded.max_event_time, late_rows = excluded.late_rows",
	                5, types, values, nulls);
	catalog_end(&access);
}

void
watermark_delete(const char *stream)
{
	CatalogAccess access;
	Oid types[1] = {TEXTOID};
	Datum values[1] = {CStringGetTextDatum(stream)};

	catalog_begin(&access);
	catalog_execute(SPI_OK_DELETE, "DELETE FROM kafka.stream_watermark WHERE stream = $1", 1,
	                types, values, NULL);
	catalog_end(&access);
}

char *
watermark_statement(const Stream *stream, Oid topic_table)
{
	char *column = pstrdup(quote_identifier(stream->watermark_column));

	(void) event_time_column(topic_table, stream->watermark_column);
	return psprintf(
	    "SELECT min(t.%s), max(t.%s) FROM %s t WHERE isfinite(t.%s)", column, column,
	    quote_qualified_identifier(get_namespace_name(get_rel_namespace(topic_table)),
	                               get_rel_name(topic_table)),
	    column);
}

void
watermark_advance(StreamWatermark *watermark, SPIPlanPtr plan, const Interval *delay,
                  TimestampTz *oldest, TimestampTz *newest)
{
	Datum values[2] = {(Datum) 0, (Datum) 0};
	bool isnull;
	TimestampTz candidate;
	int result;

	watermark->previous = watermark->watermark;
	if (plan == NULL)
		return;
	result = SPI_execute_plan(plan, values, "nn", true, 0);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not read the batch's event times: %s",
		     SPI_result_code_string(result));
	(void) SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
	{
		*oldest = timestamp_or_none(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		*newest = timestamp_or_none(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
	}
	SPI_freetuptable(SPI_tuptable);
	if (isnull || *newest <= watermark->max_event_time)
		return;
	watermark->max_event_time = *newest;
	candidate = DatumGetTimestampTz(DirectFunctionCall2(
	    timestamptz_mi_interval, TimestampTzGetDatum(*newest), IntervalPGetDatum(delay)));
	watermark->watermark = Max(watermark->watermark, candidate);
}
