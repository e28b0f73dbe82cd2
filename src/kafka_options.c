/*-------------------------------------------------------------------------
 *
 * kafka_options.c
 *	  The options of servers and user mappings: a closed list of librdkafka
 *	  properties.
 *
 * A property is allowed only when it stands in the table below.  What loads
 * code, runs commands, opens listeners, or writes files of the server's host is not
 * in it.  What reads files, or switches verification off, takes a superuser or a member of
 * pg_read_server_files: whoever gives the option, and, whenever it is used, the owner of the
 * foreign server, so that no change of owner hands the right on.  Names are librdkafka's own, or the same with
 * underscores for dots.  Values are tried on a throw-away configuration, so
 * that ranges and keywords are those of the library in use.
 *
 * Options of foreign tables and their columns belong to topic_schema.c;
 * applying the properties to a consumer belongs to kafka_client.c.
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
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "catalog/pg_authid.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "kafka_hosts.h"
#include "kafka_options.h"
#include "kafka_prelude.h"
#include "topic_schema.h"

/* Shorter than librdkafka's 60 s: somebody is waiting for the answer. */
#define DEFAULT_SOCKET_TIMEOUT_MS 10000

typedef enum OptionPlace
{
	PLACE_SERVER,
	PLACE_USER_MAPPING,
	PLACE_BOTH
} OptionPlace;

#define ANY_VALUE ""

typedef struct OptionDefinition
{
	const char *name;  /* librdkafka's name */
	const char *alias; /* librdkafka's other name for it, or NULL */
	OptionPlace place;
	bool secret;
	const char *allowed;  /* the only values allowed, '|' between, any case; the
						  * first letter-exact form is what the library gets */
	const char *reserved; /* a value for pg_read_server_files only; ANY_VALUE: all are */
} OptionDefinition;

static const OptionDefinition option_definitions[] = {
    /* where, and as what */
    {"bootstrap.servers", "metadata.broker.list", PLACE_SERVER},
    {"client.id", NULL, PLACE_SERVER},
    {"client.rack", NULL, PLACE_SERVER},

    /*
	 * GSSAPI is left out because librdkafka runs kinit for it, OAUTHBEARER
	 * because its token comes from a callback, a file or a URL.
	 */
    {"security.protocol", NULL, PLACE_SERVER, false, "plaintext|ssl|sasl_plaintext|sasl_ssl"},
    {"sasl.mechanism", "sasl.mechanisms", PLACE_SERVER, false,
     "PLAIN|SCRAM-SHA-256|SCRAM-SHA-512"},
    {"sasl.username", NULL, PLACE_USER_MAPPING, true},
    {"sasl.password", NULL, PLACE_USER_MAPPING, true},
    {"ssl.ca.pem", NULL, PLACE_SERVER},
    {"ssl.certificate.pem", NULL, PLACE_BOTH},
    {"ssl.key.pem", NULL, PLACE_USER_MAPPING, true},
    {"ssl.key.password", NULL, PLACE_USER_MAPPING, true},
    {"ssl.endpoint.identification.algorithm", NULL, PLACE_SERVER, false, "https|none", "none"},
    {"enable.ssl.certificate.verification", NULL, PLACE_SERVER, false, "true|false", "false"},
    {"ssl.ca.location", NULL, PLACE_SERVER, false, NULL, ANY_VALUE},
    {"ssl.crl.location", NULL, PLACE_SERVER, false, NULL, ANY_VALUE},
    {"ssl.certificate.location", NULL, PLACE_SERVER, false, NULL, ANY_VALUE},
    {"ssl.key.location", NULL, PLACE_SERVER, false, NULL, ANY_VALUE},
    {"ssl.cipher.suites", NULL, PLACE_SERVER},
    {"ssl.curves.list", NULL, PLACE_SERVER},
    {"ssl.sigalgs.list", NULL, PLACE_SERVER},

    /* what is fetched, and how much at a time */
    {"isolation.level", NULL, PLACE_SERVER, false, "read_committed|read_uncommitted"},
    {"check.crcs", NULL, PLACE_SERVER},
    {"fetch.min.bytes", NULL, PLACE_SERVER},
    {"fetch.max.bytes", NULL, PLACE_SERVER},
    {"fetch.wait.max.ms", NULL, PLACE_SERVER},
    {"fetch.error.backoff.ms", NULL, PLACE_SERVER},
    {"fetch.message.max.bytes", "max.partition.fetch.bytes", PLACE_SERVER},
    {"receive.message.max.bytes", NULL, PLACE_SERVER},
    {"queued.max.messages.kbytes", NULL, PLACE_SERVER},

    /* connections */
    {"socket.timeout.ms", NULL, PLACE_SERVER},
    {"socket.connection.setup.timeout.ms", NULL, PLACE_SERVER},
    {"socket.keepalive.enable", NULL, PLACE_SERVER},
    {"socket.nagle.disable", NULL, PLACE_SERVER},
    {"socket.max.fails", NULL, PLACE_SERVER},
    {"socket.send.buffer.bytes", NULL, PLACE_SERVER},
    {"socket.receive.buffer.bytes", NULL, PLACE_SERVER},
    {"connections.max.idle.ms", NULL, PLACE_SERVER},
    {"reconnect.backoff.ms", NULL, PLACE_SERVER},
    {"reconnect.backoff.max.ms", NULL, PLACE_SERVER},
    {"broker.address.family", NULL, PLACE_SERVER, false, "any|v4|v6"},
    {"broker.address.ttl", NULL, PLACE_SERVER},
    {"topic.metadata.refresh.interval.ms", NULL, PLACE_SERVER},
    {"topic.metadata.refresh.fast.interval.ms", NULL, PLACE_SERVER},
    {"metadata.max.age.ms", NULL, PLACE_SERVER},
};

