/*-------------------------------------------------------------------------
 *
 * stream_reader.h
 *	  A stream's side towards Kafka: fetch from the checkpoint on, and gather
 *	  the messages of the next micro-batch.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STREAM_READER_H
#define STREAM_READER_H

#include "postgres.h"
#include "checkpoint.h"
#include "kafka_consumer.h"
#include "log_check.h"
#include "stream.h"

/* Settings; see worker.c */
extern int max_batch_messages;
extern int max_batch_kilobytes;

/* A message that is fetched once more, to be compared: see topic_identity.c */
typedef enum AwaitedMessage
{
	AWAITED_NONE,
	AWAITED_FIRST,
	AWAITED_LAST
} AwaitedMessage;

typedef struct StreamReader
{
	const Stream *stream;
	const char *topic;
	MemoryContext context; /* the reader's */
	KafkaConsumer *consumer;
	int worker;               /* reads the partitions of this number modulo stream->workers */
	Checkpoint *checkpoint;   /* positions as committed; kept up by micro_batch.c */
	KafkaMessageBatch *batch; /* messages of the micro-batch being gathered or run */
	int64 *read_up_to;        /* by partition: next position once the batch is committed */
	int partition_count;      /* of the topic, at the last look */

	/* max_offsets_per_trigger: taken from Kafka, but for a later batch */
	KafkaMessageBatch *fetched; /* on the way from Kafka to those held */
	KafkaMessageBatch **held;   /* by partition; NULL: none yet */
	int64 held_count;
	size_t held_bytes;
	int64 *fetched_up_to;   /* by partition: next position to come from Kafka */
	int64 *end_seen;        /* by partition: the end as Kafka last reported it; -1: never */
	int64 *quota;           /* by partition: what the batch may still take */
	bool *quota_is_backlog; /* by partition: messages are known to wait */

	LogCheck *log;    /* what was found when the reader was opened */
	bool must_reopen; /* open the stream again, which compares checkpoint and log */

	/* see topic_identity.c */
	uint32 metadata_requests; /* that have been taken into account */
	TimestampTz identity_checked_at;
	TimestampTz look_again_at; /* DT_NOEND, or when gathering goes on */
	int looks_in_a_row;
	int first_looked_at; /* the partition of which the first message has been looked at last */
	AwaitedMessage *awaited; /* by partition: what has been read before, and comes once more */

	/* the connection's last trouble, until a message or a partition's end arrives */
	bool in_trouble;
	KafkaEvent trouble;
} StreamReader;

/* Partitions are dealt out to the stream's workers by their numbers, once and for all. */
static inline bool
stream_reader_owns(const StreamReader *reader, int32 partition)
{
	return partition % reader->stream->workers == reader->worker;
}

/*
 * Connects and compares the checkpoint with the log: see reader->log.  The partitions that are the
 * worker's are those of its number modulo the stream's workers; positions of the others stay as the
 * checkpoint says, and nothing is read there.  Contacts the cluster; not in a transaction.  Raises the
 * errors of the look-ups.  The reader lives in the current memory context, and ends with it.
 */
extern StreamReader *stream_reader_open(const Stream *stream, int worker, const char *topic,
                                        const KafkaConnection *connection,
                                        Checkpoint *checkpoint);

/*
 * A consumer for questions about a topic of this foreign server, with the connection that the worker
 * of "owner"'s stream has; in the current memory context.  Raises what kafka_connection_load() and
 * kafka_consumer_open() do.
 */
extern KafkaConsumer *stream_open_lookup_consumer(Oid server_id, const char *topic, Oid owner);

/* Starts to fetch at the checkpoint, which must agree with the log. */
extern void stream_reader_start(StreamReader *reader);

/*
 * Drops what has been fetched of a partition but is not in reader->batch, and fetches again from an offset on that
 * is not behind the position.  False: nothing of it is to be read here.
 */
extern bool stream_reader_restart_partition(StreamReader *reader, int32 partition,
                                            int64 from_offset);

/*
 * Asks the cluster for reader->partition_count, which stream_reader_open() has
 * done.  While messages are being fetched the answer comes behind them.  Raises
 * ERRCODE_DATA_CORRUPTED when the topic is gone or has fewer than before.
 */
extern void stream_reader_count_partitions(StreamReader *reader);

/*
 * Of the partitions that had been added at the last look, returns the start
 * positions (earliest) for the caller to store, and sets *count.
 */
extern KafkaPartitionOffset *stream_reader_find_new_partitions(StreamReader *reader,
                                                               int *count);

/*
 * Takes up partitions that have been stored: "stored" is the checkpoint with them, of
 * which those are copied that the reader does not have yet.
 */
extern void stream_reader_add_partitions(StreamReader *reader, const Checkpoint *stored);

/*
 * Takes what is here into reader->batch, up to the limits, without waiting.
 * True when there is something to commit: messages, or a position that moved
 * over markers and gaps.  Sets reader->trouble.  When Kafka has lost what is to be read, or the topic
 * is gone or another one, raises the errors of data_loss.h or sets reader->must_reopen.  Contacts the cluster
 * when there is a reason to doubt that it is the same topic.
 */
extern bool stream_reader_gather(StreamReader *reader);

/* available_now: every partition that is read here has reached its end. */
extern bool stream_reader_at_end(const StreamReader *reader);

/* All that is in these partitions, as far as Kafka has told us, is committed. */
extern bool stream_reader_caught_up(StreamReader *reader);

/* Every partition that is read here has been read to its end once since it was opened. */
extern bool stream_reader_has_seen_ends(const StreamReader *reader);

/* Positions and watermarks into shared memory. */
extern void stream_reader_report(StreamReader *reader);

/* Low and high watermark of a partition, -1 where not known yet. */
extern int64 stream_reader_high_watermark(StreamReader *reader, int32 partition);

#endif /* STREAM_READER_H */
