/*-------------------------------------------------------------------------
 *
 * function_arguments.h
 *	  Arguments of SQL functions: what must be given.
 *
 * Functions are not STRICT: a NULL that silently does nothing is worse than an
 * error.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FUNCTION_ARGUMENTS_H
#define FUNCTION_ARGUMENTS_H

#include "postgres.h"
#include "fmgr.h"
#include "utils/builtins.h"

/* Raises ERRCODE_NULL_VALUE_NOT_ALLOWED when the argument is NULL. */
static inline void
require_argument(FunctionCallInfo fcinfo, int index, const char *name)
{
	if (PG_ARGISNULL(index))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("argument \"%s\" must not be null", name)));
}

/* A text argument, palloc'd; see require_argument(). */
static inline char *
required_text(FunctionCallInfo fcinfo, int index, const char *name)
{
	require_argument(fcinfo, index, name);
	return text_to_cstring(PG_GETARG_TEXT_PP(index));
}

#endif /* FUNCTION_ARGUMENTS_H */
