/*-------------------------------------------------------------------------
 *
 * sink_statements.c
 *	  A sink that keeps a state: runs its statements with the watermark of the batch.
 *
 * With a watermark a batch drops what was late already when the last one ran, and
 * closes windows by the one that is valid now.  So a message that comes
 * with the first batch after the watermark has moved is still taken in.
 *
 * What the statements are is left to sink_aggregate_sql.c and sink_deduplicate.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "sink_statements.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "error_class.h"
#include "executor/spi.h"
#include "keyed_write.h"
#include "privileges.h"
#include "storage/bufmgr.h"
#include "stream_state.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "watermark.h"

#define MAX_PLANS 6

/*
 * Groups of a batch, of which at least this part of its messages is one: then sorting the messages is cheaper than a
 * hash table, which does not fit into work_mem, and whose groups have to be sorted for the index.
 */
#define SORTED_GROUPS     10000
#define SORTED_GROUP_PART 0.6

/* plan anew when the target or the state has grown by so much */
#define PLANNED_SIZE_FACTOR 4

typedef struct StatementSink
{
	Sink sink; /* must be first */
	const Stream *stream;
	bool waits_for_watermark;
	StreamWatermark watermark; /* as of the last batch */
	char *state_name;

	/* the plans that there are, all of which must be valid */
	SPIPlanPtr plans[MAX_PLANS];
	/* plans made for small tables are bad for large ones */
	BlockNumber planned_target_size;
	BlockNumber planned_state_size;
	int plan_count;
	SPIPlanPtr newest; /* event time of a batch; NULL without a watermark */
	SPIPlanPtr merge;
	SPIPlanPtr merge_sorted; /* without a hash table; NULL where the order of messages counts */
	SPIPlanPtr write;
	SPIPlanPtr forget;
	MemoryContextCallback free_plans;
} StatementSink;

/* Did the last batch of this process, if it was written?  Outlives the sink, which is made anew as tables grow. */
static bool has_many_groups = false;

static void
free_plans(void *argument)
{
	StatementSink *sink = argument;

	for (int i = 0; i < sink->plan_count; i++)
		(void) SPI_freeplan(sink->plans[i]);
}

/*
 * What statements are planned and run with: names mean those of pg_catalog,
 * images of rows are exact.  Compiling them would cost more than it saves, but the
 * planner takes every batch for a large one.
 */
static int
begin_settings(void)
{
	static const char *const settings[][2] = {{"search_path", "pg_catalog, pg_temp"},
	                                          {"jit", "off"},
	                                          {"extra_float_digits", "1"}};
	int guc_nest_level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
		                         GUC_ACTION_SAVE, true, 0, false);
	return guc_nest_level;
}

/* Blocks of a table, 0 when it can't be said. */
static BlockNumber
table_size(Oid relid)
{
	Relation table = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	BlockNumber size = 0;

	if (table == NULL)
		return 0;
	if (RELKIND_HAS_STORAGE(table->rd_rel->relkind))
		size = RelationGetNumberOfBlocks(table);
	relation_close(table, NoLock);
	return size;
}

/* A plan with the parameters that all statements have. */
static SPIPlanPtr
prepare(StatementSink *sink, const char *statement)
{
	Oid types[2] = {TIMESTAMPTZOID, TIMESTAMPTZOID};
	SPIPlanPtr plan;

	if (statement == NULL)
		return NULL;
	plan = SPI_prepare_cursor(statement, lengthof(types), types, CURSOR_OPT_GENERIC_PLAN);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", statement,
		     SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	Assert(sink->plan_count < MAX_PLANS);
	sink->plans[sink->plan_count++] = plan;
	return plan;
}

static void
check_privileges(StatementSink *sink)
{
	List *plans = NIL;

	for (int i = 0; i < sink->plan_count; i++)
		plans = lappend(plans, sink->plans[i]);
	privileges_check_plans(plans);
	list_free(plans);
}

/* Takes the row that a statement returns. */
typedef struct NumbersReceiver
{
	DestReceiver receiver; /* must be first */
	int row_count;
	int64 numbers[4]; /* see SinkStatements */
} NumbersReceiver;

