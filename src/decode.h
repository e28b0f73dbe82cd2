/*-------------------------------------------------------------------------
 *
 * decode.h
 *	  One message -> the Datums of one row of its topic table.
 *
 * Behind this interface a format may be decoded in any way, as long as
 * values and errors are those of the column type's input function.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DECODE_H
#define DECODE_H

#include "postgres.h"
#include "nodes/bitmapset.h"
#include "kafka_consumer.h"
#include "topic_schema.h"

typedef struct Decoder Decoder;

/*
 * wanted: attribute numbers of the columns to fill (NULL: all); others are
 * returned as NULL, and their fields not checked beyond JSON syntax; where
 * no column is wanted that comes from the value, the value isn't looked at.
 * defaulted: those for which the caller has a default where a message has no such field.
 * The decoder lives in the current memory context, and no longer than the
 * transaction: it knows the columns' types as they are now.  It refers to schema.
 */
extern Decoder *decoder_create(const TopicSchema *schema, const Bitmapset *wanted,
                               const Bitmapset *defaulted);

/*
 * Decodes a message into values / nulls (by attnum - 1, length natts).
 * missing (may be NULL where no column is "defaulted") gets true where the message has no field for
 * such a column at all (as opposed to null); the value is NULL then, whatever the type says.  Pass-by-reference values are in the current memory context or
 * in the decoder's own, which is used again for the next message; they can't be
 * freed singly.  Returns false when the message makes no row (null_value 'skip').
 *
 * Metadata that the message does not have (no headers, no timestamp; partition
 * or offset -1, handle NULL in messages made by hand) is NULL.
 *
 * Errors carry SQLSTATE and message of the type's input function, and DETAIL
 * topic, partition, offset and column; HINT says what to do.
 */
extern bool decode_message(Decoder *decoder, const KafkaMessage *message, Datum *values,
                           bool *nulls, bool *missing);

/*
 * Decodes what a message without a value still has: the columns with the option key,
 * and metadata; the others are NULL.  ERRCODE_NULL_VALUE_NOT_ALLOWED if it has no
 * key; other errors as above.  The option null_value does not matter.
 */
extern void decode_tombstone(Decoder *decoder, const KafkaMessage *message, Datum *values,
                             bool *nulls);

#endif /* DECODE_H */
