/*-------------------------------------------------------------------------
 *
 * topic_scan.c
 *	  The foreign data wrapper's handler: plan and execute a scan of a topic
 *	  table.
 *
 * A scan returns either a bounded read of the topic (topic_read.c), or, in a
 * stream worker that has set one, the current micro-batch.  Messages become rows
 * in topic_row.c in both cases.  What of the WHERE clause narrows a read is
 * found in topic_bounds.c; all of it is checked by the executor as well.
 * Topic tables can only be read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "commands/explain.h"
#include "fmgr.h"
#include "foreign/fdwapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

#include "topic_bounds.h"
#include "topic_read.h"
#include "topic_row.h"
#include "topic_scan.h"
#include "topic_schema.h"

/* Kafka is not asked for sizes while planning: a topic is taken for a large one. */
#define ASSUMED_MESSAGES      1000000.0
#define ASSUMED_MESSAGE_WIDTH 150

/* To connect and to look up offsets, in units of the planner's cost. */
#define CONNECTION_COST 1000.0

/* Reading and decoding a message against processing a row. */
#define MESSAGE_COST (5.0 * cpu_tuple_cost)

/* Items of a plan's fdw_private */
enum
{
	PRIVATE_WANTED_COLUMNS /* list of attribute numbers */
};

typedef struct TopicScanState
{
	TopicSchema *schema;
	TopicRowMaker *row_maker;

	/* either: the worker's batch */
	TopicScanBatch *batch;
	int next;

	/* or: a read of the topic, opened when the first row is asked for */
	Oid user_id;
	TopicRead *read;
	bool started;
	TopicBoundsState *bounds;
	MemoryContext context;
} TopicScanState;

static TopicScanBatch *current_batch = NULL;

PG_FUNCTION_INFO_V1(kafka_topic_scan_handler);

void
topic_scan_set_batch(TopicScanBatch *batch)
{
	current_batch = batch;
	if (batch)
	{
		batch->current = -1;
		batch->decoding = false;
	}
}

void
topic_scan_keep_columns(TopicScanBatch *batch)
{
	batch->wanted = list_copy(batch->wanted);
	batch->defaulted = bms_copy(batch->defaulted);
	batch->of_tombstones = bms_copy(batch->of_tombstones);
}

/*
 * Says in the batch what a scan decodes.  In the transaction's memory: the batch may fail when the scan is over, and
 * its plan, executor and subtransaction are gone.
 */
static void
tell_columns(TopicScanBatch *batch, const List *wanted, const Bitmapset *defaulted)
{
	MemoryContext previous = MemoryContextSwitchTo(TopTransactionContext);

	list_free(batch->wanted);
	bms_free(batch->defaulted);
	batch->wanted = list_copy(wanted);
	batch->defaulted = bms_copy(defaulted);
	MemoryContextSwitchTo(previous);
}

static TopicScanBatch *
batch_of(Oid relid)
{
	return current_batch && current_batch->topic_table == relid ? current_batch : NULL;
}

/* ---- planning ---- */

static void
estimate_size(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	TopicScanBatch *batch = batch_of(relid);

	baserel->tuples = batch ? Max(batch->count, 1) : ASSUMED_MESSAGES;
	baserel->reltarget->width = Max(baserel->reltarget->width, ASSUMED_MESSAGE_WIDTH);
	set_baserel_size_estimates(root, baserel);
}

static void
add_path_of_scan(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	Cost startup_cost = batch_of(relid) ? 0 : CONNECTION_COST;
	Cost run_cost = baserel->tuples * (MESSAGE_COST + baserel->baserestrictcost.per_tuple);

	startup_cost += baserel->baserestrictcost.startup;
	add_path(baserel, (Path *) make_foreign_scan_path(root, baserel, startup_cost,
	                                                  startup_cost + run_cost));
}

/* The columns that the query looks at. */
static List *
wanted_columns(RelOptInfo *baserel, Oid relid, List *scan_clauses)
{
	Bitmapset *attributes = NULL;
	List *wanted = NIL;
	Relation relation;
	TupleDesc descriptor;
	bool whole_row;

	pull_varattnos((Node *) baserel->reltarget->exprs, baserel->relid, &attributes);
	pull_varattnos((Node *) scan_clauses, baserel->relid, &attributes);
	whole_row = bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, attributes);

	relation = table_open(relid, NoLock);
	descriptor = RelationGetDescr(relation);
	for (int attnum = 1; attnum <= descriptor->natts; attnum++)
	{
		if (!TupleDescAttr(descriptor, attnum - 1)->attisdropped &&
		    (whole_row ||
		     bms_is_member(attnum - FirstLowInvalidHeapAttributeNumber, attributes)))
			wanted = lappend_int(wanted, attnum);
	}
	table_close(relation, NoLock);
	return wanted;
}

static ForeignScan *
plan_scan(PlannerInfo *root, RelOptInfo *baserel, Oid relid, ForeignPath *best_path,
          List *tlist, List *scan_clauses, Plan *outer_plan)
{
	TopicSchema *schema = topic_schema_load(relid);
	List *bound_clauses = NIL;
	ListCell *cell;

	scan_clauses = extract_actual_clauses(scan_clauses, false);
	foreach (cell, scan_clauses)
	{
		TopicBoundKind kind;

		if (topic_bounds_match(lfirst(cell), baserel->relid, schema, &kind))
			bound_clauses = lappend(bound_clauses, lfirst(cell));
	}

	return make_foreignscan(tlist, scan_clauses, baserel->relid, bound_clauses,
	                        list_make1(wanted_columns(baserel, relid, scan_clauses)), NIL, NIL,
	                        outer_plan);
}

/* ---- execution ---- */