static bool
receive_numbers(TupleTableSlot *row, DestReceiver *self)
{
	NumbersReceiver *receiver = (NumbersReceiver *) self;

	for (int i = 0; i < row->tts_tupleDescriptor->natts; i++)
	{
		bool isnull;

		receiver->numbers[i] = DatumGetInt64(slot_getattr(row, i + 1, &isnull));
	}
	receiver->row_count++;
	return true;
}

/* Runs one of the statements, and adds its numbers to the batch's; returns the fourth one, or 0. */
static int64
run(const StatementSink *sink, SPIPlanPtr plan, const StreamWatermark *watermark,
    SinkBatch *batch)
{
	TimestampTz values[2] = {watermark->previous, watermark->watermark};
	NumbersReceiver result = {.receiver = *None_Receiver};
	ParamListInfo parameters;

	if (plan == NULL)
		return 0;
	result.receiver.receiveSlot = receive_numbers;
	parameters = makeParamList(lengthof(values));
	for (int i = 0; i < lengthof(values); i++)
		parameters->params[i] = (ParamExternData){.value = TimestampTzGetDatum(values[i]),
		                                          .isnull = false,
		                                          .pflags = PARAM_FLAG_CONST,
		                                          .ptype = TIMESTAMPTZOID};
	(void) keyed_write_execute(plan, parameters, NULL, stream_state_find(sink->stream),
	                           &result.receiver);
	if (result.row_count != 1)
		elog(ERROR, "a statement has returned %d rows", result.row_count);
	batch->output_rows += result.numbers[0];
	batch->late_rows += result.numbers[1];
	batch->state_rows_added += result.numbers[2];
	return result.numbers[3];
}

/*
 * Puts the messages into the state.  After an attempt that has failed it is the hash table that takes
 * them as they come: then the scan is at the message that is to blame.
 */
static void
merge(StatementSink *sink, const StreamWatermark *watermark, SinkBatch *batch)
{
	bool sorts = has_many_groups && sink->merge_sorted != NULL;
	int guc_nest_level = NewGUCNestLevel();
	int64 groups;

	has_many_groups = false;
	/* when it is planned, which may be anew */
	if (sorts)
		(void) set_config_option("enable_hashagg", "off", PGC_USERSET, PGC_S_SESSION,
		                         GUC_ACTION_SAVE, true, 0, false);
	groups = run(sink, sorts ? sink->merge_sorted : sink->merge, watermark, batch);
	AtEOXact_GUC(true, guc_nest_level);
	has_many_groups =
	    groups >= SORTED_GROUPS && groups >= SORTED_GROUP_PART * batch->messages->count;
}

/*
 * Writes what is over.  No message is to blame when that fails, and on_error can't leave one
 * out: what the error says must be enough to go on.
 */
static void
write_closed_windows(const StatementSink *sink, const StreamWatermark *watermark,
                     SinkBatch *batch)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		(void) run(sink, sink->write, watermark, batch);
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		/* what would be a message's fault elsewhere is the group's here */
		if (classify_error(error) == ERROR_OF_MESSAGE)
		{
			add_to_error_detail(
			    error, psprintf("It is the result of a group whose window had ended by %s; the "
			                    "groups are in %s.",
			                    timestamptz_to_str(watermark->watermark), sink->state_name));
			error->hint = pstrdup(
			    "Correct the target table, or leave the group out by HAVING, with "
			    "kafka.alter_stream(name, query => ...); then kafka.start_stream goes on.");
		}
		ReThrowError(error);
	}
	PG_END_TRY();
}

static bool
statement_sink_is_stale(Sink *self)
{
	StatementSink *sink = (StatementSink *) self;

	for (int i = 0; i < sink->plan_count; i++)
		if (!SPI_plan_is_valid(sink->plans[i]))
			return true;
	return table_size(sink->stream->target) / PLANNED_SIZE_FACTOR > sink->planned_target_size ||
	       table_size(stream_state_find(sink->stream)) / PLANNED_SIZE_FACTOR >
	           sink->planned_state_size;
}

