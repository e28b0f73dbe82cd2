/*-------------------------------------------------------------------------
 *
 * stream_view.c
 *	  The view in which a stream's query is stored: PostgreSQL keeps its names
 *	  resolved and its dependencies tracked.
 *
 * The schema is ours, the view its owner's.  It is made from the query as its user
 * analyzed it, not by CREATE VIEW with a text: reading a text calls input functions of
 * types, and with them code of users, with our rights.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_view.h"

#include "access/xact.h"
#include "catalog.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "commands/tablecmds.h"
#include "commands/view.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_relation.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

char *
stream_view_name(int64 stream_id)
{
	return psprintf("stream_%lld_query", (long long) stream_id);
}

static List *
column_definitions(const Query *query)
{
	List *columns = NIL;
	ListCell *cell;

	foreach (cell, query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		Node *expression = (Node *) entry->expr;
		Oid collation = exprCollation(expression);

		if (entry->resjunk)
			continue;
		if (!OidIsValid(collation) && type_is_collatable(exprType(expression)))
			ereport(ERROR,
			        (errcode(ERRCODE_INDETERMINATE_COLLATION),
			         errmsg("could not determine which collation to use for column \"%s\" "
			                "of the query",
			                entry->resname),
			         errhint("Use the COLLATE clause to set the collation explicitly.")));
		columns = lappend(columns, makeColumnDef(entry->resname, exprType(expression),
		                                         exprTypmod(expression), collation));
	}
	return columns;
}

Oid
stream_view_create(const Stream *stream, Query *query)
{
	CatalogAccess access;
	CreateStmt *statement = makeNode(CreateStmt);
	char *name = stream_view_name(stream->stream_id);
	ObjectAddress view;

	if (isQueryUsingTempRelation(query))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
		                errmsg("query of a stream reads a temporary table"),
		                errdetail("The worker of a stream has its own session."),
		                errhint("Use a table that is not temporary.")));
	statement->relation = makeRangeVar("kafka", name, -1);
	statement->tableElts = column_definitions(query);
	statement->oncommit = ONCOMMIT_NOOP;

	catalog_begin(&access);
	if (stream->query_view)
		catalog_execute(SPI_OK_UTILITY, psprintf("DROP VIEW IF EXISTS kafka.%s", name), 0, NULL,
		                NULL, NULL);
	view = DefineRelation(statement, RELKIND_VIEW, stream->owner, NULL, NULL);
	CommandCounterIncrement();
	StoreViewQuery(view.objectId, query, false);
	CommandCounterIncrement();
	catalog_execute(
	    SPI_OK_UTILITY,
	    psprintf("COMMENT ON VIEW kafka.%s IS %s", name,
	             quote_literal_cstr(psprintf("query of kafka stream %s", stream->name))),
	    0, NULL, NULL, NULL);
	catalog_end(&access);
	return view.objectId;
}
