/*-------------------------------------------------------------------------
 *
 * stream_guard.c
 *	  Looks at whose code is about to run with the rights of a stream's owner.
 *
 * While a batch runs, hooks tell what it comes upon, however deep in procedures, triggers and
 * views:
 *
 * - functions when they are called, since they can be replaced at any time; what SECURITY DEFINER
 *	 functions of others set, such as a search_path, is undone when they return;
 * - tables and views when a statement begins that reads or writes them.  Their locks keep them as
 *	 they are; what has been looked at is remembered until the catalogs change;
 * - aggregates, and what domains call, when an expression is readied for execution.
 *
 * Parallel workers know nothing of a guard: a batch is planned without.
 *
 * Whom to trust, and what a relation may have, is left to stream_trust.c and domain_trust.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "stream_guard.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "domain_trust.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "optimizer/planner.h"
#include "stream_trust.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/syscache.h"

/* A stream may be called for within the batch of another: the last one counts. */
#define GUARDS_AT_MOST 16

/* enough for the tables of a few streams and their partitions */
#define REMEMBERED_RELATIONS 1024

typedef struct Guard
{
	Oid owner;
	SubTransactionId subtransaction;
} Guard;

/* What a relation was found harmless for. */
typedef struct SeenRelation
{
	Oid owner; /* the key: whose rights, what, and how */
	Oid relid;
	uint32 written;
} SeenRelation;

static Guard guard_stack[GUARDS_AT_MOST];
static int guard_count = 0;
static HTAB *seen_relations = NULL;
static uint64 seen_generation = 0;
static uint64 catalog_generation = 1;

static needs_fmgr_hook_type next_needs_hook = NULL;
static fmgr_hook_type next_function_hook = NULL;
static ExecutorCheckPerms_hook_type next_permissions_hook = NULL;
static object_access_hook_type next_access_hook = NULL;
static planner_hook_type next_planner_hook = NULL;

/* Whose rights are guarded. */
static Oid
guarded_owner(void)
{
	Assert(guard_count > 0);
	return guard_stack[guard_count - 1].owner;
}

/* Does what runs now have the rights that are guarded? */
static bool
is_guarded(void)
{
	return guard_count > 0 && GetUserId() == guarded_owner() && InSecurityRestrictedOperation();
}

/* --- functions --- */

/* Also keeps the planner from putting a function's body in place of its call. */
static bool
needs_look(Oid function)
{
	if (next_needs_hook && next_needs_hook(function))
		return true;
	return guard_count > 0 && (!stream_trusts_function(function, guarded_owner()) ||
	                           domain_trust_names(function, guarded_owner()));
}

/* The call that is about to be made by call_with_own_settings(), and what it calls. */
static FmgrInfo *call_begun = NULL;
static PGFunction code_of_call = NULL;

/* In the place of a function's code, for one call. */
static Datum
call_with_own_settings(PG_FUNCTION_ARGS)
{
	PGFunction code = code_of_call;
	int nest_level = NewGUCNestLevel();
	Datum result;

	Assert(fcinfo->flinfo == call_begun);
	call_begun->fn_addr = code;
	call_begun = NULL;
	result = code(fcinfo);
	AtEOXact_GUC(false, nest_level);
	return result;
}

/*
 * A SECURITY DEFINER function of somebody else can do nothing with the owner's rights, but settings that it
 * leaves behind would say what the names in the owner's code mean.  The function's own SET
 * clauses have a nest level already, which keeps what the function sets beside them: so ours is opened
 * within, around the code alone.
 */
static void
wrap_call(FmgrHookEventType event, FmgrInfo *function)
{
	if (event == FHET_START && guard_count > 0 && function->fn_addr != call_with_own_settings &&
	    stream_function_is_of_stranger(function->fn_oid, guarded_owner()))
	{
		call_begun = function;
		code_of_call = function->fn_addr;
		function->fn_addr = call_with_own_settings;
	}
	else if (event != FHET_START && call_begun == function)
	{
		/* it has not come to the call */
		function->fn_addr = code_of_call;
		call_begun = NULL;
	}
}

static void
look_at_call(FmgrHookEventType event, FmgrInfo *function, Datum *argument)
{
	if (event == FHET_START && guard_count > 0)
	{
		if (is_guarded() && !stream_trusts_function(function->fn_oid, guarded_owner()))
			stream_refuse_function(function->fn_oid, guarded_owner());
		domain_trust_check_call(function->fn_oid, function->fn_expr, guarded_owner());
	}
	if (next_function_hook)
		next_function_hook(event, function, argument);
	/* last: after this nothing may be raised before the call */
	wrap_call(event, function);
}

/*
 * A function of an expression that is readied.  Domains' also where the user is another:
 * functions in PL/pgSQL share what is ready.
 */
