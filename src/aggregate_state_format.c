/*-------------------------------------------------------------------------
 *
 * aggregate_state_format.c
 *	  The bytes of a stored aggregate state.
 *
 *	  seal       8 bytes, of all that follows and of the aggregate's name
 *	  flags      1 byte
 *	  signature  if FLAG_NAMES: its length (2 bytes), then strings that end in 0:
 *	             schema and name of the collation (empty: none), then per
 *	             argument type schema, name and, where the state may contain
 *	             the number itself, the OID of a type that isn't built in
 *	  payload    unless FLAG_NULL: what the serialization or send function made
 *
 * Names, not OIDs, so that a state survives dump and restore.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "aggregate_state_format.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/value.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#define FORMAT_VERSION         0x10 /* another layout gets another one */
#define FLAG_DEFAULT_COLLATION 0x01
#define FLAG_NAMES             0x02
#define FLAG_NULL              0x04
#define FLAG_NO_VALUE          0x08
#define SIGNATURE_FLAGS        (FLAG_DEFAULT_COLLATION | FLAG_NAMES)

#define SEAL_SIZE   sizeof(uint64)
#define HEADER_SIZE (SEAL_SIZE + 1)

StateSeal *
stored_state_seal(Oid aggregate)
{
	HeapTuple tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggregate));
	Form_pg_aggregate form;
	StringInfoData purpose;
	StateSeal *seal;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggregate);
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	initStringInfo(&purpose);
	appendStringInfo(&purpose, "%s %s", format_procedure_qualified(aggregate),
	                 format_type_be_qualified(form->aggtranstype));
	/* who reads the bytes matters most */
	if (OidIsValid(form->aggdeserialfn))
		appendStringInfo(&purpose, " %s", format_procedure_qualified(form->aggdeserialfn));
	ReleaseSysCache(tuple);
	seal = state_seal_load(purpose.data);
	pfree(purpose.data);
	return seal;
}

static void
append_string(StringInfo names, const char *string)
{
	appendBinaryStringInfo(names, string, strlen(string) + 1);
}

static const char *
next_string(const char **names)
{
	const char *string = *names;

	*names += strlen(string) + 1;
	return string;
}

static void
append_collation(StringInfo names, Oid collation)
{
	HeapTuple tuple;
	Form_pg_collation form;

	if (!OidIsValid(collation) || collation == DEFAULT_COLLATION_OID)
	{
		append_string(names, "");
		append_string(names, "");
		return;
	}
	tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(collation));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for collation %u", collation);
	form = (Form_pg_collation) GETSTRUCT(tuple);
	append_string(names, get_namespace_name(form->collnamespace));
	append_string(names, NameStr(form->collname));
	ReleaseSysCache(tuple);
}

/* Whoever owns bytes of type internal may have put the type's OID among them. */
static const char *
oid_to_remember(Oid type, Oid transition_type)
{
	if (transition_type != INTERNALOID || type < FirstGenbkiObjectId)
		return "";
	return psprintf("%u", type);
}

static void
append_type(StringInfo names, Oid type, Oid transition_type)
{
	HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Form_pg_type form;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", type);
	form = (Form_pg_type) GETSTRUCT(tuple);
	append_string(names, get_namespace_name(form->typnamespace));
	append_string(names, NameStr(form->typname));
	append_string(names, oid_to_remember(type, transition_type));
	ReleaseSysCache(tuple);
}

StateSignature
state_signature_make(const AggregateSupport *support)
{
	StateSignature signature = {0};
	bool has_types = aggregate_state_depends_on_types(support->aggregate);
	StringInfoData names;

	if (support->collation == DEFAULT_COLLATION_OID)
		signature.flags |= FLAG_DEFAULT_COLLATION;
	else if (OidIsValid(support->collation))
		signature.flags |= FLAG_NAMES;
	if (has_types)
		signature.flags |= FLAG_NAMES;
	if ((signature.flags & FLAG_NAMES) == 0)
		return signature;

	initStringInfo(&names);
	append_collation(&names, support->collation);
	for (int i = 0; has_types && i < support->input_count; i++)
		append_type(&names, support->input_types[i], support->transition_type);
	/* 100 types at most, of names that are shorter than 64 */
	Assert(names.len <= PG_UINT16_MAX);
	signature.length = names.len;
	signature.names = names.data;
	return signature;
}

bool
state_signature_equal(const StateSignature *a, const StateSignature *b)
{
	return a->flags == b->flags && a->length == b->length &&
	       (a->length == 0 || memcmp(a->names, b->names, a->length) == 0);
}

static Oid
find_collation(const char **names)
{
	const char *schema = next_string(names);
	const char *name = next_string(names);

	if (*name == '\0')
		return InvalidOid;
	return get_collation_oid(list_make2(makeString(pstrdup(schema)), makeString(pstrdup(name))),
	                         false);
}

