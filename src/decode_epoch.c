/*-------------------------------------------------------------------------
 *
 * decode_epoch.c
 *	  Integers since 1970 to dates and timestamps: column option "epoch".
 *
 * Integer arithmetic throughout; only a column's precision rounds.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "decode_internal.h"

#define UNIX_EPOCH_DAYS (UNIX_EPOCH_JDATE - POSTGRES_EPOCH_JDATE)

static const char *
unit_name(TopicEpoch epoch)
{
	switch (epoch)
	{
		case EPOCH_SECONDS:
			return "seconds";
		case EPOCH_MILLISECONDS:
			return "milliseconds";
		case EPOCH_MICROSECONDS:
			return "microseconds";
		case EPOCH_NONE:
			break;
	}
	elog(ERROR, "column has no epoch");
	return NULL;
}

static int64
microseconds_per_unit(TopicEpoch epoch)
{
	return epoch == EPOCH_SECONDS        ? USECS_PER_SEC
	       : epoch == EPOCH_MILLISECONDS ? INT64CONST(1000)
	                                     : INT64CONST(1);
}

pg_noreturn static void
epoch_out_of_range(Oid type, const char *units)
{
	ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
	                errmsg(type == DATEOID ? "date out of range: \"%s\""
	                                       : "timestamp out of range: \"%s\"",
	                       units)));
}

Datum
epoch_value(TopicEpoch epoch, Oid type, int32 typmod, int64 units)
{
	Timestamp timestamp;

	if (type == DATEOID)
	{
		int64 units_per_day = USECS_PER_DAY / microseconds_per_unit(epoch);
		int64 days = units / units_per_day;

		if (units % units_per_day < 0)
			days--;
		days += UNIX_EPOCH_DAYS;
		if (days < PG_INT32_MIN || days > PG_INT32_MAX || !IS_VALID_DATE(days))
			epoch_out_of_range(type, psprintf(INT64_FORMAT, units));
		return DateADTGetDatum((DateADT) days);
	}

	if (pg_mul_s64_overflow(units, microseconds_per_unit(epoch), &timestamp) ||
	    pg_add_s64_overflow(timestamp, UNIX_EPOCH_DAYS * USECS_PER_DAY, &timestamp) ||
	    !IS_VALID_TIMESTAMP(timestamp))
		epoch_out_of_range(type, psprintf(INT64_FORMAT, units));
	if (typmod >= 0) /* timestamp and timestamptz are rounded alike */
		return DirectFunctionCall2(timestamp_scale, TimestampGetDatum(timestamp),
		                           Int32GetDatum(typmod));
	return TimestampGetDatum(timestamp);
}

Datum
epoch_value_from_text(TopicEpoch epoch, Oid type, int32 typmod, const char *text, size_t length)
{
	const char *end = text + length;
	bool negative = length > 0 && *text == '-';
	const char *digits = negative ? text + 1 : text;
	bool valid = digits < end;
	bool in_range = true;
	int64 units = 0;

	/* summed up below zero, where there is one number more */
	for (const char *p = digits; p < end; p++)
	{
		if (*p < '0' || *p > '9')
		{
			valid = false;
			break;
		}
		in_range = in_range && !pg_mul_s64_overflow(units, 10, &units) &&
		           !pg_sub_s64_overflow(units, *p - '0', &units);
	}
	if (!negative)
		in_range = in_range && !pg_sub_s64_overflow(0, units, &units);

	if (!valid)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_DATETIME_FORMAT),
		         errmsg("invalid epoch value: \"%s\"", decode_excerpt(text, length, 0)),
		         errdetail("Expected an integer number of %s since 1970-01-01 00:00 UTC.",
		                   unit_name(epoch))));
	if (!in_range)
		epoch_out_of_range(type, decode_excerpt(text, length, 0));
	return epoch_value(epoch, type, typmod, units);
}
