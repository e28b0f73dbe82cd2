/*-------------------------------------------------------------------------
 *
 * topic_schema.c
 *	  What a topic table declares: topic, format, and where each column comes
 *	  from.
 *
 * Options one by one are read in topic_options.c; here they meet the
 * columns' types.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "foreign/foreign.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "topic_options.h"
#include "topic_schema.h"

/* Types that a column with metadata may have; headers: kafka.header[] as well. */
typedef struct MetadataTypes
{
	TopicColumnSource source;
	const char *option;
	const char *description;
	Oid types[5];
} MetadataTypes;

static const MetadataTypes metadata_types[] = {
    {COLUMN_FROM_TOPIC, "topic", "text or varchar", {TEXTOID, VARCHAROID}},
    {COLUMN_FROM_PARTITION,
     "partition",
     "integer, bigint or smallint",
     {INT4OID, INT8OID, INT2OID}},
    {COLUMN_FROM_OFFSET, "offset", "bigint or numeric", {INT8OID, NUMERICOID}},
    {COLUMN_FROM_TIMESTAMP,
     "timestamp",
     "timestamp with or without time zone",
     {TIMESTAMPTZOID, TIMESTAMPOID}},
    {COLUMN_FROM_TIMESTAMP_TYPE, "timestamp_type", "text or varchar", {TEXTOID, VARCHAROID}},
    {COLUMN_FROM_KEY,
     "key",
     "bytea, text, varchar, json or jsonb",
     {BYTEAOID, TEXTOID, VARCHAROID, JSONOID, JSONBOID}},
    {COLUMN_FROM_VALUE,
     "value",
     "bytea, text, varchar, json or jsonb",
     {BYTEAOID, TEXTOID, VARCHAROID, JSONOID, JSONBOID}},
    {COLUMN_FROM_HEADERS, "headers", "kafka.header[] or jsonb", {JSONBOID}},
};

void
topic_schema_validate_table_options(List *options)
{
	TopicSchema ignored;

	topic_options_read_table(options, &ignored);
}

void
topic_schema_validate_column_options(List *options)
{
	TopicColumn ignored;

	topic_options_read_column(options, &ignored);
}

static bool
is_header_array(Oid type)
{
	Oid element_type = get_element_type(type);
	Oid extension_schema = get_namespace_oid("kafka", true);

	return OidIsValid(element_type) && OidIsValid(extension_schema) &&
	       element_type == GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
	                                       CStringGetDatum("header"),
	                                       ObjectIdGetDatum(extension_schema));
}

static void
check_metadata_type(const TopicColumn *column)
{
	for (int i = 0; i < lengthof(metadata_types); i++)
	{
		const MetadataTypes *metadata = &metadata_types[i];

		if (metadata->source != column->source)
			continue;
		for (int j = 0; j < lengthof(metadata->types); j++)
			if (metadata->types[j] == column->type)
				return;
		if (column->source == COLUMN_FROM_HEADERS && is_header_array(column->type))
			return;
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
		                errmsg("column \"%s\" with option metadata '%s' is of type %s",
		                       column->name, metadata->option, format_type_be(column->type)),
		                errhint("Declare it as %s.", metadata->description)));
	}
}

/* The option "key" of a column against the table's key_format. */
static void
check_key(const TopicSchema *schema, const TopicColumn *column)
{
	if (column->key_path != NULL && schema->key_format != KEY_FORMAT_JSON)
		ereport(ERROR,
		        (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
		         errmsg("column \"%s\" has a path in option \"key\", which is for key_format "
		                "\"json\" only",
		                column->name),
		         errhint("Set the topic table's option \"key_format\" to \"json\", or the "
		                 "column's option \"key\" to \"true\" if it is the whole key.")));
	if (schema->key_format == KEY_FORMAT_BYTEA && getBaseType(column->type) != BYTEAOID)
		ereport(
		    ERROR,
		    (errcode(ERRCODE_DATATYPE_MISMATCH),
		     errmsg("column \"%s\" of a topic table with key_format \"bytea\" is of type %s",
		            column->name, format_type_be(column->type)),
		     errhint("Declare it as bytea, or set the option \"key_format\" to \"text\".")));
}

static void
check_column(const TopicSchema *schema, const TopicColumn *column)
{
	Oid base_type = getBaseType(column->type);

	if (column->source != COLUMN_FROM_FIELD && column->source != COLUMN_FROM_DECODED_KEY)
	{
		check_metadata_type(column);
		return;
	}
	if (column->has_key)
		check_key(schema, column);
	if (column->epoch != EPOCH_NONE && base_type != TIMESTAMPTZOID &&
	    base_type != TIMESTAMPOID && base_type != DATEOID)
		ereport(ERROR,
		        (errcode(ERRCODE_DATATYPE_MISMATCH),
		         errmsg("column \"%s\" with option \"epoch\" is of type %s", column->name,
		                format_type_be(column->type)),
		         errhint("Declare it as timestamp with or without time zone, or date.")));
	if (column->path != NULL && schema->format != TOPIC_FORMAT_JSON)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
		                errmsg("column \"%s\" has option \"path\", which is for format "
		                       "\"json\" only",
		                       column->name)));
	if (schema->format == TOPIC_FORMAT_BYTEA && column->source == COLUMN_FROM_FIELD &&
	    base_type != BYTEAOID)
		ereport(ERROR,
		        (errcode(ERRCODE_DATATYPE_MISMATCH),
		         errmsg("column \"%s\" of a topic table with format \"bytea\" is of type %s",
		                column->name, format_type_be(column->type)),
		         errhint("Declare it as bytea, or set the option \"format\" to \"text\".")));
}

