/*-------------------------------------------------------------------------
 *
 * topic_row.c
 *	  One message -> one row in a slot: decode, then fill in defaults of
 *	  missing fields.
 *
 * What the bytes mean is decode.h's business; where messages come from is
 * topic_scan.c's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "executor/executor.h"
#include "optimizer/optimizer.h"
#include "portability/instr_time.h"
#include "rewrite/rewriteHandler.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "decode.h"
#include "topic_row.h"
#include "topic_scan.h"

#define SAMPLE_EVERY 64

typedef struct ColumnDefault
{
	AttrNumber attnum;
	ExprState *expression;
} ColumnDefault;

struct TopicRowMaker
{
	const TopicSchema *schema;
	Decoder *decoder;
	bool columns_wanted;
	ColumnDefault *defaults; /* of wanted columns */
	int default_count;
	Bitmapset *defaulted; /* the same columns */
	bool *missing;        /* NULL: no defaults */
	ExprContext *econtext;
	MemoryContext row_context;
	uint32 row_number; /* for sampling */
};

/* Finds the expression for a missing field of a column; NULL: there is none. */
static Expr *
default_of_column(Relation topic_table, AttrNumber attnum, List *further_defaults)
{
	ListCell *cell;

	/* build_column_default() would return a generated column's expression */
	if (!TupleDescAttr(RelationGetDescr(topic_table), attnum - 1)->attgenerated)
	{
		Expr *own = (Expr *) build_column_default(topic_table, attnum);

		if (own)
			return expression_planner(own);
	}
	foreach (cell, further_defaults)
	{
		TopicColumnDefault *further = lfirst(cell);

		if (further->attnum == attnum)
			return further->expression;
	}
	return NULL;
}

TopicRowMaker *
topic_row_maker_create(Relation topic_table, const TopicSchema *schema, List *wanted,
                       List *further_defaults, PlanState *parent)
{
	TopicRowMaker *maker = palloc0(sizeof(TopicRowMaker));
	Bitmapset *wanted_set = NULL;
	ListCell *cell;

	maker->schema = schema;
	maker->columns_wanted = wanted != NIL;
	maker->econtext = parent->ps_ExprContext;
	maker->row_context =
	    AllocSetContextCreate(CurrentMemoryContext, "row of a topic", ALLOCSET_DEFAULT_SIZES);
	maker->defaults = palloc(Max(list_length(wanted), 1) * sizeof(ColumnDefault));

	foreach (cell, wanted)
	{
		AttrNumber attnum = lfirst_int(cell);
		const TopicColumn *column = topic_schema_column(schema, attnum);
		Expr *expression;

		wanted_set = bms_add_member(wanted_set, attnum);
		if (column == NULL || column->source != COLUMN_FROM_FIELD ||
		    (expression = default_of_column(topic_table, attnum, further_defaults)) == NULL)
			continue;
		maker->defaults[maker->default_count].attnum = attnum;
		maker->defaults[maker->default_count].expression = ExecInitExpr(expression, parent);
		maker->default_count++;
		maker->defaulted = bms_add_member(maker->defaulted, attnum);
	}
	if (maker->default_count > 0)
		maker->missing = palloc0(schema->tuple_descriptor->natts * sizeof(bool));

	/* Without wanted columns this decoder (of all) only meets tombstones. */
	maker->decoder = decoder_create(schema, wanted_set, maker->defaulted);
	return maker;
}

const Bitmapset *
topic_row_defaulted_columns(const TopicRowMaker *maker)
{
	return maker->defaulted;
}

static void
fill_defaults(TopicRowMaker *maker, Datum *values, bool *nulls)
{
	for (int i = 0; i < maker->default_count; i++)
	{
		int column = maker->defaults[i].attnum - 1;

		if (maker->missing[column])
			values[column] =
			    ExecEvalExpr(maker->defaults[i].expression, maker->econtext, &nulls[column]);
	}
}

bool
topic_row_make(TopicRowMaker *maker, const KafkaMessage *message, TupleTableSlot *slot)
{
	bool is_row;

	if (maker->columns_wanted)
	{
		MemoryContext previous;

		MemoryContextReset(maker->row_context);
		previous = MemoryContextSwitchTo(maker->row_context);
		is_row = decode_message(maker->decoder, message, slot->tts_values, slot->tts_isnull,
		                        maker->missing);
		if (is_row && maker->missing)
			fill_defaults(maker, slot->tts_values, slot->tts_isnull);
		MemoryContextSwitchTo(previous);
	}
	else
	{
		/* count(*): a message is a row whatever is in it, but a tombstone need not be */
		is_row = message->value != NULL || maker->schema->null_value == NULL_VALUE_ROW;
		if (message->value == NULL && maker->schema->null_value == NULL_VALUE_ERROR)
			is_row = decode_message(maker->decoder, message, slot->tts_values, slot->tts_isnull,
			                        NULL);
		memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	}
	if (is_row)
		ExecStoreVirtualTuple(slot);
	return is_row;
}

bool
topic_row_make_sampled(TopicRowMaker *maker, const KafkaMessage *message, TupleTableSlot *slot,
                       int64 *microseconds)
{
	instr_time start;
	instr_time taken;
	bool is_row;

	if (maker->row_number++ % SAMPLE_EVERY != 0)
		return topic_row_make(maker, message, slot);

	INSTR_TIME_SET_CURRENT(start);
	is_row = topic_row_make(maker, message, slot);
	INSTR_TIME_SET_CURRENT(taken);
	INSTR_TIME_SUBTRACT(taken, start);
	*microseconds += (int64) (INSTR_TIME_GET_DOUBLE(taken) * 1e6 * SAMPLE_EVERY);
	return is_row;
}
