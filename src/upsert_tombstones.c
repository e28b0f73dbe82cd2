/*-------------------------------------------------------------------------
 *
 * upsert_tombstones.c
 *	  Which row of the target a message without a value deletes.
 *
 * A stream's query would see nothing but NULLs in such a message, and filter
 * it out.  So it goes beside the query: the expressions that the query has for the
 * target's key are computed over what the message still has, its key and metadata.
 * Decoding is left to decode_key.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "upsert_tombstones.h"

#include "access/sysattr.h"
#include "decode.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "source_lineage.h"
#include "utils/lsyscache.h"

/* Does a message without a value have the column? */
static bool
is_in_tombstone(const TopicColumn *column)
{
	return column != NULL && (column->has_key || (column->source != COLUMN_FROM_FIELD &&
	                                              column->source != COLUMN_FROM_VALUE));
}

TombstoneKey *
upsert_tombstone_key(const UpsertTarget *target, Query *insert, Oid topic_table)
{
	TombstoneKey *key = palloc0(sizeof(TombstoneKey));
	TopicSchema *schema = topic_schema_load(topic_table);
	Bitmapset *attributes = NULL;
	int member = -1;

	key->topic_table = topic_table;
	key->topic = schema->topic;
	for (int i = 0; i < target->key_count; i++)
	{
		int column = target->keys[i].column;
		Expr *source =
		    source_lineage_of(insert, upsert_target_expression(insert, target->columns[column]),
		                      topic_table);

		if (source == NULL)
		{
			key->problem = psprintf(
			    "Key column \"%s\" of the target depends on more than the topic table.",
			    target->column_names[column]);
			return key;
		}
		key->expressions = lappend(key->expressions, expression_planner(source));
		pull_varattnos((Node *) source, 1, &attributes);
	}

	while ((member = bms_next_member(attributes, member)) >= 0)
	{
		AttrNumber attnum = member + FirstLowInvalidHeapAttributeNumber;

		key->columns = bms_add_member(key->columns, attnum);
		if (key->problem == NULL && !is_in_tombstone(topic_schema_column(schema, attnum)))
			key->problem = psprintf(
			    "Column \"%s\" of topic table \"%s\" is not taken from the message key.",
			    get_attname(topic_table, attnum, false), get_rel_name(topic_table));
	}
	return key;
}

/* Made for a batch that has tombstones. */
typedef struct TombstoneReader
{
	Decoder *decoder;
	TupleTableSlot *row; /* of the topic table */
	EState *estate;
	List *keys; /* of ExprState * */
	Datum *values;
	bool *nulls;
} TombstoneReader;

static TombstoneReader *
open_reader(const TombstoneKey *key)
{
	TombstoneReader *reader = palloc0(sizeof(TombstoneReader));
	TopicSchema *schema = topic_schema_load(key->topic_table);
	ListCell *cell;

	reader->decoder = decoder_create(schema, key->columns, NULL);
	reader->row = MakeSingleTupleTableSlot(schema->tuple_descriptor, &TTSOpsVirtual);
	reader->estate = CreateExecutorState();
	GetPerTupleExprContext(reader->estate)->ecxt_scantuple = reader->row;
	foreach (cell, key->expressions)
		reader->keys = lappend(reader->keys, ExecInitExpr(lfirst(cell), NULL));
	reader->values = palloc(sizeof(Datum) * list_length(reader->keys));
	reader->nulls = palloc(sizeof(bool) * list_length(reader->keys));
	return reader;
}

static void
read_tombstone(TombstoneReader *reader, TopicScanBatch *batch, int index, UpsertRows *rows)
{
	ExprContext *econtext = GetPerTupleExprContext(reader->estate);
	MemoryContext old_context = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	ListCell *cell;
	int count = 0;

	ExecClearTuple(reader->row);
	batch->current = index;
	batch->decoding = true;
	decode_tombstone(reader->decoder, &batch->messages[index], reader->row->tts_values,
	                 reader->row->tts_isnull);
	batch->decoding = false;
	ExecStoreVirtualTuple(reader->row);

	foreach (cell, reader->keys)
	{
		reader->values[count] =
		    ExecEvalExpr((ExprState *) lfirst(cell), econtext, &reader->nulls[count]);
		count++;
	}
	MemoryContextSwitchTo(old_context);
	upsert_rows_add_tombstone(rows, index, reader->values, reader->nulls);
	ResetPerTupleExprContext(reader->estate);
}

/* Raises the error of the first tombstone, where no key can be had from any. */
pg_noreturn static void
report_problem(const TombstoneKey *key, TopicScanBatch *batch, int index)
{
	const KafkaMessage *message = &batch->messages[index];

	/* whoever splits the batch need not search */
	batch->current = index;
	batch->decoding = true;
	ereport(ERROR,
	        (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
	         errmsg("the row that a tombstone deletes is not known"),
	         errdetail("%s\nTopic \"%s\", partition %d, offset %lld.", key->problem, key->topic,
	                   message->partition, (long long) message->offset),
	         errhint("Set the option \"key\" of the topic table's columns that are in the "
	                 "message key, or create the stream with on_tombstone => 'ignore'.")));
}

void
upsert_tombstones_collect(const TombstoneKey *key, TopicScanBatch *batch, UpsertRows *rows)
{
	TombstoneReader *reader = NULL;

	for (int i = 0; i < batch->count; i++)
	{
		if (batch->messages[i].value != NULL || (batch->excluded != NULL && batch->excluded[i]))
			continue;
		if (key->problem != NULL)
			report_problem(key, batch, i);
		if (reader == NULL)
			reader = open_reader(key);
		read_tombstone(reader, batch, i, rows);
		CHECK_FOR_INTERRUPTS();
	}
	batch->current = -1;
	if (reader != NULL)
	{
		ExecDropSingleTupleTableSlot(reader->row);
		FreeExecutorState(reader->estate);
	}
}
