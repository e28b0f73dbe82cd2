/*-------------------------------------------------------------------------
 *
 * kafka_resolve.c
 *	  Host names to addresses, without anybody having to wait for it.
 *
 * librdkafka calls getaddrinfo() on its threads, and waits for these when a client is
 * destroyed: a name server that doesn't answer would keep back the end of a process, and a
 * cancelled query, for half a minute.  So a thread of its own asks, and whoever closes
 * the consumer stops the waiting; the thread ends when the answer comes, or with
 * the process.
 *
 * Nothing here runs on the server's thread but kafka_resolve_give_up(); nothing is
 * palloc'd or raised.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netdb.h>
#include <pthread.h>

#include "kafka_client.h"

/* Guard all questions and the flags of all consumers: there are few, and they are short. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

/* Belongs to whoever asks; once abandoned, to the thread that looks for the answer. */
typedef struct Question
{
	char *node;
	char *service; /* NULL: none */
	struct addrinfo hints;
	struct addrinfo *addresses;
	int outcome; /* of getaddrinfo() */
	bool answered;
	bool abandoned;
} Question;

static void
free_question(Question *question)
{
	free(question->node);
	free(question->service);
	free(question);
}

static void *
look_for_answer(void *argument)
{
	Question *question = argument;
	struct addrinfo *addresses = NULL;
	int outcome = getaddrinfo(question->node, question->service, &question->hints, &addresses);
	bool abandoned;

	pthread_mutex_lock(&mutex);
	question->addresses = addresses;
	question->outcome = outcome;
	question->answered = true;
	abandoned = question->abandoned;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&mutex);
	if (abandoned)
	{
		if (outcome == 0)
			freeaddrinfo(addresses);
		free_question(question);
	}
	return NULL;
}

/* A thread of librdkafka has all signals blocked, and so has one that it starts. */
static bool
start_thread(Question *question)
{
	pthread_attr_t attributes;
	pthread_t thread;
	bool started;

	if (pthread_attr_init(&attributes) != 0)
		return false;
	started = pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0 &&
	          pthread_create(&thread, &attributes, look_for_answer, question) == 0;
	pthread_attr_destroy(&attributes);
	return started;
}

/* In place of getaddrinfo() and, without a node, of freeaddrinfo(). */
static int
resolve(const char *node, const char *service, const struct addrinfo *hints,
        struct addrinfo **addresses, void *opaque)
{
	KafkaConsumer *consumer = opaque;
	Question *question;
	int outcome = EAI_AGAIN;
	bool answered;

	if (node == NULL)
	{
		freeaddrinfo(*addresses);
		return 0;
	}

	question = calloc(1, sizeof(Question));
	if (question == NULL)
		return EAI_MEMORY;
	question->node = strdup(node);
	question->service = service ? strdup(service) : NULL;
	if (hints != NULL)
		question->hints = *hints;
	if (question->node == NULL || (service != NULL && question->service == NULL) ||
	    !start_thread(question))
	{
		free_question(question);
		return EAI_MEMORY;
	}

	pthread_mutex_lock(&mutex);
	while (!question->answered && !consumer->resolving_given_up)
		pthread_cond_wait(&changed, &mutex);
	answered = question->answered;
	if (answered)
	{
		outcome = question->outcome;
		*addresses = question->addresses;
	}
	else
		question->abandoned = true;
	pthread_mutex_unlock(&mutex);
	if (answered)
		free_question(question);
	return outcome;
}

void
kafka_resolve_install(rd_kafka_conf_t *configuration)
{
	rd_kafka_conf_set_resolve_cb(configuration, resolve);
}

void
kafka_resolve_give_up(KafkaConsumer *consumer)
{
	pthread_mutex_lock(&mutex);
	consumer->resolving_given_up = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&mutex);
}