static void
begin_scan(ForeignScanState *node, int eflags)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	Oid relid = RelationGetRelid(node->ss.ss_currentRelation);
	TopicScanState *state = palloc0(sizeof(TopicScanState));

	node->fdw_state = state;
	state->schema = topic_schema_load(relid);
	state->context = CurrentMemoryContext;
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;

	state->user_id = foreign_scan_user(node);
	state->batch = batch_of(relid);
	state->row_maker =
	    topic_row_maker_create(node->ss.ss_currentRelation, state->schema,
	                           list_nth(plan->fdw_private, PRIVATE_WANTED_COLUMNS),
	                           state->batch ? state->batch->defaults : NIL, &node->ss.ps);
	if (state->batch != NULL)
		tell_columns(state->batch, list_nth(plan->fdw_private, PRIVATE_WANTED_COLUMNS),
		             topic_row_defaulted_columns(state->row_maker));
	else
		state->bounds = topic_bounds_prepare(plan->fdw_exprs, plan->scan.scanrelid,
		                                     state->schema, &node->ss.ps);
}

/* Starts, or starts again, to read the topic. */
static void
start_read(ForeignScanState *node, TopicScanState *state)
{
	MemoryContext previous = MemoryContextSwitchTo(state->context);
	TopicBounds bounds;

	if (state->read == NULL)
		state->read = topic_read_open(state->schema, state->user_id);
	ResetExprContext(node->ss.ps.ps_ExprContext);
	topic_bounds_evaluate(state->bounds, node->ss.ps.ps_ExprContext, &bounds);
	topic_read_start(state->read, &bounds);
	state->started = true;
	MemoryContextSwitchTo(previous);
}

/* The next row of a direct read. */
static TupleTableSlot *
next_row_of_topic(ForeignScanState *node)
{
	TopicScanState *state = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	const KafkaMessage *message;

	ExecClearTuple(slot);
	if (!state->started)
		start_read(node, state);
	while ((message = topic_read_next(state->read)) != NULL)
	{
		if (topic_row_make(state->row_maker, message, slot))
			break;
	}
	return slot;
}

/* The next row of a worker's batch. */
static TupleTableSlot *
next_row_of_batch(ForeignScanState *node)
{
	TopicScanState *state = node->fdw_state;
	TopicScanBatch *batch = state->batch;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;

	ExecClearTuple(slot);
	while (state->next < batch->count)
	{
		int index = state->next++;
		bool is_row;

		if (batch->excluded != NULL && batch->excluded[index])
			continue;
		if (batch->without_tombstones && batch->messages[index].value == NULL)
			continue;
		batch->current = index;
		batch->decoding = true;
		is_row = topic_row_make_sampled(state->row_maker, &batch->messages[index], slot,
		                                &batch->decode_us);
		batch->decoding = false;
		if (is_row)
		{
			topic_scan_set_index(slot, index);
			return slot;
		}
		CHECK_FOR_INTERRUPTS();
	}
	batch->current =
	    -1; /* what comes now, such as AFTER triggers, is about no message that we know */
	return slot;
}

static TupleTableSlot *
iterate_scan(ForeignScanState *node)
{
	TopicScanState *state = node->fdw_state;

	return state->batch ? next_row_of_batch(node) : next_row_of_topic(node);
}

static void
rescan(ForeignScanState *node)
{
	TopicScanState *state = node->fdw_state;

	state->next = 0;
	state->started = false; /* the ends stay as they were pinned */
}

static void
end_scan(ForeignScanState *node)
{
	TopicScanState *state = node->fdw_state;

	if (state && state->read)
		topic_read_close(state->read);
}

/* ---- EXPLAIN ---- */

static void
explain_bounds(ForeignScanState *node, ExplainState *es, TopicScanState *state,
               TopicBoundKind kind, const char *label)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	List *clauses = NIL;
	ListCell *cell;

	foreach (cell, plan->fdw_exprs)
	{
		TopicBoundKind of_clause;

		if (topic_bounds_match(lfirst(cell), plan->scan.scanrelid, state->schema, &of_clause) &&
		    of_clause == kind)
			clauses = lappend(clauses, lfirst(cell));
	}
	if (clauses != NIL)
	{
		List *context = set_deparse_context_plan(es->deparse_cxt, &plan->scan.plan, NIL);

		ExplainPropertyText(label,
		                    deparse_expression((Node *) make_ands_explicit(clauses), context,
		                                       list_length(es->rtable) > 1 || es->verbose,
		                                       false),
		                    es);
	}
}

static void
explain_scan(ForeignScanState *node, ExplainState *es)
{
	TopicScanState *state = node->fdw_state;

	ExplainPropertyText("Kafka Topic", state->schema->topic, es);
	explain_bounds(node, es, state, BOUND_PARTITION, "Kafka Partition");
	explain_bounds(node, es, state, BOUND_OFFSET, "Kafka Offset");
	explain_bounds(node, es, state, BOUND_TIMESTAMP, "Kafka Timestamp");
	if (es->analyze)
		ExplainPropertyInteger("Kafka Messages Read", NULL,
		                       state->read ? state->read->messages_read : state->next, es);
}

/* SQL: the handler of the foreign data wrapper. */
Datum
kafka_topic_scan_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = estimate_size;
	routine->GetForeignPaths = add_path_of_scan;
	routine->GetForeignPlan = plan_scan;
	routine->BeginForeignScan = begin_scan;
	routine->IterateForeignScan = iterate_scan;
	routine->ReScanForeignScan = rescan;
	routine->EndForeignScan = end_scan;
	routine->ExplainForeignScan = explain_scan;
	PG_RETURN_POINTER(routine);
}
