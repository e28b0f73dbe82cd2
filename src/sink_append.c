/*-------------------------------------------------------------------------
 *
 * sink_append.c
 *	  Append mode: write the rows of one batch into the target.
 *
 * The statement is INSERT INTO target SELECT ... FROM source, planned by
 * PostgreSQL.  Where its plan is a plain ModifyTable on a table without
 * triggers, the ModifyTable node is left out and its input, which already is
 * a complete row of the target (defaults, casts, identity), goes to a
 * receiver that buffers rows and inserts many at a time, as COPY does.
 * Everything else runs the planned INSERT itself.  Both give the same rows.
 *
 * Which messages are read is left to topic_scan.c, the transaction and the
 * checkpoint to micro_batch.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "sink_append.h"

#include "access/heapam.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "executor/nodeModifyTable.h"
#include "executor/spi.h"
#include "heap_row.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "privileges.h"
#include "sorted_indexes.h"
#include "stream_query.h"
#include "tcop/dest.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* as in copyfrom.c: enough to fill pages, little enough to stay in cache */
#define BUFFERED_ROWS  1000
#define BUFFERED_BYTES 65535

/* bytes of rows after which their WAL shall be flushed: the default of wal_writer_flush_after */
#define FLUSH_WAL_AFTER (1024 * 1024)

/* messages for which sorting the entries of indexes pays */
#define SORTED_MESSAGES 1000

typedef struct AppendSink
{
	Sink sink; /* must be first */
	SPIPlanPtr plan;
	Oid topic_table;
	MemoryContext context;
	MemoryContext defaults_context; /* of "defaults", made for a "generation" of the plan */
	int generation;
	List *defaults; /* of TopicColumnDefault * */
	MemoryContextCallback free_plan;
} AppendSink;

/* Receives the complete rows of the target and inserts them many at a time. */
typedef struct RowBuffer
{
	DestReceiver receiver; /* must be first */
	EState *estate;
	ResultRelInfo *target;
	HeapRowFormer *former; /* NULL: the table's rows are not formed here */
	BulkInsertState bulk_insert;
	SortedIndexes *indexes; /* NULL: entries of indexes are inserted with their rows */
	CommandId command_id;
	TupleTableSlot *slots[BUFFERED_ROWS];
	int origins[BUFFERED_ROWS]; /* the message that the scan was at */
	TopicScanBatch *messages;
	int count;
	size_t bytes;
	size_t unflushed_bytes; /* inserted since the WAL writer was last woken */
	uint64 rows;
} RowBuffer;

static void
sink_free_plan(void *plan)
{
	(void) SPI_freeplan(plan);
}

static CachedPlanSource *
sink_plan_source(AppendSink *sink)
{
	return linitial(SPI_plan_get_plan_sources(sink->plan));
}

/*
 * The ModifyTable node of a plan whose input may be inserted directly, or
 * NULL.  Besides PostgreSQL's own reasons (conflicts, checks of views and row
 * security), an extension that takes INSERTs over shows as another plan here.
 */
static ModifyTable *
sink_plain_insert(CachedPlan *plan)
{
	PlannedStmt *statement;
	ModifyTable *node;
	RangeTblEntry *entry;
	Relation target;
	bool plain;

	if (list_length(plan->stmt_list) != 1)
		return NULL;
	statement = linitial_node(PlannedStmt, plan->stmt_list);
	if (statement->commandType != CMD_INSERT || !IsA(statement->planTree, ModifyTable) ||
	    statement->hasModifyingCTE)
		return NULL;
	node = (ModifyTable *) statement->planTree;
	if (list_length(node->resultRelations) != 1 || node->rootRelation != 0 ||
	    node->onConflictAction != ONCONFLICT_NONE || node->withCheckOptionLists != NIL ||
	    node->returningLists != NIL)
		return NULL;

	entry = list_nth_node(RangeTblEntry, statement->rtable,
	                      linitial_int(node->resultRelations) - 1);
	target = table_open(entry->relid, NoLock);
	plain = target->rd_rel->relkind == RELKIND_RELATION && target->trigdesc == NULL &&
	        ExecCleanTargetListLength(outerPlan(node)->targetlist) ==
	            list_length(outerPlan(node)->targetlist) &&
	        list_length(outerPlan(node)->targetlist) == RelationGetNumberOfAttributes(target);
	table_close(target, NoLock);
	return plain ? node : NULL;
}

