/*-------------------------------------------------------------------------
 *
 * upsert_statements.c
 *	  The statements that insert, update and delete by key.
 *
 * Declared in upsert_target.h.  Which rows they write is left to upsert_rows.c,
 * running them to sink_upsert.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "upsert_target.h"

#include "access/transam.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

static void
append_columns(StringInfo text, const UpsertTarget *target, const char *prefix, bool with_key)
{
	const char *separator = "";

	for (int i = 0; i < target->column_count; i++)
	{
		if (!with_key && upsert_target_is_key(target, i))
			continue;
		appendStringInfo(text, "%s%s%s", separator, prefix,
		                 quote_identifier(target->column_names[i]));
		separator = ", ";
	}
}

static void
append_keys(StringInfo text, const UpsertTarget *target)
{
	for (int i = 0; i < target->key_count; i++)
		appendStringInfo(text, "%s%s", i > 0 ? ", " : "",
		                 quote_identifier(target->column_names[target->keys[i].column]));
}

/* target.key = other.key AND ... */
static void
append_key_condition(StringInfo text, const UpsertTarget *target, const char *other)
{
	for (int i = 0; i < target->key_count; i++)
	{
		const char *name = quote_identifier(target->column_names[target->keys[i].column]);

		appendStringInfo(text, "%starget.%s %s %s.%s", i > 0 ? " AND " : "", name,
		                 target->keys[i].equal, other, name);
	}
}

/* Has the type an equality that is found whatever search_path is? */
static bool
has_equality(Oid type)
{
	Oid base_type = getBaseType(type);

	return base_type < FirstNormalObjectId && !type_is_rowtype(base_type) &&
	       OidIsValid(lookup_type_cache(base_type, TYPECACHE_EQ_OPR)->eq_opr);
}

/*
 * Would the update change anything?  Images decide, not equality: the table shall
 * show what the last message said, be it equal or not (1.0 and 1.00), and not
 * all types have equality.  But values that are not equal are found faster.
 */
static void
append_change_condition(StringInfo text, const UpsertTarget *target)
{
	appendStringInfoChar(text, '(');
	for (int i = 0; i < target->column_count; i++)
	{
		const char *name = quote_identifier(target->column_names[i]);

		if (!upsert_target_is_key(target, i) &&
		    has_equality(TupleDescAttr(target->row_type, i)->atttypid))
			appendStringInfo(text, "target.%s IS DISTINCT FROM excluded.%s OR ", name, name);
	}
	/* the casts keep the parser from comparing column by column */
	appendStringInfoString(text, "ROW(");
	append_columns(text, target, "target.", false);
	appendStringInfoString(text, ")::record OPERATOR(pg_catalog.*<>) ROW(");
	append_columns(text, target, "excluded.", false);
	appendStringInfoString(text, ")::record)");
}

char *
upsert_target_write_statement(const UpsertTarget *target)
{
	StringInfoData text;
	const char *separator = "";

	initStringInfo(&text);
	appendStringInfo(&text, "INSERT INTO %s AS target (", target->name);
	append_columns(&text, target, "", true);
	appendStringInfoString(&text, ") SELECT ");
	append_columns(&text, target, "", true);
	appendStringInfoString(&text, " FROM " UPSERT_CHANGED_ROWS " ON CONFLICT (");
	append_keys(&text, target);
	if (target->key_count == target->column_count)
	{
		appendStringInfoString(&text, ") DO NOTHING");
		return text.data;
	}

	appendStringInfoString(&text, ") DO UPDATE SET ");
	for (int i = 0; i < target->column_count; i++)
	{
		const char *name = quote_identifier(target->column_names[i]);

		if (upsert_target_is_key(target, i))
			continue;
		appendStringInfo(&text, "%s%s = excluded.%s", separator, name, name);
		separator = ", ";
	}

	appendStringInfoString(&text, " WHERE ");
	append_change_condition(&text, target);
	if (target->version != NULL)
	{
		const char *name = quote_identifier(target->column_names[target->version->column]);

		appendStringInfo(&text, " AND (target.%s IS NULL OR excluded.%s %s target.%s)", name,
		                 name, target->version->greater_or_equal, name);
	}
	return text.data;
}

char *
upsert_target_delete_statement(const UpsertTarget *target)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text,
	                 "DELETE FROM %s AS target USING " UPSERT_DELETED_KEYS " AS deleted WHERE ",
	                 target->name);
	append_key_condition(&text, target, "deleted");
	return text.data;
}
