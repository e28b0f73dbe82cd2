/*-------------------------------------------------------------------------
 *
 * privileges.c
 *	  What a role must be granted for a stream, named exactly when it is missing.
 *
 * The rules are those of ExecCheckPermissions() in execMain.c and of the functions
 * that the executor calls, which know only yes and no.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "privileges.h"

#include "access/sysattr.h"
#include "catalog/pg_class.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/regproc.h"

/* the privileges that can be granted on columns come first */
#define COLUMN_PRIVILEGES 3

static const struct
{
	AclMode mode;
	const char *name;
} relation_privileges[] = {{ACL_SELECT, "SELECT"},
                           {ACL_INSERT, "INSERT"},
                           {ACL_UPDATE, "UPDATE"},
                           {ACL_DELETE, "DELETE"}};

/* What a role lacks on a relation. */
typedef struct MissingOnRelation
{
	Oid relation;
	Oid role;
	AclMode whole;                         /* on the relation */
	Bitmapset *columns[COLUMN_PRIVILEGES]; /* on columns of it alone */
} MissingOnRelation;

typedef struct Missing
{
	List *relations; /* of MissingOnRelation * */
	List *routines;  /* OIDs of functions, for the current user */
	List *sequences; /* OIDs, for the current user */
} Missing;

/* --- the error --- */

typedef struct PrivilegeError
{
	StringInfoData message; /* about the first object */
	StringInfoData detail;
	StringInfoData hint;
} PrivilegeError;

static void
error_begin(PrivilegeError *error)
{
	initStringInfo(&error->message);
	initStringInfo(&error->detail);
	initStringInfo(&error->hint);
}

/*
 * "kind" and "name" as in PostgreSQL's own message; "keyword" and "qualified_name" as
 * GRANT has them.
 */
static void
error_add(PrivilegeError *error, Oid role, const char *privileges, const char *kind,
          const char *name, const char *keyword, const char *qualified_name)
{
	char *role_name = GetUserNameFromId(role, false);

	if (error->message.len == 0)
		appendStringInfo(&error->message, "permission denied for %s %s", kind, name);
	appendStringInfo(&error->detail, "%sRole \"%s\" needs %s on %s %s.",
	                 error->detail.len > 0 ? " " : "", role_name, privileges, kind,
	                 qualified_name);
	appendStringInfo(&error->hint, "%sGRANT %s ON %s%s TO %s;", error->hint.len > 0 ? " " : "",
	                 privileges, keyword, qualified_name, quote_identifier(role_name));
}

static void
error_raise(const PrivilegeError *error)
{
	if (error->message.len > 0)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		                errmsg_internal("%s", error->message.data),
		                errdetail_internal("%s", error->detail.data),
		                errhint("%s", error->hint.data)));
}

static char *
qualified_relation(Oid relation)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)),
	                                  get_rel_name(relation));
}

static const char *
relation_kind(Oid relation)
{
	switch (get_rel_relkind(relation))
	{
		case RELKIND_VIEW:
			return "view";
		case RELKIND_MATVIEW:
			return "materialized view";
		case RELKIND_FOREIGN_TABLE:
			return "foreign table";
		default:
			return "table";
	}
}

static void
error_add_relation(PrivilegeError *error, const MissingOnRelation *missing)
{
	StringInfoData privileges;

	initStringInfo(&privileges);
	for (int i = 0; i < lengthof(relation_privileges); i++)
	{
		Bitmapset *columns = i < COLUMN_PRIVILEGES ? missing->columns[i] : NULL;
		const char *separator = privileges.len > 0 ? ", " : "";
		int column = -1;

		if (missing->whole & relation_privileges[i].mode)
			appendStringInfo(&privileges, "%s%s", separator, relation_privileges[i].name);
		else if (columns != NULL)
		{
			appendStringInfo(&privileges, "%s%s (", separator, relation_privileges[i].name);
			separator = "";
			while ((column = bms_next_member(columns, column)) >= 0)
			{
				AttrNumber attnum = column + FirstLowInvalidHeapAttributeNumber;

				appendStringInfo(&privileges, "%s%s", separator,
				                 quote_identifier(
				                     get_attname(missing->relation, attnum, false)));
				separator = ", ";
			}
			appendStringInfoChar(&privileges, ')');
		}
	}
	error_add(error, missing->role, privileges.data, relation_kind(missing->relation),
	          get_rel_name(missing->relation), "", qualified_relation(missing->relation));
}

