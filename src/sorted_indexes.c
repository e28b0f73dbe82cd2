/*-------------------------------------------------------------------------
 *
 * sorted_indexes.c
 *	  The index entries of a batch's rows, inserted in the order of their keys.
 *
 * A batch has its messages partition by partition.  In that order, keys that grow with time
 * would be inserted all over the end of an index; in the order of the keys each page is
 * visited once, and most entries go where the last one went.
 *
 * What a row's entry is follows ExecInsertIndexTuples() in executor/execIndexing.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "sorted_indexes.h"

#include "access/genam.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/tuplesort.h"

/* entries between two resets of the memory of single ones */
#define ENTRIES_BETWEEN_RESETS 1000

typedef struct RowOrigin
{
	ItemPointerData place;
	int origin;
} RowOrigin;

struct SortedIndexes
{
	ResultRelInfo *table;
	EState *estate;
	Tuplesortstate **sorts; /* one per index; NULL: it takes no entries yet */
	RowOrigin *rows;        /* in the order of insertion */
	int row_count;
	int rows_allocated;
};

static bool
can_be_sorted(Relation index, const IndexInfo *info)
{
	return index->rd_rel->relam == BTREE_AM_OID && info->ii_ExclusionOps == NULL &&
	       (!info->ii_Unique || index->rd_index->indimmediate);
}

SortedIndexes *
sorted_indexes_create(ResultRelInfo *table, EState *estate)
{
	SortedIndexes *indexes;
	MemoryContext old_context;

	for (int i = 0; i < table->ri_NumIndices; i++)
		if (!can_be_sorted(table->ri_IndexRelationDescs[i], table->ri_IndexRelationInfo[i]))
			return NULL;
	if (table->ri_NumIndices == 0)
		return NULL;

	old_context = MemoryContextSwitchTo(estate->es_query_cxt);
	indexes = palloc0(sizeof(SortedIndexes));
	indexes->table = table;
	indexes->estate = estate;
	indexes->rows_allocated = 1024;
	indexes->rows = palloc(indexes->rows_allocated * sizeof(RowOrigin));
	indexes->sorts = palloc0(table->ri_NumIndices * sizeof(Tuplesortstate *));
	for (int i = 0; i < table->ri_NumIndices; i++)
		if (table->ri_IndexRelationInfo[i]->ii_ReadyForInserts)
			indexes->sorts[i] = tuplesort_begin_index_btree(
			    table->ri_RelationDesc, table->ri_IndexRelationDescs[i], false, false,
			    Max(maintenance_work_mem / table->ri_NumIndices, 64), NULL, TUPLESORT_NONE);
	MemoryContextSwitchTo(old_context);
	return indexes;
}

static void
remember_row(SortedIndexes *indexes, const ItemPointerData *place, int origin)
{
	RowOrigin *row;

	if (indexes->row_count == indexes->rows_allocated)
	{
		indexes->rows_allocated *= 2;
		indexes->rows =
		    repalloc_huge(indexes->rows, (Size) indexes->rows_allocated * sizeof(RowOrigin));
	}
	row = &indexes->rows[indexes->row_count++];
	row->place = *place;
	row->origin = origin;
}

void
sorted_indexes_add(SortedIndexes *indexes, TupleTableSlot *row, int origin)
{
	EState *estate = indexes->estate;
	ExprContext *context = GetPerTupleExprContext(estate);
	Datum values[INDEX_MAX_KEYS];
	bool isnull[INDEX_MAX_KEYS];

	context->ecxt_scantuple = row;
	for (int i = 0; i < indexes->table->ri_NumIndices; i++)
	{
		IndexInfo *info = indexes->table->ri_IndexRelationInfo[i];

		if (indexes->sorts[i] == NULL)
			continue;
		if (info->ii_Predicate != NIL)
		{
			if (info->ii_PredicateState == NULL)
				info->ii_PredicateState = ExecPrepareQual(info->ii_Predicate, estate);
			if (!ExecQual(info->ii_PredicateState, context))
				continue;
		}
		FormIndexDatum(info, row, estate, values, isnull);
		tuplesort_putindextuplevalues(indexes->sorts[i],
		                              indexes->table->ri_IndexRelationDescs[i], &row->tts_tid,
		                              values, isnull);
	}
	remember_row(indexes, &row->tts_tid, origin);
}

/* Inserts the entries of one index; *place is that of the row at hand. */
static void
insert_entries(SortedIndexes *indexes, int number, ItemPointerData *place)
{
	Relation index = indexes->table->ri_IndexRelationDescs[number];
	IndexInfo *info = indexes->table->ri_IndexRelationInfo[number];
	Tuplesortstate *sort = indexes->sorts[number];
	MemoryContext entry_context = GetPerTupleMemoryContext(indexes->estate);
	MemoryContext old_context = CurrentMemoryContext;
	Datum values[INDEX_MAX_KEYS];
	bool isnull[INDEX_MAX_KEYS];
	IndexTuple entry;
	int count = 0;

	tuplesort_performsort(sort);
	while ((entry = tuplesort_getindextuple(sort, true)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		*place = entry->t_tid;
		MemoryContextSwitchTo(entry_context);
		index_deform_tuple(entry, RelationGetDescr(index), values, isnull);
		(void) index_insert(index, values, isnull, place, indexes->table->ri_RelationDesc,
		                    info->ii_Unique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO, false, info);
		MemoryContextSwitchTo(old_context);
		if (++count % ENTRIES_BETWEEN_RESETS == 0)
			ResetPerTupleExprContext(indexes->estate);
	}
	tuplesort_end(sort);
	indexes->sorts[number] = NULL;
}

static int
origin_of(const SortedIndexes *indexes, ItemPointer place)
{
	for (int i = 0; i < indexes->row_count; i++)
		if (ItemPointerEquals(&indexes->rows[i].place, place))
			return indexes->rows[i].origin;
	return -1;
}

void
sorted_indexes_insert(SortedIndexes *indexes, int *failed_origin)
{
	ItemPointerData place;

	ItemPointerSetInvalid(&place);
	PG_TRY();
	{
		for (int i = 0; i < indexes->table->ri_NumIndices; i++)
			if (indexes->sorts[i] != NULL)
				insert_entries(indexes, i, &place);
	}
	PG_CATCH();
	{
		*failed_origin = origin_of(indexes, &place);
		PG_RE_THROW();
	}
	PG_END_TRY();
}
