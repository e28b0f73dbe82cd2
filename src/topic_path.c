/*-------------------------------------------------------------------------
 *
 * topic_path.c
 *	  The column option "path": where in a JSON value a column's field is.
 *
 * A path is names with dots between them.  [n] is an array's element; so is .n
 * where the value turns out to be an array.  A name with dots, brackets or quotes is
 * written in double quotes, a double quote in it twice.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

#include "compat.h"
#include "topic_path.h"

pg_noreturn static void
invalid_path(const char *path, const char *detail)
{
	ereport(ERROR,
	        (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE), errmsg("invalid path \"%s\"", path),
	         errdetail("%s", detail),
	         errhint("Examples of paths: customer.name, items[0].id, \"name.with.dots\".id.")));
}

/* Reads a name in double quotes; *position is at the opening one. */
static char *
quoted_name(const char *path, const char **position)
{
	const char *p = *position + 1;
	StringInfoData name;

	initStringInfo(&name);
	for (;; p++)
	{
		if (*p == '\0')
			invalid_path(path, "A double quote is not closed.");
		if (*p == '"' && *++p != '"')
			break;
		appendStringInfoChar(&name, *p);
	}
	*position = p;
	return name.data;
}

/* Reads an index in brackets; *position is at the opening one. */
static char *
bracketed_index(const char *path, const char **position)
{
	const char *digits = *position + 1;
	size_t length = strspn(digits, "0123456789");

	if (length == 0 || length > 9 || (length > 1 && *digits == '0') || digits[length] != ']')
		invalid_path(path, "In brackets, the number of an array element is expected, from 0.");
	*position = digits + length + 1;
	return pnstrdup(digits, length);
}

int
topic_path_parse(const char *path, char ***steps)
{
	const char *position = path;
	List *names = NIL;
	ListCell *cell;
	int count = 0;

	do
	{
		size_t length = strcspn(position, ".[]\"");

		if (*position == '"')
			names = lappend(names, quoted_name(path, &position));
		else if (length == 0)
			invalid_path(path, "A name is missing.");
		else
		{
			names = lappend(names, pnstrdup(position, length));
			position += length;
		}
		while (*position == '[')
			names = lappend(names, bracketed_index(path, &position));
		if (*position != '.' && *position != '\0')
			invalid_path(path, "A dot is expected between names.");
	} while (*position++ == '.');

	*steps = palloc(sizeof(char *) * list_length(names));
	foreach (cell, names)
		(*steps)[count++] = lfirst(cell);
	return count;
}
