/*-------------------------------------------------------------------------
 *
 * kafka_peer.c
 *	  Who is at the other end: allowed addresses, and why a certificate is
 *	  not trusted.
 *
 * These callbacks are called on librdkafka's threads: they touch nothing of
 * the server's, and leave a text for our thread under a mutex.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>

#include "kafka_client.h"
#include "kafka_hosts.h"

struct KafkaPeer
{
	const AllowedHosts *allowed; /* NULL: all */
	pthread_mutex_t mutex;
	char reason[512]; /* of the last refusal; empty: none */
	const char *hint; /* a constant */
};

/* OpenSSL's codes; they have not changed since it has them. */
static const struct
{
	int code;
	const char *reason;
	const char *hint;
} certificate_errors[] = {
    {9, "it is not valid yet", "Compare the clocks of this server and of the broker."},
    {10, "it has expired", "Renew the broker's certificate, or that of its authority."},
    {18, "it is self-signed and not trusted", "Give it in the server's option ssl_ca_pem."},
    {19, "its authority is not trusted",
     "Give the authority's certificate in the server's option ssl_ca_pem."},
    {20, "its authority is not known",
     "Give the authority's certificate in the server's option ssl_ca_pem."},
    {21, "its authority is not known",
     "Give the authority's certificate in the server's option ssl_ca_pem."},
    {62, "it is for another host name",
     "Use one of the names of the certificate in bootstrap_servers and in the broker's "
     "advertised.listeners."},
    {64, "it is for another address",
     "Use one of the names of the certificate in bootstrap_servers and in the broker's "
     "advertised.listeners."},
};

static void
note_refusal(KafkaPeer *peer, const char *reason, const char *hint)
{
	pthread_mutex_lock(&peer->mutex);
	strlcpy(peer->reason, reason, sizeof(peer->reason));
	peer->hint = hint;
	pthread_mutex_unlock(&peer->mutex);
}

/* Connects a socket, if the address is allowed; returns errno. */
static int
connect_if_allowed(int socket, const struct sockaddr *address, int length, const char *node,
                   void *opaque)
{
	KafkaPeer *peer = ((KafkaConsumer *) opaque)->peer;

	if (!kafka_hosts_allow(peer->allowed, node, address))
	{
		char host[NI_MAXHOST] = "?";
		char port[NI_MAXSERV] = "?";
		char reason[512];

		(void) getnameinfo(address, length, host, sizeof(host), port, sizeof(port),
		                   NI_NUMERICHOST | NI_NUMERICSERV);
		snprintf(
		    reason, sizeof(reason),
		    "Broker \"%.200s\" at address %s, port %s, is not in kafka_ingest.allowed_hosts",
		    node, host, port);
		note_refusal(peer, reason,
		             "Ask the administrator of this server to add it to that setting.");
		return EPERM;
	}
	if (connect(socket, address, length) != 0 && errno != EINPROGRESS)
		return errno;
	return 0;
}

/* Agrees with OpenSSL in all cases, but remembers what it had to say. */
static int
note_certificate_error(rd_kafka_t *client, const char *broker, int32_t broker_id,
                       int *x509_error, int depth, const char *certificate, size_t size,
                       char *error_text, size_t error_text_size, void *opaque)
{
	char reason[512];
	const char *what = NULL;
	const char *hint = "Check the option ssl_ca_pem of the server.";

	if (*x509_error == 0)
		return 1;
	for (int i = 0; i < lengthof(certificate_errors); i++)
	{
		if (certificate_errors[i].code == *x509_error)
		{
			what = certificate_errors[i].reason;
			hint = certificate_errors[i].hint;
		}
	}
	if (what != NULL)
		snprintf(error_text, error_text_size, "%s", what);
	else
		snprintf(error_text, error_text_size, "OpenSSL's verification error %d", *x509_error);
	snprintf(reason, sizeof(reason), "The certificate of broker \"%.200s\" was refused: %s",
	         broker, error_text);
	note_refusal(((KafkaConsumer *) opaque)->peer, reason, hint);
	return 0;
}

KafkaPeer *
kafka_peer_create(MemoryContext context)
{
	MemoryContext previous = MemoryContextSwitchTo(context);
	KafkaPeer *peer = palloc0(sizeof(KafkaPeer));

	pthread_mutex_init(&peer->mutex, NULL);
	peer->allowed = kafka_hosts_current();
	MemoryContextSwitchTo(previous);
	return peer;
}

void
kafka_peer_install(rd_kafka_conf_t *configuration, const KafkaPeer *peer)
{
	if (peer->allowed != NULL)
		rd_kafka_conf_set_connect_cb(configuration, connect_if_allowed);
	/* without TLS in the library there are no certificates */
	(void) rd_kafka_conf_set_ssl_cert_verify_cb(configuration, note_certificate_error);
}

bool
kafka_peer_refusal(KafkaPeer *peer, char *reason, size_t size, const char **hint)
{
	bool found;

	pthread_mutex_lock(&peer->mutex);
	found = peer->reason[0] != '\0';
	if (found)
	{
		strlcpy(reason, peer->reason, size);
		*hint = peer->hint;
	}
	pthread_mutex_unlock(&peer->mutex);
	return found;
}

void
kafka_peer_forget_refusal(KafkaPeer *peer)
{
	pthread_mutex_lock(&peer->mutex);
	peer->reason[0] = '\0';
	pthread_mutex_unlock(&peer->mutex);
}
