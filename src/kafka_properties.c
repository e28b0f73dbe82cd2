/*-------------------------------------------------------------------------
 *
 * kafka_properties.c
 *	  The closed list of librdkafka properties that may be set, and their values.
 *
 * A property is allowed only when it stands in the table below.  What loads
 * code, runs commands, opens listeners, or writes files of the server's host is not
 * in it.  Values are tried on a throw-away configuration, so
 * that ranges and keywords are those of the library in use.  Who may set what is left to
 * kafka_options.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "kafka_properties.h"

#include "lib/stringinfo.h"

#include "kafka_prelude.h"

#define ANY_VALUE ""

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

const OptionDefinition *
kafka_property_find(const char *given, OptionPlace place)
{
	const OptionDefinition *definition = find_definition(given);

	if (definition == NULL || !belongs_to(definition, place))
		refuse_option(given, definition, place);
	return definition;
}

const char *
kafka_property_value(const OptionDefinition *definition, const char *given, const char *value)
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
