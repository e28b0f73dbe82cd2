/*-------------------------------------------------------------------------
 *
 * key_walk.c
 *	  Rows by their keys, by going over a unique index once.
 *
 * A look-up by itself goes down the whole index: some twenty comparisons, four pages.  A batch of a
 * backlog looks up every second or third key of an index, in its order.  Then the next entry is
 * where the last look-up ended, or a few entries further.
 *
 * The entries of a page are copied when the walk comes to it, which is dear when few of them are
 * wanted.  So costs are counted, and where keys lie far apart, or come in another order, the walk
 * pauses.
 *
 * Waiting for other transactions, and finding rows in a pause, is left to keyed_rows.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "key_walk.h"

#include "access/stratnum.h"
#include "catalog/pg_index.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/sortsupport.h"

/* Costs, in entries that are passed, as measured. */
#define COST_OF_START   60 /* down the index, and half a page copied */
#define COST_OF_LOOK_UP 8  /* what another way costs */

/* Entries that are passed for one key; more, and the walk pauses. */
#define MAX_STEPS 64

/* Costs are compared after so many look-ups. */
#define LOOK_UPS_COMPARED 128

/* A pause, in look-ups; each is twice as long as the last, until a walk was worth its cost. */
#define SHORTEST_PAUSE 64
#define LONGEST_PAUSE  8192

/* A column of a key. */
typedef struct KeptDatum
{
	Datum value;
	void *space; /* for a value that is passed by reference */
	Size size;
} KeptDatum;

struct KeyWalk
{
	IndexScanDesc scan;
	int key_count;
	SortSupportData order[INDEX_MAX_KEYS];
	bool by_value[INDEX_MAX_KEYS];
	int16 length[INDEX_MAX_KEYS];

	/* the entries that have all columns of the first key but the last one, and this or one behind it there */
	ScanKeyData entries[INDEX_MAX_KEYS];
	KeptDatum first[INDEX_MAX_KEYS];

	/* where it stands: at the first entry that is not before the last key that was looked up */
	bool is_started;
	bool is_at_end;
	Datum entry; /* its last column */
	KeptDatum last;

	int look_ups;
	int cost;
	int pause; /* look-ups that are left of it */
	int next_pause;
};

static Oid
operator_of(Relation index, int column, StrategyNumber strategy)
{
	Oid type = index->rd_opcintype[column];
	Oid operator= get_opfamily_member(index->rd_opfamily[column], type, type, strategy);

	if (!OidIsValid(operator))
		elog(ERROR, "operator %d of family %u for type %u is missing", strategy,
		     index->rd_opfamily[column], type);
	return operator;
}

void
key_walk_condition(ScanKey condition, Relation index, int column, StrategyNumber strategy)
{
	ScanKeyEntryInitialize(condition, 0, column + 1, strategy, index->rd_opcintype[column],
	                       index->rd_indcollation[column],
	                       get_opcode(operator_of(index, column, strategy)), (Datum) 0);
}

KeyWalk *
key_walk_begin(Relation relation, Relation index, Snapshot snapshot)
{
	KeyWalk *walk = palloc0(sizeof(KeyWalk));

	walk->key_count = index->rd_index->indnkeyatts;
	walk->next_pause = SHORTEST_PAUSE;
	for (int i = 0; i < walk->key_count; i++)
	{
		bool descending = (index->rd_indoption[i] & INDOPTION_DESC) != 0;
		bool is_last = i == walk->key_count - 1;
		StrategyNumber strategy = !is_last     ? BTEqualStrategyNumber
		                          : descending ? BTLessEqualStrategyNumber
		                                       : BTGreaterEqualStrategyNumber;
		SortSupport order = &walk->order[i];

		key_walk_condition(&walk->entries[i], index, i, strategy);
		order->ssup_cxt = CurrentMemoryContext;
		order->ssup_collation = index->rd_indcollation[i];
		PrepareSortSupportFromOrderingOp(
		    operator_of(index, i, descending ? BTGreaterStrategyNumber : BTLessStrategyNumber),
		    order);
		get_typlenbyval(index->rd_opcintype[i], &walk->length[i], &walk->by_value[i]);
	}
	walk->scan = begin_index_scan(relation, index, snapshot, walk->key_count);
	walk->scan->xs_want_itup = true;
	return walk;
}

static int
compare(KeyWalk *walk, int column, Datum one, Datum other)
{
	return ApplySortComparator(one, false, other, false, &walk->order[column]);
}

