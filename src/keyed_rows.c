/*-------------------------------------------------------------------------
 *
 * keyed_rows.c
 *	  The rows of a table by the key of a unique index: found, inserted, updated.
 *
 * For each row that is there already, INSERT ... ON CONFLICT begins and ends a scan of the index, locks
 * the row with a WAL record of its own, and updates it.  A batch writes a hundred thousand rows in the
 * order of their keys.  Here one scan of the index serves them all, or one walk over it (key_walk.c), and a row is
 * updated at once: when somebody else has changed it in between, the update says so,
 * and the row is looked for again.
 *
 * Which row comes next, and what it becomes, is left to keyed_write.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "keyed_rows.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_index.h"
#include "executor/executor.h"
#include "key_walk.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* as in copyfrom.c: enough to fill pages, little enough to stay in cache */
#define PENDING_ROWS  1000
#define PENDING_BYTES 65535

struct KeyedRows
{
	ResultRelInfo *table;
	EState *estate;

	/* the unique index */
	Relation index;
	List *index_ids; /* the one, as the executor wants it */
	IndexScanDesc scan;
	KeyWalk *walk; /* NULL where an insertion may wait, see has_other_unique_index() */
	SnapshotData snapshot;
	bool nulls_are_equal;
	int key_count;
	ScanKeyData keys[INDEX_MAX_KEYS];

	/* new rows, as INSERT would write them; those that are pending are not in the table yet */
	bool ours_alone;
	TupleTableSlot *new_row; /* one of the slots */
	TupleTableSlot *slots[PENDING_ROWS];
	int pending_count;
	size_t pending_bytes;
};

bool
keyed_rows_index_serves(Relation index)
{
	const FormData_pg_index *form = index->rd_index;

	if (index->rd_rel->relam != BTREE_AM_OID || !form->indisunique || !form->indimmediate ||
	    form->indisexclusion || !form->indisvalid)
		return false;
	if (!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
		return false;
	for (int i = 0; i < form->indnkeyatts; i++)
		if (form->indkey.values[i] <= 0)
			return false;
	return true;
}

/* An insertion would wait for others in them, and keep a page of the walk pinned. */
static bool
has_other_unique_index(ResultRelInfo *table, Relation index)
{
	for (int i = 0; i < table->ri_NumIndices; i++)
	{
		Relation other = table->ri_IndexRelationDescs[i];

		if (other != index && (other->rd_index->indisunique || other->rd_index->indisexclusion))
			return true;
	}
	return false;
}

KeyedRows *
keyed_rows_begin(ResultRelInfo *table, Oid index_id, EState *estate, bool ours_alone)
{
	KeyedRows *rows = palloc0(sizeof(KeyedRows));

	rows->table = table;
	rows->estate = estate;
	rows->ours_alone = ours_alone;
	if (table->ri_IndexRelationDescs == NULL)
		ExecOpenIndices(table, true);
	for (int i = 0; i < table->ri_NumIndices; i++)
		if (RelationGetRelid(table->ri_IndexRelationDescs[i]) == index_id)
			rows->index = table->ri_IndexRelationDescs[i];
	rows->index_ids = list_make1_oid(index_id);
	rows->nulls_are_equal = rows->index->rd_index->indnullsnotdistinct;
	rows->key_count = rows->index->rd_index->indnkeyatts;
	for (int i = 0; i < rows->key_count; i++)
		key_walk_condition(&rows->keys[i], rows->index, i, BTEqualStrategyNumber);
	/* also what others have not committed yet, as an insertion would meet it */
	InitDirtySnapshot(rows->snapshot);
	rows->scan =
	    begin_index_scan(table->ri_RelationDesc, rows->index, &rows->snapshot, rows->key_count);
	if (!has_other_unique_index(table, rows->index))
		rows->walk = key_walk_begin(table->ri_RelationDesc, rows->index, &rows->snapshot);
	return rows;
}

/* --- finding --- */

/* False when no row can have the same key: one with a null, where nulls are distinct. */
static bool
set_keys(KeyedRows *rows)
{
	for (int i = 0; i < rows->key_count; i++)
	{
		ScanKey key = &rows->keys[i];
		bool is_null;

		key->sk_argument =
		    slot_getattr(rows->new_row, rows->index->rd_index->indkey.values[i], &is_null);
		if (is_null && !rows->nulls_are_equal)
			return false;
		key->sk_flags = is_null ? SK_ISNULL | SK_SEARCHNULL : 0;
	}
	return true;
}

static void
stop_walk(KeyedRows *rows)
{
	if (rows->walk != NULL)
		key_walk_stop(rows->walk);
}

/* Waits until the transaction that is at work on a row has ended; false: there is none. */
static bool
wait_for_other(KeyedRows *rows, TupleTableSlot *row)
{
	SnapshotData *snapshot = &rows->snapshot;
	TransactionId other =
	    TransactionIdIsValid(snapshot->xmin) ? snapshot->xmin : snapshot->xmax;
	ItemPointerData place = row->tts_tid;

	if (!TransactionIdIsValid(other))
		return false;
	/* no page shall stay pinned while this waits */
	ExecClearTuple(row);
	stop_walk(rows);
	index_rescan(rows->scan, rows->keys, rows->key_count, NULL, 0);
	if (snapshot->speculativeToken != 0)
		SpeculativeInsertionWait(other, snapshot->speculativeToken);
	else
		XactLockTableWait(other, rows->table->ri_RelationDesc, &place, XLTW_InsertIndex);
	return true;
}

/* Raises an error if this statement has written the row: of two with one key, none is the right one. */
static void
check_first_time(KeyedRows *rows, TupleTableSlot *existing)
{
	HeapTupleHeader row = ((HeapTupleTableSlot *) existing)->tuple->t_data;

	if (!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(row)) ||
	    HeapTupleHeaderGetCmin(row) < rows->estate->es_output_cid)
		return;
	ereport(ERROR,
	        (errcode(ERRCODE_CARDINALITY_VIOLATION),
	         errmsg("a batch would write a row of \"%s\" twice",
	                RelationGetRelationName(rows->table->ri_RelationDesc)),
	         errdetail("Two rows of its result have keys that are the same to index \"%s\".",
	                   RelationGetRelationName(rows->index)),
	         errhint("Give the index the collation and operators by which the query tells its "
	                 "rows apart.")));
}

