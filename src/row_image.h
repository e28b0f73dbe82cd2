/*-------------------------------------------------------------------------
 *
 * row_image.h
 *	  Are two rows the same, byte for byte?
 *
 *-------------------------------------------------------------------------
 */
#ifndef ROW_IMAGE_H
#define ROW_IMAGE_H

#include "postgres.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

/*
 * Appends an SQL condition: is one of the columns "ones" (char *, SQL) another image than that of the same place
 * in "others"?  True or false, never null.  Works for columns of any type, which must be the same in both.
 */
extern void append_rows_differ(StringInfo sql, const List *ones, const List *others);

#endif /* ROW_IMAGE_H */