/* --- the row buffer --- */

static void
row_buffer_flush(RowBuffer *buffer)
{
	ResultRelInfo *target = buffer->target;
	EState *estate = buffer->estate;
	MemoryContext old_context;
	int last_message = buffer->messages->current;

	if (buffer->count == 0)
		return;

	/* table_multi_insert may leak */
	old_context = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));
	table_multi_insert(target->ri_RelationDesc, buffer->slots, buffer->count,
	                   buffer->command_id, 0, buffer->bulk_insert);
	MemoryContextSwitchTo(old_context);

	for (int i = 0; i < buffer->count; i++)
	{
		/* if the row violates a constraint, its message shall be suspected */
		buffer->messages->current = buffer->origins[i];
		if (buffer->indexes != NULL)
			sorted_indexes_add(buffer->indexes, buffer->slots[i], buffer->origins[i]);
		else if (target->ri_NumIndices > 0)
			list_free(insert_index_tuples(target, buffer->slots[i], estate));
		ExecClearTuple(buffer->slots[i]);
	}
	buffer->messages->current = last_message;
	ResetPerTupleExprContext(estate);

	/* the WAL writer flushes while we insert, so that COMMIT waits for the last part only */
	buffer->unflushed_bytes += buffer->bytes;
	if (buffer->unflushed_bytes > FLUSH_WAL_AFTER)
	{
		XLogSetAsyncXactLSN(XactLastRecEnd);
		buffer->unflushed_bytes = 0;
	}

	buffer->rows += buffer->count;
	buffer->count = 0;
	buffer->bytes = 0;
}

/* Forms the rows of a heap; columns that are computed from a row need it in a slot. */
static HeapRowFormer *
row_buffer_former(Relation relation)
{
	TupleConstr *constraints = RelationGetDescr(relation)->constr;

	if (relation->rd_tableam != GetHeapamTableAmRoutine() ||
	    (constraints != NULL && constraints->has_generated_stored))
		return NULL;
	return heap_row_former_create(RelationGetDescr(relation));
}

/* Raises what the table's constraints say to the row in a slot. */
static void
row_buffer_check(RowBuffer *buffer, TupleTableSlot *slot)
{
	Relation relation = buffer->target->ri_RelationDesc;

	slot->tts_tableOid = RelationGetRelid(relation);
	if (RelationGetDescr(relation)->constr != NULL)
		ExecConstraints(buffer->target, slot, buffer->estate);
	if (relation->rd_rel->relispartition)
		ExecPartitionCheck(buffer->target, slot, buffer->estate, true);
}

/* The slot for the next row. */
static TupleTableSlot *
row_buffer_next_slot(RowBuffer *buffer)
{
	if (buffer->slots[buffer->count] == NULL)
	{
		Relation relation = buffer->target->ri_RelationDesc;
		MemoryContext old_context = MemoryContextSwitchTo(buffer->estate->es_query_cxt);

		buffer->slots[buffer->count] =
		    buffer->former != NULL
		        ? MakeSingleTupleTableSlot(RelationGetDescr(relation), &TTSOpsHeapTuple)
		        : table_slot_create(relation, NULL);
		MemoryContextSwitchTo(old_context);
	}
	return buffer->slots[buffer->count];
}