static void
error_add_routine(PrivilegeError *error, Oid routine)
{
	char kind = get_func_prokind(routine);

	error_add(error, GetUserId(), "EXECUTE",
	          kind == PROKIND_PROCEDURE   ? "procedure"
	          : kind == PROKIND_AGGREGATE ? "aggregate"
	                                      : "function",
	          get_func_name(routine), kind == PROKIND_PROCEDURE ? "PROCEDURE " : "FUNCTION ",
	          format_procedure_qualified(routine));
}

/* --- relations of a query --- */

static MissingOnRelation *
missing_on(Missing *missing, Oid relation, Oid role)
{
	MissingOnRelation *entry;
	ListCell *cell;

	foreach (cell, missing->relations)
	{
		entry = lfirst(cell);
		if (entry->relation == relation && entry->role == role)
			return entry;
	}
	entry = palloc0(sizeof(MissingOnRelation));
	entry->relation = relation;
	entry->role = role;
	missing->relations = lappend(missing->relations, entry);
	return entry;
}

/* Looks for one privilege on the columns that a query uses. */
static void
collect_columns(Missing *missing, Oid relation, Oid role, int privilege, Bitmapset *columns)
{
	AclMode mode = relation_privileges[privilege].mode;
	bool on_any = pg_attribute_aclcheck_all(relation, role, mode, ACLMASK_ANY) == ACLCHECK_OK;
	int column = -1;

	if (!on_any)
		missing_on(missing, relation, role)->whole |= mode;
	while (on_any && (column = bms_next_member(columns, column)) >= 0)
	{
		AttrNumber attnum = column + FirstLowInvalidHeapAttributeNumber;

		if (attnum == InvalidAttrNumber)
		{
			if (pg_attribute_aclcheck_all(relation, role, mode, ACLMASK_ALL) != ACLCHECK_OK)
				missing_on(missing, relation, role)->whole |= mode;
		}
		else if (pg_attribute_aclcheck(relation, attnum, role, mode) != ACLCHECK_OK)
		{
			MissingOnRelation *entry = missing_on(missing, relation, role);

			entry->columns[privilege] = bms_add_member(entry->columns[privilege], column);
		}
	}
}

static void
collect_relation(Missing *missing, const RelationAccess *access)
{
	Oid role = OidIsValid(access->as_user) ? access->as_user : GetUserId();
	AclMode lacking = access->required &
	                  ~pg_class_aclmask(access->relation, role, access->required, ACLMASK_ALL);
	Bitmapset *const columns[COLUMN_PRIVILEGES] = {access->selected, access->inserted,
	                                               access->updated};

	if (lacking == 0)
		return;
	for (int i = 0; i < lengthof(relation_privileges); i++)
	{
		if (!(lacking & relation_privileges[i].mode))
			continue;
		if (i < COLUMN_PRIVILEGES)
			collect_columns(missing, access->relation, role, i, columns[i]);
		else
			missing_on(missing, access->relation, role)->whole |= relation_privileges[i].mode;
	}
}

/* --- routines and sequences of a query --- */

static bool
collect_routine(Oid routine, void *context)
{
	Missing *missing = context;

	if (function_aclcheck(routine, GetUserId()) != ACLCHECK_OK)
		missing->routines = list_append_unique_oid(missing->routines, routine);
	return false;
}

