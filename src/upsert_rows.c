/*-------------------------------------------------------------------------
 *
 * upsert_rows.c
 *	  The rows and tombstones of one batch, reduced to the last per key and
 *	  sorted by key.
 *
 * One sort by key and order of messages does both, with the operators of the target's
 * unique index, so that "the same key" means here what it means there.  The
 * order of messages is a column of the rows: joins and sorts below may have
 * changed the order in which they arrive.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "upsert_rows.h"

#include "catalog/pg_operator.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/sortsupport.h"
#include "utils/tuplesort.h"

struct UpsertRows
{
	DestReceiver receiver; /* must be first */
	const UpsertTarget *target;
	const char *topic;
	TopicScanBatch *batch;
	Tuplesortstate *sort;
	TupleTableSlot *slot; /* of target->row_type; goes into the sort */
	uint32 row_number;    /* of the rows so far */
};

/* While the sorted rows are read: the row that wins among those of one key. */
typedef struct KeyGroup
{
	const UpsertTarget *target;
	SortSupport keys;
	SortSupport version; /* NULL: none */
	TupleTableSlot *winner;
	bool winner_is_tombstone;
	bool tombstone_seen;
	UpsertResult result;
} KeyGroup;

/* Sorted runs need not go to disk: the batch is in memory anyway. */
static int
memory_kb(void)
{
	return Max(work_mem, maintenance_work_mem);
}

/* The number of the row's order and of its tombstone flag, as attributes of row_type. */
static int
order_attribute(const UpsertTarget *target)
{
	return target->column_count + 1;
}

static int
tombstone_attribute(const UpsertTarget *target)
{
	return target->column_count + 2;
}

/* Raises the error of a message whose key is NULL. */
pg_noreturn static void
report_null_key(UpsertRows *rows, int message_index, int column)
{
	const KafkaMessage *message = &rows->batch->messages[message_index];
	const char *name = rows->target->column_names[column];

	/* whoever splits the batch need not search */
	rows->batch->current = message_index;
	rows->batch->decoding = true;
	ereport(ERROR,
	        (errcode(ERRCODE_NOT_NULL_VIOLATION),
	         message->value == NULL ? errmsg("key column \"%s\" of a tombstone is null", name)
	                                : errmsg("key column \"%s\" is null", name),
	         errdetail("Topic \"%s\", partition %d, offset %lld, column \"%s\".", rows->topic,
	                   message->partition, (long long) message->offset, name),
	         errhint("Correct the producer, or filter such messages in the stream's query: a "
	                 "row without a key can't be found again.")));
}

/* Puts what is in rows->slot, but for its last two columns, into the sort. */
static void
put_row(UpsertRows *rows, int message_index, bool is_tombstone)
{
	const UpsertTarget *target = rows->target;
	TupleTableSlot *slot = rows->slot;
	int order = order_attribute(target) - 1;
	int tombstone = tombstone_attribute(target) - 1;

	for (int i = 0; i < target->key_count; i++)
		if (slot->tts_isnull[target->keys[i].column])
			report_null_key(rows, message_index, target->keys[i].column);

	slot->tts_values[order] = Int64GetDatum(((int64) message_index << 32) | rows->row_number++);
	slot->tts_isnull[order] = false;
	slot->tts_values[tombstone] = BoolGetDatum(is_tombstone);
	slot->tts_isnull[tombstone] = false;
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(rows->sort, slot);
}

static bool
receive_row(TupleTableSlot *row, DestReceiver *receiver)
{
	UpsertRows *rows = (UpsertRows *) receiver;
	int column_count = rows->target->column_count;

	slot_getallattrs(row);
	ExecClearTuple(rows->slot);
	memcpy(rows->slot->tts_values, row->tts_values, sizeof(Datum) * column_count);
	memcpy(rows->slot->tts_isnull, row->tts_isnull, sizeof(bool) * column_count);
	put_row(rows,
	        topic_scan_get_index((ItemPointer) DatumGetPointer(row->tts_values[column_count])),
	        false);
	return true;
}

UpsertRows *
upsert_rows_begin(const UpsertTarget *target, const char *topic, TopicScanBatch *batch)
{
	UpsertRows *rows = palloc0(sizeof(UpsertRows));
	int count = target->key_count + 1;
	AttrNumber *attributes = palloc(sizeof(AttrNumber) * count);
	Oid *operators = palloc(sizeof(Oid) * count);
	Oid *collations = palloc0(sizeof(Oid) * count);
	bool *nulls_first = palloc0(sizeof(bool) * count);

	for (int i = 0; i < target->key_count; i++)
	{
		attributes[i] = target->keys[i].column + 1;
		operators[i] = target->keys[i].sort_operator;
		collations[i] = target->keys[i].collation;
	}
	attributes[target->key_count] = order_attribute(target);
	operators[target->key_count] = Int8LessOperator;

	rows->target = target;
	rows->topic = topic;
	rows->batch = batch;
	rows->slot = MakeSingleTupleTableSlot(target->row_type, &TTSOpsVirtual);
	rows->sort =
	    tuplesort_begin_heap(target->row_type, count, attributes, operators, collations,
	                         nulls_first, memory_kb(), NULL, TUPLESORT_NONE);
	rows->receiver = *None_Receiver;
	rows->receiver.receiveSlot = receive_row;
	return rows;
}

