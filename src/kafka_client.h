/*-------------------------------------------------------------------------
 *
 * kafka_client.h
 *	  What the kafka_*.c files share about a consumer; included by them only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KAFKA_CLIENT_H
#define KAFKA_CLIENT_H

#include "postgres.h"
#include "lib/ilist.h"
#include "nodes/bitmapset.h"
#include "port/atomics.h"
#include "portability/instr_time.h"

#include "kafka_consumer.h"
#include "kafka_prelude.h"

#define KAFKA_EVENT_TYPES (KAFKA_EVENT_UNAVAILABLE + 1)
#define TAKE_AT_ONCE      256 /* messages per call of the library */
#define LOG_LINES_AT_ONCE 16

/*
 * What librdkafka's callbacks report.  They run on our thread, but inside the
 * library, where nothing may be allocated or raised: they only fill this.
 */
typedef struct KafkaReports
{
	struct
	{
		int level; /* as in syslog */
		int known; /* its number among the known lines: see kafka_report.c */
		char text[512];
	} log_lines[LOG_LINES_AT_ONCE];
	int log_line_count;
	int log_lines_lost;

	/* events of the whole connection, one of each type, not yet handed out */
	bool pending[KAFKA_EVENT_TYPES];
	char pending_text[KAFKA_EVENT_TYPES][512];
	instr_time handed_out_at[KAFKA_EVENT_TYPES]; /* zero: not since all was well */

	/* the last error that says a reason, until something works again */
	rd_kafka_resp_err_t last_error;
	char last_error_text[512];
	int last_error_says; /* how much: see kafka_report.c */
	instr_time last_error_at;
	uint32 authentication_failures; /* ever */
} KafkaReports;

/* When to wake the library's threads: see kafka_flow.c. */
typedef struct KafkaFlow
{
	size_t wake_after; /* bytes; 0: never */
	size_t taken;      /* since the last time */
	const char *username;
	const char *password;
} KafkaFlow;

typedef struct KafkaPeer KafkaPeer;

/* In the memory context that a consumer is to be closed with. */
typedef struct KafkaCloser
{
	MemoryContextCallback callback;
	struct KafkaConsumer *consumer; /* NULL: closed */
} KafkaCloser;

struct KafkaConsumer
{
	rd_kafka_t *client; /* NULL: closed */
	rd_kafka_topic_t *topic;
	rd_kafka_queue_t *fetch_queue;
	rd_kafka_queue_t *main_queue;
	int wake_pipe[2];                   /* librdkafka writes when a queue gets non-empty */
	pg_atomic_uint32 metadata_requests; /* counted by the library's threads */
	int reserved_descriptors;
	Bitmapset *started;       /* partitions being fetched */
	bool partitions_vanished; /* while they were */

	char *topic_name;
	char *server_name;
	char *cluster_id;
	int lookup_timeout_ms;

	/* taken from the fetch queue, but not handed out yet */
	rd_kafka_message_t *taken[TAKE_AT_ONCE];
	int taken_count;
	int taken_next;

	/* by partition: behind the last event that came in the place of a message */
	int64 *event_positions;
	int event_position_count;

	KafkaFlow flow;
	KafkaReports reports;
	KafkaPeer *peer;
	bool resolving_given_up; /* kafka_resolve.c's, under its mutex */

	MemoryContext context; /* its own: all that is here, and what the library's threads use */
	KafkaCloser *closer;
	dlist_node node; /* in the list of open consumers */
};

/* kafka_close.c */

/*
 * Destroys a client, for which nothing else may be used any more.  bounded: it is not waited for long, see there.
 * False: it could not be ended in time.  Then its threads go on until the process ends, and what their callbacks
 * use must stay.
 */
extern bool kafka_client_close(rd_kafka_t *client, bool bounded);

/*
 * To be called with the process's exit code after its last client has been closed: if there are threads
 * left, the process will end without the destructors of the libraries that they use.
 */
extern void kafka_clients_closed(int code);

/* kafka_client.c */

/*
 * Creates a consumer's client; NULL and a reason, which holds no secret, when the library refuses.  Raises nothing.
 */
extern rd_kafka_t *kafka_client_create(KafkaConsumer *consumer,
                                       const KafkaConnection *connection, char *reason,
                                       size_t size);

/* kafka_message.c */

/* Appends a message, which the batch then owns; raises nothing if there is room. */
extern void kafka_message_batch_append(KafkaMessageBatch *batch, rd_kafka_message_t *message);
/* Makes room for n more messages of a consumer. */
extern void kafka_message_batch_reserve(KafkaMessageBatch *batch, KafkaConsumer *consumer,
                                        int n);
/* Releases the messages of all batches that were filled from a consumer. */
extern void kafka_message_batches_release(KafkaConsumer *consumer);

/* kafka_flow.c */

/* Once, when the client has been created. */
extern void kafka_flow_start(KafkaConsumer *consumer, const KafkaConnection *connection);
/* Messages of so many bytes have been taken out of the fetch queue. */
extern void kafka_flow_taken(KafkaConsumer *consumer, size_t bytes);

/* kafka_metadata.c */

/* Counts requests in consumer->metadata_requests; false: the library refuses. */
extern bool kafka_metadata_install(rd_kafka_conf_t *configuration, KafkaConsumer *consumer);

/* kafka_peer.c */

/*
 * Has every address checked against kafka_ingest.allowed_hosts, as it is at the
 * creation, before it is connected to, and notes why certificates are refused.
 */
extern KafkaPeer *kafka_peer_create(MemoryContext context);
extern void kafka_peer_install(rd_kafka_conf_t *configuration, const KafkaPeer *peer);
/* The last refusal of an address or certificate, and what to do about it; false: none. */
extern bool kafka_peer_refusal(KafkaPeer *peer, char *reason, size_t size, const char **hint);
extern void kafka_peer_forget_refusal(KafkaPeer *peer);

/* kafka_resolve.c */

/* Has names of hosts resolved so that nobody must wait for it; the configuration's opaque is the consumer. */
extern void kafka_resolve_install(rd_kafka_conf_t *configuration);
/* From now on, names of this consumer's brokers are not resolved; call before the client is destroyed. */
extern void kafka_resolve_give_up(KafkaConsumer *consumer);

/* kafka_report.c */
extern void kafka_report_install(rd_kafka_conf_t *configuration, KafkaConsumer *consumer);
/* Serves the library's main queue: log lines to the server log, errors to events. */
extern void kafka_report_serve(KafkaConsumer *consumer);
/* Something was received: forget what was wrong. */
extern void kafka_report_all_well(KafkaConsumer *consumer);
/* Hands out a pending event of the connection, if any. */
extern bool kafka_report_next_event(KafkaConsumer *consumer, KafkaEvent *event);
extern KafkaEventType kafka_report_classify(rd_kafka_resp_err_t code);

#endif /* KAFKA_CLIENT_H */
