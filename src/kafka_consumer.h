/*-------------------------------------------------------------------------
 *
 * kafka_consumer.h
 *	  Read one topic: partitions, offset look-ups, messages.
 *
 * Returns plain messages; no librdkafka type leaves kafka_*.c.  All functions
 * may be called inside or outside of a transaction, and none holds a
 * PostgreSQL resource other than memory and one pipe.  kafka_consumer.c opens,
 * closes and fetches, kafka_lookup.c asks the cluster, kafka_message.c keeps
 * batches, kafka_report.c turns errors and log lines into events and errors.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KAFKA_CONSUMER_H
#define KAFKA_CONSUMER_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "kafka_options.h"

/* Logical positions, as in Kafka's ListOffsets and Spark's offset documents. */
#define KAFKA_OFFSET_LATEST   INT64CONST(-1)
#define KAFKA_OFFSET_EARLIEST INT64CONST(-2)

typedef enum KafkaTimestampType
{
	KAFKA_TIMESTAMP_NONE,
	KAFKA_TIMESTAMP_CREATE_TIME,
	KAFKA_TIMESTAMP_LOG_APPEND_TIME
} KafkaTimestampType;

/*
 * One message.  key and value point into memory owned by librdkafka, valid
 * until kafka_messages_release(); they have no terminating NUL; NULL is a
 * null key or value (tombstone), which differs from an empty one.
 */
typedef struct KafkaHeader KafkaHeader;

typedef struct KafkaMessage
{
	const char *value;
	const char *key;
	size_t value_length;
	size_t key_length;
	int64 offset;
	int64 timestamp_ms; /* since 1970-01-01 UTC; -1: none */
	int32 partition;
	KafkaTimestampType timestamp_type;
	int own_header_count;
	const KafkaHeader *own_headers; /* of a message made by hand */
	void *handle;                   /* librdkafka's; NULL in messages made by hand */
} KafkaMessage;

struct KafkaHeader
{
	const char *name;  /* NUL-terminated, bytes as sent: not verified */
	const char *value; /* NULL: null value */
	size_t value_length;
};

/* A growable run of messages, in the order in which they were consumed. */
typedef struct KafkaMessageBatch
{
	KafkaMessage *messages;
	int count;
	size_t bytes; /* keys and values */
} KafkaMessageBatch;

typedef enum KafkaEventType
{
	KAFKA_EVENT_NONE,
	KAFKA_EVENT_PARTITION_END, /* all up to "offset" has been delivered */
	KAFKA_EVENT_OUT_OF_RANGE,  /* the position is not in the log: data loss */
	KAFKA_EVENT_UNKNOWN_TOPIC, /* topic or partition is gone */
	KAFKA_EVENT_UNREADABLE,    /* a batch of messages that cannot be read: too large,
								* checksum, compression.  librdkafka goes on
								* behind it, so whoever ignores this loses data */
	KAFKA_EVENT_UNAUTHORIZED,  /* credentials or ACL; may be mended outside */
	KAFKA_EVENT_UNAVAILABLE    /* broker down, time-out, TLS ...: retried */
} KafkaEventType;

typedef struct KafkaEvent
{
	KafkaEventType type;
	int32 partition;   /* -1: the whole connection */
	int64 offset;      /* PARTITION_END: next position; OUT_OF_RANGE, UNREADABLE:
						* the position in question; else -1 */
	char message[512]; /* librdkafka's text; holds no secret */
} KafkaEvent;

/* A sentence for errdetail: where it happened, as far as that is known, and librdkafka's text. */
extern char *kafka_event_detail(const KafkaEvent *event);

typedef struct KafkaPartitionOffset
{
	int32 partition;
	int64 timestamp_ms; /* in: what to look for, or KAFKA_OFFSET_... */
	int64 offset;       /* out: -1 when no message is that new */
} KafkaPartitionOffset;

typedef struct KafkaConsumer KafkaConsumer;

