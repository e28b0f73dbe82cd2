/*-------------------------------------------------------------------------
 *
 * domain_trust.c
 *	  Domains of roles that are not trusted with the rights of a stream's owner.
 *
 * A domain's checks and its default run with the rights of whoever makes a value of it, and call
 * what the domain's owner wrote into them: also functions that everybody trusts, as ts_rewrite(),
 * which runs any query.  Where the catalogs say that a stream uses a domain (columns, casts of the
 * query), it is looked at before a batch, and may do no more than compute.
 *
 * But values of domains are also made where no catalog tells: in the text of procedures, in their
 * variables, by functions such as json_populate_record().  A domain that does harm does it by a
 * function.  So, while a batch runs, functions that could do harm are
 * looked at when an expression is readied for execution: is there a domain of a stranger, anywhere in the database,
 * that calls them?  Of a built-in function no more is known; it is refused.  Others show by what
 * expression they are called, and only what may be a domain's is refused.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "domain_trust.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "stream_trust.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* Declared STABLE, but they run queries. */
static const Oid reading_functions[] = {
    F_TABLE_TO_XML,    F_TABLE_TO_XMLSCHEMA,    F_TABLE_TO_XML_AND_XMLSCHEMA,
    F_SCHEMA_TO_XML,   F_SCHEMA_TO_XMLSCHEMA,   F_SCHEMA_TO_XML_AND_XMLSCHEMA,
    F_DATABASE_TO_XML, F_DATABASE_TO_XMLSCHEMA, F_DATABASE_TO_XML_AND_XMLSCHEMA};

/* Which domain of a stranger calls a function: one of them is enough. */
typedef struct DomainFunction
{
	Oid function; /* the key */
	Oid domain;
} DomainFunction;

/* All domains of strangers to one role, as of a generation of the catalogs. */
static HTAB *domain_functions = NULL;
static Oid domain_functions_owner = InvalidOid;
static uint64 domain_functions_generation = 0;
static uint64 catalog_generation = 1;

pg_noreturn static void
refuse_domain(Oid domain, Oid function, Oid owner)
{
	HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(domain));
	Oid stranger =
	    HeapTupleIsValid(tuple) ? ((Form_pg_type) GETSTRUCT(tuple))->typowner : InvalidOid;
	char *stranger_name = GetUserNameFromId(stranger, true);
	char *owner_name = GetUserNameFromId(owner, true);

	if (stranger_name == NULL)
		stranger_name = psprintf("%u", stranger);
	if (owner_name == NULL)
		owner_name = psprintf("%u", owner);
	ereport(
	    ERROR,
	    (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
	     errmsg("function %s in the definition of domain \"%s\" would run with the rights of "
	            "\"%s\"",
	            format_procedure(function), format_type_be(domain), owner_name),
	     errdetail("The domain belongs to role \"%s\", which does not have the rights of the "
	               "stream's owner.",
	               stranger_name),
	     errhint("Let checks and default of the domain only compute, have \"%s\" create the "
	             "stream, or give it the rights: GRANT %s TO %s.",
	             stranger_name, quote_identifier(owner_name),
	             quote_identifier(stranger_name))));
}

/* --- what is in a domain --- */

/* Calls "visit" for the checks and the default of a domain, as they are stored. */
static void
visit_definition(Oid domain, bool (*visit)(Node *, void *), void *argument)
{
	Relation constraints = table_open(ConstraintRelationId, AccessShareLock);
	HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(domain));
	ScanKeyData key;
	SysScanDesc scan;
	bool isnull;
	Datum expression;

	if (HeapTupleIsValid(tuple))
	{
		expression = SysCacheGetAttr(TYPEOID, tuple, Anum_pg_type_typdefaultbin, &isnull);
		if (!isnull)
			(void) visit(stringToNode(TextDatumGetCString(expression)), argument);
		ReleaseSysCache(tuple);
	}

	ScanKeyInit(&key, Anum_pg_constraint_contypid, BTEqualStrategyNumber, F_OIDEQ,
	            ObjectIdGetDatum(domain));
	scan = systable_beginscan(constraints, ConstraintTypidIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		expression = heap_getattr(tuple, Anum_pg_constraint_conbin,
		                          RelationGetDescr(constraints), &isnull);
		if (!isnull)
			(void) visit(stringToNode(TextDatumGetCString(expression)), argument);
	}
	systable_endscan(scan);
	table_close(constraints, AccessShareLock);
}

