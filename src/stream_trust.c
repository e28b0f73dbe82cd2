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
#include "catalog/pg_proc.h"
#include "catalog/pg_partitioned_table.h"
#include "commands/trigger.h"
#include "domain_trust.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/prs2lock.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rowsecurity.h"
#include "storage/lmgr.h"
#include "stream_guard.h"
#include "topic_schema.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* What is being looked at, for the error. */
typedef struct TrustContext
{
	Oid owner;            /* whose rights are at stake */
	const Stream *stream; /* NULL: what a batch came upon while it ran */
	Oid relid;
	bool computes_only; /* the code is a stranger's: it may do no more than compute */
} TrustContext;

/* Not immutable, but used in defaults and policies everywhere, and harmless. */
static const Oid harmless_functions[] = {
    F_NOW,     F_CLOCK_TIMESTAMP, F_STATEMENT_TIMESTAMP, F_TRANSACTION_TIMESTAMP,
    F_NEXTVAL, F_GEN_RANDOM_UUID, F_DATE_TIMESTAMPTZ,    F_TIMESTAMP_TIMESTAMPTZ,
    F_RANDOM_, F_UUIDV7_};

/* --- whom to trust --- */

bool
stream_trusts_role(Oid role, Oid owner)
{
	return role == owner || superuser_arg(role) || has_privs_of_role(role, owner);
}

/* Whose a function is, and whether it has its owner's rights; false when there is none. */
static bool
function_facts(Oid function, Oid *owner, bool *security_definer)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));

	if (!HeapTupleIsValid(tuple))
		return false;
	*owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	*security_definer = ((Form_pg_proc) GETSTRUCT(tuple))->prosecdef;
	ReleaseSysCache(tuple);
	return true;
}

bool
stream_function_is_of_stranger(Oid function, Oid owner)
{
	Oid function_owner;
	bool security_definer;

	return function_facts(function, &function_owner, &security_definer) &&
	       !stream_trusts_role(function_owner, owner);
}

bool
stream_trusts_function(Oid function, Oid owner)
{
	Oid function_owner;
	bool security_definer;

	return !function_facts(function, &function_owner, &security_definer) || security_definer ||
	       stream_trusts_role(function_owner, owner);
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
	Oid stranger = InvalidOid;
	bool security_definer;

	(void) function_facts(function, &stranger, &security_definer);
	ereport(ERROR,
	        (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
	         errmsg("function %s would run with the rights of \"%s\"",
	                format_procedure(function), role_name(owner)),
	         errdetail("It belongs to role \"%s\", which does not have the rights of the "
	                   "stream's owner.",
	                   role_name(stranger)),
	         errhint("%s \"%s\" create the stream, or give it the rights: GRANT %s TO %s.",
	                 get_func_prokind(function) == PROKIND_AGGREGATE
	                     ? "Have"
	                     : "Declare it SECURITY DEFINER, have",
	                 role_name(stranger), quote_identifier(role_name(owner)),
	                 quote_identifier(role_name(stranger)))));
}

pg_noreturn static void
refuse_relation(const TrustContext *context, Oid relid, const char *what)
{
	Oid owner = context->owner;
	Relation relation = relation_open(relid, NoLock);
	Oid stranger = relation->rd_rel->relowner;

	ereport(ERROR,
	        (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
	         errmsg("%s \"%s\" would run with the rights of \"%s\"", what,
	                RelationGetRelationName(relation), role_name(owner)),
	         errdetail("\"%s\" belongs to role \"%s\", which does not have the rights of the "
	                   "stream's owner.",
	                   RelationGetRelationName(relation), role_name(stranger)),
	         errhint("Have \"%s\" create the stream, or give it the rights: GRANT %s TO %s.",
	                 role_name(stranger), quote_identifier(role_name(owner)),
	                 quote_identifier(role_name(stranger)))));
}

/* --- expressions --- */

