/*-------------------------------------------------------------------------
 *
 * stream_trust.c
 *	  Whose code may run with the rights of a stream's owner.
 *
 * A worker writes as the stream's owner, day and night, into a table that may be
 * somebody else's, and with it runs that somebody's triggers, defaults, policies and
 * functions.  In PostgreSQL these have the rights of whoever writes: without a
 * limit, the table's owner could take over the stream's.  The limit: code runs only if it
 * belongs to a superuser or to a role that has the rights of the stream's owner anyway,
 * or if it can't do more than compute.  SECURITY DEFINER functions have the rights of their
 * own owner and are nobody's danger.
 *
 * Tables are looked at before each batch, under the locks that keep them as they are.
 * What only shows while a batch runs is left to stream_guard.c, which asks here whom to trust.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_trust.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/prs2lock.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rowsecurity.h"
#include "topic_schema.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* What is being looked at, for the error. */
typedef struct TrustContext
{
	const Stream *stream;
	Oid relid;
	bool computes_only; /* the code is a stranger's: it may do no more than compute */
} TrustContext;

/* Not immutable, but used in defaults and policies everywhere, and harmless. */
static const Oid harmless_functions[] = {
    F_NOW,     F_CLOCK_TIMESTAMP, F_STATEMENT_TIMESTAMP, F_TRANSACTION_TIMESTAMP,
    F_NEXTVAL, F_GEN_RANDOM_UUID, F_DATE_TIMESTAMPTZ,    F_TIMESTAMP_TIMESTAMPTZ};

/* --- whom to trust --- */

static bool
role_is_trusted(Oid role, Oid owner)
{
	return role == owner || superuser_arg(role) || has_privs_of_role(role, owner);
}

bool
stream_trusts_function(Oid function, Oid owner)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool result = true;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_proc procedure = (Form_pg_proc) GETSTRUCT(tuple);

		result = procedure->prosecdef || role_is_trusted(procedure->proowner, owner);
		ReleaseSysCache(tuple);
	}
	return result;
}

static Oid
function_owner(Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;

	ReleaseSysCache(tuple);
	return owner;
}

static char *
role_name(Oid role)
{
	char *name = GetUserNameFromId(role, true);

	return name ? name : psprintf("%u", role);
}

void
stream_refuse_function(Oid function, Oid owner)
{
	Oid stranger = function_owner(function);

	ereport(ERROR,
	        (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
	         errmsg("function %s would run with the rights of \"%s\"",
	                format_procedure(function), role_name(owner)),
	         errdetail("It belongs to role \"%s\", which does not have the rights of the "
	                   "stream's owner.",
	                   role_name(stranger)),
	         errhint("Declare it SECURITY DEFINER, have \"%s\" create the stream, or give it "
	                 "the rights: GRANT %s TO %s.",
	                 role_name(stranger), quote_identifier(role_name(owner)),
	                 quote_identifier(role_name(stranger)))));
}

pg_noreturn static void
refuse_relation(const TrustContext *context, Oid relid, const char *what)
{
	Oid owner = context->stream->owner;
	Relation relation = relation_open(relid, NoLock);
	Oid stranger = relation->rd_rel->relowner;

	ereport(ERROR,
	        (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
	         errmsg("%s \"%s\" would run with the rights of \"%s\"", what,
	                RelationGetRelationName(relation), role_name(owner)),
	         errdetail("It belongs to role \"%s\", which does not have the rights of the "
	                   "stream's owner.",
	                   role_name(stranger)),
	         errhint("Have \"%s\" create the stream, or give it the rights: GRANT %s TO %s.",
	                 role_name(stranger), quote_identifier(role_name(owner)),
	                 quote_identifier(role_name(stranger)))));
}

/* --- expressions --- */

static bool
function_only_computes(Oid function)
{
	/* an operator's or a type's function may be anybody's; only built-in ones are known */
	if (function >= FirstNormalObjectId)
		return false;
	if (func_volatile(function) == PROVOLATILE_IMMUTABLE)
		return true;
	for (int i = 0; i < lengthof(harmless_functions); i++)
		if (harmless_functions[i] == function)
			return true;
	return false;
}

