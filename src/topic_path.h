/*-------------------------------------------------------------------------
 *
 * topic_path.h
 *	  The column option "path": where in a JSON value a column's field is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TOPIC_PATH_H
#define TOPIC_PATH_H

#include "postgres.h"

/*
 * Splits a path such as customer.name, items[0].id or a."b.c".d into its steps:
 * palloc'd strings, without quotes; array indexes are steps of digits.
 * Returns their number, at least one.  Raises ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE.
 */
extern int topic_path_parse(const char *path, char ***steps);

#endif /* TOPIC_PATH_H */
