/*-------------------------------------------------------------------------
 *
 * sink_upsert.c
 *	  Update mode without aggregation: insert or update by key, delete by
 *	  tombstone.
 *
 * A batch goes through these steps:
 *
 *	1. The rows of the source, converted to the target's types as an INSERT
 *	   would, with the message that each comes from.
 *	2. Tombstones (upsert_tombstones.c), beside the query.
 *	3. upsert_rows.c: the last per key, sorted by key.
 *	4. Statements planned by PostgreSQL, which read the result as ephemeral
 *	   relations: DELETE, then INSERT ... ON CONFLICT DO UPDATE.
 *
 * What the key is and how the statements read is in upsert_target.c; the
 * transaction and the checkpoint are micro_batch.c's.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "sink_upsert.h"

#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "keyed_write.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "privileges.h"
#include "source_lineage.h"
#include "storage/lmgr.h"
#include "stream_query.h"
#include "tcop/tcopprot.h"
#include "topic_schema.h"
#include "upsert_rows.h"
#include "upsert_target.h"
#include "upsert_tombstones.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/queryenvironment.h"
#include "utils/snapmgr.h"

typedef struct UpsertSink
{
	Sink sink; /* must be first */
	Oid topic_table;
	UpsertTarget *target;
	bool deletes; /* on_tombstone = 'delete' */
	MemoryContext context;

	/* INSERT INTO target SELECT ... FROM source: analyzed and locked, but its plan is not run */
	SPIPlanPtr insert;
	SPIPlanPtr write_rows;
	SPIPlanPtr delete_rows; /* NULL unless "deletes" */

	/* made for a generation of "insert" */
	MemoryContext derived_context;
	int generation;
	List *defaults; /* of TopicColumnDefault * */
	const char *topic;
	PlannedStmt *select;         /* the rows of the batch, see upsert_rows_receiver() */
	TombstoneKey *tombstone_key; /* NULL unless "deletes" */
} UpsertSink;

/* --- plans --- */

static void
free_plan(void *plan)
{
	(void) SPI_freeplan(plan);
}

static CachedPlanSource *
plan_source(SPIPlanPtr plan)
{
	return linitial(SPI_plan_get_plan_sources(plan));
}

/* Makes a store known to the statements of the current SPI connection. */
static void
register_relation(QueryEnvironment *environment, const UpsertTarget *target, const char *name,
                  Tuplestorestate *store)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));

	relation->md.name = pstrdup(name);
	relation->md.reliddesc = InvalidOid;
	relation->md.tupdesc = target->row_type;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	/* a plan is made once, for batches of any size: no estimate */
	relation->md.enrtuples = -1;
	relation->reldata = store;
	if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register \"%s\"", name);
	register_ENR(environment, relation);
}

/*
 * Makes the result of a batch known to the statements, or, while they are only prepared,
 * its shape (NULL).  SPI has it for itself; the environment that is returned is for our
 * own calls of GetCachedPlan().
 */
static QueryEnvironment *
register_result(const UpsertTarget *target, const UpsertResult *result)
{
	QueryEnvironment *environment = create_queryEnv();

	register_relation(environment, target, UPSERT_CHANGED_ROWS,
	                  result != NULL ? result->changed_rows : NULL);
	register_relation(environment, target, UPSERT_DELETED_KEYS,
	                  result != NULL ? result->deleted_keys : NULL);
	return environment;
}

/* Prepares a statement for the life of the sink. */
static SPIPlanPtr
prepare(UpsertSink *sink, const char *statement)
{
	SPIPlanPtr plan = SPI_prepare(statement, 0, NULL);
	MemoryContextCallback *callback = MemoryContextAllocZero(sink->context, sizeof(*callback));

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", statement,
		     SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	callback->func = free_plan;
	callback->arg = plan;
	MemoryContextRegisterResetCallback(sink->context, callback);
	return plan;
}

static void
check_privileges(const UpsertSink *sink)
{
	privileges_check_plans(list_make3(sink->insert, sink->write_rows, sink->delete_rows));
}

/*
 * Plans a statement that finds the target's rows by their keys so that it
 * looks each of them up in the index.  A batch is small and the target large, but the
 * planner can't know: the target may have been empty when it was asked.
 */
