/*-------------------------------------------------------------------------
 *
 * start_position.h
 *	  Where a stream starts: from what the user says to one number per
 *	  partition.
 *
 *-------------------------------------------------------------------------
 */
#ifndef START_POSITION_H
#define START_POSITION_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "kafka_consumer.h"

/* The start options of create_stream and reset_stream; NULL / false: not given. */
typedef struct StartOptions
{
	const char *starting_offsets; /* 'earliest', 'latest' or JSON */
	bool has_timestamp;
	TimestampTz starting_timestamp;
	const char *starting_offsets_by_timestamp; /* JSON, milliseconds since 1970 */
	const char *starting_timestamp_strategy;   /* 'latest' or 'error' */
} StartOptions;

/*
 * Resolves the options to concrete offsets of all partitions of the topic, by
 * asking Kafka.  Precedence as in Spark: starting_timestamp, then starting_offsets_by_timestamp,
 * then starting_offsets.  Sets *count; the array is palloc'd, ordered by partition, the
 * answer in .offset.  NOTICE for a partition in which no message is as new as the timestamp.
 *
 * Raises ERRCODE_INVALID_PARAMETER_VALUE for what the user gave, and the errors of
 * the look-ups in kafka_consumer.h.
 */
extern KafkaPartitionOffset *start_position_resolve(const StartOptions *options,
                                                    KafkaConsumer *consumer, const char *topic,
                                                    int *count);

#endif /* START_POSITION_H */
