/*-------------------------------------------------------------------------
 *
 * topic_read.h
 *	  A bounded read of a topic: each partition from a start to an end that is
 *	  pinned when the read begins.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TOPIC_READ_H
#define TOPIC_READ_H

#include "postgres.h"

#include "kafka_consumer.h"
#include "topic_bounds.h"
#include "topic_schema.h"

/* One partition, as pinned when the read was opened. */
typedef struct TopicReadPartition
{
	int64 low;      /* first offset in the log then */
	int64 high;     /* end then: the last stable offset with read_committed */
	int64 start;    /* of the current pass */
	int64 end;      /* exclusive */
	int64 position; /* everything before it has been returned */
	bool done;
} TopicReadPartition;

typedef struct TopicRead
{
	TopicReadPartition *partitions;
	int partition_count;
	int64 messages_read; /* of all passes */

	/* private */
	KafkaConsumer *consumer;
	KafkaMessageBatch *batch;
	int next;         /* in batch */
	KafkaEvent event; /* that came after the batch's messages */
	int partitions_left;
	const char *topic;
	const char *server_name;
	int timeout_ms;
} TopicRead;

/*
 * Connects as user_id's mapping says, and pins the ends.  The read lives in the
 * current memory context, whose reset closes it.  Raises the errors of
 * kafka_connection_load and of kafka_consumer.h's look-ups.
 */
extern TopicRead *topic_read_open(const TopicSchema *schema, Oid user_id);

/*
 * Begins a pass over what "bounds" leaves of the pinned ranges, ending a pass
 * that is under way.  Looks up timestamps when there is a bound on them.
 */
extern void topic_read_start(TopicRead *read, const TopicBounds *bounds);

/*
 * The next message, or NULL after the last.  It is valid until the next
 * call.  Waits, interruptible; an error when the cluster gives no sign of life for the
 * connection's lookup_timeout_ms (ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION), or when
 * messages of the range are gone or cannot be read (ERRCODE_FDW_ERROR,
 * ERRCODE_UNDEFINED_OBJECT, ERRCODE_INSUFFICIENT_PRIVILEGE).
 */
extern const KafkaMessage *topic_read_next(TopicRead *read);

/* Returns no more messages of a partition in this pass. */
extern void topic_read_skip_rest(TopicRead *read, int32 partition);

extern void topic_read_close(TopicRead *read);

#endif /* TOPIC_READ_H */
