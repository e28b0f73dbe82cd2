/*-------------------------------------------------------------------------
 *
 * kafka_close.c
 *	  Ends the library's client, in bounded time.
 *
 * rd_kafka_destroy() waits for the library's threads, and has no limit.  In 2.0.2 one of them can miss
 * its end when partitions have vanished while they were being fetched: a process that waited for it
 * could be neither stopped nor terminated.  So a thread of its own does it where that may be: at the process's end,
 * and where partitions have vanished (kafka_consumer.c knows).  Whoever closes waits only so long; then the client stays as it is until
 * the process ends.  Elsewhere nothing is spent on a thread, which takes memory that may just be short.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "kafka_client.h"

/* It takes some milliseconds, on a busy machine some hundred.  A fast shutdown has 5 s in all. */
#define LONGEST_SECONDS 3

#define STACK_SIZE (1024 * 1024)

/* Belongs to whoever closes; once abandoned, to the thread. */
typedef struct Closing
{
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	rd_kafka_t *client;
	bool done;
	bool abandoned;
} Closing;

static bool some_abandoned = false;
static int exit_code = 1;

static void
free_closing(Closing *closing)
{
	pthread_mutex_destroy(&closing->mutex);
	pthread_cond_destroy(&closing->changed);
	free(closing);
}

static void *
close_client(void *argument)
{
	Closing *closing = argument;
	bool abandoned;

	rd_kafka_destroy_flags(closing->client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	pthread_mutex_lock(&closing->mutex);
	closing->done = true;
	abandoned = closing->abandoned;
	pthread_cond_signal(&closing->changed);
	pthread_mutex_unlock(&closing->mutex);
	if (abandoned)
		free_closing(closing);
	return NULL;
}

static Closing *
create_closing(rd_kafka_t *client)
{
	Closing *closing = calloc(1, sizeof(Closing));
	pthread_condattr_t attributes;

	if (closing == NULL)
		return NULL;
	closing->client = client;
	pthread_mutex_init(&closing->mutex, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&closing->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	return closing;
}

static bool
start_thread(Closing *closing, pthread_t *thread)
{
	sigset_t all_signals;
	sigset_t previous;
	pthread_attr_t attributes;
	bool started;

	/* the server's signal handlers must run on the server's thread only */
	sigfillset(&all_signals);
	pthread_sigmask(SIG_SETMASK, &all_signals, &previous);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_SIZE);
	started = pthread_create(thread, &attributes, close_client, closing) == 0;
	pthread_attr_destroy(&attributes);
	pthread_sigmask(SIG_SETMASK, &previous, NULL);
	return started;
}

bool
kafka_client_close(rd_kafka_t *client, bool bounded)
{
	Closing *closing = bounded ? create_closing(client) : NULL;
	pthread_t thread;
	struct timespec deadline;
	bool done;

	if (closing == NULL || !start_thread(closing, &thread))
	{
		if (closing != NULL)
			free_closing(closing);
		rd_kafka_destroy_flags(client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
		return true;
	}

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += LONGEST_SECONDS;
	pthread_mutex_lock(&closing->mutex);
	while (!closing->done &&
	       pthread_cond_timedwait(&closing->changed, &closing->mutex, &deadline) == 0)
		;
	done = closing->done;
	closing->abandoned = !done;
	pthread_mutex_unlock(&closing->mutex);
	if (done)
	{
		pthread_join(thread, NULL);
		free_closing(closing);
	}
	else
	{
		pthread_detach(thread);
		some_abandoned = true;
	}
	return done;
}

/* Runs before the destructors of the libraries, since it is registered last. */
static void
leave_at_once(void)
{
	_exit(exit_code);
}

void
kafka_clients_closed(int code)
{
	exit_code = code;
	if (some_abandoned)
		atexit(leave_at_once);
}
