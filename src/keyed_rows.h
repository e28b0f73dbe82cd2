/*-------------------------------------------------------------------------
 *
 * keyed_rows.h
 *	  The rows of a table by the key of a unique index: found, inserted, updated.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KEYED_ROWS_H
#define KEYED_ROWS_H

#include "compat.h"

#include "nodes/execnodes.h"

typedef struct KeyedRows KeyedRows;

/* Is it the index of plain columns that rows can be found by? */
extern bool keyed_rows_index_serves(Relation index);

/*
 * Begins to write rows of a statement that has been started, in the order of their keys or any other:
 * "table" is what it writes to, "index_id" an index that serves.  ours_alone: nobody else
 * should be writing to the table, so that new rows can be inserted many at a time.  Lives
 * in the current memory context, until keyed_rows_end().
 */
extern KeyedRows *keyed_rows_begin(ResultRelInfo *table, Oid index_id, EState *estate,
                                   bool ours_alone);

/*
 * Takes the row that is to be written, a whole row of the table.  Raises what the
 * table's constraints say to it.
 */
extern void keyed_rows_take(KeyedRows *rows, TupleTableSlot *row);

/* The row that was taken; valid until the next one is. */
extern TupleTableSlot *keyed_rows_new_row(KeyedRows *rows);

/*
 * The row of the table with the key of the row that was taken, in the slot, also one that was not there
 * when the statement began; false: there is none.  Waits for transactions that are at work on it.  Raises
 * ERRCODE_CARDINALITY_VIOLATION when the statement itself has written it.
 */
extern bool keyed_rows_find(KeyedRows *rows, TupleTableSlot *existing);

/*
 * Inserts the row that was taken; false when somebody else has inserted its key in
 * the meantime.  Where the table is ours alone, that shows later, as an error of class
 * ERRCODE_T_R_SERIALIZATION_FAILURE.  Raises ERRCODE_UNIQUE_VIOLATION for other indexes.
 */
extern bool keyed_rows_insert(KeyedRows *rows);

/*
 * Makes the row that was found another one; false when it was changed by somebody else in the
 * meantime.  Its xmax is not 0 then, in the slot.  Raises what the table's constraints and other unique indexes say.
 */
extern bool keyed_rows_update(KeyedRows *rows, TupleTableSlot *existing, TupleTableSlot *row);

/* All is in the table after this. */
extern void keyed_rows_end(KeyedRows *rows);

#endif /* KEYED_ROWS_H */