/* --- domains that the catalogs tell of --- */

typedef struct DomainContext
{
	Oid domain;
	Oid owner;
} DomainContext;

static bool
check_function_of_domain(Oid function, void *argument)
{
	DomainContext *context = argument;

	if (!stream_function_only_computes(function))
		refuse_domain(context->domain, function, context->owner);
	return false;
}

static bool
check_definition(Node *node, void *argument)
{
	DomainContext *context = argument;

	if (node == NULL)
		return false;
	(void) check_functions_in_node(node, check_function_of_domain, context);
	domain_trust_check_cast(node, context->owner);
	return expression_tree_walker(node, check_definition, argument);
}

static void
check_domain(Oid domain, Oid owner)
{
	HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(domain));
	DomainContext context = {domain, owner};
	Form_pg_type form;
	Oid base_type;
	Oid domain_owner;

	if (!HeapTupleIsValid(tuple))
		return; /* whoever uses it next says so */
	form = (Form_pg_type) GETSTRUCT(tuple);
	base_type = form->typbasetype;
	domain_owner = form->typowner;
	ReleaseSysCache(tuple);
	if (!stream_trusts_role(domain_owner, owner))
		visit_definition(domain, check_definition, &context);
	domain_trust_check_type(base_type, owner);
}

void
domain_trust_check_columns(Oid relid, Oid owner)
{
	Relation relation = relation_open(relid, NoLock);
	TupleDesc descriptor = RelationGetDescr(relation);

	for (int i = 0; i < descriptor->natts; i++)
		if (!TupleDescAttr(descriptor, i)->attisdropped)
			domain_trust_check_type(TupleDescAttr(descriptor, i)->atttypid, owner);
	relation_close(relation, NoLock);
}

void
domain_trust_check_type(Oid type, Oid owner)
{
	Oid element;

	/* what initdb has made is a superuser's */
	if (type < FirstNormalObjectId)
		return;
	check_stack_depth();
	switch (get_typtype(type))
	{
		case TYPTYPE_DOMAIN:
			check_domain(type, owner);
			break;
		case TYPTYPE_COMPOSITE:
		{
			TupleDesc columns = lookup_rowtype_tupdesc(type, -1);

			for (int i = 0; i < columns->natts; i++)
				if (!TupleDescAttr(columns, i)->attisdropped)
					domain_trust_check_type(TupleDescAttr(columns, i)->atttypid, owner);
			ReleaseTupleDesc(columns);
			break;
		}
		case TYPTYPE_RANGE:
			domain_trust_check_type(get_range_subtype(type), owner);
			break;
		case TYPTYPE_MULTIRANGE:
			domain_trust_check_type(get_multirange_range(type), owner);
			break;
		default:
			element = get_element_type(type);
			if (OidIsValid(element))
				domain_trust_check_type(element, owner);
	}
}

void
domain_trust_check_cast(Node *node, Oid owner)
{
	switch (nodeTag(node))
	{
		case T_CoerceToDomain:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ConvertRowtypeExpr:
		case T_RowExpr:
			domain_trust_check_type(exprType(node), owner);
			break;
		default:
			break;
	}
}

/* --- domains that may be anywhere --- */

static void
at_invalidation(Datum argument, int cache, uint32 hash_value)
{
	catalog_generation++;
}

