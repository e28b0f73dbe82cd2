/*-------------------------------------------------------------------------
 *
 * upsert_target.c
 *	  The table that rows are inserted into or updated in by key: its key, its
 *	  unique index.
 *
 * Columns of source and target have been matched before, by
 * stream_query_insert_statement().  The statements that write are in
 * upsert_statements.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "upsert_target.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/bitmapset.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

int
upsert_target_find_column(const UpsertTarget *target, const char *name)
{
	for (int i = 0; i < target->column_count; i++)
		if (strcmp(target->column_names[i], name) == 0)
			return i;
	return -1;
}

static int
find_attribute(const UpsertTarget *target, AttrNumber attnum)
{
	for (int i = 0; i < target->column_count; i++)
		if (target->columns[i] == attnum)
			return i;
	return -1;
}

/* --- what the target is --- */

static void
check_kind(Relation relation)
{
	const char *name = RelationGetRelationName(relation);

	if (relation->rd_rel->relkind == RELKIND_VIEW)
		ereport(ERROR,
		        (errcode(ERRCODE_WRONG_OBJECT_TYPE),
		         errmsg("target \"%s\" of a stream in mode \"update\" is a view", name),
		         errdetail("Rows are found by a unique index, and a view has none."),
		         errhint(
		             "Name the table below the view, or use mode \"append\" with an INSTEAD "
		             "OF trigger.")));
	if (relation->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
		ereport(ERROR,
		        (errcode(ERRCODE_WRONG_OBJECT_TYPE),
		         errmsg("target \"%s\" of a stream in mode \"update\" is a foreign table",
		                name),
		         errdetail("INSERT ... ON CONFLICT DO UPDATE needs a unique index of this "
		                   "database, and a foreign table has none."),
		         errhint("Use a table of this database, or mode \"append\".")));
}

static void
load_columns(UpsertTarget *target, Relation source, Relation relation)
{
	TupleDesc source_type = RelationGetDescr(source);

	target->columns = palloc(sizeof(AttrNumber) * source_type->natts);
	target->column_names = palloc(sizeof(char *) * source_type->natts);
	for (int i = 0; i < source_type->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(source_type, i);

		if (attribute->attisdropped)
			continue;
		target->column_names[target->column_count] = pstrdup(NameStr(attribute->attname));
		target->columns[target->column_count++] =
		    get_attnum(RelationGetRelid(relation), NameStr(attribute->attname));
	}

	target->row_type = CreateTemplateTupleDesc(target->column_count + 2);
	for (int i = 0; i < target->column_count; i++)
	{
		Form_pg_attribute attribute =
		    TupleDescAttr(RelationGetDescr(relation), target->columns[i] - 1);

		TupleDescInitEntry(target->row_type, i + 1, target->column_names[i],
		                   attribute->atttypid, attribute->atttypmod, attribute->attndims);
		TupleDescInitEntryCollation(target->row_type, i + 1, attribute->attcollation);
	}
	TupleDescInitEntry(target->row_type, target->column_count + 1, "kafka_order", INT8OID, -1,
	                   0);
	TupleDescInitEntry(target->row_type, target->column_count + 2, "kafka_tombstone", BOOLOID,
	                   -1, 0);
}

/* --- the key and its index --- */

static Bitmapset *
primary_key_attributes(Relation relation)
{
	Bitmapset *attributes = NULL;
	ListCell *cell;

	foreach (cell, RelationGetIndexList(relation))
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);

		for (int i = 0; index->rd_index->indisprimary && i < index->rd_index->indnkeyatts; i++)
			attributes = bms_add_member(attributes, index->rd_index->indkey.values[i]);
		index_close(index, NoLock);
	}
	return attributes;
}

