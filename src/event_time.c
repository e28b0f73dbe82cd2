/*-------------------------------------------------------------------------
 *
 * event_time.c
 *	  Windows of event time.
 *
 * Which of an expression's rows are in which window, and how SQL asks whether it is over.
 * What the watermark is, is left to watermark.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "event_time.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "fmgr.h"
#include "funcapi.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rangetypes.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(kafka_sliding_window);
PG_FUNCTION_INFO_V1(kafka_session_window);

AttrNumber
event_time_column(Oid topic_table, const char *watermark_column)
{
	AttrNumber attnum = get_attnum(topic_table, watermark_column);

	if (attnum <= 0)
		ereport(ERROR,
		        (errcode(ERRCODE_UNDEFINED_COLUMN),
		         errmsg("watermark_column \"%s\" does not exist", watermark_column),
		         errdetail("Topic table \"%s\" has no such column.", get_rel_name(topic_table)),
		         errhint("Name the column of the topic table that has the event time.")));
	if (get_atttype(topic_table, attnum) != TIMESTAMPTZOID)
		ereport(ERROR,
		        (errcode(ERRCODE_DATATYPE_MISMATCH),
		         errmsg("watermark_column \"%s\" is not of type timestamp with time zone",
		                watermark_column),
		         errdetail("Its type is %s.", format_type_be(get_atttype(topic_table, attnum))),
		         errhint("Change the type of the topic table's column; its option \"epoch\" "
		                 "makes timestamps of numbers.")));
	return attnum;
}

/* --- windows --- */

/*
 * What a column stands for, through sub-selects, CTEs, views and joins:
 * *query becomes the query to which the returned expression belongs.
 */
static Node *
resolve_column(Query **query, Node *node)
{
	for (;;)
	{
		Var *var = (Var *) node;
		RangeTblEntry *entry;
		TargetEntry *target;
		ListCell *cell;

		if (!IsA(node, Var) || var->varlevelsup != 0 || var->varattno <= 0)
			return node;
		entry = rt_fetch(var->varno, (*query)->rtable);
		if (entry->rtekind == RTE_SUBQUERY)
			*query = flatten_query_aliases(copyObject(entry->subquery));
		else if (entry->rtekind == RTE_RELATION && entry->relkind == RELKIND_VIEW)
		{
			Relation view = table_open(entry->relid, AccessShareLock);

			*query = flatten_query_aliases(copyObject(get_view_query(view)));
			table_close(view, NoLock);
		}
		else if (entry->rtekind == RTE_CTE && entry->ctelevelsup == 0)
		{
			Query *below = NULL;

			foreach (cell, (*query)->cteList)
			{
				CommonTableExpr *cte = lfirst_node(CommonTableExpr, cell);

				if (strcmp(cte->ctename, entry->ctename) == 0 && IsA(cte->ctequery, Query))
					below = castNode(Query, cte->ctequery);
			}
			if (below == NULL)
				return node;
			*query = flatten_query_aliases(copyObject(below));
		}
		else
			return node;
		target = get_tle_by_resno((*query)->targetList, var->varattno);
		if (target == NULL)
			return node;
		node = (Node *) target->expr;
	}
}

static bool
is_event_time(Query *query, Node *node, Oid topic_table, AttrNumber attnum)
{
	Node *column = resolve_column(&query, node);
	RangeTblEntry *entry;

	if (!IsA(column, Var) || ((Var *) column)->varlevelsup != 0)
		return false;
	entry = rt_fetch(((Var *) column)->varno, query->rtable);
	return entry->rtekind == RTE_RELATION && entry->relid == topic_table &&
	       ((Var *) column)->varattno == attnum;
}

/* A constant that doesn't depend on settings, as the parser leaves it. */
static Const *
constant_argument(FuncExpr *call, int number)
{
	Node *argument = list_nth(call->args, number);

	if (!IsA(argument, Const) || ((Const *) argument)->constisnull)
		return NULL;
	return (Const *) argument;
}

static bool
is_window_function(Oid function, const char *name)
{
	return get_func_namespace(function) == get_namespace_oid("kafka", true) &&
	       strcmp(get_func_name(function), name) == 0;
}

static bool
session_window_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr) &&
	    is_window_function(((FuncExpr *) node)->funcid, "session_window"))
		return true;
	return expression_tree_walker(node, session_window_walker, context);
}

bool
event_time_calls_session_window(Query *query, Node *expression)
{
	return session_window_walker(resolve_column(&query, expression), NULL);
}

/* --- sizes of windows --- */

/* more windows for one row are surely a mistake */
#define MOST_SLIDING_WINDOWS 10000

static char *
interval_text(const Interval *interval)
{
	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval)));
}