static bool
check_function(Oid function, void *argument)
{
	TrustContext *context = argument;

	if (!stream_trusts_function(function, context->stream->owner))
		stream_refuse_function(function, context->stream->owner);
	if (context->computes_only && !function_only_computes(function))
		refuse_relation(context, context->relid,
		                psprintf("function %s in the definition of",
		                         format_procedure(function)));
	return false;
}

static void check_source(Oid relid, TrustContext *context);

static bool
check_expression(Node *node, TrustContext *context)
{
	if (node == NULL)
		return false;
	(void) check_functions_in_node(node, check_function, context);
	if (context->computes_only && IsA(node, SubLink))
		refuse_relation(context, context->relid, "a sub-select in the definition of");
	if (IsA(node, Query))
	{
		ListCell *cell;

		foreach (cell, ((Query *) node)->rtable)
		{
			RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);

			/* what is not in FROM is a view's own OLD and NEW */
			if (entry->rtekind == RTE_RELATION && entry->inFromCl)
				check_source(entry->relid, context);
		}
		return query_tree_walker((Query *) node, check_expression, context, 0);
	}
	return expression_tree_walker(node, check_expression, (void *) context);
}

static void
check_stored_expression(const char *text, TrustContext *context)
{
	if (text != NULL)
		(void) check_expression(stringToNode(text), context);
}

/* --- tables of strangers --- */

static void
check_domains(Relation relation, TrustContext *context)
{
	TupleDesc descriptor = RelationGetDescr(relation);

	for (int i = 0; i < descriptor->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(descriptor, i);

		if (!attribute->attisdropped && get_typtype(attribute->atttypid) == TYPTYPE_DOMAIN)
			refuse_relation(context, context->relid,
			                psprintf("the domain of column \"%s\" of",
			                         NameStr(attribute->attname)));
	}
}

static void
check_triggers(Relation relation, TrustContext *context)
{
	TriggerDesc *triggers = relation->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger *trigger = &triggers->triggers[i];

		/* foreign keys are checked with the rights of the tables' owners */
		if (trigger->tgisinternal)
			continue;
		if (!stream_trusts_function(trigger->tgfoid, context->stream->owner))
			stream_refuse_function(trigger->tgfoid, context->stream->owner);
		check_stored_expression(trigger->tgqual, context);
	}
}

static void
check_policies(Relation relation, TrustContext *context)
{
	ListCell *cell;

	if (!relation->rd_rel->relrowsecurity || relation->rd_rsdesc == NULL)
		return;
	foreach (cell, relation->rd_rsdesc->policies)
	{
		RowSecurityPolicy *policy = lfirst(cell);

		(void) check_expression((Node *) policy->qual, context);
		(void) check_expression((Node *) policy->with_check_qual, context);
	}
}

/* As stored: the relation cache's copy is simplified, with functions inlined. */
static void
check_index(Oid index, TrustContext *context)
{
	static const AttrNumber columns[] = {Anum_pg_index_indexprs, Anum_pg_index_indpred};
	HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));

	if (!HeapTupleIsValid(tuple))
		return;
	for (int i = 0; i < lengthof(columns); i++)
	{
		bool isnull;
		Datum expression = SysCacheGetAttr(INDEXRELID, tuple, columns[i], &isnull);

		if (!isnull)
			check_stored_expression(TextDatumGetCString(expression), context);
	}
	ReleaseSysCache(tuple);
}

