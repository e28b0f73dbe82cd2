/*-------------------------------------------------------------------------
 *
 * topic_row.h
 *	  Messages as rows of a topic table, in a slot.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TOPIC_ROW_H
#define TOPIC_ROW_H

#include "postgres.h"
#include "executor/tuptable.h"
#include "nodes/bitmapset.h"
#include "nodes/execnodes.h"
#include "utils/relcache.h"

#include "kafka_consumer.h"
#include "topic_schema.h"

typedef struct TopicRowMaker TopicRowMaker;

/*
 * wanted: attribute numbers (list of int) of the columns to fill; none is
 * decoded if it is NIL.  further_defaults: list of TopicColumnDefault, for
 * missing fields of columns that have no default of their own.  Lives in the current
 * memory context; default expressions are evaluated in the parent's.
 */
extern TopicRowMaker *topic_row_maker_create(Relation topic_table, const TopicSchema *schema,
                                             List *wanted, List *further_defaults,
                                             PlanState *parent);

/* The columns that get a default where a message has no such field; as old as the row maker. */
extern const Bitmapset *topic_row_defaulted_columns(const TopicRowMaker *maker);

/*
 * Stores the row of a message in an empty slot; valid until the next call.  Returns
 * false when the message makes no row.  Raises the errors of decode_message() and of
 * default expressions.
 */
extern bool topic_row_make(TopicRowMaker *maker, const KafkaMessage *message,
                           TupleTableSlot *slot);

/* The same, adding the time it takes to *microseconds, estimated from samples. */
extern bool topic_row_make_sampled(TopicRowMaker *maker, const KafkaMessage *message,
                                   TupleTableSlot *slot, int64 *microseconds);

#endif /* TOPIC_ROW_H */
