/*-------------------------------------------------------------------------
 *
 * function_arguments.c
 *	  Arguments of SQL functions: what must be given, and in what form.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "function_arguments.h"

#include "common/int.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

void
require_argument(FunctionCallInfo fcinfo, int index, const char *name)
{
	if (PG_ARGISNULL(index))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("argument \"%s\" must not be null", name)));
}

Oid
relation_argument(FunctionCallInfo fcinfo, int index, const char *name)
{
	Oid relation;

	require_argument(fcinfo, index, name);
	relation = PG_GETARG_OID(index);
	if (get_rel_relkind(relation) == '\0')
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("%s does not exist", name),
		                errdetail("No relation has the OID %u.", relation)));
	return relation;
}

char *
required_text(FunctionCallInfo fcinfo, int index, const char *name)
{
	require_argument(fcinfo, index, name);
	return text_to_cstring(PG_GETARG_TEXT_PP(index));
}

char *
text_argument(FunctionCallInfo fcinfo, int index)
{
	return PG_ARGISNULL(index) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(index));
}

List *
names_argument(FunctionCallInfo fcinfo, int index, const char *name)
{
	List *names = NIL;
	Datum *elements;
	bool *nulls;
	int count;

	if (PG_ARGISNULL(index))
		return NIL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(index), TEXTOID, -1, false, TYPALIGN_INT, &elements,
	                  &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		char *element = nulls[i] ? NULL : TextDatumGetCString(elements[i]);
		ListCell *cell;

		if (element == NULL || element[0] == '\0')
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("%s must not contain an empty name or null", name),
			                errdetail("Element %d is empty.", i + 1),
			                errhint("Give an array of names, such as '{id}'.")));
		foreach (cell, names)
			if (strcmp(lfirst(cell), element) == 0)
				ereport(ERROR, (errcode(ERRCODE_DUPLICATE_COLUMN),
				                errmsg("%s contains \"%s\" twice", name, element),
				                errdetail("A column is part of a key once."),
				                errhint("Name each column once.")));
		names = lappend(names, element);
	}
	if (names == NIL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s is empty", name)));
	return names;
}

bool
choice_argument(const char *name, const char *value, const char *first, const char *second)
{
	if (strcmp(value, first) == 0)
		return false;
	if (second != NULL && strcmp(value, second) == 0)
		return true;
	ereport(ERROR,
	        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid %s \"%s\"", name, value),
	         second ? errhint("Valid values are \"%s\" and \"%s\".", first, second)
	                : errhint("The only valid value is \"%s\".", first)));
}

int64
interval_argument_ms(Datum value)
{
	Interval *interval = DatumGetIntervalP(value);
	int64 days;
	int64 ms;

	if (pg_mul_s64_overflow((int64) interval->month * DAYS_PER_MONTH + interval->day,
	                        INT64CONST(86400000), &days) ||
	    pg_add_s64_overflow(days, interval->time / 1000, &ms) || ms < 0 ||
	    ms > INT64CONST(86400000) * 365)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("trigger_interval must be between 0 and 365 days")));
	return ms;
}

int64
limit_argument(const char *name, Datum value, int64 lowest)
{
	int64 limit = DatumGetInt64(value);

	if (limit < lowest)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("%s must be at least %lld", name, (long long) lowest)));
	return limit;
}