bool
stream_function_only_computes(Oid function)
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

	if (!stream_trusts_function(function, context->owner))
		stream_refuse_function(function, context->owner);
	if (context->computes_only && !stream_function_only_computes(function))
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
	domain_trust_check_cast(node, context->owner);
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
check_triggers(Relation relation, TrustContext *context)
{
	TriggerDesc *triggers = CopyTriggerDesc(relation->trigdesc);

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger *trigger = &triggers->triggers[i];

		/* foreign keys are checked with the rights of the tables' owners */
		if (trigger->tgisinternal)
			continue;
		if (!stream_trusts_function(trigger->tgfoid, context->owner))
			stream_refuse_function(trigger->tgfoid, context->owner);
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

/*
 * Expressions of a row of a catalog.  As stored: the relation cache's copy is simplified, with
 * functions inlined.
 */
static void
check_catalog_row(int cache, Oid key, const AttrNumber *columns, int count,
                  TrustContext *context)
{
	HeapTuple tuple = SearchSysCache1(cache, ObjectIdGetDatum(key));

	if (!HeapTupleIsValid(tuple))
		return;
	for (int i = 0; i < count; i++)
	{
		bool isnull;
		Datum expression = SysCacheGetAttr(cache, tuple, columns[i], &isnull);

		if (!isnull)
			check_stored_expression(TextDatumGetCString(expression), context);
	}
	ReleaseSysCache(tuple);
}

static void
check_indexes(Relation relation, TrustContext *context)
{
	static const AttrNumber columns[] = {Anum_pg_index_indexprs, Anum_pg_index_indpred};
	ListCell *cell;

	if (relation->rd_rel->relkind != RELKIND_RELATION)
		return;
	foreach (cell, RelationGetIndexList(relation))
		check_catalog_row(INDEXRELID, lfirst_oid(cell), columns, lengthof(columns), context);
}

static void
check_partition_key(Relation relation, TrustContext *context)
{
	static const AttrNumber columns[] = {Anum_pg_partitioned_table_partexprs};

	if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		check_catalog_row(PARTRELID, RelationGetRelid(relation), columns, lengthof(columns),
		                  context);
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
	for (int i = 0; constraints != NULL && i < constraints->num_defval; i++)
		check_stored_expression(constraints->defval[i].adbin, context);
	for (int i = 0; constraints != NULL && i < constraints->num_check; i++)
		check_stored_expression(constraints->check[i].ccbin, context);
	check_indexes(relation, context);
	check_partition_key(relation, context);
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

/*
 * What a statement writes, itself and as a partition of what it names.  An owner who is trusted answers
 * for a table's definition, but not for domains and partitions that may be of others.
 */
static void
check_written(Oid relid, TrustContext *context)
{
	List *relations = list_make1_oid(relid);
	ListCell *cell;

	if (!OidIsValid(relation_owner(relid)))
		return; /* whoever uses it next says so */
	domain_trust_check_columns(relid, context->owner);
	/* not locked: there may be thousands, and who gives one away is trusted */
	if (get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
		relations = find_all_inheritors(relid, NoLock, NULL);
	foreach (cell, relations)
	{
		Oid written = lfirst_oid(cell);

		if (stream_trusts_role(relation_owner(written), context->owner))
			continue;
		LockRelationOid(written, RowExclusiveLock);
		if (OidIsValid(relation_owner(written)))
			check_table_of_stranger(written, context);
	}
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

		if (context->stream != NULL && context->stream->query_view &&
		    relid == context->stream->source && owner != context->owner)
			ereport(ERROR,
			        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			         errmsg("the query of stream \"%s\" belongs to role \"%s\"",
			                context->stream->name, role_name(owner)),
			         errdetail("The stream belongs to role \"%s\".", role_name(context->owner)),
			         errhint("Use kafka.alter_stream_owner to give the stream to another "
			                 "role.")));
		/* what a stranger's view names is a stranger's choice, whoever owns it */
		if (!stream_trusts_role(owner, context->owner))
		{
			context->computes_only = true;
			context->relid = relid;
		}
		relation = relation_open(relid, NoLock);
		query = copyObject(get_view_query(relation));
		relation_close(relation, NoLock);
		(void) check_expression((Node *) query, context);
	}
	else if (topic_schema_is_topic_table(relid))
	{
		/* its columns are decoded, and checked with that */
		domain_trust_check_columns(relid, context->owner);
		if (!stream_trusts_role(owner, context->owner))
			check_table_of_stranger(relid, context);
	}
	else if (!stream_trusts_role(owner, context->owner))
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
	TrustContext context = {.owner = stream->owner, .stream = stream};

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(stream->owner)))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
		                errmsg("owner of stream \"%s\" does not exist", stream->name),
		                errhint("Use kafka.alter_stream_owner to give the stream to another "
		                        "role.")));
	check_source(stream->source, &context);
	if (OidIsValid(stream->target))
	{
		LockRelationOid(stream->target, RowExclusiveLock);
		stream_guard_look_at(stream->target, true);
	}
}

void
stream_trust_check_relation(Oid relid, bool written, Oid owner)
{
	TrustContext context = {.owner = owner};

	if (written)
		check_written(relid, &context);
	else
		check_source(relid, &context);
}

void
stream_trust_check_routine(Oid routine, Oid owner)
{
	if (!stream_trusts_function(routine, owner))
		stream_refuse_function(routine, owner);
}
