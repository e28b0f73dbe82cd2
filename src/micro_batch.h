/*-------------------------------------------------------------------------
 *
 * micro_batch.h
 *	  Run one micro-batch: rows and positions in one transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MICRO_BATCH_H
#define MICRO_BATCH_H

#include "postgres.h"
#include "rejects.h"
#include "sink.h"
#include "stream_reader.h"

/* A stream that is being run by this worker. */
typedef struct StreamRun
{
	Stream *stream;
	Oid topic_table;
	const char *topic;
	StreamReader *reader;
	Sink *sink;                  /* NULL: to be made */
	MemoryContext sink_context;  /* of the sink */
	MemoryContext batch_context; /* reset after every batch */
	Rejects *rejects;            /* of the batch being run */
	int64 batch_id;              /* of the last committed batch, as far as this worker knows */
	bool progressed;             /* this run has committed a batch */
	TimestampTz last_batch_end;
	bool careful;      /* bad messages are about: write in parts, if the sink accepts them */
	bool without_data; /* the batch being run has no messages, but something to write */
} StreamRun;

/*
 * Writes what run->reader has gathered, and moves the checkpoint, in one
 * transaction.  When an error is a message's fault, on_error decides: the message
 * is left out and reported, or all before it is committed and the error
 * raised with the message named.  Any other error rolls the batch back and is raised as it is.
 * After an error the reader no longer agrees with the checkpoint: open a new one.
 *
 * Returns false, having written nothing, when the stream or the extension is
 * gone.
 */
extern bool micro_batch_run(StreamRun *run);

/*
 * The same for a sink that has something to write although no message has come; nothing
 * has been gathered.
 */
extern bool micro_batch_run_without_data(StreamRun *run);

/*
 * The id of the next batch: the next number after the last one that is this worker's. Worker i of
 * n takes the numbers with remainder i modulo n, so that no two batches of a stream have
 * the same.
 */
extern int64 micro_batch_next_id(const StreamRun *run);

/*
 * Starts a transaction in which the definition of the stream can't change;
 * false (and no transaction) when the extension is gone.
 */
extern bool micro_batch_begin_transaction(const Stream *stream);

/*
 * As, and back from, the stream's owner, in a security-restricted operation; settings that were changed
 * between are as before.
 */
typedef struct OwnerIdentity
{
	Oid user_id;
	int security_context;
	int guc_nest_level;
} OwnerIdentity;

extern void become_owner(const Stream *stream, OwnerIdentity *saved);
extern void restore_identity(const OwnerIdentity *saved);

#endif /* MICRO_BATCH_H */