/* Goes down the index for one row. */
static bool
look_up(KeyedRows *rows, TupleTableSlot *existing)
{
	index_rescan(rows->scan, rows->keys, rows->key_count, NULL, 0);
	return index_getnext_slot(rows->scan, ForwardScanDirection, existing);
}

bool
keyed_rows_find(KeyedRows *rows, TupleTableSlot *existing)
{
	KeyWalkResult result = KEY_WALK_UNSUITABLE;

	ExecClearTuple(existing);
	if (!set_keys(rows))
		return false;
	if (rows->walk != NULL)
		result = key_walk_find(rows->walk, rows->keys, existing);
	if (result == KEY_WALK_ABSENT)
		return false;
	if (result == KEY_WALK_UNSUITABLE || wait_for_other(rows, existing))
	{
		do
		{
			CHECK_FOR_INTERRUPTS();
			ExecClearTuple(existing);
			if (!look_up(rows, existing))
				return false;
		} while (wait_for_other(rows, existing));
		/* the slot keeps the row's page; that of the index shall be free while the row is waited for */
		index_rescan(rows->scan, rows->keys, rows->key_count, NULL, 0);
	}
	check_first_time(rows, existing);
	return true;
}

/* --- writing --- */

static void
check_constraints(KeyedRows *rows, TupleTableSlot *row)
{
	row->tts_tableOid = RelationGetRelid(rows->table->ri_RelationDesc);
	if (RelationGetDescr(rows->table->ri_RelationDesc)->constr != NULL)
		ExecConstraints(rows->table, row, rows->estate);
}

/* The slot behind those of the rows that are pending. */
static TupleTableSlot *
next_slot(KeyedRows *rows)
{
	TupleTableSlot **slot = &rows->slots[rows->pending_count];

	if (*slot == NULL)
	{
		MemoryContext old_context = MemoryContextSwitchTo(rows->estate->es_query_cxt);

		*slot = table_slot_create(rows->table->ri_RelationDesc, &rows->estate->es_tupleTable);
		MemoryContextSwitchTo(old_context);
	}
	return *slot;
}

void
keyed_rows_take(KeyedRows *rows, TupleTableSlot *row)
{
	rows->new_row = next_slot(rows);
	ExecCopySlot(rows->new_row, row);
	check_constraints(rows, rows->new_row);
}

TupleTableSlot *
keyed_rows_new_row(KeyedRows *rows)
{
	return rows->new_row;
}