static int64
fixed_interval_us(const Interval *interval, const char *name)
{
	int64 result;

	if (interval->month != 0)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("%s of a window must not contain months or years", name),
		                errdetail("Their length differs."),
		                errhint("Give weeks, days or hours, for example '7 days'.")));
	if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &result) ||
	    pg_add_s64_overflow(result, interval->time, &result) || result <= 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("%s of a window must be greater than zero", name),
		                errdetail("It is %s.", interval_text(interval)),
		                errhint("Give a length of time, for example '5 min'.")));
	return result;
}

static void
sliding_interval_us(const Interval *size, const Interval *slide, int64 *size_us,
                    int64 *slide_us)
{
	*size_us = fixed_interval_us(size, "size");
	*slide_us = fixed_interval_us(slide, "slide");
	if (*slide_us > *size_us)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("slide of a window must not be greater than its size"),
		                errdetail("Times between two windows would be in none."),
		                errhint("Give a slide of at most %s.", interval_text(size))));
	if (*size_us / *slide_us > MOST_SLIDING_WINDOWS)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("slide of a window is too small for its size"),
		                errdetail("Each row would be in %lld windows; at most %d are allowed.",
		                          (long long) (*size_us / *slide_us), MOST_SLIDING_WINDOWS),
		                errhint("Give a longer slide, or shorter windows.")));
}

bool
event_time_find_window(Query *query, Node *expression, Oid topic_table,
                       const char *watermark_column, EventWindow *window)
{
	AttrNumber attnum = event_time_column(topic_table, watermark_column);
	Node *node = resolve_column(&query, expression);
	FuncExpr *call;

	/* the only column of a function in FROM */
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == 0)
	{
		RangeTblEntry *entry = rt_fetch(((Var *) node)->varno, query->rtable);

		if (entry->rtekind == RTE_FUNCTION && list_length(entry->functions) == 1 &&
		    ((Var *) node)->varattno == 1)
			node = ((RangeTblFunction *) linitial(entry->functions))->funcexpr;
	}
	if (is_event_time(query, node, topic_table, attnum))
	{
		window->kind = WINDOW_INSTANT;
		return true;
	}
	if (!IsA(node, FuncExpr))
		return false;
	call = (FuncExpr *) node;
	if (call->funcid == F_DATE_BIN_INTERVAL_TIMESTAMPTZ_TIMESTAMPTZ)
	{
		Const *size = constant_argument(call, 0);

		/* an origin that moves would make other windows in every batch */
		if (size == NULL || constant_argument(call, 2) == NULL ||
		    !is_event_time(query, lsecond(call->args), topic_table, attnum))
			return false;
		window->kind = WINDOW_TUMBLING;
		window->size_us = fixed_interval_us(DatumGetIntervalP(size->constvalue), "size");
		return true;
	}
	if (is_window_function(call->funcid, "sliding_window") &&
	    is_event_time(query, linitial(call->args), topic_table, attnum))
	{
		Const *size = constant_argument(call, 1);
		Const *slide = constant_argument(call, 2);
		int64 size_us;
		int64 slide_us;

		/* the default of origin is added by the planner, and constant */
		if (size == NULL || slide == NULL ||
		    (list_length(call->args) > 3 && constant_argument(call, 3) == NULL))
			return false;
		sliding_interval_us(DatumGetIntervalP(size->constvalue),
		                    DatumGetIntervalP(slide->constvalue), &size_us, &slide_us);
		window->kind = WINDOW_RANGE;
		return true;
	}
	if (is_window_function(call->funcid, "session_window") &&
	    is_event_time(query, linitial(call->args), topic_table, attnum))
	{
		window->kind = WINDOW_SESSION;
		return true;
	}
	return false;
}

AttrNumber
event_time_output(Oid source, Oid topic_table, const char *watermark_column)
{
	AttrNumber attnum = event_time_column(topic_table, watermark_column);
	AttrNumber found = InvalidAttrNumber;
	Relation view;
	Query *query;
	ListCell *cell;

	if (source == topic_table)
		return attnum;
	view = table_open(source, AccessShareLock);
	query = flatten_query_aliases(copyObject(get_view_query(view)));
	table_close(view, NoLock);
	foreach (cell, query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);

		if (!entry->resjunk && found == InvalidAttrNumber &&
		    is_event_time(query, (Node *) entry->expr, topic_table, attnum))
			found = entry->resno;
	}
	return found;
}

char *
event_window_end(const EventWindow *window, const char *key)
{
	switch (window->kind)
	{
		case WINDOW_TUMBLING:
			return psprintf("(%s + '%lld microseconds'::interval)", key,
			                (long long) window->size_us);
		case WINDOW_RANGE:
		case WINDOW_SESSION:
			return psprintf("upper(%s)", key);
		default:
			return pstrdup(key);
	}
}

