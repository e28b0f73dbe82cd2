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
#include "sink_append.h"
#include "stream_reader.h"

/* A stream that is being run by this worker. */
typedef struct StreamRun
{
	Stream *stream;
	Oid topic_table;
	const char *topic;
	StreamReader *reader;
	AppendSink *sink;            /* NULL: to be made */
	MemoryContext sink_context;  /* of the sink */
	MemoryContext batch_context; /* reset after every batch */
	int64 batch_id;              /* of the last committed batch */
	TimestampTz last_batch_end;
} StreamRun;

/*
 * Writes what run->reader has gathered, and moves the checkpoint, in one
 * transaction.  When an error is a message's fault the batch is split, so that
 * all before the first failing message is committed; then that error is
 * raised with the message named.  Any other error rolls the batch back and is raised as it is.
 * After an error the reader no longer agrees with the checkpoint: open a new one.
 *
 * Returns false, having written nothing, when the stream or the extension is
 * gone.
 */
extern bool micro_batch_run(StreamRun *run);

/*
 * Starts a transaction in which the definition of the stream can't change;
 * false (and no transaction) when the extension is gone.
 */
extern bool micro_batch_begin_transaction(const Stream *stream);

/* As, and back from, the stream's owner, in a security-restricted operation. */
typedef struct OwnerIdentity
{
	Oid user_id;
	int security_context;
} OwnerIdentity;

extern void become_owner(const Stream *stream, OwnerIdentity *saved);
extern void restore_identity(const OwnerIdentity *saved);

#endif /* MICRO_BATCH_H */
