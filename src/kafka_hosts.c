/*-------------------------------------------------------------------------
 *
 * kafka_hosts.c
 *	  The setting kafka_ingest.allowed_hosts: which brokers may be talked to.
 *
 * A list of names (kafka.example.com), suffixes (*.example.com) and addresses
 * (10.1.0.0/16, [2001:db8::]/32), each with or without a port.  Asked twice: for the
 * servers that an option names, and, by kafka_peer.c, for every address
 * right before it is connected to, because brokers tell clients of further ones.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "kafka_hosts.h"

#define DEFAULT_PORT     9092
#define HOST_NAME_LENGTH 256

typedef struct NetworkAddress
{
	int family; /* AF_INET, AF_INET6, or 0: none */
	unsigned char bytes[16];
} NetworkAddress;

typedef struct AllowedHost
{
	char name[HOST_NAME_LENGTH]; /* a suffix starts with a dot; empty: an address */
	NetworkAddress network;
	int prefix_bits;
	int port; /* 0: any */
} AllowedHost;

struct AllowedHosts
{
	int count;
	AllowedHost hosts[FLEXIBLE_ARRAY_MEMBER];
};

static char *allowed_hosts = NULL;

uint32 kafka_hosts_changes = 0;

static NetworkAddress
network_address(const char *text)
{
	NetworkAddress result = {0};

	if (inet_pton(AF_INET, text, result.bytes) == 1)
		result.family = AF_INET;
	else if (inet_pton(AF_INET6, text, result.bytes) == 1)
		result.family = AF_INET6;
	return result;
}

/*
 * Splits "host", "host:port", "[host]" or "[host]:port"; *port is 0 when there
 * is none.  False when it is none of these.
 */
static bool
split_host(const char *text, char *host, int *port)
{
	const char *colon = strrchr(text, ':');
	const char *bracket = text[0] == '[' ? strchr(text, ']') : NULL;
	const char *end = text + strlen(text);
	NetworkAddress whole = network_address(text);

	*port = 0;
	if (colon != NULL && whole.family != AF_INET6 && (bracket == NULL || colon > bracket))
	{
		char *rest;
		long number = strtol(colon + 1, &rest, 10);

		if (colon[1] < '0' || colon[1] > '9' || *rest != '\0' || number < 1 || number > 65535)
			return false;
		*port = (int) number;
		end = colon;
	}
	/* what is between brackets; "[2001:db8::]/32" keeps what follows them */
	if (text[0] == '[')
	{
		int inside = bracket == NULL ? 0 : (int) (bracket - text - 1);

		/* librdkafka takes what is between the brackets for the host, and passes over the rest */
		if (bracket == NULL || end - text > HOST_NAME_LENGTH ||
		    (bracket + 1 != end && bracket[1] != '/'))
			return false;
		return snprintf(host, HOST_NAME_LENGTH, "%.*s%.*s", inside, text + 1,
		                (int) (end - bracket - 1), bracket + 1) > 0;
	}
	if (end == text || end - text >= HOST_NAME_LENGTH)
		return false;
	strlcpy(host, text, end - text + 1);
	return true;
}

/* Reads one item of the list; false when it makes no sense. */
static bool
read_item(const char *text, AllowedHost *item)
{
	char host[HOST_NAME_LENGTH];
	char *slash;

	memset(item, 0, sizeof(AllowedHost));
	if (!split_host(text, host, &item->port))
		return false;
	slash = strchr(host, '/');
	if (slash != NULL)
		*slash = '\0';
	item->network = network_address(host);
	if (item->network.family != 0)
	{
		int width = item->network.family == AF_INET ? 32 : 128;
		char *rest;

		item->prefix_bits = width;
		if (slash == NULL)
			return true;
		item->prefix_bits = (int) strtol(slash + 1, &rest, 10);
		return slash[1] >= '0' && slash[1] <= '9' && *rest == '\0' &&
		       item->prefix_bits <= width;
	}
	if (slash != NULL ||
	    strspn(host[0] == '*' ? host + 1 : host,
	           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") !=
	        strlen(host) - (host[0] == '*' ? 1 : 0) ||
	    (host[0] == '*' && (host[1] != '.' || host[2] == '\0')))
		return false;
	strlcpy(item->name, host[0] == '*' ? host + 1 : host, sizeof(item->name));
	return true;
}

/* The items of a list, palloc'd; NULL and *bad set when one makes no sense. */
static AllowedHosts *
read_list(const char *text, char **bad)
{
	char *copy = pstrdup(text);
	int commas = 0;
	AllowedHosts *result;
	char *position = NULL;

	for (const char *c = text; *c; c++)
		commas += *c == ',';
	result = palloc(offsetof(AllowedHosts, hosts) + sizeof(AllowedHost) * (commas + 1));
	result->count = 0;
	for (char *item = strtok_r(copy, ",", &position); item != NULL;
	     item = strtok_r(NULL, ",", &position))
	{
		char *end;

		item += strspn(item, " \t\r\n");
		end = item + strlen(item);
		while (end > item && strchr(" \t\r\n", end[-1]) != NULL)
			*--end = '\0';
		if (!read_item(item, &result->hosts[result->count]))
		{
			*bad = item;
			return NULL;
		}
		result->count++;
	}
	return result;
}

/* --- matching; on any thread --- */

static bool
name_matches(const AllowedHost *item, const char *host)
{
	size_t length = strlen(host);
	size_t suffix = strlen(item->name);

	if (item->name[0] == '.')
		return length > suffix && pg_strcasecmp(host + length - suffix, item->name) == 0;
	return pg_strcasecmp(host, item->name) == 0;
}

static bool
address_matches(const AllowedHost *item, const NetworkAddress *address)
{
	int whole_bytes = item->prefix_bits / 8;
	int rest = item->prefix_bits % 8;

	if (address->family == 0 || item->network.family != address->family ||
	    memcmp(item->network.bytes, address->bytes, whole_bytes) != 0)
		return false;
	return rest == 0 ||
	       (item->network.bytes[whole_bytes] ^ address->bytes[whole_bytes]) >> (8 - rest) == 0;
}

static bool
matches(const AllowedHosts *hosts, const char *host, const NetworkAddress *address, int port)
{
	for (int i = 0; i < hosts->count; i++)
	{
		const AllowedHost *item = &hosts->hosts[i];

		if (item->port != 0 && item->port != port)
			continue;
		if (item->name[0] != '\0' ? name_matches(item, host) : address_matches(item, address))
			return true;
	}
	return false;
}

/* Takes an IPv4 address that is written as an IPv6 one for what it is. */
static NetworkAddress
socket_address(const struct sockaddr *address, int *port)
{
	static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	NetworkAddress result = {0};

	*port = 0;
	if (address->sa_family == AF_INET)
	{
		const struct sockaddr_in *v4 = (const struct sockaddr_in *) address;

		result.family = AF_INET;
		memcpy(result.bytes, &v4->sin_addr, 4);
		*port = ntohs(v4->sin_port);
	}
	else if (address->sa_family == AF_INET6)
	{
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *) address;
		const unsigned char *bytes = (const unsigned char *) &v6->sin6_addr;
		bool is_v4 = memcmp(bytes, mapped, sizeof(mapped)) == 0;

		result.family = is_v4 ? AF_INET : AF_INET6;
		memcpy(result.bytes, is_v4 ? bytes + 12 : bytes, is_v4 ? 4 : 16);
		*port = ntohs(v6->sin6_port);
	}
	return result;
}

