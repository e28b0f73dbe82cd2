/*-------------------------------------------------------------------------
 *
 * log_check.h
 *	  Compare a stream's checkpoint with the topic: is what the stream shall
 *	  read next still there, and is it the topic that the stream has read?
 *
 *-------------------------------------------------------------------------
 */
#ifndef LOG_CHECK_H
#define LOG_CHECK_H

#include "postgres.h"
#include "checkpoint.h"
#include "kafka_consumer.h"

/* In order of importance: of several findings about a partition the last counts. */
typedef enum LogFindingKind
{
	LOG_AGREES,
	LOG_START_PASSED,  /* retention: the log starts behind the stored position */
	LOG_ENDS_BEFORE,   /* the log ends before the stored position */
	LOG_OTHER_MESSAGE, /* another message stands where one was read */
	LOG_OTHER_TOPIC,   /* another topic of that name: its id, or fewer partitions, say so */
	LOG_PARTITION_GONE,
	LOG_PARTITION_NEW /* not in the checkpoint yet */
} LogFindingKind;

typedef struct LogFinding
{
	int32 partition;
	LogFindingKind kind;
	int64 next_offset;  /* as stored; -1: a new partition */
	int64 low;          /* the log's first offset; -1: not known */
	int64 high;         /* its end: the last stable offset with read_committed; -1: not known */
	int64 next_message; /* offset of the message to be read next; -1: as for its timestamp */
	int64
	    next_message_ms; /* timestamp of the message to be read next; -1: none, or not asked for */
	bool
	    read_on; /* another message stands where the first one was read, but not where the last one was */
	bool
	    first_message_gone; /* the position's first message isn't there any more: retention, compaction */
} LogFinding;

typedef struct LogCheck
{
	int partition_count;    /* of the topic now; 0: the cluster knows no such topic */
	bool other_cluster;     /* the servers answer as another cluster: nothing else was asked */
	const char *cluster_id; /* NULL: not known */
	const char *topic_id;   /* NULL: library or broker doesn't tell */
	uint32 metadata_requests; /* see kafka_consumer_topic_id() */
	int finding_count;
	LogFinding *findings; /* by partition: those of the checkpoint, then new ones */
} LogCheck;

/* Which messages are looked at. */
typedef enum LogPeek
{
	LOG_PEEK_LAST,          /* the last that was read, where it is still there */
	LOG_PEEK_LAST_AND_NEXT, /* and the next: fill in next_message_ms */
	LOG_PEEK_LAST_AT_END /* the last that was read, where none is behind it and no ids tell */
} LogPeek;

/* Of the partitions those whose number modulo workers is worker; all: 0, 1. */
typedef struct LogShare
{
	int worker;
	int workers;
} LogShare;

/*
 * Asks the cluster, interruptible, bounded by the consumer's look-up timeout; needs no
 * transaction, must not be called while partitions are being fetched.  The last
 * message that was read is looked at again where it is still there: it must have the
 * same timestamp and leader epoch.  So is, where no topic ids tell, the first one of a partition, and when
 * it is another one, that of all.  Only partitions of "share" are compared, and those that are gone: the
 * others may move meanwhile, and LOG_AGREES says nothing of them.  The result lives
 * in the current memory context.  Raises the errors of the look-ups in kafka_consumer.h.
 */
extern LogCheck *log_check(KafkaConsumer *consumer, const Checkpoint *checkpoint,
                           LogShare share, LogPeek messages);

/*
 * Offset of the message at "from" or the next one behind it, and its timestamp in ms; -1: there is none.  Raises as
 * log_check() does.
 */
extern int64 log_next_message(KafkaConsumer *consumer, int32 partition, int64 from,
                              int64 *message_ms);

/* Is this, at the offset of the first or the last message that was read, that message, as far as can be told? */
extern bool log_same_message(const PartitionPosition *position, const KafkaMessage *message);

/* What log_check() finds in one partition without looking at messages. */
extern LogFinding log_check_range(KafkaConsumer *consumer, const PartitionPosition *position);

#endif /* LOG_CHECK_H */
