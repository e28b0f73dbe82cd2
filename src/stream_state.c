/*-------------------------------------------------------------------------
 *
 * stream_state.c
 *	  The table in which a stream keeps its state: kafka.stream_<id>_state.
 *
 * An ordinary table that belongs to the stream's owner, so that a dump has it and
 * its owner can look into it.  The comments on its columns say what they are; that is
 * also how a changed query is told from the one that the state is of.  Where names
 * have changed, the query is known by the stored form of its view, which refers to columns by
 * number: the comment on the table has its fingerprint.  What is in the rows is left to the sinks.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_state.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_rewrite.h"
#include "commands/comment.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "rewrite/rewriteSupport.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

static char *
table_name(const Stream *stream)
{
	return psprintf("stream_%lld_state", (long long) stream->stream_id);
}

char *
stream_state_name(const Stream *stream)
{
	return psprintf("kafka.%s", table_name(stream));
}

Oid
stream_state_find(const Stream *stream)
{
	return get_relname_relid(table_name(stream), get_namespace_oid("kafka", false));
}

StateColumn *
stream_state_column(char *name, Oid type, int32 typmod, Oid collation, bool is_key,
                    char *meaning)
{
	StateColumn *column = palloc(sizeof(StateColumn));

	column->name = name;
	column->type = type;
	column->typmod = typmod;
	column->collation = collation;
	column->is_key = is_key;
	column->meaning = meaning;
	return column;
}

/*
 * The comment on the table.  Renaming does not change the fingerprint in it, another query
 * does.  It has no meaning in another database, where the same numbers are other columns.
 */
static char *
table_comment(const Stream *stream)
{
	HeapTuple rule = SearchSysCache2(RULERELNAME, ObjectIdGetDatum(stream->source),
	                                 CStringGetDatum(ViewSelectRuleName));
	StringInfoData identity;
	Datum stored;
	bool is_null;
	char *action;

	if (!HeapTupleIsValid(rule))
		return psprintf("state of kafka stream %s", stream->name);
	stored = SysCacheGetAttr(RULERELNAME, rule, Anum_pg_rewrite_ev_action, &is_null);
	action = TextDatumGetCString(stored);
	ReleaseSysCache(rule);
	initStringInfo(&identity);
	appendStringInfo(&identity, "%llu %u %u %s", (unsigned long long) GetSystemIdentifier(),
	                 MyDatabaseId, stream->source, action);
	return psprintf("state of kafka stream %s, query %016llx", stream->name,
	                (unsigned long long) DatumGetUInt64(
	                    hash_any_extended((unsigned char *) identity.data, identity.len, 0)));
}

/* Says in comments what the table and its columns are; between catalog_begin and catalog_end. */
static void
describe(const Stream *stream, const StateDefinition *definition)
{
	char *name = stream_state_name(stream);
	ListCell *cell;

	foreach (cell, definition->columns)
	{
		StateColumn *column = lfirst(cell);

		catalog_execute(SPI_OK_UTILITY,
		                psprintf("COMMENT ON COLUMN %s.%s IS %s", name, column->name,
		                         quote_literal_cstr(column->meaning)),
		                0, NULL, NULL, NULL);
	}
	catalog_execute(SPI_OK_UTILITY,
	                psprintf("COMMENT ON TABLE %s IS %s", name,
	                         quote_literal_cstr(table_comment(stream))),
	                0, NULL, NULL, NULL);
}

void
stream_state_create(const Stream *stream, const StateDefinition *definition)
{
	ObjectAddress table;
	ObjectAddress extension;
	CatalogAccess access;
	StringInfoData columns;
	StringInfoData keys;
	char *name = stream_state_name(stream);
	ListCell *cell;

	initStringInfo(&columns);
	initStringInfo(&keys);
	catalog_begin(&access);
	foreach (cell, definition->columns)
	{
		StateColumn *column = lfirst(cell);

		appendStringInfo(&columns, "%s%s %s", columns.len > 0 ? ", " : "", column->name,
		                 format_type_extended(column->type, column->typmod,
		                                      FORMAT_TYPE_TYPEMOD_GIVEN |
		                                          FORMAT_TYPE_FORCE_QUALIFY));
		if (OidIsValid(column->collation))
			appendStringInfo(&columns, " COLLATE %s",
			                 generate_collation_name(column->collation));
		if (column->is_key)
			appendStringInfo(&keys, "%s%s", keys.len > 0 ? ", " : "", column->name);
	}

	/* rows are updated again and again, but never in their keys: room for HOT updates */
	catalog_execute(SPI_OK_UTILITY,
	                psprintf("CREATE TABLE %s (%s, UNIQUE NULLS NOT DISTINCT (%s))"
	                         " WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)",
	                         name, columns.data, keys.data),
	                0, NULL, NULL, NULL);
	if (definition->expiry != NULL)
		catalog_execute(SPI_OK_UTILITY,
		                psprintf("CREATE INDEX ON %s (%s)", name, definition->expiry), 0, NULL,
		                NULL, NULL);
	describe(stream, definition);
	catalog_execute(SPI_OK_UTILITY,
	                psprintf("ALTER TABLE %s OWNER TO %s", name,
	                         quote_identifier(GetUserNameFromId(stream->owner, false))),
	                0, NULL, NULL, NULL);
	catalog_end(&access);

	/* DROP EXTENSION ... CASCADE shall take it along: it stands in the extension's schema */
	CommandCounterIncrement();
	ObjectAddressSet(table, RelationRelationId, stream_state_find(stream));
	ObjectAddressSet(extension, ExtensionRelationId, get_extension_oid("kafka_ingest", false));
	recordDependencyOn(&table, &extension, DEPENDENCY_NORMAL);
}