bool
kafka_hosts_allow(const AllowedHosts *hosts, const char *node, const struct sockaddr *address)
{
	const char *scheme = strstr(node, "://");
	char text[HOST_NAME_LENGTH + 8];
	char host[HOST_NAME_LENGTH];
	int port;
	int ignored;
	NetworkAddress network = socket_address(address, &port);

	/* librdkafka 2.0.2 gives "ssl://name:9092/bootstrap", newer ones "name:9092" */
	strlcpy(text, scheme ? scheme + 3 : node, sizeof(text));
	text[strcspn(text, "/")] = '\0';
	if (!split_host(text, host, &ignored))
		host[0] = '\0';
	return matches(hosts, host, &network, port);
}

/* --- the setting --- */

static bool
check_setting(char **newval, void **extra, GucSource source)
{
	char *bad = NULL;

	if (read_list(*newval, &bad) != NULL)
		return true;
	GUC_check_errdetail("Invalid host \"%s\".", bad);
	GUC_check_errhint(
	    "A list of host names, *.suffixes and addresses as in 10.1.0.0/16, with or "
	    "without a port, is expected.");
	return false;
}

static void
assign_setting(const char *newval, void *extra)
{
	if (allowed_hosts == NULL || strcmp(allowed_hosts, newval) != 0)
		kafka_hosts_changes++;
}

void
kafka_hosts_define_setting(void)
{
	DefineCustomStringVariable("kafka_ingest.allowed_hosts",
	                           "Hosts that may be connected to as brokers.",
	                           "An empty list allows every host.", &allowed_hosts, "",
	                           PGC_SIGHUP, 0, check_setting, assign_setting, NULL);
}

AllowedHosts *
kafka_hosts_current(void)
{
	char *bad;

	if (allowed_hosts == NULL || allowed_hosts[0] == '\0')
		return NULL;
	return read_list(allowed_hosts, &bad);
}

void
kafka_hosts_check_servers(const char *servers)
{
	AllowedHosts *hosts = kafka_hosts_current();
	char *copy;
	char *position = NULL;
	bool by_address = false;

	if (hosts == NULL)
		return;
	for (int i = 0; i < hosts->count; i++)
		by_address |= hosts->hosts[i].name[0] == '\0';

	copy = pstrdup(servers);
	for (char *server = strtok_r(copy, ", \t\r\n", &position); server != NULL;
	     server = strtok_r(NULL, ", \t\r\n", &position))
	{
		char *scheme = strstr(server, "://");
		char host[HOST_NAME_LENGTH] = "";
		int port = 0;
		NetworkAddress address;

		if (split_host(scheme ? scheme + 3 : server, host, &port))
		{
			address = network_address(host);
			if (matches(hosts, host, &address, port ? port : DEFAULT_PORT))
				continue;
			/* a name of an address that may be allowed: seen when it is connected to */
			if (address.family == 0 && by_address)
				continue;
		}
		ereport(ERROR,
		        (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		         errmsg("host \"%s\" is not allowed", server),
		         errdetail("Brokers must be in kafka_ingest.allowed_hosts."),
		         errhint("Ask the administrator of this server to add it to that setting.")));
	}
}
