/*-------------------------------------------------------------------------
 *
 * heap_row.h
 *	  Form the heap tuples of many rows of one table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HEAP_ROW_H
#define HEAP_ROW_H

#include "postgres.h"
#include "access/htup.h"
#include "access/tupdesc.h"

typedef struct HeapRowFormer HeapRowFormer;

/* Prepares for rows of a descriptor, which must outlive the result; in the current memory context. */
extern HeapRowFormer *heap_row_former_create(TupleDesc descriptor);

/*
 * What heap_form_tuple() returns, to the byte; palloc'd.  No value is changed or
 * kept.
 */
extern HeapTuple heap_row_form(const HeapRowFormer *former, const Datum *values,
                               const bool *nulls);

#endif /* HEAP_ROW_H */
