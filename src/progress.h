/*-------------------------------------------------------------------------
 *
 * progress.h
 *	  Shared memory: which streams shall run, which worker runs them, how far
 *	  they are, and their recent batches.
 *
 * One slot per worker of a stream, of the whole server (kafka_ingest.max_stream_workers).
 * A slot is keyed by (database, stream_id, worker number).  The launcher owns what is
 * about processes, the worker what is about progress, SQL functions only ask
 * (start, stop) and read.  Nothing here must survive a crash: what must is in
 * the catalog tables.  src/README.md has the states and who moves them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PROGRESS_H
#define PROGRESS_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "storage/condition_variable.h"
#include "storage/spin.h"

#define PROGRESS_MAX_PARTITIONS 1024  /* live positions kept per worker */
#define PROGRESS_HISTORY_BYTES  32768 /* recent batches kept per worker */

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
	int64 late_rows;          /* dropped because they are behind the watermark */
	int64 lost_offsets;       /* that Kafka no longer had: the "batch" moves over them */
	int64 state_rows;         /* of the stream's state, after the batch; -1: it has none */
	TimestampTz watermark;    /* after the batch; 0: none */
	TimestampTz oldest_event; /* of the batch's rows; 0: none */
	TimestampTz newest_event;
	int64 wait_us;    /* since the end of the last batch */
	int64 execute_us; /* decode, query and sink: one pipeline */
	int64 decode_us;  /* the part of execute_us spent decoding, sampled; -1: not known */
	int64 commit_us;
	uint64 xid; /* full transaction id of the commit */
	int partition_count;
} BatchProgress;

typedef struct StreamSlot
{
	/* guarded by the lock of all slots */
	bool in_use;
	Oid database_id;
	int64 stream_id;
	int worker;           /* number among the stream's workers, from 0 */
	uint32 generation;    /* changes whenever the slot is reused */
	bool wanted;          /* the launcher shall keep a worker running */
	bool starting;        /* registered with the postmaster, not yet attached */
	bool release_at_exit; /* the worker found that the stream is gone */
	bool look_again;      /* another process knows that the stream must be opened anew */
	bool told_to_end;  /* the worker has been sent SIGTERM by who stops the stream; by mutex */
	int stop_requests; /* open transactions that stopped the stream: no worker meanwhile */
	int pending_requests;  /* open transactions that will decide about the slot: it stays */
	uint32 start_requests; /* committed ones; tells a worker of newer ones than it has seen */
	pid_t worker_pid;      /* 0: no worker */
	int worker_procno;     /* for its latch */
	TimestampTz last_start;
	TimestampTz next_start; /* not before */
	int failures;           /* consecutive; reset by a committed batch or a quiet minute */
	int64 restarts;         /* starts after a failure */

	/* guarded by mutex: written by the worker, or without one by the launcher */
	char stream_name[NAMEDATALEN];
	Oid owner; /* who may see it, beside pg_monitor */
	StreamState state;
	TimestampTz state_since;
	TimestampTz worker_since;
	TimestampTz retry_at; /* BACKING_OFF only */
	ProgressError last_error;
	int64 rows; /* since the worker started */
	int64 bytes;
	double rows_per_second; /* decaying, as of rate_at: see progress_rows_per_second() */
	TimestampTz rate_at;    /* 0: no batch since the worker started */
	uint32 commits; /* odd: a batch may be visible that is not reported yet; never goes back */

	slock_t mutex;
} StreamSlot;

/* --- settings and set-up (called from _PG_init) --- */
extern int progress_max_stream_workers; /* kafka_ingest.max_stream_workers */
/* kafka_ingest.max_stream_workers_per_role; -1: no limit */
extern int progress_max_stream_workers_per_role;
extern int progress_max_restart_delay; /* kafka_ingest.max_restart_delay, in seconds */
extern void progress_define_settings(void);
extern void progress_request_shared_memory(void);

/* True when the library was preloaded and shared memory exists. */
extern bool progress_available(void);
/* ERROR with the hint to set shared_preload_libraries. */
extern void progress_require_available(void);

/*
 * ERRCODE_FEATURE_NOT_SUPPORTED when this process is a worker of the stream; action: "stop",
 * what it can't do to itself.
 */
extern void progress_refuse_in_worker(int64 stream_id, const char *action);

/* --- for SQL functions: transactional requests (progress_requests.c) --- */

