/*-------------------------------------------------------------------------
 *
 * sink_procedure.c
 *	  foreach_batch: hand each batch to a procedure instead of a target.
 *
 * The procedure runs in the batch's transaction, as the stream's owner.  When
 * it reads the topic table (or a view over it) it sees exactly the batch; so
 * one stream writes several tables atomically with its offsets.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "sink_procedure.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "privileges.h"
#include "stream_trust.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

typedef struct ProcedureSink
{
	Sink sink; /* must be first */
	Oid topic_table;
	Oid procedure;
} ProcedureSink;

/* The procedure of that signature as kafka.stream has it, or InvalidOid. */
static Oid
find_procedure(const char *signature)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum procedure;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = CStringGetTextDatum(signature);
	fcinfo->args[0].isnull = false;
	procedure = to_regprocedure(fcinfo);
	return fcinfo->isnull ? InvalidOid : DatumGetObjectId(procedure);
}

/* The procedure must exist, take a batch_id, and be the current user's to call. */
static void
check_procedure(Oid procedure)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(procedure));
	Form_pg_proc form;
	bool fits;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
		                errmsg("procedure of foreach_batch has been dropped or renamed"),
		                errhint("Use kafka.drop_stream and create the stream again.")));
	form = (Form_pg_proc) GETSTRUCT(tuple);
	fits = form->prokind == PROKIND_PROCEDURE && form->pronargs == 1 &&
	       form->proargtypes.values[0] == INT8OID;
	ReleaseSysCache(tuple);

	if (!fits)
		ereport(ERROR,
		        (errcode(ERRCODE_WRONG_OBJECT_TYPE),
		         errmsg("foreach_batch needs a procedure with one argument of type bigint"),
		         errdetail("\"%s\" is not one.", format_procedure(procedure)),
		         errhint("CREATE PROCEDURE name(batch_id bigint) LANGUAGE ... AS ...")));
	privileges_check_routine(procedure);
}

/* Names are looked up anew for every call: nothing is kept that could become stale. */
static bool
procedure_sink_is_stale(Sink *self)
{
	return false;
}

static char *
call_statement(const ProcedureSink *sink)
{
	return psprintf("CALL %s($1)", quote_qualified_identifier(
	                                   get_namespace_name(get_func_namespace(sink->procedure)),
	                                   get_func_name(sink->procedure)));
}

static void
procedure_sink_write(Sink *self, SinkBatch *batch)
{
	ProcedureSink *sink = (ProcedureSink *) self;
	Oid types[1] = {INT8OID};
	Datum values[1] = {Int64GetDatum(batch->batch_id)};
	int result;

	check_procedure(sink->procedure);
	SPI_connect();
	topic_scan_set_batch(batch->messages);
	result = SPI_execute_with_args(call_statement(sink), 1, types, values, NULL, false, 0);
	topic_scan_set_batch(NULL);
	if (result != SPI_OK_UTILITY)
		elog(ERROR, "could not call the procedure of foreach_batch: %s",
		     SPI_result_code_string(result));
	SPI_finish();
}

static void
procedure_sink_explain(Sink *self, StringInfo text)
{
	appendStringInfoString(text, "Path: foreach_batch (a procedure reads the batch)\n");
	appendStringInfo(text, "Statement: %s\n", call_statement((ProcedureSink *) self));
}

Sink *
procedure_sink_create(const Stream *stream, Oid topic_table)
{
	ProcedureSink *sink = palloc0(sizeof(ProcedureSink));

	if (stream->mode != MODE_APPEND || stream->key_columns != NIL || stream->ignore_conflicts ||
	    stream->version_column != NULL || stream->deduplicate_by != NIL ||
	    stream->watermark_column != NULL)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		         errmsg("foreach_batch can't be combined with options about a target"),
		         errdetail("mode, key_columns, version_column, on_conflict, deduplicate_by and "
		                   "watermark_column say how a target is written."),
		         errhint("Let the procedure do it.")));
	if (stream->source != topic_table)
		ereport(
		    ERROR,
		    (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		     errmsg("foreach_batch needs a topic table as its source, not a query or a view"),
		     errdetail("The procedure reads the topic table itself, and would see what the "
		               "query leaves out."),
		     errhint("Give source => '%s', and put the query into the procedure.",
		             get_rel_name(topic_table))));
	privileges_check_source(stream->source);
	sink->procedure = find_procedure(stream->foreach_batch);
	stream_trust_check_routine(sink->procedure, stream->owner);
	check_procedure(sink->procedure);

	sink->sink.is_stale = procedure_sink_is_stale;
	sink->sink.write = procedure_sink_write;
	sink->sink.explain = procedure_sink_explain;
	sink->topic_table = topic_table;
	return &sink->sink;
}
