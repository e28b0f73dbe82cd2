/*-------------------------------------------------------------------------
 *
 * kafka_client.c
 *	  Create the library's client, with what it is configured with.
 *
 * Our defaults, then the options of server and user mapping, then what nobody may change.  What options there may be is
 * left to kafka_options.c, what is done with the client to kafka_consumer.c and others.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "kafka_client.h"

typedef struct Setting
{
	const char *name;
	const char *value;
	bool optional; /* newer than the oldest librdkafka that we support */
} Setting;

/* Instead of librdkafka's defaults; options of the server come after these. */
static const Setting default_settings[] = {
    {"client.id", "kafka_ingest"},
    {"isolation.level", "read_committed"},
    {"socket.timeout.ms", "10000"},
    {"fetch.error.backoff.ms", "100"},

    /*
	 * Bound the fetch queue by its size, not by a number of messages: whenever
	 * either limit is met, librdkafka before 2.2 sleeps up to a second.
	 */
    {"queued.min.messages", "10000000"},
    {"queued.max.messages.kbytes", "65536"},
    {"fetch.queue.backoff.ms", "10", true},
};

/*
 * A fetch that waits for more messages delays the next one, with which other
 * partitions, or the same ones again, are to be read.
 */
static const Setting existing_only_settings[] = {
    {"fetch.wait.max.ms", "10"},
};

/* What the rest of the program relies on. */
static const Setting fixed_settings[] = {
    {"auto.offset.reset", "error"}, /* never jump over lost data */
    {"enable.auto.commit", "false"},
    {"enable.auto.offset.store", "false"},
    {"enable.partition.eof", "true"},
    {"allow.auto.create.topics", "false"},
    {"log.queue", "true"},           /* call back on our thread only */
    {"enable.random.seed", "false"}, /* srand() is the server's */
};

/* Applies settings; false and a reason when one is refused. */
static bool
apply_settings(rd_kafka_conf_t *configuration, const Setting *settings, int count, char *reason,
               size_t size)
{
	for (int i = 0; i < count; i++)
	{
		rd_kafka_conf_res_t outcome =
		    rd_kafka_conf_set(configuration, settings[i].name, settings[i].value, reason, size);

		if (outcome != RD_KAFKA_CONF_OK &&
		    !(outcome == RD_KAFKA_CONF_UNKNOWN && settings[i].optional))
			return false;
	}
	return true;
}

rd_kafka_t *
kafka_client_create(KafkaConsumer *consumer, const KafkaConnection *connection, char *reason,
                    size_t size)
{
	rd_kafka_conf_t *configuration = rd_kafka_conf_new();
	rd_kafka_t *client = NULL;
	bool accepted;
	ListCell *cell;

	strlcpy(reason, "Out of memory", size);
	accepted = kafka_metadata_install(configuration, consumer);
	kafka_report_install(configuration, consumer);
	kafka_peer_install(configuration, consumer->peer);
	kafka_resolve_install(configuration);
	accepted = accepted && apply_settings(configuration, default_settings,
	                                      lengthof(default_settings), reason, size);
	foreach (cell, connection->properties)
	{
		KafkaProperty *property = lfirst(cell);

		if (!accepted)
			break;
		accepted = rd_kafka_conf_set(configuration, property->name, property->value, reason,
		                             size) == RD_KAFKA_CONF_OK;
		/* librdkafka's reason quotes the value */
		if (!accepted && property->secret)
			snprintf(reason, size, "Invalid value for configuration property \"%s\"",
			         property->name);
	}
	if (accepted && connection->existing_only)
		accepted = apply_settings(configuration, existing_only_settings,
		                          lengthof(existing_only_settings), reason, size);
	accepted = accepted && apply_settings(configuration, fixed_settings,
	                                      lengthof(fixed_settings), reason, size);
	if (accepted)
	{
		sigset_t all_signals;
		sigset_t previous;

		/* The server's signal handlers must run on the server's thread only. */
		sigfillset(&all_signals);
		pthread_sigmask(SIG_SETMASK, &all_signals, &previous);
		/*
		 * When it fails, the library has freed the interceptors of the configuration, and would free them
		 * again with it: rather a few kilobytes are lost.
		 */
		client = rd_kafka_new(RD_KAFKA_CONSUMER, configuration, reason, size);
		pthread_sigmask(SIG_SETMASK, &previous, NULL);
	}
	else
		rd_kafka_conf_destroy(configuration);
	return client;
}
