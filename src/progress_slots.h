/*-------------------------------------------------------------------------
 *
 * progress_slots.h
 *	  The slots in shared memory, for progress*.c and the launcher alone;
 *	  everybody else uses progress.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PROGRESS_SLOTS_H
#define PROGRESS_SLOTS_H

#include "progress.h"

#include "storage/lwlock.h"

#define PROGRESS_DATABASE_SCANS 2    /* databases looked at at the same time at start-up */
#define PROGRESS_RATE_SECONDS   10.0 /* rows_per_second is over about so long */
#define PROGRESS_CONDITIONS     64   /* that streams share: see progress_condition() */

/* Recent batches: BatchProgress + BatchPartition[], again and again, in a ring of bytes. */
typedef struct BatchHistory
{
	int start; /* of the oldest record */
	int used;  /* bytes */
	int count; /* records */
	char ring[PROGRESS_HISTORY_BYTES];
} BatchHistory;

/* What is large about a slot; guarded by its own lock. */
typedef struct StreamDetail
{
	LWLock lock;
	int partition_count;
	PartitionProgress partitions[PROGRESS_MAX_PARTITIONS]; /* by partition */
	BatchHistory history;
} StreamDetail;

typedef struct ProgressShared
{
	LWLock *lock;        /* of all slots */
	int launcher_procno; /* -1: no launcher */
	/* the last look at a database that came to its end, per process that looks */
	uint64 finished_scans[PROGRESS_DATABASE_SCANS];
	ConditionVariable stream_changed[PROGRESS_CONDITIONS];
	StreamDetail *details;
	StreamSlot slots[FLEXIBLE_ARRAY_MEMBER];
} ProgressShared;

extern ProgressShared *progress_shared; /* NULL: not preloaded */

/* --- slots; the caller holds the lock, exclusively where something changes --- */

extern StreamSlot *progress_find_slot(Oid database_id, int64 stream_id, int worker);

/*
 * The slot of a stream's worker, or a new one for it (not wanted yet); NULL when there
 * is none left.  Slots that nobody wants any more give way, the longest unused first.
 */
extern StreamSlot *progress_reserve_slot(Oid database_id, int64 stream_id, int worker,
                                         const char *stream_name, Oid owner);

/* No worker, none on its way, nobody wants one or is about to decide. */
extern bool progress_slot_unused(const StreamSlot *slot);
extern void progress_release_slot(StreamSlot *slot);

/* A worker ended badly: counts it, and sets when the next one may start. */
extern void progress_note_failure(StreamSlot *slot);

/* --- with or without the lock --- */

/*
 * Broadcast at commits, state changes and exits of a stream's workers.  Who waits
 * must look again: other streams may have the same.
 */
extern ConditionVariable *progress_condition(Oid database_id, int64 stream_id);

/* --- without the lock --- */

extern void progress_set_error(StreamSlot *slot, int sqlerrcode, const char *message,
                               const char *detail, const char *hint);
extern void progress_wake_launcher(void);

/* Delay in microseconds before the next attempt after so many failures, with jitter. */
extern int64 progress_restart_delay(int failures);

/* Makes a stream's worker wanted as the catalog says; false when there is no slot left. */
extern bool progress_want(Oid database_id, int64 stream_id, int worker, const char *stream_name,
                          Oid owner);

/* --- reading, for the status functions --- */

/* Copies slot number index, except for its mutex; false when it is not in use. */
extern bool progress_copy_slot(int index, StreamSlot *copy);

/* Palloc'd copies, *count set: 0 when the slot is not that generation's any more. */
extern PartitionProgress *progress_copy_partitions(int index, uint32 generation, int *count);
extern char *progress_copy_batches(int index, uint32 generation, int *count);

/* Takes the next batch off a copy: sets *batch and *partitions (into the copy). */
extern void progress_next_batch(char **cursor, BatchProgress *batch,
                                BatchPartition **partitions);

/* Input rows per second over the last seconds, as of now. */
extern double progress_rows_per_second(const StreamSlot *slot, TimestampTz now);

/* --- the ring of recent batches (progress_history.c); the caller holds the detail's lock --- */

extern void history_clear(BatchHistory *history);
extern void history_append(BatchHistory *history, const BatchProgress *batch,
                           const BatchPartition *partitions);
extern void history_copy(const BatchHistory *history, char *destination);

#endif /* PROGRESS_SLOTS_H */
