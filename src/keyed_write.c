/*-------------------------------------------------------------------------
 *
 * keyed_write.c
 *	  Planned INSERT ... ON CONFLICT DO UPDATE, with a shorter way to the rows.
 *
 * The statement stays PostgreSQL's: it is planned, its privileges are checked, and its expressions are
 * evaluated by the executor; only what the ModifyTable node does with a row of its input is
 * done here, by keyed_rows.c.  Tables where more would have to be done (see may_write()) are left to it.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "keyed_write.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "keyed_rows.h"
#include "miscadmin.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* What stands behind a ModifyTable node whose rows are written here. */
typedef struct KeyedWriter
{
	ModifyTableState *node;
	ResultRelInfo *target;
	bool ours_alone;
	KeyedRows *rows; /* NULL before the first row */
} KeyedWriter;

/* Those of the statement that runs: an executor node has no place for them. */
static List *writers = NIL;

static KeyedWriter *
find_writer(const ModifyTableState *node)
{
	ListCell *cell;

	foreach (cell, writers)
	{
		KeyedWriter *writer = lfirst(cell);

		if (writer->node == node)
			return writer;
	}
	elog(ERROR, "the node of a statement is not known");
}

/* --- what is written here --- */

/*
 * May the rows of a node be written here?  Not where a row may go to another table (partitions), where
 * more than expressions of the statement is evaluated (triggers, policies, generated columns),
 * or where another snapshot than the newest counts.
 */
static bool
may_write(ModifyTableState *node)
{
	ModifyTable *plan = castNode(ModifyTable, node->ps.plan);
	ResultRelInfo *target = node->resultRelInfo;
	Relation relation = target->ri_RelationDesc;
	TupleConstr *constraints = RelationGetDescr(relation)->constr;
	List *columns = outerPlan(plan)->targetlist;
	Relation index;
	bool serves;

	if (node->operation != CMD_INSERT || plan->onConflictAction != ONCONFLICT_UPDATE ||
	    node->mt_nrels != 1 || node->rootResultRelInfo != target ||
	    list_length(target->ri_onConflictArbiterIndexes) != 1 || IsolationUsesXactSnapshot())
		return false;
	if (relation->rd_rel->relkind != RELKIND_RELATION || relation->rd_rel->relispartition ||
	    relation->rd_tableam != GetHeapamTableAmRoutine() || relation->trigdesc != NULL ||
	    target->ri_WithCheckOptions != NIL || has_generated_columns(constraints))
		return false;
	if (ExecCleanTargetListLength(columns) != list_length(columns) ||
	    list_length(columns) != RelationGetNumberOfAttributes(relation))
		return false;

	index = index_open(linitial_oid(target->ri_onConflictArbiterIndexes), AccessShareLock);
	serves = keyed_rows_index_serves(index);
	index_close(index, NoLock);
	return serves;
}

/* --- writing --- */

/* Writes the row that was taken; what it is now, or NULL if the statement's WHERE leaves the old one. */
static TupleTableSlot *
write_row(KeyedWriter *writer)
{
	KeyedRows *rows = writer->rows;
	OnConflictSetState *conflict = writer->target->ri_onConflict;
	ExprContext *context = writer->node->ps.ps_ExprContext;

	for (;;)
	{
		if (!keyed_rows_find(rows, conflict->oc_Existing))
		{
			if (keyed_rows_insert(rows))
				return keyed_rows_new_row(rows);
			continue;
		}

		context->ecxt_scantuple = conflict->oc_Existing;
		context->ecxt_innertuple = keyed_rows_new_row(rows);
		context->ecxt_outertuple = NULL;
		if (!ExecQual(conflict->oc_WhereClause, context))
			return NULL;
		ExecProject(conflict->oc_ProjInfo);
		/* its values may lie in the page of the old row */
		ExecMaterializeSlot(conflict->oc_ProjSlot);
		if (keyed_rows_update(rows, conflict->oc_Existing, conflict->oc_ProjSlot))
			return conflict->oc_ProjSlot;
	}
}

static void
begin(KeyedWriter *writer)
{
	writer->rows = keyed_rows_begin(writer->target,
	                                linitial_oid(writer->target->ri_onConflictArbiterIndexes),
	                                writer->node->ps.state, writer->ours_alone);
}

static void
end(KeyedWriter *writer)
{
	ExecClearTuple(writer->target->ri_onConflict->oc_Existing);
	keyed_rows_end(writer->rows);
	writer->node->mt_done = true;
}

