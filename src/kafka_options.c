/*-------------------------------------------------------------------------
 *
 * kafka_options.c
 *	  The options of servers and user mappings, and who may set which.
 *
 * What reads files, or switches verification off, takes a superuser or a member of
 * pg_read_server_files: whoever gives the option, and, whenever it is used, the owner of the
 * foreign server, so that no change of owner hands the right on.
 *
 * Which properties there are belongs to kafka_properties.c; options of foreign tables and
 * their columns to topic_schema.c; applying the properties to a consumer to kafka_client.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "catalog/pg_authid.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "kafka_hosts.h"
#include "kafka_options.h"
#include "kafka_properties.h"
#include "topic_schema.h"

/* Shorter than librdkafka's 60 s: somebody is waiting for the answer. */
#define DEFAULT_SOCKET_TIMEOUT_MS 10000

PG_FUNCTION_INFO_V1(kafka_validate_options);

/* Reading files of the server's host, as the server, is a right of few. */
static void
check_reserved(const OptionDefinition *definition, const char *given, const char *value,
               Oid role)
{
	if (definition->reserved == NULL ||
	    (definition->reserved[0] != '\0' && pg_strcasecmp(definition->reserved, value) != 0) ||
	    superuser_arg(role) || has_privs_of_role(role, ROLE_PG_READ_SERVER_FILES))
		return;
	ereport(ERROR,
	        (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
	         definition->reserved[0] == '\0'
	             ? errmsg("role \"%s\" may not use the option \"%s\"",
	                      GetUserNameFromId(role, false), given)
	             : errmsg("role \"%s\" may not set the option \"%s\" to \"%s\"",
	                      GetUserNameFromId(role, false), given, value),
	         errdetail("Superusers and members of pg_read_server_files may set it, and the "
	                   "owner of the foreign server must be one of them."),
	         definition->reserved[0] == '\0'
	             ? errhint("Give certificates and keys as PEM text: ssl_ca_pem for the server, "
	                       "ssl_certificate_pem and ssl_key_pem in the user mapping.")
	             : errhint("Give the certificate of a private authority in ssl_ca_pem.")));
}

/* A file of certificates may have the key, too; everybody sees the option, and errors show it. */
static void
refuse_private_key(const OptionDefinition *definition, const char *given, const char *value)
{
	if (!definition->secret && strstr(value, "PRIVATE KEY-----") != NULL)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		         errmsg("option \"%s\" must not have a private key in it", given),
		         errhint("Set ssl_key_pem with CREATE USER MAPPING or ALTER USER MAPPING, "
		                 "and consider this key known to others.")));
}

/* The value of a property in a resolved list, or NULL. */
static const char *
property_value(List *properties, const char *name)
{
	ListCell *cell;

	foreach (cell, properties)
	{
		KafkaProperty *property = lfirst(cell);

		if (strcmp(property->name, name) == 0)
			return property->value;
	}
	return NULL;
}

/*
 * Checks the options of one object, for which "role" answers, and returns them
 * as properties.
 */
static List *
resolve_options(List *options, OptionPlace place, Oid role)
{
	List *properties = NIL;
	ListCell *cell;

	foreach (cell, options)
	{
		DefElem *option = lfirst(cell);
		const OptionDefinition *definition = kafka_property_find(option->defname, place);
		KafkaProperty *property;

		if (property_value(properties, definition->name))
			ereport(ERROR,
			        (errcode(ERRCODE_SYNTAX_ERROR),
			         errmsg("option \"%s\" is given more than once", option->defname),
			         errdetail("It stands for librdkafka's property \"%s\".", definition->name),
			         errhint("Give an option under one of its names only.")));

		refuse_private_key(definition, option->defname, defGetString(option));
		check_reserved(definition, option->defname, defGetString(option), role);
		property = palloc(sizeof(KafkaProperty));
		property->name = definition->name;
		property->secret = definition->secret;
		property->value =
		    kafka_property_value(definition, option->defname, defGetString(option));
		properties = lappend(properties, property);
	}
	return properties;
}