static void
statement_sink_write(Sink *self, SinkBatch *batch)
{
	StatementSink *sink = (StatementSink *) self;
	bool has_data = batch->messages->count > 0;
	int guc_nest_level = begin_settings();
	/* not from memory: an attempt before this one may have been rolled back */
	StreamWatermark watermark = {DT_NOBEGIN, DT_NOBEGIN, DT_NOBEGIN, 0};

	if (sink->newest != NULL)
		watermark = watermark_load(sink->stream->name);
	batch->keeps_state = true;
	SPI_connect();
	check_privileges(sink);
	topic_scan_set_batch(batch->messages);
	if (has_data)
		merge(sink, &watermark, batch);
	if (sink->stream->mode == MODE_APPEND && sink->waits_for_watermark)
		write_closed_windows(sink, &watermark, batch);
	else
		(void) run(sink, sink->write, &watermark, batch);
	(void) run(sink, sink->forget, &watermark, batch);
	if (sink->newest != NULL)
	{
		watermark.late_rows += batch->late_rows;
		watermark_advance(&watermark, has_data ? sink->newest : NULL,
		                  sink->stream->watermark_delay, &batch->oldest, &batch->newest);
		if (!sink->waits_for_watermark)
			watermark.previous = watermark.watermark;
	}
	topic_scan_set_batch(NULL);
	SPI_finish();
	if (sink->newest != NULL)
		watermark_store(sink->stream->name, &watermark);
	sink->watermark = watermark;
	if (!TIMESTAMP_IS_NOBEGIN(watermark.watermark))
		batch->watermark = watermark.watermark;
	AtEOXact_GUC(true, guc_nest_level);
}

static bool
statement_sink_wants_batch_without_data(Sink *self)
{
	StatementSink *sink = (StatementSink *) self;

	return sink->watermark.watermark > sink->watermark.previous;
}

static void
explain_plan(StringInfo text, const char *label, SPIPlanPtr plan)
{
	CachedPlanSource *source;

	if (plan == NULL)
		return;
	source = linitial(SPI_plan_get_plan_sources(plan));
	appendStringInfo(text, "%s: %s\n", label, source->query_string);
}

static void
statement_sink_explain(Sink *self, StringInfo text)
{
	StatementSink *sink = (StatementSink *) self;

	appendStringInfo(text, "State table: %s\n", sink->state_name);
	explain_plan(text, "Batch into state", sink->merge);
	explain_plan(text, "State into target", sink->write);
	explain_plan(text, "Closed windows", sink->forget);
	explain_plan(text, "Event time", sink->newest);
}

Sink *
statement_sink_create(const Stream *stream, Oid topic_table, const SinkStatements *statements,
                      bool waits_for_watermark)
{
	StatementSink *sink = palloc0(sizeof(StatementSink));
	int guc_nest_level = begin_settings();

	sink->sink.is_stale = statement_sink_is_stale;
	sink->sink.write = statement_sink_write;
	sink->sink.wants_batch_without_data = statement_sink_wants_batch_without_data;
	sink->sink.explain = statement_sink_explain;
	sink->stream = stream;
	sink->waits_for_watermark = waits_for_watermark;
	sink->state_name = stream_state_name(stream);
	sink->free_plans.func = free_plans;
	sink->free_plans.arg = sink;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &sink->free_plans);

	/* an empty table is planned for as one of ten pages, too */
	sink->planned_target_size = Max(table_size(stream->target), 4);
	sink->planned_state_size = Max(table_size(stream_state_find(stream)), 4);
	SPI_connect();
	sink->merge = prepare(sink, statements->merge);
	if (statements->in_any_order)
		sink->merge_sorted = prepare(sink, statements->merge);
	sink->write = prepare(sink, statements->write);
	sink->forget = prepare(sink, statements->forget);
	if (stream->watermark_column != NULL)
		sink->newest = prepare(sink, watermark_statement(stream, topic_table));
	/* never run: it is no longer valid once a view of the user's is another one */
	(void) prepare(sink, psprintf("SELECT FROM %s",
	                              quote_qualified_identifier(
	                                  get_namespace_name(get_rel_namespace(stream->source)),
	                                  get_rel_name(stream->source))));
	check_privileges(sink);
	SPI_finish();
	if (stream->watermark_column != NULL)
		sink->watermark = watermark_load(stream->name);
	AtEOXact_GUC(true, guc_nest_level);
	return &sink->sink;
}