static void
plan_as_lookup(SPIPlanPtr plan, QueryEnvironment *environment)
{
	static const char *const others[] = {"enable_seqscan", "enable_hashjoin",
	                                     "enable_mergejoin"};
	int nest_level = NewGUCNestLevel();
	CachedPlan *cached;

	for (int i = 0; i < lengthof(others); i++)
		(void) set_config_option(others[i], "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
		                         true, 0, false);
	cached = GetCachedPlan(plan_source(plan), NULL, CurrentResourceOwner, environment);
	ReleaseCachedPlan(cached, CurrentResourceOwner);
	AtEOXact_GUC(true, nest_level);
}

/* Executes a prepared statement; returns the number of rows. */
static int64
execute(SPIPlanPtr plan, QueryEnvironment *environment)
{
	return (int64) keyed_write_execute(plan, NULL, environment, InvalidOid, None_Receiver);
}

/* --- what is derived from the analyzed INSERT --- */

/* The SELECT that gives the rows that the INSERT would write, and their messages. */
static PlannedStmt *
plan_select(UpsertSink *sink, Query *insert)
{
	const UpsertTarget *target = sink->target;
	Query *select = copyObject(insert);
	List *columns = NIL;

	for (int i = 0; i < target->column_count; i++)
		columns = lappend(columns,
		                  makeTargetEntry(upsert_target_expression(select, target->columns[i]),
		                                  i + 1, target->column_names[i], false));
	select->commandType = CMD_SELECT;
	select->resultRelation = 0;
	select->withCheckOptions = NIL; /* of row security: the write checks them */
	select->targetList = columns;
	(void) source_lineage_add_index(select, sink->topic_table);
	return pg_plan_query(select, plan_source(sink->insert)->query_string, 0, NULL);
}

/* Makes anew what depends on the definitions of the query, the topic table and the target. */
static void
refresh_derived(UpsertSink *sink)
{
	CachedPlanSource *source = plan_source(sink->insert);
	MemoryContext old_context;
	Query *insert;

	if (sink->generation == source->generation)
		return;
	if (list_length(source->query_list) != 1 ||
	    linitial_node(Query, source->query_list)->commandType != CMD_INSERT)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("target \"%s\" has a rule on INSERT",
		                       get_rel_name(sink->target->relid)),
		                errdetail("INSERT ... ON CONFLICT does not work with rules."),
		                errhint("Use a trigger instead.")));

	if (sink->derived_context != NULL)
		MemoryContextDelete(sink->derived_context);
	sink->derived_context =
	    AllocSetContextCreate(sink->context, "kafka upsert", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(sink->derived_context);
	insert = linitial_node(Query, source->query_list);
	sink->topic = topic_schema_load(sink->topic_table)->topic;
	sink->defaults = stream_query_missing_defaults(insert, sink->topic_table);
	sink->select = plan_select(sink, insert);
	if (sink->deletes)
		sink->tombstone_key = upsert_tombstone_key(sink->target, insert, sink->topic_table);
	MemoryContextSwitchTo(old_context);
	sink->generation = source->generation;
}

/* --- a batch --- */

static void
collect_rows(UpsertSink *sink, UpsertRows *rows)
{
	QueryDesc *query = CreateQueryDesc(sink->select, "", GetActiveSnapshot(), InvalidSnapshot,
	                                   upsert_rows_receiver(rows), NULL, NULL, 0);

	ExecutorStart(query, 0);
	run_to_completion(query);
	ExecutorFinish(query);
	ExecutorEnd(query);
	FreeQueryDesc(query);
}

/*
 * Keeps streams that write the same rows from deadlocks, until the end of the
 * transaction.  A batch touches rows in the order of the key; one that also
 * deletes, or is written in parts, goes over them several times, so it lets no other stream into the table
 * meanwhile.  Not a lock that readers or other writers meet.
 */
static void
lock_out_other_streams(const UpsertTarget *target, bool many_passes)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, target->relid, 1);
	(void) LockAcquire(&tag, many_passes ? ExclusiveLock : ShareLock, false, false);
}

