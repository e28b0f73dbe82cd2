/*-------------------------------------------------------------------------
 *
 * progress.h
 *	  Shared memory: which streams shall run, which worker runs them, how far
 *	  they are, and their recent batches.
 *
 * One slot per stream of the whole server (kafka_ingest.max_streams).  A slot
 * is keyed by (database, stream_id).  The launcher owns what is about
 * processes, the worker what is about progress, SQL functions only ask
 * (wanted / stop_requested) and read.  Nothing here must survive a crash: what must is
 * in the catalog tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PROGRESS_H
#define PROGRESS_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"

#define PROGRESS_MAX_PARTITIONS 1024  /* live positions kept per stream */
#define PROGRESS_HISTORY_BYTES  32768 /* recent batches kept per stream */

typedef enum StreamState
{
	STREAM_STARTING,
	STREAM_RUNNING,    /* a batch is being processed */
	STREAM_IDLE,       /* waits for messages, or for the trigger */
	STREAM_BACKING_OFF /* after an error; retried at retry_at */
} StreamState;

/* Live position of one partition, in memory of the slot. */
typedef struct PartitionProgress
{
	int32 partition;
	int64 next_offset;     /* committed */
	int64 low_watermark;   /* -1: not known */
	int64 high_watermark;  /* -1: not known */
	int64 last_message_ms; /* timestamp of the last committed message; -1: none */
} PartitionProgress;

/* One error as users shall see it; texts are cut at their size. */
typedef struct ProgressError
{
	int sqlerrcode; /* 0: no error */
	TimestampTz at;
	char message[512];
	char detail[512];
	char hint[256];
} ProgressError;

/* Offsets of one partition in one batch. */
typedef struct BatchPartition
{
	int32 partition;
	int64 start_offset;
	int64 end_offset;
	int64 behind_latest; /* high watermark - end_offset; -1: not known */
} BatchPartition;

/* A batch as the worker reports it after COMMIT. */
typedef struct BatchProgress
{
	int64 batch_id;
	TimestampTz started_at;
	int64 input_rows;
	int64 input_bytes;
	int64 output_rows;
	int64 wait_us;    /* since the end of the last batch */
	int64 execute_us; /* decode, query and sink: one pipeline */
	int64 commit_us;
	uint64 xid; /* full transaction id of the commit */
	int partition_count;
} BatchProgress;

typedef struct StreamSlot
{
	/* guarded by ProgressShared->lock */
	bool in_use;
	Oid database_id;
	int64 stream_id;
	uint32 generation;   /* of the slot: changes whenever it is reused */
	bool wanted;         /* the launcher shall keep a worker running */
	bool stop_requested; /* the worker shall exit; the launcher must not start one */
	bool starting;       /* registered with the postmaster, not yet attached */
	pid_t worker_pid;    /* 0: no worker */
	int worker_procno;   /* for its latch */
	TimestampTz last_start;
	TimestampTz next_start; /* not before */
	int failures;           /* consecutive; reset by a committed batch or a quiet minute */
	int64 restarts;

	/* guarded by mutex: written by the worker */
	slock_t mutex;
	char stream_name[NAMEDATALEN];
	Oid owner; /* who may see it, beside pg_monitor */
	StreamState state;
	TimestampTz state_since;
	TimestampTz worker_since;
	TimestampTz retry_at; /* BACKING_OFF only */
	ProgressError last_error;
	int64 rows; /* since the worker started */
	int64 bytes;
	double rows_per_second; /* smoothed over the last seconds */

	/* guarded by detail_lock */
	LWLock detail_lock;
	int partition_count;
	PartitionProgress partitions[PROGRESS_MAX_PARTITIONS];
	/* ring of BatchProgress + BatchPartition[], oldest overwritten */
	int history_start;
	int history_end;
	int history_count;
	char history[PROGRESS_HISTORY_BYTES];

	ConditionVariable changed; /* broadcast at commits and state changes */
} StreamSlot;

/* --- settings and set-up (called from _PG_init) --- */
extern int progress_max_streams; /* kafka_ingest.max_streams */
extern void progress_define_settings(void);
extern void progress_request_shared_memory(void);

/* True when the library was preloaded and shared memory exists. */
extern bool progress_available(void);
/* ERROR with the hint to set shared_preload_libraries. */
extern void progress_require_available(void);

/* --- for SQL functions: transactional requests --- */

/*
 * Reserves a slot for a stream and remembers what shall happen when the
 * transaction ends.  COMMIT: start (wanted) or nothing / release.  ROLLBACK of it or of
 * a subtransaction: the launcher starts a worker that looks at the catalog
 * and goes away again if it is not wanted.  PREPARE TRANSACTION is refused.
 * Raises ERRCODE_CONFIGURATION_LIMIT_EXCEEDED when there is no free slot.
 */
extern void progress_start_at_commit(int64 stream_id, const char *stream_name, Oid owner);

/*
 * Stops the worker of a stream now and waits until it is gone; keeps the
 * launcher from starting another until the transaction ends.  A worker that does
 * not end by itself between batches within a second is sent SIGTERM: its
 * batch rolls back.  forget: release the slot at COMMIT (drop_stream).
 */
extern void progress_stop_now(int64 stream_id, bool forget);

/*
 * Copies a slot's scalar part; false when the stream has no slot.  The arrays
 * are not copied.
 */
extern bool progress_read(Oid database_id, int64 stream_id, StreamSlot *copy);

/* Waits for a change of the stream's slot, at most timeout_ms; interruptible. */
extern void progress_wait_for_change(int64 stream_id, long timeout_ms);

/* --- for the stream worker --- */

/* Attaches this process to the slot; ERROR/exit when another worker has it. Detaches at exit. */
extern StreamSlot *progress_attach_worker(int slot_index, uint32 generation);
extern bool progress_stop_requested(void);
extern void progress_set_name(const char *stream_name, Oid owner);
extern void progress_set_state(StreamState state);
extern void progress_set_backing_off(const ErrorData *error, TimestampTz retry_at);
extern void progress_set_partition(int32 partition, int64 next_offset, int64 low, int64 high,
                                   int64 last_message_ms);
extern void progress_forget_partitions(void);
extern void progress_batch_committed(const BatchProgress *batch,
                                     const BatchPartition *partitions);
/* The stream needs no worker any more (stopped, failed, finished, dropped). */
extern void progress_not_wanted(bool release_slot);

#endif /* PROGRESS_H */