/* The attribute numbers of the key: key_columns, or the primary key. */
static Bitmapset *
key_attributes(const Stream *stream, Relation relation)
{
	const char *name = RelationGetRelationName(relation);
	Bitmapset *attributes = NULL;
	ListCell *cell;

	foreach (cell, stream->key_columns)
	{
		AttrNumber attnum = get_attnum(RelationGetRelid(relation), lfirst(cell));

		if (attnum <= 0)
			ereport(ERROR,
			        (errcode(ERRCODE_UNDEFINED_COLUMN),
			         errmsg("target \"%s\" has no column \"%s\"", name, (char *) lfirst(cell)),
			         errdetail("It is named in key_columns.")));
		attributes = bms_add_member(attributes, attnum);
	}
	if (attributes == NULL)
		attributes = primary_key_attributes(relation);
	if (attributes == NULL)
		ereport(
		    ERROR,
		    (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
		     errmsg("target \"%s\" of a stream in mode \"update\" has no key", name),
		     errdetail("Rows that change are found by the target's primary key, or by "
		               "key_columns."),
		     errhint(
		         "Add a primary key to \"%s\", or name key_columns on which it has a unique "
		         "index.",
		         name)));
	return attributes;
}

/* An operator as OPERATOR(schema.name): found whatever search_path is. */
static char *
operator_text(Oid operator)
{
	HeapTuple tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;
	char *text;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	text = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
	                NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return text;
}

static void
load_order(UpsertOrder *order, int column, Oid family, Oid type, Oid collation)
{
	Oid operators[BTMaxStrategyNumber + 1];

	for (int strategy = 1; strategy <= BTMaxStrategyNumber; strategy++)
	{
		operators[strategy] = get_opfamily_member(family, type, type, strategy);
		if (!OidIsValid(operators[strategy]))
			elog(ERROR, "operator %d of family %u for type %u is missing", strategy, family,
			     type);
	}
	order->column = column;
	order->sort_operator = operators[BTLessStrategyNumber];
	order->collation = collation;
	order->equal = operator_text(operators[BTEqualStrategyNumber]);
	order->greater_or_equal = operator_text(operators[BTGreaterEqualStrategyNumber]);
}

/* Has this index exactly these columns?  *problem is why it does not serve nevertheless. */
static bool
index_matches(Relation index, const Bitmapset *attributes, const char **problem)
{
	Form_pg_index form = index->rd_index;
	Bitmapset *indexed = NULL;

	*problem = NULL;
	for (int i = 0; i < form->indnkeyatts; i++)
		if (form->indkey.values[i] > 0)
			indexed = bms_add_member(indexed, form->indkey.values[i]);
	if (form->indnkeyatts != bms_num_members(attributes) || !bms_equal(indexed, attributes))
		return false;

	if (!form->indisunique)
		*problem = "is not unique";
	else if (!form->indimmediate)
		*problem = "is deferrable";
	else if (!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
		*problem = "is partial";
	else if (!form->indisvalid)
		*problem = "is not valid";
	else if (index->rd_rel->relam != BTREE_AM_OID || form->indisexclusion)
		*problem = "is not a btree index";
	return true;
}

static void
load_key(UpsertTarget *target, const Stream *stream, Relation relation)
{
	Bitmapset *attributes = key_attributes(stream, relation);
	StringInfoData names;
	StringInfoData problems;
	ListCell *cell;
	int member = -1;

	initStringInfo(&names);
	while ((member = bms_next_member(attributes, member)) >= 0)
	{
		char *name = get_attname(target->relid, member, false);

		if (find_attribute(target, member) < 0)
			ereport(ERROR,
			        (errcode(ERRCODE_UNDEFINED_COLUMN),
			         errmsg("key column \"%s\" of target \"%s\" is not produced by the source",
			                name, RelationGetRelationName(relation)),
			         errdetail("Columns of source and target are matched by name."),
			         errhint("Add the column to the source, or name other key_columns.")));
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", quote_identifier(name));
	}

	initStringInfo(&problems);
	foreach (cell, RelationGetIndexList(relation))
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);
		const char *problem;
		bool found = index_matches(index, attributes, &problem);

		if (found && problem != NULL)
			appendStringInfo(&problems, "%sIndex \"%s\" %s.", problems.len > 0 ? " " : "",
			                 RelationGetRelationName(index), problem);
		else if (found)
		{
			target->index_name = pstrdup(RelationGetRelationName(index));
			target->key_count = index->rd_index->indnkeyatts;
			target->keys = palloc(sizeof(UpsertOrder) * target->key_count);
			for (int i = 0; i < target->key_count; i++)
				load_order(&target->keys[i],
				           find_attribute(target, index->rd_index->indkey.values[i]),
				           index->rd_opfamily[i], index->rd_opcintype[i],
				           index->rd_indcollation[i]);
		}
		index_close(index, NoLock);
		if (target->index_name != NULL)
			return;
	}
	ereport(ERROR, (errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
	                errmsg("target \"%s\" has no usable unique index on the key columns (%s)",
	                       RelationGetRelationName(relation), names.data),
	                problems.len > 0
	                    ? errdetail_internal("%s", problems.data)
	                    : errdetail("Mode \"update\" finds rows by a unique index on exactly "
	                                "these columns."),
	                errhint("CREATE UNIQUE INDEX ON %s (%s), without WHERE.", target->name,
	                        names.data)));
}