/*
 * Creates a consumer for a topic.  It is closed by kafka_consumer_close(), when
 * "context" is reset or deleted, or at process exit, whatever comes first; closing
 * releases the messages of all batches filled from it, so that batch and
 * context may go in any order.  isolation_level is read_committed unless the
 * connection says otherwise.  Raises ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION when
 * the properties are refused by the library; does not wait for a broker.
 */
extern KafkaConsumer *kafka_consumer_open(const KafkaConnection *connection, const char *topic,
                                          MemoryContext context);
extern void kafka_consumer_close(KafkaConsumer *consumer);

/*
 * Number of partitions now.  Asks the cluster, interruptible, bounded by the
 * connection's lookup_timeout_ms.  Raises ERRCODE_UNDEFINED_OBJECT for an unknown
 * topic, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION for authentication and ACL,
 * ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION when nothing answers.
 */
extern int kafka_consumer_partition_count(KafkaConsumer *consumer);

/* The same, but 0 for an unknown topic. */
extern int kafka_consumer_find_partitions(KafkaConsumer *consumer);

/*
 * Does a broker answer now?  Asks the cluster and waits at most timeout_ms,
 * without interrupts and without raising errors.  For an idle consumer after
 * KAFKA_EVENT_UNAVAILABLE, when no message or partition end comes to tell that
 * the connection is back.
 */
extern bool kafka_consumer_reachable(KafkaConsumer *consumer, int timeout_ms);

/*
 * The cluster's id, or NULL when it is not known (before the first look-up);
 * lives as long as the consumer.
 */
extern const char *kafka_consumer_cluster_id(KafkaConsumer *consumer);

/*
 * Number of questions about topics that this consumer has asked the cluster so far, for whatever
 * reason.  No event or message of another topic of the same name is returned before
 * one was asked that has been answered with that topic.  kafka_consumer_wait() ends
 * when one is asked.
 */
extern uint32 kafka_consumer_metadata_requests(KafkaConsumer *consumer);

/*
 * The topic's id, which another topic of the same name does not have; palloc'd.  NULL when
 * the library (before 2.3) or the cluster doesn't tell.  *requests is what
 * kafka_consumer_metadata_requests() returns as long as nothing else is asked.
 * Raises no error for that, but those of look-ups when nothing answers.
 */
extern char *kafka_consumer_topic_id(KafkaConsumer *consumer, uint32 *requests);

/*
 * Settings of the topic, as "retention.ms": sets values[i] to a palloc'd string, NULL where
 * there is no such setting.  False when the cluster doesn't say (it needs DescribeConfigs).
 */
extern bool kafka_consumer_topic_settings(KafkaConsumer *consumer, const char *const *names,
                                          char **values, int count);

/* The bound of look-ups, and the error when nothing has answered for so long. */
extern int kafka_consumer_lookup_timeout_ms(const KafkaConsumer *consumer);

/* From now on look-ups take no longer than this, if the connection allows more. */
extern void kafka_consumer_limit_lookups(KafkaConsumer *consumer, int timeout_ms);
extern void kafka_consumer_raise_unreachable(KafkaConsumer *consumer);

/*
 * Looks up, for each item, the first offset whose timestamp is >= timestamp_ms
 * (-1 in .offset: none), or the earliest / latest offset when timestamp_ms is
 * KAFKA_OFFSET_EARLIEST / _LATEST.  With read_committed, latest is the last
 * stable offset.  Each partition may occur once.  All items or an error (same
 * codes as above).
 */
extern void kafka_consumer_lookup_offsets(KafkaConsumer *consumer, KafkaPartitionOffset *items,
                                          int count);

/*
 * The same for the partitions [first, first + count), all with one timestamp,
 * or KAFKA_OFFSET_...; the array is palloc'd.
 */
extern KafkaPartitionOffset *kafka_consumer_lookup_range(KafkaConsumer *consumer, int first,
                                                         int count, int64 what);