/* In the place of ExecModifyTable(). */
static TupleTableSlot *
next_written_row(PlanState *state)
{
	ModifyTableState *node = castNode(ModifyTableState, state);
	KeyedWriter *writer = find_writer(node);
	ProjectionInfo *returning = writer->target->ri_projectReturning;

	if (node->mt_done)
		return NULL;
	if (writer->rows == NULL)
		begin(writer);
	for (;;)
	{
		TupleTableSlot *input;
		TupleTableSlot *written;

		CHECK_FOR_INTERRUPTS();
		ResetPerTupleExprContext(state->state);
		ResetExprContext(state->ps_ExprContext);
		input = ExecProcNode(outerPlanState(node));
		if (TupIsNull(input))
			break;

		keyed_rows_take(writer->rows, input);
		written = write_row(writer);
		ExecClearTuple(writer->target->ri_onConflict->oc_Existing);
		if (written == NULL)
			continue;
		if (node->canSetTag)
			state->state->es_processed++;
		if (returning != NULL)
		{
			returning->pi_exprContext->ecxt_scantuple = written;
			returning->pi_exprContext->ecxt_outertuple = input;
			return ExecProject(returning);
		}
	}
	end(writer);
	return NULL;
}

/* --- statements --- */

/* The list of writers for the nodes of a statement that has been started. */
static List *
take_over_nodes(QueryDesc *query, Oid our_table)
{
	List *nodes = query->estate->es_auxmodifytables;
	List *result = NIL;
	ListCell *cell;

	if (IsA(query->planstate, ModifyTableState))
		nodes = lcons(query->planstate, list_copy(nodes));
	foreach (cell, nodes)
	{
		KeyedWriter *writer;

		if (!may_write(lfirst_node(ModifyTableState, cell)))
			continue;
		writer = palloc0(sizeof(KeyedWriter));
		writer->node = lfirst_node(ModifyTableState, cell);
		writer->target = writer->node->resultRelInfo;
		writer->ours_alone = RelationGetRelid(writer->target->ri_RelationDesc) == our_table;
		ExecSetExecProcNode(&writer->node->ps, next_written_row);
		result = lappend(result, writer);
	}
	return result;
}

static uint64
run_with_writers(QueryDesc *query, Oid our_table)
{
	List *outer_writers = writers;
	uint64 rows = 0;

	PG_TRY();
	{
		ExecutorStart(query, 0);
		writers = take_over_nodes(query, our_table);
		run_to_completion(query);
		rows = query->estate->es_processed;
		ExecutorFinish(query);
	}
	PG_FINALLY();
	{
		writers = outer_writers;
	}
	PG_END_TRY();
	ExecutorEnd(query);
	return rows;
}

/* The one statement of a plan that the executor can run; NULL: rules have made others, or none, of it. */
static PlannedStmt *
only_statement(CachedPlan *plan)
{
	PlannedStmt *statement;

	if (list_length(plan->stmt_list) != 1)
		return NULL;
	statement = linitial_node(PlannedStmt, plan->stmt_list);
	return statement->utilityStmt == NULL ? statement : NULL;
}

static uint64
execute_by_spi(SPIPlanPtr plan, ParamListInfo parameters, DestReceiver *receiver)
{
	SPIExecuteOptions options = {.params = parameters, .dest = receiver};
	int result = SPI_execute_plan_extended(plan, &options);

	if (result < 0)
		elog(ERROR, "could not write the batch: %s", SPI_result_code_string(result));
	return SPI_processed;
}

uint64
keyed_write_execute(SPIPlanPtr plan, ParamListInfo parameters, QueryEnvironment *environment,
                    Oid our_table, DestReceiver *receiver)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	CachedPlan *cached = GetCachedPlan(source, parameters, CurrentResourceOwner, environment);
	PlannedStmt *statement = only_statement(cached);
	QueryDesc *query;
	uint64 rows;

	if (statement == NULL)
	{
		ReleaseCachedPlan(cached, CurrentResourceOwner);
		return execute_by_spi(plan, parameters, receiver);
	}
	/* what was written before shall be seen, and what is written now by those that follow */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	query = CreateQueryDesc(statement, source->query_string, GetActiveSnapshot(),
	                        InvalidSnapshot, receiver, parameters, environment, 0);
	rows = run_with_writers(query, our_table);
	FreeQueryDesc(query);
	PopActiveSnapshot();
	ReleaseCachedPlan(cached, CurrentResourceOwner);
	CommandCounterIncrement();
	return rows;
}