static void
look_at_access(ObjectAccessType access, Oid class, Oid object, int part, void *argument)
{
	if (access == OAT_FUNCTION_EXECUTE && guard_count > 0)
	{
		/* an aggregate is not called itself, only what it consists of */
		if (object >= FirstNormalObjectId && is_guarded() &&
		    get_func_prokind(object) == PROKIND_AGGREGATE &&
		    !stream_trusts_function(object, guarded_owner()))
			stream_refuse_function(object, guarded_owner());
		domain_trust_check_builtin(object, guarded_owner());
	}
	if (next_access_hook)
		next_access_hook(access, class, object, part, argument);
}

/* --- relations --- */

static void
at_relation_invalidation(Datum argument, Oid relid)
{
	catalog_generation++;
}

static void
at_invalidation(Datum argument, int cache, uint32 hash_value)
{
	catalog_generation++;
}

void
stream_guard_look_at(Oid relid, bool written)
{
	SeenRelation key = {guarded_owner(), relid, written};
	uint64 generation = catalog_generation;

	if (seen_relations == NULL || seen_generation != generation ||
	    hash_get_num_entries(seen_relations) >= REMEMBERED_RELATIONS)
	{
		HASHCTL control = {.keysize = sizeof(SeenRelation), .entrysize = sizeof(SeenRelation)};

		if (seen_relations != NULL)
			hash_destroy(seen_relations);
		seen_relations = NULL;
		seen_relations =
		    hash_create("kafka relations looked at", 64, &control, HASH_ELEM | HASH_BLOBS);
		seen_generation = generation;
	}
	else if (hash_search(seen_relations, &key, HASH_FIND, NULL) != NULL)
		return;
	stream_trust_check_relation(relid, written, key.owner);
	/* should something have changed meanwhile, it is looked at again */
	if (catalog_generation == generation)
		(void) hash_search(seen_relations, &key, HASH_ENTER, NULL);
}

/* All relations of a statement: also partitions, children by inheritance, and views that it names. */
static bool
look_at_relations(CHECK_PERMISSIONS_PARAMETERS)
{
	ListCell *cell;

	if (is_guarded())
	{
		foreach (cell, range_table)
		{
			RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);

			/* since 16, the sub-select that a view has become has the view's OID */
			if (OidIsValid(entry->relid) &&
			    (entry->rtekind == RTE_RELATION || entry->rtekind == RTE_SUBQUERY))
				stream_guard_look_at(entry->relid, entry->rellockmode >= RowExclusiveLock);
		}
	}
	return next_permissions_hook ? next_permissions_hook(CHECK_PERMISSIONS_ARGUMENTS) : true;
}

/* --- plans --- */

static PlannedStmt *
plan_without_workers(Query *query, const char *text, int options, ParamListInfo parameters)
{
	if (guard_count > 0)
		options &= ~CURSOR_OPT_PARALLEL_OK;
	return next_planner_hook ? next_planner_hook(query, text, options, parameters)
	                         : standard_planner(query, text, options, parameters);
}

/* --- guards --- */

/* An error ends what was guarded in it, and nothing else. */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subtransaction,
                      SubTransactionId parent, void *argument)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (guard_count > 0 && guard_stack[guard_count - 1].subtransaction == subtransaction)
		guard_count--;
}

static void
at_transaction_end(XactEvent event, void *argument)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT)
		guard_count = 0;
}

static void
install_hooks(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
	CacheRegisterRelcacheCallback(at_relation_invalidation, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, at_invalidation, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, at_invalidation, (Datum) 0);
	CacheRegisterSyscacheCallback(CONSTROID, at_invalidation, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, at_invalidation, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, at_invalidation, (Datum) 0);
	next_needs_hook = needs_fmgr_hook;
	next_function_hook = fmgr_hook;
	next_permissions_hook = ExecutorCheckPerms_hook;
	next_access_hook = object_access_hook;
	next_planner_hook = planner_hook;
	needs_fmgr_hook = needs_look;
	fmgr_hook = look_at_call;
	ExecutorCheckPerms_hook = look_at_relations;
	object_access_hook = look_at_access;
	planner_hook = plan_without_workers;
}

void
stream_guard_begin(Oid owner)
{
	static bool installed = false;

	if (!installed)
		install_hooks();
	installed = true;
	if (guard_count == GUARDS_AT_MOST)
		ereport(ERROR,
		        (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
		         errmsg("streams are nested too deeply"),
		         errdetail("A batch of a stream runs others, %d deep.", GUARDS_AT_MOST)));
	/* in a session there may be plans for workers, or with a function's body in place of its call */
	if (guard_count == 0 && MyBackendType != B_BG_WORKER)
		ResetPlanCache();
	guard_stack[guard_count].owner = owner;
	guard_stack[guard_count].subtransaction = GetCurrentSubTransactionId();
	guard_count++;
}

void
stream_guard_end(void)
{
	Assert(guard_count > 0);
	guard_count--;
}
