/*-------------------------------------------------------------------------
 *
 * aggregate_target.c
 *	  The table that the result of an aggregation is written to: which of its
 *	  columns tell the groups apart, and by which index.
 *
 * The statements that write are in sink_aggregate_sql.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "aggregate_target.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "stream_query.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* Can the column keep the groups apart?  A narrower type would make two groups one row. */
static bool
column_keeps_key(const GroupKey *key, Form_pg_attribute attribute)
{
	Oid type = getBaseType(attribute->atttypid);
	Oid key_type = getBaseType(key->type);

	if (OidIsValid(attribute->attcollation) && attribute->attcollation != key->collation &&
	    OidIsValid(key->collation) &&
	    (!get_collation_isdeterministic(attribute->attcollation) ||
	     !get_collation_isdeterministic(key->collation)))
		return false;
	if (type == TEXTOID || type == VARCHAROID)
		return key_type == TEXTOID || key_type == VARCHAROID;
	if (attribute->atttypmod >= 0 && attribute->atttypmod != key->typmod)
		return false;
	if (type == INT8OID)
		return key_type == INT8OID || key_type == INT4OID || key_type == INT2OID;
	if (type == INT4OID)
		return key_type == INT4OID || key_type == INT2OID;
	return type == key_type;
}

/* Do two collations call the same strings equal?  All deterministic ones do. */
static bool
same_equality(Oid one, Oid other)
{
	return one == other ||
	       (OidIsValid(one) && OidIsValid(other) && get_collation_isdeterministic(one) &&
	        get_collation_isdeterministic(other));
}

/* Does an index tell rows apart as "=" tells its columns, by which a full join is possible? */
static bool
index_agrees_with_columns(const AggregateTarget *target, HeapTuple tuple)
{
	Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);
	bool isnull;
	oidvector *collations = (oidvector *) DatumGetPointer(
	    SysCacheGetAttr(INDEXRELID, tuple, Anum_pg_index_indcollation, &isnull));
	oidvector *classes = (oidvector *) DatumGetPointer(
	    SysCacheGetAttr(INDEXRELID, tuple, Anum_pg_index_indclass, &isnull));

	for (int i = 0; i < index->indnkeyatts; i++)
	{
		Form_pg_attribute column =
		    TupleDescAttr(RelationGetDescr(target->relation), index->indkey.values[i] - 1);
		Oid class = classes->values[i];
		Oid type = get_opclass_input_type(class);
		Oid equality = lookup_type_cache(column->atttypid, TYPECACHE_EQ_OPR)->eq_opr;

		if (!same_equality(collations->values[i], column->attcollation) ||
		    get_opfamily_member(get_opclass_family(class), type, type, BTEqualStrategyNumber) !=
		        equality ||
		    !op_mergejoinable(equality, column->atttypid))
			return false;
	}
	return true;
}

/*
 * The columns, in its order, of a unique index on exactly these, with at most one row per key; NIL: there is none.
 * agreeing: one whose keys are those that "=" tells apart, so that a join by them finds one row.
 */
static List *
find_key_index(const AggregateTarget *target, const List *attnums, bool agreeing)
{
	List *found = NIL;
	List *indexes = RelationGetIndexList(target->relation);
	ListCell *cell;

	/* an index of a parent says nothing about the rows of its children, which are the target's, too */
	if (agreeing && !target->is_one_table &&
	    target->relation->rd_rel->relkind == RELKIND_RELATION)
		return NIL;
	foreach (cell, indexes)
	{
		HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(cell)));
		Form_pg_index index;
		List *columns = NIL;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for index %u", lfirst_oid(cell));
		index = (Form_pg_index) GETSTRUCT(tuple);
		for (int i = 0; i < index->indnkeyatts; i++)
			if (list_member_int(attnums, index->indkey.values[i]))
				columns = list_append_unique_int(columns, index->indkey.values[i]);
		if (found == NIL && index->indisunique && index->indimmediate && index->indisvalid &&
		    index->indnkeyatts == list_length(attnums) &&
		    list_length(columns) == list_length(attnums) &&
		    heap_attisnull(tuple, Anum_pg_index_indpred, NULL) &&
		    heap_attisnull(tuple, Anum_pg_index_indexprs, NULL) &&
		    (target->keys_not_null || index->indnullsnotdistinct) &&
		    (!agreeing || index_agrees_with_columns(target, tuple)))
			found = columns;
		ReleaseSysCache(tuple);
	}
	list_free(indexes);
	return found;
}