/*
 * Reserves slots for the workers of a stream of this database; at COMMIT they are
 * wanted, and slots of more workers than these, which the stream may have had, are
 * released.  On ROLLBACK, of the transaction or of the subtransaction, nothing
 * happens.  Of several requests for a stream in one transaction the last
 * decides.  PREPARE TRANSACTION is refused.
 * Raises ERRCODE_CONFIGURATION_LIMIT_EXCEEDED when there are not enough free slots, and
 * what progress_require_available() raises.
 */
extern void progress_start_at_commit(int64 stream_id, int workers, const char *stream_name,
                                     Oid owner);

/*
 * Stops all workers of a stream now and waits until they are gone; keeps the
 * launcher from starting others until the transaction ends.  A worker that
 * does not end by itself within a second is sent SIGTERM: its batch rolls
 * back.  At COMMIT the stream is no longer wanted, and with forget
 * (drop_stream) its slots are released; on ROLLBACK, of the transaction or of
 * the subtransaction, a stream that was wanted gets its workers again, which
 * look at the catalog.  PREPARE TRANSACTION is refused.
 * Does nothing when the library is not preloaded.  Interruptible.
 * Raises ERRCODE_FEATURE_NOT_SUPPORTED in one of the stream's own workers.
 */
extern void progress_stop_now(int64 stream_id, int workers, bool forget);

/* Has the current transaction started or stopped the stream? */
extern bool progress_request_is_pending(int64 stream_id);

/*
 * Waits for a change of the stream: a commit, or another state or the exit of one of its
 * workers; at most timeout_ms; interruptible.  Use it in a loop that checks its
 * condition before every call: the first call may return at once, so that no
 * change between check and wait is missed.  After the loop call
 * progress_end_wait(); an error does so by itself.
 * Raises what progress_require_available() raises.
 */
extern void progress_wait_for_change(int64 stream_id, long timeout_ms);

/*
 * Commits of the stream that may be visible, but that kafka.stream_progress and kafka.stream_lag don't show yet;
 * palloc'd, for progress_commits_reported(), which is true when they do.  Later ones are not waited for.
 */
extern uint32 *progress_unreported_commits(int64 stream_id);
extern bool progress_commits_reported(const uint32 *unreported);
extern void progress_end_wait(void);

/* --- for the stream worker (progress_worker.c) --- */

/*
 * Makes this process the worker of a slot; to be called before it connects to
 * its database, so that "detached" means that its transaction is over.
 * Ends the process with exit code 0 when the slot has a worker already, was
 * given to another stream, or the stream is being stopped.  Detaches at exit:
 * an exit that was neither asked for nor announced by progress_not_wanted()
 * counts as a failure, and the worker is restarted after a delay.
 */
extern StreamSlot *progress_attach_worker(int slot_index, uint32 generation);

/* Shall the worker exit?  Its latch is set when this becomes true; it must exit then. */
extern bool progress_stop_requested(void);

/*
 * Does another process know that the stream must be opened anew, since the last call: changed in the
 * catalog, or its topic is another one?  The latch is set when this becomes true.
 */
extern bool progress_look_again(void);

/*
 * Makes progress_look_again() true in the workers of a stream of this database, but not in the one that calls
 * it, if it is one; after COMMIT.
 */
extern void progress_tell_workers(int64 stream_id);

extern void progress_set_name(const char *stream_name, Oid owner);
extern void progress_set_state(StreamState state);

/* State STREAM_BACKING_OFF; keeps a copy of the error's texts. */
extern void progress_set_backing_off(const ErrorData *error, TimestampTz retry_at);

/* Partitions beyond the first PROGRESS_MAX_PARTITIONS are not kept. */
extern void progress_set_partition(int32 partition, int64 next_offset, int64 low, int64 high,
                                   int64 last_message_ms);
extern void progress_forget_partitions(void);

/* To be called before the COMMIT of a batch; progress_batch_committed(), or another state, ends it. */
extern void progress_batch_commits(void);

/* Adds a batch to the recent ones; partitions has batch->partition_count elements. */
extern void progress_batch_committed(const BatchProgress *batch,
                                     const BatchPartition *partitions);

/*
 * The stream needs no worker any more: stopped, failed, finished, or (release_slot)
 * dropped.  The worker shall exit then.  When somebody has started the stream
 * since the worker attached, the launcher starts another one, which looks again.
 */
extern void progress_not_wanted(bool release_slot);

#endif /* PROGRESS_H */