static void
load_version(UpsertTarget *target, const Stream *stream, Relation relation)
{
	const char *name = stream->version_column;
	int column;
	Form_pg_attribute attribute;
	TypeCacheEntry *type;

	if (name == NULL)
		return;
	column = upsert_target_find_column(target, name);
	if (column < 0)
		ereport(
		    ERROR,
		    (errcode(ERRCODE_UNDEFINED_COLUMN),
		     errmsg("version_column \"%s\" is not a column of source and target", name),
		     errdetail("The version is compared with the one in the target, so both need it."),
		     errhint("Add the column to both, or name another.")));
	for (int i = 0; i < target->key_count; i++)
		if (target->keys[i].column == column)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("version_column \"%s\" is a key column", name),
			                errdetail("Rows of one key would never differ in their version.")));
	attribute = TupleDescAttr(target->row_type, column);
	type = lookup_type_cache(attribute->atttypid, TYPECACHE_BTREE_OPFAMILY | TYPECACHE_LT_OPR);
	if (!OidIsValid(type->lt_opr))
		ereport(ERROR,
		        (errcode(ERRCODE_UNDEFINED_FUNCTION),
		         errmsg("version_column \"%s\" is of type %s, which has no order", name,
		                format_type_be(attribute->atttypid)),
		         errhint("Use a number, a timestamp, or another type with a default btree "
		                 "operator class.")));
	target->version = palloc(sizeof(UpsertOrder));
	load_order(target->version, column, type->btree_opf, type->btree_opintype,
	           attribute->attcollation);
}

UpsertTarget *
upsert_target_load(const Stream *stream)
{
	UpsertTarget *target = palloc0(sizeof(UpsertTarget));
	Relation source = relation_open(stream->source, AccessShareLock);
	Relation relation = relation_open(stream->target, AccessShareLock);

	check_kind(relation);
	target->relid = stream->target;
	target->name =
	    quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
	                               RelationGetRelationName(relation));
	load_columns(target, source, relation);
	load_key(target, stream, relation);
	load_version(target, stream, relation);
	relation_close(relation, NoLock);
	relation_close(source, NoLock);
	return target;
}

Expr *
upsert_target_expression(Query *insert, AttrNumber attnum)
{
	ListCell *cell;

	foreach (cell, insert->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);

		if (!entry->resjunk && entry->resno == attnum)
			return entry->expr;
	}
	elog(ERROR, "column %d not found in the INSERT of a stream", attnum);
}

char *
upsert_target_key_list(const UpsertTarget *target)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < target->key_count; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "",
		                 target->column_names[target->keys[i].column]);
	return list.data;
}

bool
upsert_target_is_key(const UpsertTarget *target, int column)
{
	for (int i = 0; i < target->key_count; i++)
		if (target->keys[i].column == column)
			return true;
	return false;
}