/* Formats text and bytea have one value, for one column. */
static void
check_column_count(const TopicSchema *schema)
{
	const TopicColumn *value_column = NULL;

	if (schema->format != TOPIC_FORMAT_TEXT && schema->format != TOPIC_FORMAT_BYTEA)
		return;
	for (int i = 0; i < schema->column_count; i++)
	{
		const TopicColumn *column = &schema->columns[i];

		if (column->source != COLUMN_FROM_FIELD)
			continue;
		if (value_column != NULL)
			ereport(
			    ERROR,
			    (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
			     errmsg("topic table \"%s\" has more than one column for the value",
			            get_rel_name(schema->relid)),
			     errdetail("Columns \"%s\" and \"%s\" both have no option \"metadata\" or "
			               "\"key\", but a value in format \"%s\" is one piece.",
			               value_column->name, column->name,
			               schema->format == TOPIC_FORMAT_TEXT ? "text" : "bytea"),
			     errhint(
			         "Set the option \"metadata\" or \"key\" of the others, or drop them.")));
		value_column = column;
	}
}

/* Is that the handler of the foreign data wrapper kafka, whatever its name now? */
static bool
is_our_wrapper(Oid wrapper_id)
{
	ForeignDataWrapper *wrapper = GetForeignDataWrapper(wrapper_id);
	Oid extension_schema = get_namespace_oid("kafka", true);
	char *handler = OidIsValid(wrapper->fdwhandler) ? get_func_name(wrapper->fdwhandler) : NULL;

	return handler != NULL && OidIsValid(extension_schema) &&
	       get_func_namespace(wrapper->fdwhandler) == extension_schema &&
	       strcmp(handler, "topic_scan_handler") == 0;
}

bool
topic_schema_is_topic_table(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE &&
	       is_our_wrapper(GetForeignServer(GetForeignTable(relid)->serverid)->fdwid);
}

static void
load_columns(TopicSchema *schema)
{
	TupleDesc tuple_descriptor = schema->tuple_descriptor;

	schema->columns = palloc0(sizeof(TopicColumn) * (tuple_descriptor->natts + 1));
	for (int i = 0; i < tuple_descriptor->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(tuple_descriptor, i);
		TopicColumn *column = &schema->columns[schema->column_count];

		if (attribute->attisdropped)
			continue;
		if (attribute->attgenerated == ATTRIBUTE_GENERATED_STORED)
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			                errmsg("column \"%s\" of topic table \"%s\" is generated",
			                       NameStr(attribute->attname), get_rel_name(schema->relid)),
			                errdetail("A topic table stores nothing."),
			                errhint("Generate it in the target table, or in a view over the "
			                        "topic table.")));
		/* a virtual one is computed from the others by the executor */
		if (attribute->attgenerated != '\0')
			continue;

		topic_options_read_column(GetForeignColumnOptions(schema->relid, attribute->attnum),
		                          column);
		column->attnum = attribute->attnum;
		column->name = NameStr(attribute->attname);
		column->type = attribute->atttypid;
		column->typmod = attribute->atttypmod;
		column->collation = attribute->attcollation;
		check_column(schema, column);
		if (column->path == NULL && column->source == COLUMN_FROM_FIELD)
		{
			column->path = palloc(sizeof(char *));
			column->path[0] = NameStr(attribute->attname);
			column->path_length = 1;
		}
		schema->column_count++;
	}
}

TopicSchema *
topic_schema_load(Oid relid)
{
	Relation relation = table_open(relid, AccessShareLock);
	TopicSchema *schema = palloc0(sizeof(TopicSchema));
	ForeignTable *table;

	if (relation->rd_rel->relkind != RELKIND_FOREIGN_TABLE)
		ereport(ERROR,
		        (errcode(ERRCODE_WRONG_OBJECT_TYPE),
		         errmsg("\"%s\" is not a topic table", RelationGetRelationName(relation)),
		         errdetail("It is not a foreign table."),
		         errhint("Create a topic table with CREATE FOREIGN TABLE.")));
	table = GetForeignTable(relid);
	if (!is_our_wrapper(GetForeignServer(table->serverid)->fdwid))
		ereport(ERROR,
		        (errcode(ERRCODE_WRONG_OBJECT_TYPE),
		         errmsg("\"%s\" is not a topic table", RelationGetRelationName(relation)),
		         errdetail("Its server does not belong to the foreign data wrapper of "
		                   "kafka_ingest.")));

	schema->relid = relid;
	schema->server_id = table->serverid;
	schema->tuple_descriptor = CreateTupleDescCopyConstr(RelationGetDescr(relation));
	topic_options_read_table(table->options, schema);
	load_columns(schema);
	check_column_count(schema);
	table_close(relation, NoLock);
	return schema;
}

const TopicColumn *
topic_schema_column(const TopicSchema *schema, AttrNumber attnum)
{
	for (int i = 0; i < schema->column_count; i++)
		if (schema->columns[i].attnum == attnum)
			return &schema->columns[i];
	return NULL;
}