/* Inserts the new row so that it can be taken back; false when that had to be done. */
static bool
insert_speculatively(KeyedRows *rows)
{
	Relation relation = rows->table->ri_RelationDesc;
	uint32 token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
	bool conflict = false;

	table_tuple_insert_speculative(relation, rows->new_row, rows->estate->es_output_cid, 0,
	                               NULL, token);
	list_free(insert_index_tuples_unless_conflict(rows->table, rows->new_row, rows->estate,
	                                              &conflict, rows->index_ids));
	table_tuple_complete_speculative(relation, rows->new_row, token, !conflict);
	SpeculativeInsertionLockRelease(GetCurrentTransactionId());
	return !conflict;
}

/* Raises an error that has the batch tried again: it will find what is there now. */
pg_noreturn static void
report_other_writer(KeyedRows *rows)
{
	ereport(ERROR,
	        (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
	         errmsg("somebody else has inserted into \"%s\" at the same time",
	                RelationGetRelationName(rows->table->ri_RelationDesc)),
	         errdetail("A row with the key of a row of this batch was not there before.")));
}

/* Inserts the rows that are pending; their slots keep them. */
static void
insert_pending(KeyedRows *rows)
{
	MemoryContext old_context;
	bool conflict = false;

	if (rows->pending_count == 0)
		return;
	/* table_multi_insert may leak */
	old_context = MemoryContextSwitchTo(GetPerTupleMemoryContext(rows->estate));
	table_multi_insert(rows->table->ri_RelationDesc, rows->slots, rows->pending_count,
	                   rows->estate->es_output_cid, 0, NULL);
	MemoryContextSwitchTo(old_context);
	for (int i = 0; i < rows->pending_count; i++)
	{
		list_free(insert_index_tuples_unless_conflict(rows->table, rows->slots[i], rows->estate,
		                                              &conflict, rows->index_ids));
		if (conflict)
			report_other_writer(rows);
	}
	rows->pending_count = 0;
	rows->pending_bytes = 0;
}

/* What RETURNING shall see as xmax of a row that is in memory; returns the row. */
static HeapTuple
show_xmax(TupleTableSlot *row, TransactionId xmax)
{
	bool should_free;
	HeapTuple tuple = ExecFetchSlotHeapTuple(row, true, &should_free);

	Assert(!should_free);
	HeapTupleHeaderSetXmax(tuple->t_data, xmax);
	return tuple;
}

/* Leaves the new row in its slot, to be inserted with others. */
static void
keep_pending(KeyedRows *rows)
{
	HeapTuple tuple = show_xmax(rows->new_row, InvalidTransactionId);

	rows->pending_count++;
	rows->pending_bytes += tuple->t_len;
	if (rows->pending_count == PENDING_ROWS || rows->pending_bytes > PENDING_BYTES)
		insert_pending(rows);
}

bool
keyed_rows_insert(KeyedRows *rows)
{
	if (!rows->ours_alone)
		return insert_speculatively(rows);
	keep_pending(rows);
	return true;
}

static TM_Result
update(KeyedRows *rows, TupleTableSlot *existing, TupleTableSlot *row, bool wait,
       IndexesToUpdate *indexes)
{
	LockTupleMode lock_mode;
	TM_FailureData failure;

	return table_tuple_update(rows->table->ri_RelationDesc, &existing->tts_tid, row,
	                          rows->estate->es_output_cid, rows->estate->es_snapshot,
	                          InvalidSnapshot, wait, &failure, &lock_mode, indexes);
}

bool
keyed_rows_update(KeyedRows *rows, TupleTableSlot *existing, TupleTableSlot *row)
{
	IndexesToUpdate indexes;
	TM_Result result;

	check_constraints(rows, row);
	result = update(rows, existing, row, rows->walk == NULL, &indexes);
	if (result == TM_BeingModified && rows->walk != NULL)
	{
		stop_walk(rows);
		result = update(rows, existing, row, true, &indexes);
	}
	switch (result)
	{
		case TM_Ok:
			break;
		case TM_Updated:
		case TM_Deleted:
			return false;
		default:
			elog(ERROR, "unexpected result of an update");
	}
	if (rows->table->ri_NumIndices > 0)
		update_index_tuples(rows->table, row, rows->estate, indexes);
	/* as of one that ON CONFLICT had locked before */
	(void) show_xmax(row, GetCurrentTransactionId());
	return true;
}

void
keyed_rows_end(KeyedRows *rows)
{
	insert_pending(rows);
	if (rows->walk != NULL)
		key_walk_end(rows->walk);
	index_endscan(rows->scan);
}