/* The sequence of a serial column, in nextval('sequence'::regclass). */
static void
collect_sequence(Missing *missing, FuncExpr *call)
{
	Const *argument = linitial(call->args);
	Oid sequence;

	if (!IsA(argument, Const) || argument->constisnull)
		return;
	sequence = DatumGetObjectId(argument->constvalue);
	if (get_rel_relkind(sequence) == RELKIND_SEQUENCE &&
	    pg_class_aclcheck(sequence, GetUserId(), ACL_USAGE | ACL_UPDATE) != ACLCHECK_OK)
		missing->sequences = list_append_unique_oid(missing->sequences, sequence);
}

static bool
collect_from_query(Node *node, Missing *missing)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		List *accesses = query_relation_accesses((Query *) node);
		ListCell *cell;

		foreach (cell, accesses)
			collect_relation(missing, lfirst(cell));
		list_free_deep(accesses);
		return query_tree_walker((Query *) node, collect_from_query, (void *) missing, 0);
	}
	if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcid == F_NEXTVAL)
		collect_sequence(missing, (FuncExpr *) node);
	/* the executor does not ask for a type's input and output functions */
	if (!IsA(node, CoerceViaIO))
		(void) check_functions_in_node(node, collect_routine, missing);
	return expression_tree_walker(node, collect_from_query, (void *) missing);
}

/* --- checks --- */

void
privileges_check_server(Oid topic_table)
{
	Oid server_id = GetForeignTable(topic_table)->serverid;
	PrivilegeError error;

	error_begin(&error);
	if (foreign_server_aclcheck(server_id, GetUserId(), ACL_USAGE) != ACLCHECK_OK)
	{
		char *name = GetForeignServer(server_id)->servername;

		error_add(&error, GetUserId(), "USAGE", "foreign server", name, "FOREIGN SERVER ",
		          quote_identifier(name));
	}
	error_raise(&error);
}

void
privileges_check_schemas(const Stream *stream)
{
	const Oid relations[] = {stream->source, stream->target};
	PrivilegeError error;

	error_begin(&error);
	for (int i = 0; i < lengthof(relations); i++)
	{
		Oid schema = OidIsValid(relations[i]) ? get_rel_namespace(relations[i]) : InvalidOid;

		if (OidIsValid(schema) &&
		    schema_aclcheck(schema, GetUserId(), ACL_USAGE) != ACLCHECK_OK)
		{
			char *name = get_namespace_name(schema);

			error_add(&error, GetUserId(), "USAGE", "schema", name, "SCHEMA ",
			          quote_identifier(name));
			break; /* most often both are in one schema */
		}
	}
	error_raise(&error);
}

void
privileges_check_source(Oid source)
{
	RelationAccess access = {.relation = source, .required = ACL_SELECT};
	Missing missing = {0};
	PrivilegeError error;

	error_begin(&error);
	collect_relation(&missing, &access);
	if (missing.relations != NIL)
		error_add_relation(&error, linitial(missing.relations));
	error_raise(&error);
}

void
privileges_check_routine(Oid routine)
{
	PrivilegeError error;

	error_begin(&error);
	if (function_aclcheck(routine, GetUserId()) != ACLCHECK_OK)
		error_add_routine(&error, routine);
	error_raise(&error);
}

void
privileges_check_plans(List *plans)
{
	Missing missing = {0};
	PrivilegeError error;
	ListCell *cell;

	foreach (cell, plans)
	{
		CachedPlanSource *source;
		ListCell *query_cell;

		if (lfirst(cell) == NULL)
			continue;
		source = linitial(SPI_plan_get_plan_sources(lfirst(cell)));
		foreach (query_cell, source->query_list)
			(void) collect_from_query(lfirst(query_cell), &missing);
	}

	error_begin(&error);
	foreach (cell, missing.relations)
		error_add_relation(&error, lfirst(cell));
	foreach (cell, missing.sequences)
		error_add(&error, GetUserId(), "USAGE", "sequence", get_rel_name(lfirst_oid(cell)),
		          "SEQUENCE ", qualified_relation(lfirst_oid(cell)));
	foreach (cell, missing.routines)
		error_add_routine(&error, lfirst_oid(cell));
	error_raise(&error);
}