/* What must be there, and what must not be left to librdkafka's default. */
static void
check_server_properties(List *properties)
{
	const char *protocol = property_value(properties, "security.protocol");

	if (property_value(properties, "bootstrap.servers") == NULL)
		ereport(ERROR, (errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
		                errmsg("option \"bootstrap_servers\" is required"),
		                errhint("Give the cluster's brokers, as in OPTIONS (bootstrap_servers "
		                        "'host1:9092,host2:9092').")));

	kafka_hosts_check_servers(property_value(properties, "bootstrap.servers"));

	/* The default would be GSSAPI, which runs a command. */
	if (protocol && strncmp(protocol, "sasl", 4) == 0 &&
	    property_value(properties, "sasl.mechanism") == NULL)
		ereport(ERROR, (errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
		                errmsg("option \"sasl_mechanism\" is required with security_protocol "
		                       "\"%s\"",
		                       protocol),
		                errhint("Valid values are: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512.")));
}

void
kafka_options_validate(List *options, Oid catalog)
{
	if (catalog == ForeignServerRelationId)
		check_server_properties(resolve_options(options, PLACE_SERVER, GetUserId()));
	else if (catalog == UserMappingRelationId)
		(void) resolve_options(options, PLACE_USER_MAPPING, GetUserId());
	else if (catalog == ForeignTableRelationId)
		topic_schema_validate_table_options(options);
	else if (catalog == AttributeRelationId)
		topic_schema_validate_column_options(options);
	else if (options != NIL)
		ereport(ERROR,
		        (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
		         errmsg("invalid option \"%s\"", ((DefElem *) linitial(options))->defname),
		         errhint("There are no valid options in this context. Options of a cluster "
		                 "belong to CREATE SERVER.")));
}

/* SQL: the validator of the foreign data wrapper. */
Datum
kafka_validate_options(PG_FUNCTION_ARGS)
{
	kafka_options_validate(untransformRelOptions(PG_GETARG_DATUM(0)), PG_GETARG_OID(1));
	PG_RETURN_VOID();
}

/*
 * Options of the mapping of a user, else of PUBLIC, else NIL.  Unlike
 * GetUserMapping(), no mapping is no error: a cluster may need no secret.
 */
static List *
user_mapping_options(Oid server_id, Oid user_id)
{
	HeapTuple mapping;
	Datum options;
	bool isnull;
	List *result = NIL;

	mapping = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(user_id),
	                          ObjectIdGetDatum(server_id));
	if (!HeapTupleIsValid(mapping))
		mapping = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
		                          ObjectIdGetDatum(server_id));
	if (!HeapTupleIsValid(mapping))
		return NIL;

	options = SysCacheGetAttr(USERMAPPINGUSERSERVER, mapping, Anum_pg_user_mapping_umoptions,
	                          &isnull);
	if (!isnull)
		result = untransformRelOptions(options);
	ReleaseSysCache(mapping);
	return result;
}

KafkaConnection *
kafka_connection_load(Oid server_id, Oid user_id)
{
	ForeignServer *server = GetForeignServer(server_id);
	KafkaConnection *connection = palloc0(sizeof(KafkaConnection));
	List *of_server = resolve_options(server->options, PLACE_SERVER, server->owner);
	List *of_user =
	    resolve_options(user_mapping_options(server_id, user_id), PLACE_USER_MAPPING, user_id);
	const char *protocol;
	const char *timeout;
	ListCell *cell;

	check_server_properties(of_server);

	/* A certificate may stand in both: the user's own goes with the user's key. */
	foreach (cell, of_server)
	{
		KafkaProperty *property = lfirst(cell);

		if (property_value(of_user, property->name) == NULL)
			connection->properties = lappend(connection->properties, property);
	}
	connection->properties = list_concat(connection->properties, of_user);

	protocol = property_value(of_server, "security.protocol");
	if (property_value(of_user, "sasl.username") != NULL &&
	    (protocol == NULL || pg_strncasecmp(protocol, "sasl_", 5) != 0))
		ereport(
		    ERROR,
		    (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
		     errmsg("user mapping of server \"%s\" has a sasl_username, but the server does "
		            "not use SASL",
		            server->servername),
		     errhint("Set the server's option security_protocol to sasl_ssl or "
		             "sasl_plaintext, and sasl_mechanism.")));

	connection->server_id = server_id;
	connection->server_name = server->servername;
	timeout = property_value(connection->properties, "socket.timeout.ms");
	connection->lookup_timeout_ms =
	    timeout ? (int) strtol(timeout, NULL, 0) : DEFAULT_SOCKET_TIMEOUT_MS;
	return connection;
}
