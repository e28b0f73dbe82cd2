/*-------------------------------------------------------------------------
 *
 * row_image.c
 *	  Are two rows the same, byte for byte?
 *
 * Images decide where rows are written, not equality: a table shall show what the last message or the
 * result says, be it equal or not (1.0 and 1.00), and not all types have equality.  PostgreSQL's *<> does the
 * same for records, but makes records of the columns first, which takes several times as long.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "row_image.h"

#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"

#define PAIRS_PER_CALL (FUNC_MAX_ARGS / 2)

/* What a call site knows of its arguments. */
typedef struct PairTypes
{
	int16 length[PAIRS_PER_CALL];
	bool by_value[PAIRS_PER_CALL];
} PairTypes;

void
append_rows_differ(StringInfo sql, const List *ones, const List *others)
{
	const ListCell *one;
	const ListCell *other;

	appendStringInfoChar(sql, '(');
	if (ones == NIL)
		appendStringInfoString(sql, "false");
	forboth (one, ones, other, others)
	{
		int number = foreach_current_index(one);

		if (number % PAIRS_PER_CALL == 0)
			appendStringInfoString(sql, number > 0 ? ") OR kafka.rows_differ("
			                                       : "kafka.rows_differ(");
		else
			appendStringInfoString(sql, ", ");
		appendStringInfo(sql, "%s, %s", (char *) lfirst(one), (char *) lfirst(other));
	}
	appendStringInfoString(sql, ones == NIL ? ")" : "))");
}

static PairTypes *
look_up_types(FunctionCallInfo fcinfo)
{
	PairTypes *types = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt, sizeof(PairTypes));

	if (PG_NARGS() % 2 != 0)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		         errmsg("kafka.rows_differ() takes pairs of values"),
		         errdetail("It was called with %d argument(s).", PG_NARGS()),
		         errhint("Give each column of one row, followed by that of the other.")));
	for (int i = 0; i < PG_NARGS(); i++)
	{
		Oid type = get_fn_expr_argtype(fcinfo->flinfo, i);
		Oid base_type;

		if (!OidIsValid(type))
			elog(ERROR, "type of argument %d is not known", i + 1);
		base_type = getBaseType(type);
		if (i % 2 == 0)
			get_typlenbyval(base_type, &types->length[i / 2], &types->by_value[i / 2]);
		else if (base_type != getBaseType(get_fn_expr_argtype(fcinfo->flinfo, i - 1)))
			ereport(ERROR,
			        (errcode(ERRCODE_DATATYPE_MISMATCH),
			         errmsg("values of pair %d have different types, %s and %s", i / 2 + 1,
			                format_type_be(get_fn_expr_argtype(fcinfo->flinfo, i - 1)),
			                format_type_be(type)),
			         errhint("Cast one of them.")));
	}
	fcinfo->flinfo->fn_extra = types;
	return types;
}

/* As it would be in a row: what a function has left in the other bytes says nothing. */
static bool
same_bytes(Datum one, Datum other, int16 length)
{
	switch (length)
	{
		case 1:
			return (uint8) one == (uint8) other;
		case 2:
			return (uint16) one == (uint16) other;
		case 4:
			return (uint32) one == (uint32) other;
		default:
			return one == other;
	}
}

PG_FUNCTION_INFO_V1(kafka_rows_differ);

/* SQL: kafka.rows_differ(a, other a, b, other b, ...) */
Datum
kafka_rows_differ(PG_FUNCTION_ARGS)
{
	PairTypes *types = fcinfo->flinfo->fn_extra;

	if (types == NULL)
		types = look_up_types(fcinfo);
	for (int i = 0; i < PG_NARGS() / 2; i++)
	{
		const NullableDatum *one = &fcinfo->args[2 * i];
		const NullableDatum *other = one + 1;

		if (one->isnull != other->isnull)
			PG_RETURN_BOOL(true);
		if (one->isnull)
			continue;
		if (types->by_value[i]
		        ? !same_bytes(one->value, other->value, types->length[i])
		        : !datum_image_eq(one->value, other->value, false, types->length[i]))
			PG_RETURN_BOOL(true);
	}
	PG_RETURN_BOOL(false);
}