/*
 * What is said of a state that is not the query's; NULL when it is.  same_query: that it is is
 * known, and *renamed tells whether something is called otherwise now.
 */
static char *
describe_difference(Relation table, const StateDefinition *definition, bool same_query,
                    bool *renamed)
{
	TupleDesc descriptor = RelationGetDescr(table);
	int count = 0;
	ListCell *cell;

	*renamed = false;
	foreach (cell, definition->columns)
	{
		StateColumn *column = lfirst(cell);
		char *meaning;
		Form_pg_attribute attribute;
		bool other_meaning;

		if (count >= descriptor->natts)
			return psprintf("The state has nothing for %s.", column->meaning);
		attribute = TupleDescAttr(descriptor, count++);
		meaning = GetComment(RelationGetRelid(table), RelationRelationId, count);
		if (attribute->attisdropped || meaning == NULL ||
		    strcmp(NameStr(attribute->attname), column->name) != 0)
			return psprintf("The state has nothing for %s.", column->meaning);
		other_meaning = strcmp(meaning, column->meaning) != 0;
		*renamed |= other_meaning;
		if ((other_meaning && !same_query) || attribute->atttypid != column->type ||
		    attribute->attcollation != column->collation)
			return psprintf("The state has %s where the query has %s.", meaning,
			                column->meaning);
	}
	if (count < descriptor->natts)
		return psprintf("The query has nothing for column \"%s\" of the state.",
		                NameStr(TupleDescAttr(descriptor, count)->attname));
	return NULL;
}

void
stream_state_refuse(const Stream *stream, const char *detail)
{
	ereport(ERROR,
	        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
	         errmsg("stream \"%s\" has the state of another query", stream->name),
	         errdetail_internal("%s", detail),
	         errhint("Filters and expressions over aggregates may change, but not what is "
	                 "grouped by and aggregated. Stop the stream and use "
	                 "kafka.reset_stream, then change it; or create another one.")));
}

bool
stream_state_is_of_query(const Stream *stream)
{
	Oid relid = stream_state_find(stream);
	char *comment = OidIsValid(relid) ? GetComment(relid, RelationRelationId, 0) : NULL;

	return comment != NULL && strcmp(comment, table_comment(stream)) == 0;
}

Oid
stream_state_check(const Stream *stream, const StateDefinition *definition)
{
	Oid relid = stream_state_find(stream);
	Relation table;
	char *difference;
	bool same_query;
	bool renamed;

	if (!OidIsValid(relid))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
		                errmsg("state of stream \"%s\" is gone", stream->name),
		                errdetail("Table \"%s\" does not exist.", stream_state_name(stream)),
		                errhint("Use kafka.drop_stream and create it again.")));
	table = table_open(relid, AccessShareLock);
	same_query = stream_state_is_of_query(stream);
	difference = describe_difference(table, definition, same_query, &renamed);
	table_close(table, NoLock);
	if (difference != NULL)
		stream_state_refuse(stream, difference);
	/* while it is known: a dump has the new names, and the comments that are there now */
	if ((renamed || !same_query) && !XactReadOnly)
	{
		CatalogAccess access;

		catalog_begin(&access);
		describe(stream, definition);
		catalog_end(&access);
	}
	return relid;
}

/*
 * Runs a statement on the table as its owner, not as ours: he may have given
 * it triggers or rules.
 */
static uint64
execute_as_owner(const Stream *stream, int expected, const char *statement)
{
	Oid user_id;
	int security_context;
	uint64 rows;

	GetUserIdAndSecContext(&user_id, &security_context);
	SetUserIdAndSecContext(stream->owner, security_context | SECURITY_LOCAL_USERID_CHANGE |
	                                          SECURITY_RESTRICTED_OPERATION);
	SPI_connect();
	rows = catalog_execute(expected, statement, 0, NULL, NULL, NULL);
	SPI_finish();
	SetUserIdAndSecContext(user_id, security_context);
	return rows;
}

bool
stream_state_is_empty(const Stream *stream)
{
	return !OidIsValid(stream_state_find(stream)) ||
	       execute_as_owner(stream, SPI_OK_SELECT,
	                        psprintf("SELECT FROM %s LIMIT 1", stream_state_name(stream))) == 0;
}

void
stream_state_clear(const Stream *stream)
{
	if (OidIsValid(stream_state_find(stream)))
		(void) execute_as_owner(stream, SPI_OK_UTILITY,
		                        psprintf("TRUNCATE ONLY %s", stream_state_name(stream)));
}

void
stream_state_set_owner(const Stream *stream)
{
	CatalogAccess access;

	catalog_begin(&access);
	catalog_execute(SPI_OK_UTILITY,
	                psprintf("ALTER TABLE IF EXISTS %s OWNER TO %s", stream_state_name(stream),
	                         quote_identifier(GetUserNameFromId(stream->owner, false))),
	                0, NULL, NULL, NULL);
	catalog_end(&access);
}

void
stream_state_drop(const Stream *stream)
{
	CatalogAccess access;

	catalog_begin(&access);
	catalog_execute(SPI_OK_UTILITY,
	                psprintf("DROP TABLE IF EXISTS %s", stream_state_name(stream)), 0, NULL,
	                NULL, NULL);
	catalog_end(&access);
}
