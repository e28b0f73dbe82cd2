/*-------------------------------------------------------------------------
 *
 * sink.h
 *	  What a stream does with a batch: one interface, one implementation per
 *	  mode.
 *
 * micro_batch.c calls a sink in the batch's transaction, as the stream's
 * owner, with an active snapshot.  Sinks see rows through topic_scan.c, never
 * Kafka.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SINK_H
#define SINK_H

#include "postgres.h"
#include "lib/stringinfo.h"
#include "stream.h"
#include "topic_scan.h"

/* One batch, and what came of it. */
typedef struct SinkBatch
{
	int64 batch_id;
	TopicScanBatch *messages; /* count is 0 in a batch without data */
	bool is_part;             /* others of the same transaction come before or after it */
	int64 output_rows;        /* out: rows written or deleted */
	TimestampTz watermark;    /* out: valid from the next batch on; 0: the stream has none */
	int64 late_rows;          /* out: rows dropped because they are behind the watermark */
	TimestampTz oldest;       /* out: event times of the batch's rows; 0: none */
	TimestampTz newest;
	bool keeps_state;       /* out: the stream has a table of state, which ... */
	int64 state_rows_added; /* out: ... has so many rows more (less) */
} SinkBatch;

typedef struct Sink Sink;
struct Sink
{
	/* Objects have changed since the sink was made: make a new one. */
	bool (*is_stale)(Sink *sink);

	/* Writes a batch.  Errors are those of the statements it runs. */
	void (*write)(Sink *sink, SinkBatch *batch);

	/* May a batch be written in parts, by several calls in one transaction? */
	bool accepts_parts;

	/*
	 * Is there something to write although no message has come, because the
	 * watermark has moved?  NULL: never.
	 */
	bool (*wants_batch_without_data)(Sink *sink);

	/* Appends what a batch does, for kafka.explain_stream: lines of text. */
	void (*explain)(Sink *sink, StringInfo text);
};

/*
 * Makes the sink of a stream as the current user; it lives in the current
 * memory context and is freed with it.  Needs a transaction and an active
 * snapshot.  Raises whatever is wrong with the stream's definition, or its owner's privileges.
 */
extern Sink *sink_create(const Stream *stream, Oid topic_table);

/*
 * Creates what a new stream keeps besides its rows (the table of its state), before
 * the first sink_create(); removes it; empties it, when the stream starts from new
 * positions.  All of them as the owner of the extension.
 */
extern void sink_create_objects(const Stream *stream);
extern void sink_drop_objects(const Stream *stream);
extern void sink_reset_objects(const Stream *stream);

/* Before the query of a stream changes: what has been renamed is noted, for the comparison. */
extern void sink_note_names(const Stream *stream);

/*
 * After the query of a stream has changed.  What it keeps is made anew if it is empty; otherwise
 * it stays, and ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE comes from here or from sink_create() when it
 * is not that of the new query.
 */
extern void sink_alter_objects(const Stream *stream);

#endif /* SINK_H */