static bool
collect_function(Oid function, void *argument)
{
	Oid domain = *(Oid *) argument;
	DomainFunction *entry;
	bool found;

	entry = hash_search(domain_functions, &function, HASH_ENTER, &found);
	if (!found)
		entry->domain = domain;
	return false;
}

static bool
collect_functions(Node *node, void *argument)
{
	if (node == NULL)
		return false;
	(void) check_functions_in_node(node, collect_function, argument);
	return expression_tree_walker(node, collect_functions, argument);
}

/* Reads what the domains of all strangers call, unless that is known. */
static void
refresh_domain_functions(Oid owner)
{
	static bool registered = false;
	HASHCTL control = {.keysize = sizeof(Oid), .entrysize = sizeof(DomainFunction)};
	uint64 generation = catalog_generation;
	MemoryContext scratch;
	MemoryContext old_context;
	Relation types;
	SysScanDesc scan;
	HeapTuple tuple;

	if (domain_functions_owner == owner && domain_functions_generation == generation)
		return;
	if (!registered)
	{
		CacheRegisterSyscacheCallback(TYPEOID, at_invalidation, (Datum) 0);
		CacheRegisterSyscacheCallback(CONSTROID, at_invalidation, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHOID, at_invalidation, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, at_invalidation, (Datum) 0);
		registered = true;
	}
	domain_functions_owner = InvalidOid;
	if (domain_functions != NULL)
		hash_destroy(domain_functions);
	domain_functions =
	    hash_create("kafka domain functions", 64, &control, HASH_ELEM | HASH_BLOBS);

	scratch =
	    AllocSetContextCreate(CurrentMemoryContext, "kafka domains", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(scratch);
	types = table_open(TypeRelationId, AccessShareLock);
	scan = systable_beginscan(types, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_type form = (Form_pg_type) GETSTRUCT(tuple);
		Oid domain = form->oid;

		if (form->typtype == TYPTYPE_DOMAIN && !stream_trusts_role(form->typowner, owner))
			visit_definition(domain, collect_functions, &domain);
	}
	systable_endscan(scan);
	table_close(types, AccessShareLock);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(scratch);
	/* should something have changed meanwhile, the next one reads again */
	domain_functions_owner = owner;
	domain_functions_generation = generation;
}

/* The domain of a stranger that calls a function, or InvalidOid. */
static Oid
domain_that_calls(Oid function, Oid owner)
{
	DomainFunction *entry;

	refresh_domain_functions(owner);
	entry = hash_search(domain_functions, &function, HASH_FIND, NULL);
	return entry != NULL ? entry->domain : InvalidOid;
}

static bool
builtin_could_do_harm(Oid function)
{
	if (func_volatile(function) == PROVOLATILE_VOLATILE)
		return !stream_function_only_computes(function);
	for (int i = 0; i < lengthof(reading_functions); i++)
		if (reading_functions[i] == function)
			return true;
	return false;
}

void
domain_trust_check_builtin(Oid function, Oid owner)
{
	Oid domain;

	if (function >= FirstNormalObjectId || !builtin_could_do_harm(function))
		return;
	domain = domain_that_calls(function, owner);
	if (OidIsValid(domain))
		refuse_domain(domain, function, owner);
}

bool
domain_trust_names(Oid function, Oid owner)
{
	return function >= FirstNormalObjectId && OidIsValid(domain_that_calls(function, owner));
}

static bool
names_row_or_parameter(Node *node, void *argument)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var) || IsA(node, Param))
		return true;
	return expression_tree_walker(node, names_row_or_parameter, argument);
}

/*
 * An expression that was stored has lost its place in a text, and a domain's knows neither rows nor
 * parameters.
 */
void
domain_trust_check_call(Oid function, Node *expression, Oid owner)
{
	Oid domain;

	if (function < FirstNormalObjectId || expression == NULL)
		return;
	domain = domain_that_calls(function, owner);
	if (OidIsValid(domain) && exprLocation(expression) < 0 &&
	    !names_row_or_parameter(expression, NULL))
		refuse_domain(domain, function, owner);
}