/* What somebody who isn't trusted may have written into a table's definition. */
static void
check_table_of_stranger(Oid relid, TrustContext *context)
{
	Relation relation = relation_open(relid, NoLock);
	TupleConstr *constraints = RelationGetDescr(relation)->constr;

	context->relid = relid;
	context->computes_only = true;
	if (relation->rd_rel->relkind == RELKIND_VIEW)
		refuse_relation(context, relid, "view");
	if (relation->rd_rules != NULL)
		refuse_relation(context, relid, "a rule of table");
	check_triggers(relation, context);
	check_policies(relation, context);
	check_domains(relation, context);
	for (int i = 0; constraints != NULL && i < constraints->num_defval; i++)
		check_stored_expression(constraints->defval[i].adbin, context);
	for (int i = 0; constraints != NULL && i < constraints->num_check; i++)
		check_stored_expression(constraints->check[i].ccbin, context);
	if (relation->rd_rel->relkind == RELKIND_RELATION)
	{
		List *indexes = RelationGetIndexList(relation);
		ListCell *cell;

		foreach (cell, indexes)
			check_index(lfirst_oid(cell), context);
	}
	context->computes_only = false;
	relation_close(relation, NoLock);
}

static Oid
relation_owner(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
	}
	return owner;
}

static void
check_target(TrustContext *context)
{
	Oid target = context->stream->target;

	LockRelationOid(target, RowExclusiveLock);
	if (!OidIsValid(relation_owner(target)))
		return; /* whoever uses it next says so */

	/* an owner who is trusted answers for the partitions, too, and for what a view shows */
	if (role_is_trusted(relation_owner(target), context->stream->owner))
		return;
	if (get_rel_relkind(target) == RELKIND_PARTITIONED_TABLE)
	{
		ListCell *cell;

		foreach (cell, find_all_inheritors(target, RowExclusiveLock, NULL))
			check_table_of_stranger(lfirst_oid(cell), context);
	}
	else
		check_table_of_stranger(target, context);
}

/* --- the source --- */

/* What a stream reads: its topic table, what is joined to it, and views of them. */
static void
check_source(Oid relid, TrustContext *context)
{
	const TrustContext outer = *context;
	Oid owner;
	Relation relation;

	check_stack_depth();
	/* system views tell everybody what is his */
	if (context->computes_only && relid < FirstNormalObjectId)
		refuse_relation(context, context->relid,
		                psprintf("\"%s\" in the definition of", get_rel_name(relid)));
	LockRelationOid(relid, AccessShareLock);
	owner = relation_owner(relid);
	if (!OidIsValid(owner))
		return; /* whoever uses it next says so */
	if (get_rel_relkind(relid) == RELKIND_VIEW)
	{
		Query *query;

		if (context->stream->query_view && relid == context->stream->source &&
		    owner != context->stream->owner)
			ereport(ERROR,
			        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			         errmsg("the query of stream \"%s\" belongs to role \"%s\"",
			                context->stream->name, role_name(owner)),
			         errdetail("The stream belongs to role \"%s\".",
			                   role_name(context->stream->owner)),
			         errhint("Use kafka.alter_stream_owner to give the stream to another "
			                 "role.")));
		/* what a stranger's view names is a stranger's choice, whoever owns it */
		if (!role_is_trusted(owner, context->stream->owner))
		{
			context->computes_only = true;
			context->relid = relid;
		}
		relation = relation_open(relid, NoLock);
		query = copyObject(get_view_query(relation));
		relation_close(relation, NoLock);
		(void) check_expression((Node *) query, context);
	}
	else if (role_is_trusted(owner, context->stream->owner))
		return;
	else if (topic_schema_is_topic_table(relid))
		check_table_of_stranger(relid, context);
	else
	{
		/* a table that is joined: only its policies run when it is read */
		relation = relation_open(relid, NoLock);
		context->relid = relid;
		context->computes_only = true;
		check_policies(relation, context);
		relation_close(relation, NoLock);
	}
	context->computes_only = outer.computes_only;
	context->relid = outer.relid;
}

void
stream_trust_check(const Stream *stream)
{
	TrustContext context = {.stream = stream};

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(stream->owner)))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
		                errmsg("owner of stream \"%s\" does not exist", stream->name),
		                errhint("Use kafka.alter_stream_owner to give the stream to another "
		                        "role.")));
	check_source(stream->source, &context);
	if (OidIsValid(stream->target))
		check_target(&context);
}

void
stream_trust_check_routine(Oid routine, Oid owner)
{
	if (!stream_trusts_function(routine, owner))
		stream_refuse_function(routine, owner);
}