/* Finds out whether rows of the target can be told by their groups; in update mode they must. */
static void
find_target_keys(AggregateTarget *target, const StreamAggregate *aggregate, bool required)
{
	List *attnums = NIL;
	StringInfoData names;
	ListCell *cell;
	bool kept = true;

	initStringInfo(&names);
	target->keys_not_null = true;
	foreach (cell, aggregate->keys)
	{
		GroupKey *key = lfirst(cell);
		TargetColumn *column;

		if (key->output < 0)
		{
			if (required)
				stream_query_refuse(
				    psprintf("%s must be in the select list in update mode", key->text),
				    "Rows of the target are found by all that the query groups by.",
				    "Select it too, or use mode => 'complete'.");
			kept = false;
			continue;
		}
		column = list_nth(target->columns, key->output);
		if (!column_keeps_key(key, column->attribute))
		{
			if (required)
				ereport(
				    ERROR,
				    (errcode(ERRCODE_DATATYPE_MISMATCH),
				     errmsg("column %s of target \"%s\" can't hold what the query groups by",
				            column->name, RelationGetRelationName(target->relation)),
				     errdetail("Its type is %s, that of %s is %s: different groups could "
				               "become one row.",
				               format_type_with_typemod(column->attribute->atttypid,
				                                        column->attribute->atttypmod),
				               key->text, format_type_with_typemod(key->type, key->typmod)),
				     errhint("Give the column the type of the expression.")));
			kept = false;
		}
		column->is_key = true;
		target->keys_not_null = target->keys_not_null && column->attribute->attnotnull;
		attnums = list_append_unique_int(attnums, column->attribute->attnum);
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", column->name);
	}
	if (kept && attnums != NIL)
		target->key_index = find_key_index(target, attnums, !required);
	if (required && target->key_index == NIL)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
		         errmsg("target \"%s\" has no unique index on what the query groups by",
		                RelationGetRelationName(target->relation)),
		         errdetail("Update mode finds the row of a group by (%s)%s.", names.data,
		                   target->keys_not_null ? "" : ", where columns may be null"),
		         errhint("Use ALTER TABLE %s ADD UNIQUE %s(%s).", target->name,
		                 target->keys_not_null ? "" : "NULLS NOT DISTINCT ", names.data)));
}

AggregateTarget *
aggregate_target_load(const Stream *stream, const StreamAggregate *aggregate, Oid state_table)
{
	AggregateTarget *target = palloc0(sizeof(AggregateTarget));
	ListCell *cell;
	List *outputs;

	/* checks that columns fit, as for any stream */
	(void) stream_query_insert_statement(stream);
	target->relation = relation_open(stream->target, AccessShareLock);
	if (stream->mode != MODE_APPEND && target->relation->rd_rel->relkind != RELKIND_RELATION &&
	    target->relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
		                errmsg("target \"%s\" is not a table",
		                       RelationGetRelationName(target->relation)),
		                errdetail("Rows that are there already must be found and changed."),
		                errhint("Use a table as the target.")));
	if (stream->mode != MODE_APPEND && target->relation->rd_rules != NULL)
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("target \"%s\" has rules", RelationGetRelationName(target->relation)),
		         errdetail("They would rewrite the statements that find and change its rows."),
		         errhint("Use triggers instead of rules, or another table as the target.")));
	target->is_one_table = target->relation->rd_rel->relkind == RELKIND_RELATION &&
	                       !has_subclass(RelationGetRelid(target->relation));
	target->name =
	    quote_qualified_identifier(get_namespace_name(RelationGetNamespace(target->relation)),
	                               RelationGetRelationName(target->relation));
	/* only complete mode compares a result with rows; elsewhere an INSERT converts it */
	outputs = stream_aggregate_outputs(aggregate, state_table, target->relation,
	                                   stream->mode == MODE_COMPLETE || aggregate->keys == NIL);
	foreach (cell, outputs)
	{
		AggregateOutput *output = lfirst(cell);
		TargetColumn *column = palloc0(sizeof(TargetColumn));

		column->name = pstrdup(quote_identifier(output->name));
		column->attribute = TupleDescAttr(RelationGetDescr(target->relation),
		                                  get_attnum(stream->target, output->name) - 1);
		column->expression = output->expression;
		target->columns = lappend(target->columns, column);
	}
	if (stream->mode != MODE_APPEND)
		find_target_keys(target, aggregate,
		                 stream->mode == MODE_UPDATE && aggregate->keys != NIL);
	return target;
}
