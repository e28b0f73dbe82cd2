/*-------------------------------------------------------------------------
 *
 * key_walk.h
 *	  Rows by their keys, by going over a unique index once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KEY_WALK_H
#define KEY_WALK_H

#include "access/genam.h"
#include "access/skey.h"
#include "executor/tuptable.h"
#include "utils/snapshot.h"

typedef struct KeyWalk KeyWalk;

typedef enum KeyWalkResult
{
	KEY_WALK_FOUND,
	KEY_WALK_ABSENT,
	KEY_WALK_UNSUITABLE /* to be looked up in another way */
} KeyWalkResult;

/* Makes a condition on a column of a B-tree index, 0 for the first; its argument is set later. */
extern void key_walk_condition(ScanKey condition, Relation index, int column,
                               StrategyNumber strategy);

/*
 * Begins to look up rows of "relation" by all columns of "index", a B-tree.  The snapshot must not be one of those
 * that MVCC goes by: it keeps the page of the index where the walk stands pinned, so that places in it stay valid.
 * Lives in the current memory context, until key_walk_end().
 */
extern KeyWalk *key_walk_begin(Relation relation, Relation index, Snapshot snapshot);

/*
 * The row that has the values of "keys", one for each column of the index, in the slot.  Keys may come in any order.
 * ABSENT means that the index had none when the walk came to its page: what others insert since is not seen.
 */
extern KeyWalkResult key_walk_find(KeyWalk *walk, const ScanKeyData *keys,
                                   TupleTableSlot *existing);

/* Leaves the index and its pages, before something that may take long; the next look-up begins a new walk. */
extern void key_walk_stop(KeyWalk *walk);

extern void key_walk_end(KeyWalk *walk);

#endif /* KEY_WALK_H */