static Oid
find_type(const char **names)
{
	const char *schema = next_string(names);
	const char *name = next_string(names);
	const char *remembered_oid = next_string(names);
	Oid namespace_id = get_namespace_oid(schema, true);
	Oid type = InvalidOid;

	if (OidIsValid(namespace_id))
		type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum(name),
		                       ObjectIdGetDatum(namespace_id));
	if (!OidIsValid(type))
		ereport(ERROR,
		        (errcode(ERRCODE_UNDEFINED_OBJECT),
		         errmsg("type \"%s.%s\" of an aggregate state does not exist", schema, name),
		         errhint("Rename the type back, or reset the stream and start again.")));
	if (*remembered_oid != '\0' && strcmp(remembered_oid, psprintf("%u", type)) != 0)
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("aggregate state was made with another type \"%s.%s\"", schema, name),
		         errdetail("The type has been created again since, as by a restore from a "
		                   "dump, and the state refers to it by number."),
		         errhint("Reset the stream and start again.")));
	return type;
}

AggregateSupport *
state_signature_resolve(Oid aggregate, const StateSignature *signature)
{
	const char *names = signature->names;
	const char *end = names + signature->length;
	Oid collation = InvalidOid;
	Oid types[FUNC_MAX_ARGS];
	int type_count = 0;

	if (signature->length > 0)
	{
		collation = find_collation(&names);
		while (names < end && type_count < FUNC_MAX_ARGS)
			types[type_count++] = find_type(&names);
	}
	if (signature->flags & FLAG_DEFAULT_COLLATION)
		collation = DEFAULT_COLLATION_OID;
	return aggregate_support_load(aggregate, type_count > 0 ? type_count : -1, types,
	                              collation);
}

void
stored_state_read(Oid aggregate, const StateSeal *seal, const bytea *bytes, StoredState *stored)
{
	const char *data;
	const char *position;
	const char *end;
	uint64 value;
	uint8 flags;

	memset(stored, 0, sizeof(StoredState));
	stored->no_value = true;
	if (bytes == NULL)
		return;

	data = VARDATA_ANY(bytes);
	end = data + VARSIZE_ANY_EXHDR(bytes);
	if (end - data >= HEADER_SIZE)
		memcpy(&value, data, SEAL_SIZE);
	if (end - data < HEADER_SIZE ||
	    !state_seal_matches(seal, pg_ntoh64(value), data + SEAL_SIZE, end - data - SEAL_SIZE))
		ereport(
		    ERROR,
		    (errcode(ERRCODE_DATA_CORRUPTED),
		     errmsg("these bytes are not a state of aggregate \"%s\"",
		            format_procedure(aggregate)),
		     errdetail("They were not made by kafka.partial_state or kafka.combine_states for "
		               "this aggregate in this database, or were changed since."),
		     errhint(
		         "After the aggregate or its types were renamed or redefined, or their state "
		         "changed with a new version of PostgreSQL, reset the stream.")));

	/* from here on these are our own bytes */
	flags = (uint8) data[SEAL_SIZE];
	if ((flags & 0xf0) != FORMAT_VERSION)
		ereport(ERROR,
		        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		         errmsg("state of aggregate \"%s\" was made by another version of kafka_ingest",
		                format_procedure(aggregate)),
		         errhint("Use that version, or reset the stream and start again.")));
	position = data + HEADER_SIZE;
	stored->signature.flags = flags & SIGNATURE_FLAGS;
	if (flags & FLAG_NAMES)
	{
		uint16 length;

		memcpy(&length, position, sizeof(length));
		position += sizeof(length);
		stored->signature.length = pg_ntoh16(length);
		stored->signature.names = position;
		position += stored->signature.length;
	}
	stored->no_value = (flags & FLAG_NO_VALUE) != 0;
	if ((flags & FLAG_NULL) == 0)
	{
		stored->payload = position;
		stored->payload_length = end - position;
	}
}

bytea *
stored_state_make(AggregateSupport *support, const StateSeal *seal,
                  const StateSignature *signature, const TransitionState *state)
{
	bytea *payload = aggregate_serialize(support, state);
	Size payload_length = payload == NULL ? 0 : VARSIZE_ANY_EXHDR(payload);
	Size length = HEADER_SIZE + payload_length;
	uint8 flags = FORMAT_VERSION | signature->flags;
	uint64 value;
	bytea *bytes;
	char *position;

	if (payload == NULL && state->no_value && signature->length == 0)
		return NULL;
	if (payload == NULL)
		flags |= state->no_value ? FLAG_NULL | FLAG_NO_VALUE : FLAG_NULL;
	if (flags & FLAG_NAMES)
		length += sizeof(uint16) + signature->length;
	if (length > MaxAllocSize - VARHDRSZ)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
		                errmsg("state of aggregate \"%s\" has grown beyond %d bytes",
		                       format_procedure(support->aggregate), (int) MaxAllocSize)));

	bytes = palloc(VARHDRSZ + length);
	SET_VARSIZE(bytes, VARHDRSZ + length);
	position = VARDATA(bytes) + SEAL_SIZE;
	*position++ = (char) flags;
	if (flags & FLAG_NAMES)
	{
		uint16 names_length = pg_hton16(signature->length);

		memcpy(position, &names_length, sizeof(names_length));
		position += sizeof(names_length);
		memcpy(position, signature->names, signature->length);
		position += signature->length;
	}
	if (payload != NULL)
		memcpy(position, VARDATA_ANY(payload), payload_length);
	value = pg_hton64(state_seal_compute(seal, VARDATA(bytes) + SEAL_SIZE, length - SEAL_SIZE));
	memcpy(VARDATA(bytes), &value, SEAL_SIZE);
	return bytes;
}
