/*-------------------------------------------------------------------------
 *
 * topic_identity.h
 *	  While a stream runs: is its topic still the one that it was opened for?
 *
 *-------------------------------------------------------------------------
 */
#ifndef TOPIC_IDENTITY_H
#define TOPIC_IDENTITY_H

#include "stream_reader.h"

/* Makes room for what is kept by partition: known are there already, or 0. */
extern void topic_identity_allocate(StreamReader *reader, int known);

/*
 * To be called before anything is taken.  True: there is a new doubt so soon after the last that it must wait,
 * and all messages with it, until reader->look_again_at.
 */
extern bool topic_identity_must_wait(StreamReader *reader);

/*
 * To be called when all that is here has been taken, before anything is done with it.  False: nothing
 * must be done with it, and reader->must_reopen is set, or it has been dropped
 * and is being fetched again, behind the last message of each partition, which
 * topic_identity_compare() looks at.  May ask the cluster for the topic's id; where that does not answer,
 * sets reader->in_trouble if there are no messages, and raises the errors of that look-up if there are.
 */
extern bool topic_identity_holds(StreamReader *reader);

/*
 * A message that is not behind the position, or the first that is.  Sets reader->must_reopen when it shows
 * that the log is another one.
 */
extern void topic_identity_compare(StreamReader *reader, const KafkaMessage *message);

/*
 * An event of a partition in which a message is waited for.  True when that is all it
 * means; the partition may have been started anew, or reader->must_reopen be set.
 */
extern bool topic_identity_event(StreamReader *reader, const KafkaEvent *event);

#endif /* TOPIC_IDENTITY_H */
