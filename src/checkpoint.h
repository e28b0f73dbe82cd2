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
	int64
	    first_offset; /* of the last message of the first batch that is still there; -1: none */
	int64 first_message_ms; /* its timestamp */
	int32 leader_epoch;     /* its leader epoch; -1: not known */
	char *topic_id;         /* of the topic that it is a position of; NULL: not known */
	int64 known_end;        /* high watermark as of the last commit; -1: not known */
	int64 state_rows;       /* by which its batches have made the state grow: add them all up */
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
	int64 first_offset;    /* as PartitionPosition has it; -1: the last message becomes it */
	int64 leader_epoch;    /* of the last message; -1: not known */
	int64 messages;
	int64 bytes;
	int64 errors; /* messages skipped or made dead letters */
	int64 state_rows_added;
	int64 state_rows; /* out: of the partition, afterwards */
} CheckpointMove;

/* Over what is lost: see data_loss.h. */
typedef struct CheckpointJump
{
	int32 partition;
	int64 from_offset; /* must be the stored position */
	int64 to_offset;
	int64 log_end; /* available_now is done there, if the old end is of another log */
	int64 lost;    /* offsets that are gone, as far as known */
	bool other_log;
	bool removed; /* the partition is gone */
} CheckpointJump;

/*
 * Reads the checkpoint of a stream in a topic, in the current memory context.
 * Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE when there is none for this topic.
 */
extern Checkpoint *checkpoint_load(const char *stream, const char *topic);

/* Replaces the whole checkpoint by start positions; needs an exclusive stream_lock. */
extern void checkpoint_pin(const char *stream, const char *topic,
                           const KafkaPartitionOffset *positions, int count,
                           const char *cluster_id, const char *topic_id);

/* Adds partitions found later, unless another worker has. */
extern void checkpoint_add_partitions(const char *stream, const char *topic,
                                      const KafkaPartitionOffset *positions, int count);

/* Notes the ids of cluster and topic where none is stored; NULL: not known. */
extern void checkpoint_set_identity(const char *stream, const char *topic,
                                    const char *cluster_id, const char *topic_id);

/*
 * Moves positions over what is lost, all or none, as batch "batch_id": compare-and-set, as
 * below.  topic_id: NULL: not known.
 */
extern void checkpoint_pass_loss(const char *stream, const char *topic, int64 batch_id,
                                 const CheckpointJump *jumps, int count, const char *topic_id);

/* Removes the partitions from "remaining" on; their counts are kept with partition 0. */
extern void checkpoint_remove_partitions(const char *stream, const char *topic, int remaining);

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
 * worker, a reset or a restored backup was faster.  Moves are in the order of partitions; their
 * state_rows are set.
 */
extern void checkpoint_advance(const char *stream, const char *topic, int64 batch_id,
                               CheckpointMove *moves, int count);

/* Notes that a message which had been rejected has made the state grow later. */
extern void checkpoint_add_state_rows(const char *stream, const char *topic, int32 partition,
                                      int64 state_rows_added);

#endif /* CHECKPOINT_H */
