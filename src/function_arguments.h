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
#include "nodes/pg_list.h"

/* Raises ERRCODE_NULL_VALUE_NOT_ALLOWED when the argument is NULL. */
extern void require_argument(FunctionCallInfo fcinfo, int index, const char *name);

/* A regclass argument that is a relation; else an error as above, or ERRCODE_UNDEFINED_TABLE. */
extern Oid relation_argument(FunctionCallInfo fcinfo, int index, const char *name);

/* A text argument, palloc'd; for NULL an error as above, or NULL. */
extern char *required_text(FunctionCallInfo fcinfo, int index, const char *name);
extern char *text_argument(FunctionCallInfo fcinfo, int index);

/* An argument of type text[]: a list of distinct names, char *; NIL when it is NULL. */
extern List *names_argument(FunctionCallInfo fcinfo, int index, const char *name);

/*
 * One of two words (second may be NULL: only one); true for the second.  This and
 * the next raise ERRCODE_INVALID_PARAMETER_VALUE.
 */
extern bool choice_argument(const char *name, const char *value, const char *first,
                            const char *second);

/* trigger_interval in milliseconds; a number that must not be below a lowest one. */
extern int64 interval_argument_ms(Datum value);
extern int64 limit_argument(const char *name, Datum value, int64 lowest);

#endif /* FUNCTION_ARGUMENTS_H */
