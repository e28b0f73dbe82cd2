/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  The only place that knows PostgreSQL versions.
 *
 * Supported: PostgreSQL 15 to 18.  Every other file is written against the
 * newest of them; what an older one lacks or spells otherwise is here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KAFKA_INGEST_COMPAT_H
#define KAFKA_INGEST_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "kafka_ingest needs PostgreSQL 15 or later"
#endif

/* --- decoding --- */

#if PG_VERSION_NUM >= 160000
#include "varatt.h" /* VARDATA() and its like: part of postgres.h before */
#endif
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* --- streams and sinks --- */

#include "catalog/pg_foreign_server.h"
#include "catalog/pg_namespace.h"
#include "executor/executor.h"
#include "nodes/plannodes.h"
#include "utils/acl.h"

#if PG_VERSION_NUM >= 160000
#define foreign_server_aclcheck(server_id, role_id, mode)                                      \
	object_aclcheck(ForeignServerRelationId, server_id, role_id, mode)
#define schema_aclcheck(schema_id, role_id, mode)                                              \
	object_aclcheck(NamespaceRelationId, schema_id, role_id, mode)
#else
#define schema_aclcheck(schema_id, role_id, mode)                                              \
	pg_namespace_aclcheck(schema_id, role_id, mode)
#define foreign_server_aclcheck(server_id, role_id, mode)                                      \
	pg_foreign_server_aclcheck(server_id, role_id, mode)
#endif

/* Raises an error unless the user can SET ROLE to the other. */
static inline void
check_may_become(Oid user_id, Oid role)
{
#if PG_VERSION_NUM >= 160000
	check_can_set_role(user_id, role);
#else
	check_is_member_of_role(user_id, role);
#endif
}

/* What a query does with a relation, as far as privileges matter. */
typedef struct RelationAccess
{
	Oid relation;
	Oid as_user; /* InvalidOid: the current one */
	AclMode required;
	/* columns, counted from FirstLowInvalidHeapAttributeNumber */
	Bitmapset *selected;
	Bitmapset *inserted;
	Bitmapset *updated;
} RelationAccess;

/* What one level of an analyzed and rewritten query does: a list of RelationAccess *. */
static inline List *
query_relation_accesses(const Query *query)
{
	List *accesses = NIL;
	ListCell *cell;

#if PG_VERSION_NUM >= 160000
	foreach (cell, query->rteperminfos)
	{
		RTEPermissionInfo *entry = lfirst_node(RTEPermissionInfo, cell);
#else
	foreach (cell, query->rtable)
	{
		RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);
#endif
		RelationAccess *access = (RelationAccess *) palloc(sizeof(RelationAccess));

		if (!OidIsValid(entry->relid) || entry->requiredPerms == 0)
			continue;
		access->relation = entry->relid;
		access->as_user = entry->checkAsUser;
		access->required = entry->requiredPerms;
		access->selected = entry->selectedCols;
		access->inserted = entry->insertedCols;
		access->updated = entry->updatedCols;
		accesses = lappend(accesses, access);
	}
	return accesses;
}

/* Runs a query to its end. */
static inline void
run_to_completion(QueryDesc *query)
{
#if PG_VERSION_NUM >= 180000
	ExecutorRun(query, ForwardScanDirection, 0);
#else
	ExecutorRun(query, ForwardScanDirection, 0, true);
#endif
}

/*
 * ExecInsertIndexTuples() of all versions.  conflict: NULL, or where a conflict in one of the
 * "arbiters" shows, which is an error otherwise; only_summarizing is for updates since 16.
 */
static inline List *
make_index_entries(ResultRelInfo *relation, TupleTableSlot *slot, EState *estate, bool update,
                   bool *conflict, List *arbiters, bool only_summarizing)
{
#if PG_VERSION_NUM >= 160000
	return ExecInsertIndexTuples(relation, slot, estate, update, conflict != NULL, conflict,
	                             arbiters, only_summarizing);
#else
	return ExecInsertIndexTuples(relation, slot, estate, update, conflict != NULL, conflict,
	                             arbiters);
#endif
}

/* Index entries of a freshly inserted row; returns indexes to recheck. */
static inline List *
insert_index_tuples(ResultRelInfo *relation, TupleTableSlot *slot, EState *estate)
{
	return make_index_entries(relation, slot, estate, false, NULL, NIL, false);
}

/* --- writing by key --- */

#include "access/genam.h"
#include "access/tableam.h"

/* Which indexes need entries of a row that was updated. */
#if PG_VERSION_NUM >= 160000
typedef TU_UpdateIndexes IndexesToUpdate;
#else
typedef bool IndexesToUpdate;
#endif

/* Does a table compute columns from others? */
static inline bool
has_generated_columns(const TupleConstr *constraints)
{
	if (constraints == NULL)
		return false;
#if PG_VERSION_NUM >= 180000
	if (constraints->has_generated_virtual)
		return true;
#endif
	return constraints->has_generated_stored;
}

static inline IndexScanDesc
begin_index_scan(Relation relation, Relation index, Snapshot snapshot, int key_count)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(relation, index, snapshot, NULL, key_count, 0);
#else
	return index_beginscan(relation, index, snapshot, key_count, 0);
#endif
}

/* Index entries of a row that was inserted speculatively; sets *conflict, or leaves it. */
static inline List *
insert_index_tuples_unless_conflict(ResultRelInfo *relation, TupleTableSlot *slot,
                                    EState *estate, bool *conflict, List *arbiters)
{
	return make_index_entries(relation, slot, estate, false, conflict, arbiters, false);
}