static void
upsert_sink_write(Sink *self, SinkBatch *batch)
{
	UpsertSink *sink = (UpsertSink *) self;
	TopicScanBatch *messages = batch->messages;
	CachedPlan *plan;
	UpsertRows *rows;
	UpsertResult result;
	QueryEnvironment *environment;

	SPI_connect();
	check_privileges(sink);
	plan = GetCachedPlan(plan_source(sink->insert), NULL, CurrentResourceOwner, NULL);
	refresh_derived(sink);
	messages->defaults = sink->defaults;
	messages->without_tombstones = true;
	messages->of_tombstones = sink->deletes ? sink->tombstone_key->columns : NULL;

	rows = upsert_rows_begin(sink->target, sink->topic, messages);
	topic_scan_set_batch(messages);
	collect_rows(sink, rows);
	topic_scan_set_batch(NULL);
	if (sink->deletes)
		upsert_tombstones_collect(sink->tombstone_key, messages, rows);
	ReleaseCachedPlan(plan, CurrentResourceOwner);
	result = upsert_rows_finish(rows);

	environment = register_result(sink->target, &result);
	batch->output_rows = 0;
	lock_out_other_streams(sink->target, result.deleted_count > 0 || batch->is_part);
	if (result.deleted_count > 0)
	{
		plan_as_lookup(sink->delete_rows, environment);
		batch->output_rows += execute(sink->delete_rows, environment);
	}
	if (result.changed_count > 0)
		batch->output_rows += execute(sink->write_rows, environment);
	tuplestore_end(result.changed_rows);
	tuplestore_end(result.deleted_keys);
	SPI_finish();
}

/* --- the rest of the interface --- */

static bool
upsert_sink_is_stale(Sink *self)
{
	UpsertSink *sink = (UpsertSink *) self;

	/* from here on the target stays as sink->target says, or this shows that it does not */
	LockRelationOid(sink->target->relid, RowExclusiveLock);
	return !SPI_plan_is_valid(sink->insert) || !SPI_plan_is_valid(sink->write_rows) ||
	       (sink->deletes && !SPI_plan_is_valid(sink->delete_rows));
}

static void
upsert_sink_explain(Sink *self, StringInfo text)
{
	UpsertSink *sink = (UpsertSink *) self;
	const UpsertTarget *target = sink->target;

	appendStringInfo(text, "Path: upsert by key (%s), index \"%s\"\n",
	                 upsert_target_key_list(target), target->index_name);
	appendStringInfo(text, "Rows: %s\n", plan_source(sink->insert)->query_string);
	if (target->version != NULL)
		appendStringInfo(text, "Of every key: the highest %s, of equal ones the last message\n",
		                 target->column_names[target->version->column]);
	else
		appendStringInfoString(text, "Of every key: the last message\n");
	if (!sink->deletes)
		appendStringInfoString(text, "Tombstones: ignored\n");
	else if (sink->tombstone_key->problem != NULL)
		appendStringInfo(text, "Tombstones: an error. %s\n", sink->tombstone_key->problem);
	else
	{
		appendStringInfoString(text, "Tombstones: delete by the message key\n");
		appendStringInfo(text, "Statement: %s\n", plan_source(sink->delete_rows)->query_string);
	}
	appendStringInfo(text, "Statement: %s\n", plan_source(sink->write_rows)->query_string);
}

void
upsert_refuse_options(const Stream *stream)
{
	const char *option = stream->key_columns != NIL       ? "key_columns"
	                     : stream->version_column != NULL ? "version_column"
	                     : stream->ignore_tombstones      ? "on_tombstone"
	                                                      : NULL;

	if (option != NULL)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		         errmsg("%s is for mode \"update\" without aggregation only", option),
		         errdetail("In other modes no row is found again by the key of a message."),
		         errhint("Leave it out, or create the stream with mode => 'update'.")));
}

Sink *
upsert_sink_create(const Stream *stream, Oid topic_table)
{
	UpsertSink *sink = palloc0(sizeof(UpsertSink));
	char *insert = stream_query_insert_statement(stream);
	QueryEnvironment *environment;
	CachedPlan *plan;

	sink->sink.is_stale = upsert_sink_is_stale;
	sink->sink.write = upsert_sink_write;
	sink->sink.explain = upsert_sink_explain;
	sink->sink.accepts_parts = true;
	sink->topic_table = topic_table;
	sink->context = CurrentMemoryContext;
	sink->generation = -1;
	sink->deletes = !stream->ignore_tombstones;
	sink->target = upsert_target_load(stream);

	SPI_connect();
	environment = register_result(sink->target, NULL);
	sink->insert = prepare(sink, insert);
	sink->write_rows = prepare(sink, upsert_target_write_statement(sink->target));
	if (sink->deletes)
		sink->delete_rows = prepare(sink, upsert_target_delete_statement(sink->target));
	check_privileges(sink);
	if (sink->deletes)
		plan_as_lookup(sink->delete_rows, environment);

	plan = GetCachedPlan(plan_source(sink->insert), NULL, CurrentResourceOwner, NULL);
	refresh_derived(sink);
	ReleaseCachedPlan(plan, CurrentResourceOwner);
	SPI_finish();
	return &sink->sink;
}