PG_FUNCTION_INFO_V1(kafka_validate_options);

/* "socket_timeout_ms" and "socket.timeout.ms" are the same name. */
static bool
same_name(const char *given, const char *name)
{
	for (; *given && *name; given++, name++)
		if (*given != *name && !(*given == '_' && *name == '.'))
			return false;
	return *given == *name;
}

static const OptionDefinition *
find_definition(const char *given)
{
	for (int i = 0; i < lengthof(option_definitions); i++)
	{
		const OptionDefinition *definition = &option_definitions[i];

		if (same_name(given, definition->name) ||
		    (definition->alias && same_name(given, definition->alias)))
			return definition;
	}
	return NULL;
}

/* The name as we recommend to write it: an identifier that needs no quotes. */
static char *
option_spelling(const char *name)
{
	char *spelling = pstrdup(name);

	for (char *c = spelling; *c; c++)
		if (*c == '.')
			*c = '_';
	return spelling;
}

static bool
belongs_to(const OptionDefinition *definition, OptionPlace place)
{
	return definition->place == place || definition->place == PLACE_BOTH;
}

static char *
valid_options(OptionPlace place)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < lengthof(option_definitions); i++)
		if (belongs_to(&option_definitions[i], place))
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
			                 option_spelling(option_definitions[i].name));
	return names.data;
}

pg_noreturn static void
refuse_option(const char *given, const OptionDefinition *definition, OptionPlace place)
{
	if (definition)
		ereport(ERROR,
		        (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
		         place == PLACE_SERVER
		             ? errmsg("option \"%s\" is not allowed for a server", given)
		             : errmsg("option \"%s\" is not allowed for a user mapping", given),
		         place == PLACE_SERVER
		             ? errhint("Options of a server can be seen by every user. Set it with "
		                       "CREATE USER MAPPING or ALTER USER MAPPING.")
		             : errhint("Set it with CREATE SERVER or ALTER SERVER.")));

	ereport(ERROR,
	        (errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("invalid option \"%s\"", given),
	         errhint("Valid options in this context are: %s.", valid_options(place))));
}

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

/*
 * The value to give to librdkafka for a value given by the user, or an
 * error.  The result is "value" itself or a constant or palloc'd.
 */
static const char *
checked_value(const OptionDefinition *definition, const char *given, const char *value)
{
	const char *result = value;
	rd_kafka_conf_t *configuration;
	rd_kafka_conf_res_t outcome;
	char reason[512] = "";
	char taken_as[32] = "";
	size_t taken_size = sizeof(taken_as);
	char *end;
	long number;

	if (strspn(value, " \t\r\n") == strlen(value))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("value of option \"%s\" must not be empty", given)));

	if (definition->allowed)
	{
		const char *candidate = definition->allowed;
		size_t length = strlen(value);

		result = NULL;
		while (result == NULL)
		{
			size_t candidate_length = strcspn(candidate, "|");

			if (length == candidate_length && pg_strncasecmp(candidate, value, length) == 0)
				result = pnstrdup(candidate, length);
			else if (candidate[candidate_length] == '|')
				candidate += candidate_length + 1;
			else
				break;
		}
		if (result == NULL)
		{
			StringInfoData values;

			initStringInfo(&values);
			for (const char *c = definition->allowed; *c; c++)
			{
				if (*c == '|')
					appendStringInfoString(&values, ", ");
				else
					appendStringInfoChar(&values, *c);
			}
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("invalid value for option \"%s\": \"%s\"", given, value),
			                strchr(definition->allowed, '|')
			                    ? errhint("Valid values are: %s.", values.data)
			                    : errhint("The only value allowed is \"%s\".", values.data)));
		}
	}

	configuration = rd_kafka_conf_new();
	outcome =
	    rd_kafka_conf_set(configuration, definition->name, result, reason, sizeof(reason));
	if (outcome == RD_KAFKA_CONF_OK)
		(void) rd_kafka_conf_get(configuration, definition->name, taken_as, &taken_size);
	rd_kafka_conf_destroy(configuration);

	/* librdkafka takes "10 s" for 10 */
	errno = 0;
	number = strtol(result, &end, 0);
	if (taken_as[0] != '\0' && strspn(taken_as, "-0123456789") == strlen(taken_as) &&
	    *end != '\0' && !definition->secret)
	{
		outcome = RD_KAFKA_CONF_INVALID;
		strlcpy(reason, "An integer without a unit is expected", sizeof(reason));
	}
	/* and 4294967297 for 1 */
	if ((errno == ERANGE || number < PG_INT32_MIN || number > PG_INT32_MAX) && *end == '\0' &&
	    strcmp(taken_as, result) != 0 && !definition->secret)
	{
		outcome = RD_KAFKA_CONF_INVALID;
		strlcpy(reason, "An integer of 32 bits is expected", sizeof(reason));
	}

	if (outcome == RD_KAFKA_CONF_UNKNOWN)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
		                errmsg("option \"%s\" is not supported by librdkafka %s", given,
		                       rd_kafka_version_str())));
	if (outcome != RD_KAFKA_CONF_OK && definition->secret)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("invalid value for option \"%s\"", given)));
	if (outcome != RD_KAFKA_CONF_OK)
	{
		/* librdkafka ends some of its reasons with a newline */
		reason[strcspn(reason, "\n")] = '\0';
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("invalid value for option \"%s\": \"%s\"", given, value),
		                errdetail_internal("%s.", reason)));
	}
	return result;
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
		const OptionDefinition *definition = find_definition(option->defname);
		KafkaProperty *property;

		if (definition == NULL || !belongs_to(definition, place))
			refuse_option(option->defname, definition, place);
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
		property->value = checked_value(definition, option->defname, defGetString(option));
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
