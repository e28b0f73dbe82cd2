/*-------------------------------------------------------------------------
 *
 * sorted_indexes.h
 *	  The index entries of a batch's rows, inserted in the order of their keys.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SORTED_INDEXES_H
#define SORTED_INDEXES_H

#include "postgres.h"

#include "nodes/execnodes.h"

typedef struct SortedIndexes SortedIndexes;

/*
 * For a table whose indexes are open; NULL when it has none, or one that is not a B-tree or
 * that lets a violation wait for COMMIT.  Lives in the executor state's context; sorts in
 * maintenance_work_mem, then on disk.
 */
extern SortedIndexes *sorted_indexes_create(ResultRelInfo *table, EState *estate);

/* Keeps the entries of a row that is in the table; origin: what stands for it in errors. */
extern void sorted_indexes_add(SortedIndexes *indexes, TupleTableSlot *row, int origin);

/*
 * Inserts what has been kept, once.  Raises ERRCODE_UNIQUE_VIOLATION and the like, with
 * *failed_origin set to that of the row.
 */
extern void sorted_indexes_insert(SortedIndexes *indexes, int *failed_origin);

#endif /* SORTED_INDEXES_H */