/*
 * Starts / stops fetching one partition at a concrete offset.  After a stop no
 * message of the partition comes any more, and it may be started again.
 * Starting one that is started moves it.
 */
extern void kafka_consumer_start_partition(KafkaConsumer *consumer, int32 partition,
                                           int64 offset);
extern void kafka_consumer_stop_partition(KafkaConsumer *consumer, int32 partition);

/*
 * Takes what is already here, without waiting: appends at most max_messages
 * messages / until the batch has max_bytes.  Stops early at an event, which is
 * then returned in *event (type NONE otherwise), after the messages before it:
 * call again until it returns with no message and no event (the wake-up fires
 * only on empty -> non-empty).  Events of the connection come when no message
 * is left, and the same kind at most every 5 s.  Returns the number of messages
 * appended.  Warnings of the library go to the server log.
 */
extern int kafka_consumer_poll(KafkaConsumer *consumer, KafkaMessageBatch *batch,
                               int max_messages, size_t max_bytes, KafkaEvent *event);

/*
 * Waits until something may be here, the latch is set, or timeout_ms (-1:
 * none) has passed.  Resets the latch; does not check for interrupts.
 */
extern void kafka_consumer_wait(KafkaConsumer *consumer, long timeout_ms, uint32 wait_event);

/* Hands log lines and errors of the connection on, for those who don't poll for long. */
extern void kafka_consumer_serve(KafkaConsumer *consumer);

/*
 * The position behind the last thing that was taken from a partition, be it
 * a message or a transaction marker that is never returned; -1 before the first, and where the
 * library's position may be that of an event, such as the end of the partition.
 */
extern int64 kafka_consumer_position(KafkaConsumer *consumer, int32 partition);

/* The last thing that went wrong with the connection, or NULL; no secret. */
extern const char *kafka_consumer_last_error(KafkaConsumer *consumer);

/* Low and high watermark as last seen in a fetch; false when not known yet. */
extern bool kafka_consumer_watermarks(KafkaConsumer *consumer, int32 partition, int64 *low,
                                      int64 *high);

/*
 * Batches live in the memory context current at creation; its reset releases
 * the messages.  A batch holds messages of one consumer at a time.
 */
extern KafkaMessageBatch *kafka_message_batch_create(void);
/* Releases messages [0, count) and makes the batch empty; memory is kept. */
extern void kafka_message_batch_clear(KafkaMessageBatch *batch);

/* A caller's decision about one message; must not raise an error. */
typedef bool (*KafkaMessageTest)(const KafkaMessage *message, void *argument);

/* Of the messages from "first" on, keeps those that pass, in order; releases the rest. */
extern void kafka_message_batch_filter(KafkaMessageBatch *batch, int first,
                                       KafkaMessageTest keep, void *argument);

/*
 * Moves the first n messages to the end of another batch, at a cost that does not depend on how many
 * stay; returns their bytes.
 */
extern size_t kafka_message_batch_take(KafkaMessageBatch *from, KafkaMessageBatch *to, int n);

/* Headers of a message, palloc'd array whose contents point into the message. */
extern int kafka_message_headers(const KafkaMessage *message, KafkaHeader **headers);

/* Leader epoch of a message; -1: the library (before 2.1) or the broker doesn't tell. */
extern int32 kafka_message_leader_epoch(const KafkaMessage *message);

/* The first millisecond since 1970 that is not before "time"; >= 0; infinities
 * become 0 and the largest value. */
extern int64 kafka_timestamp_to_ms(TimestampTz time);

/* A message's timestamp; timestamp_ms must not be -1 (none). */
extern TimestampTz kafka_timestamp_from_ms(int64 timestamp_ms);

/* librdkafka's run-time version, for kafka.library_version(). */
extern const char *kafka_library_version(void);

#endif /* KAFKA_CONSUMER_H */