static void
keep(KeyWalk *walk, int column, Datum value, KeptDatum *kept)
{
	Size size;

	if (walk->by_value[column])
	{
		kept->value = value;
		return;
	}
	size = datumGetSize(value, false, walk->length[column]);
	if (size > kept->size)
	{
		if (kept->space != NULL)
			pfree(kept->space);
		kept->size = Max(2 * size, 64);
		kept->space = MemoryContextAlloc(GetMemoryChunkContext(walk), kept->size);
	}
	memcpy(kept->space, DatumGetPointer(value), size);
	kept->value = PointerGetDatum(kept->space);
}

/* Goes to the next entry. */
static void
step(KeyWalk *walk)
{
	bool is_null;

	walk->cost++;
	if (index_getnext_tid(walk->scan, ForwardScanDirection) == NULL)
		walk->is_at_end = true;
	else
		walk->entry = index_getattr(walk->scan->xs_itup, walk->key_count,
		                            walk->scan->xs_itupdesc, &is_null);
}

/* Goes down the index, to the first entry that is not before a key. */
static void
start(KeyWalk *walk, const ScanKeyData *keys)
{
	int last = walk->key_count - 1;

	for (int i = 0; i <= last; i++)
	{
		/* the scan looks at these as long as it lasts */
		keep(walk, i, keys[i].sk_argument, &walk->first[i]);
		walk->entries[i].sk_argument = walk->first[i].value;
	}
	keep(walk, last, keys[last].sk_argument, &walk->last);
	index_rescan(walk->scan, walk->entries, walk->key_count, NULL, 0);
	walk->is_started = true;
	walk->is_at_end = false;
	walk->cost += COST_OF_START;
	step(walk);
}

/* Does a key come after the last one, so that what it may be is not passed yet? */
static bool
comes_after_last(KeyWalk *walk, const ScanKeyData *keys)
{
	int last = walk->key_count - 1;

	if (!walk->is_started)
		return false;
	for (int i = 0; i < last; i++)
		if (compare(walk, i, keys[i].sk_argument, walk->first[i].value) != 0)
			return false;
	return compare(walk, last, keys[last].sk_argument, walk->last.value) > 0;
}

static KeyWalkResult
pause_walk(KeyWalk *walk)
{
	key_walk_stop(walk);
	walk->pause = walk->next_pause;
	walk->next_pause = Min(2 * walk->next_pause, LONGEST_PAUSE);
	walk->look_ups = 0;
	walk->cost = 0;
	return KEY_WALK_UNSUITABLE;
}

KeyWalkResult
key_walk_find(KeyWalk *walk, const ScanKeyData *keys, TupleTableSlot *existing)
{
	int last = walk->key_count - 1;
	Datum wanted = keys[last].sk_argument;

	if (walk->pause > 0)
	{
		walk->pause--;
		return KEY_WALK_UNSUITABLE;
	}
	for (int i = 0; i < walk->key_count; i++)
		if (keys[i].sk_flags & SK_ISNULL)
			return KEY_WALK_UNSUITABLE;
	if (walk->look_ups == LOOK_UPS_COMPARED)
	{
		if (walk->cost > LOOK_UPS_COMPARED * COST_OF_LOOK_UP)
			return pause_walk(walk);
		walk->next_pause = SHORTEST_PAUSE;
		walk->look_ups = 0;
		walk->cost = 0;
	}
	walk->look_ups++;

	if (comes_after_last(walk, keys))
		keep(walk, last, wanted, &walk->last);
	else
		start(walk, keys);
	for (int steps = 0; !walk->is_at_end; steps++)
	{
		int order = compare(walk, last, walk->entry, wanted);

		if (order > 0)
			break;
		/* of several entries with the key, one leads to a row that is not dead, if any */
		if (order == 0 && index_fetch_heap(walk->scan, existing))
			return KEY_WALK_FOUND;
		if (steps == MAX_STEPS)
			return pause_walk(walk);
		step(walk);
	}
	return KEY_WALK_ABSENT;
}

void
key_walk_stop(KeyWalk *walk)
{
	if (!walk->is_started)
		return;
	index_rescan(walk->scan, walk->entries, walk->key_count, NULL, 0);
	walk->is_started = false;
}

void
key_walk_end(KeyWalk *walk)
{
	index_endscan(walk->scan);
}