DestReceiver *
upsert_rows_receiver(UpsertRows *rows)
{
	return &rows->receiver;
}

void
upsert_rows_add_tombstone(UpsertRows *rows, int message_index, const Datum *values,
                          const bool *nulls)
{
	const UpsertTarget *target = rows->target;
	TupleTableSlot *slot = rows->slot;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, sizeof(bool) * slot->tts_tupleDescriptor->natts);
	for (int i = 0; i < target->key_count; i++)
	{
		slot->tts_values[target->keys[i].column] = values[i];
		slot->tts_isnull[target->keys[i].column] = nulls[i];
	}
	put_row(rows, message_index, true);
}

/* --- the last of every key --- */

static SortSupport
prepare_orders(const UpsertOrder *orders, int count)
{
	SortSupport result = palloc0(sizeof(SortSupportData) * count);

	for (int i = 0; i < count; i++)
	{
		result[i].ssup_cxt = CurrentMemoryContext;
		result[i].ssup_collation = orders[i].collation;
		result[i].ssup_nulls_first = true;
		result[i].ssup_attno = orders[i].column + 1;
		PrepareSortSupportFromOrderingOp(orders[i].sort_operator, &result[i]);
	}
	return result;
}

static int
compare(SortSupport order, TupleTableSlot *a, TupleTableSlot *b)
{
	bool a_is_null;
	bool b_is_null;
	Datum a_value = slot_getattr(a, order->ssup_attno, &a_is_null);
	Datum b_value = slot_getattr(b, order->ssup_attno, &b_is_null);

	return ApplySortComparator(a_value, a_is_null, b_value, b_is_null, order);
}

static bool
has_same_key(KeyGroup *group, TupleTableSlot *row)
{
	/* the last column differs most often */
	for (int i = group->target->key_count - 1; i >= 0; i--)
		if (compare(&group->keys[i], group->winner, row) != 0)
			return false;
	return true;
}

/* Writes down what became of a key, and is ready for the next. */
static void
finish_group(KeyGroup *group)
{
	if (TTS_EMPTY(group->winner))
		return;
	if (!group->winner_is_tombstone)
	{
		tuplestore_puttupleslot(group->result.changed_rows, group->winner);
		group->result.changed_count++;
	}
	/* a version in the target does not count any more after a tombstone */
	if (group->winner_is_tombstone || (group->tombstone_seen && group->version != NULL))
	{
		tuplestore_puttupleslot(group->result.deleted_keys, group->winner);
		group->result.deleted_count++;
	}
	ExecClearTuple(group->winner);
	group->tombstone_seen = false;
}

static void
add_to_group(KeyGroup *group, TupleTableSlot *row)
{
	bool isnull;
	bool is_tombstone =
	    DatumGetBool(slot_getattr(row, tombstone_attribute(group->target), &isnull));

	if (!TTS_EMPTY(group->winner) && !has_same_key(group, row))
		finish_group(group);
	if (!TTS_EMPTY(group->winner) && !group->winner_is_tombstone && !is_tombstone &&
	    group->version != NULL && compare(group->version, row, group->winner) < 0)
		return;
	ExecCopySlot(group->winner, row);
	group->winner_is_tombstone = is_tombstone;
	group->tombstone_seen |= is_tombstone;
}

UpsertResult
upsert_rows_finish(UpsertRows *rows)
{
	const UpsertTarget *target = rows->target;
	TupleTableSlot *row = MakeSingleTupleTableSlot(target->row_type, &TTSOpsMinimalTuple);
	KeyGroup group = {.target = target};

	group.keys = prepare_orders(target->keys, target->key_count);
	if (target->version != NULL)
		group.version = prepare_orders(target->version, 1);
	group.winner = MakeSingleTupleTableSlot(target->row_type, &TTSOpsMinimalTuple);
	group.result.changed_rows = tuplestore_begin_heap(false, false, memory_kb());
	group.result.deleted_keys = tuplestore_begin_heap(false, false, memory_kb());

	tuplesort_performsort(rows->sort);
	while (tuplesort_gettupleslot(rows->sort, true, false, row, NULL))
	{
		CHECK_FOR_INTERRUPTS();
		add_to_group(&group, row);
	}
	finish_group(&group);

	ExecDropSingleTupleTableSlot(row);
	ExecDropSingleTupleTableSlot(group.winner);
	ExecDropSingleTupleTableSlot(rows->slot);
	tuplesort_end(rows->sort);
	return group.result;
}
