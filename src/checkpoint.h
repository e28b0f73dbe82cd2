/*-------------------------------------------------------------------------
 *
 * checkpoint.h
 *	  The next offset of every partition of a stream, in kafka.stream_offset.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CHECKPOINT_H
#define CHECKPOINT_H

#include "postgres.h"
#include "kafka_consumer.h"

typedef struct PartitionPosition
{
	int32 partition;
	int64 next_offset;
	int64 end_offset;      /* available_now: done there; -1: no end */
	int64 last_offset;     /* of the last message that was read; -1: none */
	int64 last_message_ms; /* its timestamp; -1: none */
	int64 low_watermark;   /* as of the opening of the reader */
} PartitionPosition;

/* Partitions are 0 .. count - 1 without gaps, as Kafka numbers them. */
typedef struct Checkpoint
{
	int count;
	PartitionPosition *positions; /* by partition */
	int64 last_batch_id;
	int64 error_count; /* messages skipped or made dead letters so far */
	char *cluster_id;  /* NULL: not known */
} Checkpoint;

/* What one batch moves in one partition. */
typedef struct CheckpointMove
{
	int32 partition;
	int64 from_offset;     /* must be the stored position */
	int64 to_offset;       /* last consumed + 1, or the end that Kafka reports */
	int64 high_watermark;  /* -1: not known */
	int64 last_offset;     /* of the last message; -1: none */
	int64 last_message_ms; /* -1: none */
	int64 messages;
	int64 bytes;
	int64 errors; /* messages skipped or made dead letters */
} CheckpointMove;

/*
 * Reads the checkpoint of a stream in a topic, in the current memory context.
 * Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE when there is none for this topic.
 */
extern Checkpoint *checkpoint_load(const char *stream, const char *topic);

/* Replaces the whole checkpoint by start positions; needs an exclusive stream_lock. */
extern void checkpoint_pin(const char *stream, const char *topic,
                           const KafkaPartitionOffset *positions, int count,
                           const char *cluster_id);

/* Adds partitions found later, unless another worker has. */
extern void checkpoint_add_partitions(const char *stream, const char *topic,
                                      const KafkaPartitionOffset *positions, int count);

/* available_now: where each partition ends; count 0 removes the ends. */
extern void checkpoint_set_end(const char *stream, const char *topic,
                               const KafkaPartitionOffset *ends, int count);

/* available_now: have all partitions of the stream, whoever reads them, reached their ends? */
extern bool checkpoint_at_end(const char *stream, const char *topic);

/* Messages skipped or made dead letters so far, by all workers of the stream. */
extern int64 checkpoint_error_count(const char *stream, const char *topic);

/*
 * Moves positions in the current transaction, all or none: compare-and-set.
 * Raises ERRCODE_T_R_SERIALIZATION_FAILURE when a stored position isn't the expected one: another
 * worker, a reset or a restored backup was faster.
 */
extern void checkpoint_advance(const char *stream, const char *topic, int64 batch_id,
                               const CheckpointMove *moves, int count);

#endif /* CHECKPOINT_H */
