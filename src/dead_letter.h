/*-------------------------------------------------------------------------
 *
 * dead_letter.h
 *	  Messages that a stream could not write: kafka.dead_letter.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DEAD_LETTER_H
#define DEAD_LETTER_H

#include "postgres.h"
#include "kafka_consumer.h"

/*
 * Stores a message as it came, with the error it made, in the current
 * transaction.  One that is there already (after a reset) counts another
 * attempt.  Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE when another message stands in its place.
 */
extern void dead_letter_store(const char *stream, const char *topic,
                              const KafkaMessage *message, const ErrorData *error);

/* How many dead letters a stream has. */
extern int64 dead_letter_count(const char *stream);

#endif /* DEAD_LETTER_H */
