/*-------------------------------------------------------------------------
 *
 * decode_function.c
 *	  kafka.decode_message(): decode bytes as a topic table would, without
 *	  Kafka.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "compat.h"
#include "decode.h"

PG_FUNCTION_INFO_V1(kafka_decode_message);

/* Kept in fn_extra between calls of one expression. */
typedef struct DecodeCall
{
	MemoryContext context; /* of this and all it refers to */
	Oid row_type;
	CommandId command; /* a later command may see another definition */
	TopicSchema *schema;
	Decoder *decoder;
	Datum *values;
	bool *nulls;
} DecodeCall;

static DecodeCall *
prepare_call(FunctionCallInfo fcinfo)
{
	DecodeCall *call = fcinfo->flinfo->fn_extra;
	Oid row_type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	CommandId command = GetCurrentCommandId(false);
	MemoryContext context;
	MemoryContext old_context;
	Oid relid;

	if (call != NULL && call->row_type == row_type && call->command == command)
		return call;
	if (call != NULL)
	{
		fcinfo->flinfo->fn_extra = NULL;
		MemoryContextDelete(call->context);
	}

	relid = OidIsValid(row_type) ? get_typ_typrelid(row_type) : InvalidOid;
	if (!OidIsValid(relid))
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
		                errmsg("%s is not the row type of a topic table",
		                       OidIsValid(row_type) ? format_type_be(row_type) : "unknown"),
		                errhint("Name the topic table's row type: "
		                        "kafka.decode_message(NULL::my_topic_table, value).")));

	context = AllocSetContextCreate(CurrentMemoryContext, "kafka.decode_message",
	                                ALLOCSET_SMALL_SIZES);
	old_context = MemoryContextSwitchTo(context);
	call = palloc0(sizeof(DecodeCall));
	call->context = context;
	call->row_type = row_type;
	call->command = command;
	call->schema = topic_schema_load(relid);
	call->decoder = decoder_create(call->schema, NULL, NULL);
	call->values = palloc(sizeof(Datum) * call->schema->tuple_descriptor->natts);
	call->nulls = palloc(sizeof(bool) * call->schema->tuple_descriptor->natts);
	MemoryContextSwitchTo(old_context);

	/* in the caller's per-row memory until it is complete */
	MemoryContextSetParent(context, fcinfo->flinfo->fn_mcxt);
	fcinfo->flinfo->fn_extra = call;
	return call;
}

/*
 * kafka.decode_message(topic_table anyelement, value bytea, key bytea):
 * the row, or NULL when the message makes none.  A NULL value is a tombstone.
 */
Datum
kafka_decode_message(PG_FUNCTION_ARGS)
{
	DecodeCall *call = prepare_call(fcinfo);
	KafkaMessage message = {.partition = -1, .offset = -1, .timestamp_ms = -1};

	if (!PG_ARGISNULL(1))
	{
		bytea *value = PG_GETARG_BYTEA_PP(1);

		message.value = VARDATA_ANY(value);
		message.value_length = VARSIZE_ANY_EXHDR(value);
	}
	if (!PG_ARGISNULL(2))
	{
		bytea *key = PG_GETARG_BYTEA_PP(2);

		message.key = VARDATA_ANY(key);
		message.key_length = VARSIZE_ANY_EXHDR(key);
	}
	if (!decode_message(call->decoder, &message, call->values, call->nulls, NULL))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(HeapTupleGetDatum(
	    heap_form_tuple(call->schema->tuple_descriptor, call->values, call->nulls)));
}
