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

#include "lib/stringinfo.h"
#include "row_image.h"
#include "utils/builtins.h"

static void
append_columns(StringInfo text, const UpsertTarget *target)
{
	for (int i = 0; i < target->column_count; i++)
		appendStringInfo(text, "%s%s", i > 0 ? ", " : "",
		                 quote_identifier(target->column_names[i]));
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

/* Would the update change anything? */
static void
append_change_condition(StringInfo text, const UpsertTarget *target)
{
	List *existing = NIL;
	List *excluded = NIL;

	for (int i = 0; i < target->column_count; i++)
	{
		const char *name = quote_identifier(target->column_names[i]);

		if (upsert_target_is_key(target, i))
			continue;
		existing = lappend(existing, psprintf("target.%s", name));
		excluded = lappend(excluded, psprintf("excluded.%s", name));
	}
	append_rows_differ(text, existing, excluded);
}

char *
upsert_target_write_statement(const UpsertTarget *target)
{
	StringInfoData text;
	const char *separator = "";

	initStringInfo(&text);
	appendStringInfo(&text, "INSERT INTO %s AS target (", target->name);
	append_columns(&text, target);
	appendStringInfoString(&text, ") SELECT ");
	append_columns(&text, target);
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