static bool
row_buffer_receive(TupleTableSlot *row, DestReceiver *receiver)
{
	RowBuffer *buffer = (RowBuffer *) receiver;
	Relation relation = buffer->target->ri_RelationDesc;
	TupleConstr *constraints = RelationGetDescr(relation)->constr;
	TupleTableSlot *slot = row_buffer_next_slot(buffer);

	if (buffer->former != NULL)
	{
		MemoryContext old_context = MemoryContextSwitchTo(slot->tts_mcxt);
		HeapTuple tuple;

		slot_getallattrs(row);
		row_buffer_check(buffer, row);
		tuple = heap_row_form(buffer->former, row->tts_values, row->tts_isnull);
		ExecStoreHeapTuple(tuple, slot, true);
		MemoryContextSwitchTo(old_context);
		buffer->bytes += tuple->t_len;
	}
	else
	{
		ExecCopySlot(slot, row);
		slot->tts_tableOid = RelationGetRelid(relation);
		if (constraints != NULL && constraints->has_generated_stored)
			ExecComputeStoredGenerated(buffer->target, buffer->estate, slot, CMD_INSERT);
		row_buffer_check(buffer, slot);
		buffer->bytes += slot->tts_ops->get_heap_tuple != NULL
		                     ? slot->tts_ops->get_heap_tuple(slot)->t_len
		                     : 64;
	}
	buffer->origins[buffer->count] = buffer->messages->current;
	buffer->count++;
	if (buffer->count == BUFFERED_ROWS || buffer->bytes > BUFFERED_BYTES)
		row_buffer_flush(buffer);
	return true;
}

/*
 * Runs the input of a plain INSERT into a row buffer; returns the number of rows.
 * sort_indexes: entries of indexes may come after all rows.
 */
static uint64
sink_insert_buffered(PlannedStmt *insert, ModifyTable *node, TopicScanBatch *messages,
                     bool sort_indexes)
{
	RowBuffer *buffer = palloc0(sizeof(RowBuffer));
	PlannedStmt *select = palloc(sizeof(PlannedStmt));
	QueryDesc *query;
	uint64 rows;

	/* the same plan, range table and permission checks; only the top node is ours */
	memcpy(select, insert, sizeof(PlannedStmt));
	select->commandType = CMD_SELECT;
	select->planTree = outerPlan(node);

	buffer->receiver = *None_Receiver;
	buffer->receiver.receiveSlot = row_buffer_receive;
	buffer->messages = messages;

	query = CreateQueryDesc(select, "", GetActiveSnapshot(), InvalidSnapshot, &buffer->receiver,
	                        NULL, NULL, 0);
	ExecutorStart(query, 0);

	buffer->estate = query->estate;
	buffer->command_id = GetCurrentCommandId(true);
	buffer->estate->es_output_cid = buffer->command_id;
	buffer->bulk_insert = GetBulkInsertState();
	buffer->target = makeNode(ResultRelInfo);
	ExecInitResultRelation(query->estate, buffer->target, linitial_int(node->resultRelations));
	ExecOpenIndices(buffer->target, false);
	buffer->former = row_buffer_former(buffer->target->ri_RelationDesc);
	if (sort_indexes)
		buffer->indexes = sorted_indexes_create(buffer->target, buffer->estate);

	run_to_completion(query);
	row_buffer_flush(buffer);
	if (buffer->indexes != NULL)
		sorted_indexes_insert(buffer->indexes, &messages->current);
	rows = buffer->rows;

	for (int i = 0; i < BUFFERED_ROWS && buffer->slots[i] != NULL; i++)
		ExecDropSingleTupleTableSlot(buffer->slots[i]);
	FreeBulkInsertState(buffer->bulk_insert);
	table_finish_bulk_insert(buffer->target->ri_RelationDesc, 0);
	ExecutorFinish(query);
	ExecutorEnd(query); /* closes the target and its indexes, too */
	FreeQueryDesc(query);
	return rows;
}