/* Index entries of a row that was updated. */
static inline void
update_index_tuples(ResultRelInfo *relation, TupleTableSlot *slot, EState *estate,
                    IndexesToUpdate indexes)
{
#if PG_VERSION_NUM >= 160000
	bool any = indexes != TU_None;
	bool only_summarizing = indexes == TU_Summarizing;
#else
	bool any = indexes;
	bool only_summarizing = false;
#endif

	if (any)
		list_free(
		    make_index_entries(relation, slot, estate, true, NULL, NIL, only_summarizing));
}

/* --- 17: named wait events for extensions; the process number has its own variable --- */
#if PG_VERSION_NUM < 170000
#define WaitEventExtensionNew(wait_event_name) ((uint32) PG_WAIT_EXTENSION)
#define MyProcNumber                           (MyProc->pgprocno)
#endif

/* --- topic scans --- */

#include "miscadmin.h"
#include "optimizer/pathnode.h"

#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

/* A path of a foreign base relation, without order. */
static inline ForeignPath *
make_foreign_scan_path(PlannerInfo *root, RelOptInfo *relation, Cost startup_cost,
                       Cost total_cost)
{
#if PG_VERSION_NUM >= 180000
	return create_foreignscan_path(root, relation, NULL, relation->rows, 0, startup_cost,
	                               total_cost, NIL, relation->lateral_relids, NULL, NIL, NIL);
#elif PG_VERSION_NUM >= 170000
	return create_foreignscan_path(root, relation, NULL, relation->rows, startup_cost,
	                               total_cost, NIL, relation->lateral_relids, NULL, NIL, NIL);
#else
	return create_foreignscan_path(root, relation, NULL, relation->rows, startup_cost,
	                               total_cost, NIL, relation->lateral_relids, NULL, NIL);
#endif
}

/* The user as whom a foreign table is read: the view's owner, if through a view. */
static inline Oid
foreign_scan_user(ForeignScanState *node)
{
#if PG_VERSION_NUM >= 160000
	Oid user_id = ((ForeignScan *) node->ss.ps.plan)->checkAsUser;
#else
	Index relation = ((ForeignScan *) node->ss.ps.plan)->scan.scanrelid;
	Oid user_id = exec_rt_fetch(relation, node->ss.ps.state)->checkAsUser;
#endif

	return OidIsValid(user_id) ? user_id : GetUserId();
}

/* --- aggregate states --- */

#include "catalog/pg_proc.h"

#if PG_VERSION_NUM >= 160000
#define function_aclcheck(function_id, role_id)                                                \
	object_aclcheck(ProcedureRelationId, function_id, role_id, ACL_EXECUTE)
#else
#define function_aclcheck(function_id, role_id)                                                \
	pg_proc_aclcheck(function_id, role_id, ACL_EXECUTE)
#endif

/* --- queries taken apart --- */

#include "nodes/parsenodes.h"
#include "optimizer/optimizer.h"

/*
 * Has expressions above FROM name columns of relations themselves, not of
 * joins or, since 18, of groups.  Changes the query.
 */
static inline Query *
flatten_query_aliases(Query *query)
{
#if PG_VERSION_NUM >= 180000
	if (query->hasGroupRTE)
	{
		query->targetList =
		    (List *) flatten_group_exprs(NULL, query, (Node *) query->targetList);
		query->havingQual = flatten_group_exprs(NULL, query, query->havingQual);
		Assert(llast_node(RangeTblEntry, query->rtable)->rtekind == RTE_GROUP);
		query->rtable = list_delete_last(query->rtable);
		query->hasGroupRTE = false;
	}
#endif
#if PG_VERSION_NUM >= 160000
	query->targetList =
	    (List *) flatten_join_alias_vars(NULL, query, (Node *) query->targetList);
	query->havingQual = flatten_join_alias_vars(NULL, query, query->havingQual);
#else
	query->targetList = (List *) flatten_join_alias_vars(query, (Node *) query->targetList);
	query->havingQual = flatten_join_alias_vars(query, query->havingQual);
#endif
	return query;
}

/* --- whose code runs --- */

/* What is called before a statement runs, with its range table. */
#if PG_VERSION_NUM >= 160000
#define CHECK_PERMISSIONS_PARAMETERS List *range_table, List *permissions, bool raise
#define CHECK_PERMISSIONS_ARGUMENTS  range_table, permissions, raise
#else
#define CHECK_PERMISSIONS_PARAMETERS List *range_table, bool raise
#define CHECK_PERMISSIONS_ARGUMENTS  range_table, raise
#endif

/* functions that are named otherwise, or missing */
#if PG_VERSION_NUM < 170000
#define F_RANDOM_ F_RANDOM
#endif
#if PG_VERSION_NUM < 180000
#define F_UUIDV7_ InvalidOid
#endif

/* --- windows of event time --- */

#include "utils/rangetypes.h"

/* The range between two bounds that are not infinite. */
static inline RangeType *
make_range_value(TypeCacheEntry *type, RangeBound *lower, RangeBound *upper)
{
#if PG_VERSION_NUM >= 160000
	return make_range(type, lower, upper, false, NULL);
#else
	return make_range(type, lower, upper, false);
#endif
}

#endif /* KAFKA_INGEST_COMPAT_H */