char *
event_window_closed(const EventWindow *window, const char *key, const char *time)
{
	/* with the key alone on the left, for the index */
	if (window->kind == WINDOW_TUMBLING)
		return psprintf("%s <= (%s - '%lld microseconds'::interval)", key, time,
		                (long long) window->size_us);
	return psprintf("%s <= %s", event_window_end(window, key), time);
}

/* A time that is infinite, or so near the ends of what there is that its window is not there. */
pg_noreturn static void
no_window_for(TimestampTz timestamp)
{
	ereport(ERROR,
	        (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
	         errmsg("event time \"%s\" belongs to no window", timestamptz_to_str(timestamp)),
	         errdetail("Windows begin and end at finite times."),
	         errhint("Leave such messages out in the query: WHERE isfinite(...).")));
}

/*
 * --- kafka.sliding_window(timestamptz, size, slide, origin) ---
 *
 * Not strict: a message without event time must stay a row, to be counted as late, or to be
 * a group like that of date_bin().
 */

typedef struct SlidingWindows
{
	TypeCacheEntry *range_type;
	TimestampTz start; /* of the last one */
	int64 size;
	int64 slide;
	int64 count;
} SlidingWindows;

Datum
kafka_sliding_window(PG_FUNCTION_ARGS)
{
	FuncCallContext *context;
	SlidingWindows *windows;

	if (SRF_IS_FIRSTCALL())
	{
		TimestampTz timestamp;
		TimestampTz origin;
		MemoryContext old_context;
		int64 offset;

		context = SRF_FIRSTCALL_INIT();
		for (int i = 0; i < PG_NARGS(); i++)
		{
			if (PG_ARGISNULL(i))
				SRF_RETURN_NEXT_NULL(context);
		}
		timestamp = PG_GETARG_TIMESTAMPTZ(0);
		origin = PG_GETARG_TIMESTAMPTZ(3);
		old_context = MemoryContextSwitchTo(context->multi_call_memory_ctx);
		windows = palloc0(sizeof(SlidingWindows));
		windows->range_type = lookup_type_cache(TSTZRANGEOID, TYPECACHE_RANGE_INFO);
		sliding_interval_us(PG_GETARG_INTERVAL_P(1), PG_GETARG_INTERVAL_P(2), &windows->size,
		                    &windows->slide);
		if (TIMESTAMP_NOT_FINITE(timestamp) || TIMESTAMP_NOT_FINITE(origin) ||
		    pg_sub_s64_overflow(timestamp, origin, &offset))
			no_window_for(timestamp);
		offset %= windows->slide;
		if (offset < 0)
			offset += windows->slide;
		windows->start = timestamp - offset;
		/* windows that started earlier and have not ended at the timestamp */
		windows->count = (windows->size - offset + windows->slide - 1) / windows->slide;
		context->user_fctx = windows;
		MemoryContextSwitchTo(old_context);
	}
	context = SRF_PERCALL_SETUP();
	windows = context->user_fctx;
	if (windows == NULL)
		SRF_RETURN_DONE(context); /* after the one that is NULL */
	if (context->call_cntr < windows->count)
	{
		/* earliest first */
		int64 back = (windows->count - 1 - (int64) context->call_cntr) * windows->slide;
		RangeBound lower = {.inclusive = true, .lower = true};
		RangeBound upper = {0};

		CHECK_FOR_INTERRUPTS();
		lower.val = TimestampTzGetDatum(windows->start - back);
		upper.val = TimestampTzGetDatum(windows->start - back + windows->size);
		if (!IS_VALID_TIMESTAMP(windows->start - back) ||
		    !IS_VALID_TIMESTAMP(windows->start - back + windows->size))
			no_window_for(PG_GETARG_TIMESTAMPTZ(0));
		SRF_RETURN_NEXT(context, RangeTypePGetDatum(
		                             make_range_value(windows->range_type, &lower, &upper)));
	}
	SRF_RETURN_DONE(context);
}

/* --- kafka.session_window(timestamptz, gap) --- */

/* The session of one message alone; sink_aggregate_sessions.c joins those that meet. */
Datum
kafka_session_window(PG_FUNCTION_ARGS)
{
	TimestampTz timestamp = PG_GETARG_TIMESTAMPTZ(0);
	TypeCacheEntry *range_type = lookup_type_cache(TSTZRANGEOID, TYPECACHE_RANGE_INFO);
	RangeBound lower = {.inclusive = true, .lower = true};
	RangeBound upper = {0};
	TimestampTz end;

	if (TIMESTAMP_NOT_FINITE(timestamp) ||
	    pg_add_s64_overflow(timestamp, fixed_interval_us(PG_GETARG_INTERVAL_P(1), "gap"),
	                        &end) ||
	    !IS_VALID_TIMESTAMP(end))
		no_window_for(timestamp);
	lower.val = TimestampTzGetDatum(timestamp);
	upper.val = TimestampTzGetDatum(end);
	PG_RETURN_RANGE_P(make_range_value(range_type, &lower, &upper));
}