/* Makes the defaults for missing fields anew when the plan is a new one. */
static void
sink_refresh_defaults(AppendSink *sink)
{
	CachedPlanSource *source = sink_plan_source(sink);
	MemoryContext old_context;

	if (sink->generation == source->generation)
		return;
	if (sink->defaults_context != NULL)
		MemoryContextDelete(sink->defaults_context);
	sink->defaults = NIL;
	sink->defaults_context =
	    AllocSetContextCreate(sink->context, "kafka column defaults", ALLOCSET_SMALL_SIZES);
	old_context = MemoryContextSwitchTo(sink->defaults_context);
	if (list_length(source->query_list) == 1)
		sink->defaults = stream_query_missing_defaults(linitial_node(Query, source->query_list),
		                                               sink->topic_table);
	MemoryContextSwitchTo(old_context);
	sink->generation = source->generation;
}

/*
 * Only in large batches, and not where a function of the query could look for rows of this
 * batch by an index that has no entries of them yet.
 */
static bool
sink_may_sort_indexes(AppendSink *sink, const SinkBatch *batch)
{
	return !batch->is_part && batch->messages->count >= SORTED_MESSAGES &&
	       !contain_volatile_functions_not_nextval(
	           (Node *) linitial_node(Query, sink_plan_source(sink)->query_list));
}

static bool
append_sink_is_stale(Sink *self)
{
	return !SPI_plan_is_valid(((AppendSink *) self)->plan);
}

static void
append_sink_write(Sink *self, SinkBatch *batch)
{
	AppendSink *sink = (AppendSink *) self;
	CachedPlan *plan;
	ModifyTable *plain;

	SPI_connect();
	privileges_check_plans(list_make1(sink->plan));
	plan = GetCachedPlan(sink_plan_source(sink), NULL, CurrentResourceOwner, NULL);
	sink_refresh_defaults(sink);
	batch->messages->defaults = sink->defaults;

	plain = sink_plain_insert(plan);
	topic_scan_set_batch(batch->messages);
	if (plain != NULL)
	{
		batch->output_rows =
		    (int64) sink_insert_buffered(linitial_node(PlannedStmt, plan->stmt_list), plain,
		                                 batch->messages, sink_may_sort_indexes(sink, batch));
		ReleaseCachedPlan(plan, CurrentResourceOwner);
	}
	else
	{
		int result;

		ReleaseCachedPlan(plan, CurrentResourceOwner);
		result = SPI_execute_plan(sink->plan, NULL, NULL, false, 0);
		if (result < 0)
			elog(ERROR, "could not write the batch: %s", SPI_result_code_string(result));
		batch->output_rows = (int64) SPI_processed;
	}
	topic_scan_set_batch(NULL);
	SPI_finish();
}

static void
append_sink_explain(Sink *self, StringInfo text)
{
	AppendSink *sink = (AppendSink *) self;
	CachedPlan *plan = GetCachedPlan(sink_plan_source(sink), NULL, CurrentResourceOwner, NULL);

	appendStringInfo(text, "Path: %s\n",
	                 sink_plain_insert(plan) != NULL ? "fast append (buffered rows, as COPY)"
	                                                 : "planned INSERT");
	appendStringInfo(text, "Statement: %s\n", sink_plan_source(sink)->query_string);
	ReleaseCachedPlan(plan, CurrentResourceOwner);
}

Sink *
append_sink_create(const Stream *stream, Oid topic_table)
{
	AppendSink *sink = palloc0(sizeof(AppendSink));
	char *statement = stream_query_insert_statement(stream);

	SPI_connect();
	sink->plan = SPI_prepare(statement, 0, NULL);
	if (sink->plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", statement,
		     SPI_result_code_string(SPI_result));
	SPI_keepplan(sink->plan);
	SPI_finish();

	sink->sink.is_stale = append_sink_is_stale;
	sink->sink.write = append_sink_write;
	sink->sink.explain = append_sink_explain;
	sink->sink.accepts_parts = true;
	sink->topic_table = topic_table;
	sink->context = CurrentMemoryContext;
	sink->generation = -1;
	sink->free_plan.func = sink_free_plan;
	sink->free_plan.arg = sink->plan;
	MemoryContextRegisterResetCallback(sink->context, &sink->free_plan);

	/* a missing privilege shall show now, not with the first message */
	privileges_check_plans(list_make1(sink->plan));
	return &sink->sink;
}
