/*-------------------------------------------------------------------------
 *
 * stream.h
 *	  A stream's row in kafka.stream as a C struct: read, create, change.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STREAM_H
#define STREAM_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#define STREAM_MAX_WORKERS 64

typedef enum StreamTrigger
{
	TRIGGER_PROCESSING_TIME, /* as soon as possible, or every trigger_interval */
	TRIGGER_AVAILABLE_NOW    /* up to the end as of the start, then stop */
} StreamTrigger;

typedef enum StreamMode
{
	MODE_APPEND,  /* each row once, never changed */
	MODE_UPDATE,  /* rows that changed since the last batch, by key */
	MODE_COMPLETE /* the whole result of an aggregation, every batch */
} StreamMode;

typedef enum StreamOnError
{
	ON_ERROR_STOP,
	ON_ERROR_SKIP,
	ON_ERROR_DEAD_LETTER
} StreamOnError;

typedef struct Stream
{
	char *name;
	int64 stream_id; /* 0: not stored yet */
	Oid owner;
	Oid source;      /* topic table, or view over one */
	bool query_view; /* source is a view made from the stream's query */
	Oid target;      /* InvalidOid with foreach_batch */
	StreamMode mode;
	List *key_columns; /* of char *; NIL: the target's primary key, or the GROUP BY columns */
	bool ignore_tombstones; /* on_tombstone = 'ignore' */
	char *version_column;   /* NULL: none */
	char *watermark_column; /* NULL: none */
	Interval *watermark_delay;
	List *deduplicate_by; /* of char * */
	char *foreach_batch; /* signature of the procedure to call instead of writing to a target */
	char *notify;        /* channel, or NULL */
	StreamOnError on_error;
	int64 max_errors;           /* in all; 0: no limit */
	int64 max_errors_per_batch; /* 0: no limit */
	bool fail_on_data_loss;     /* stop when the topic has lost something */
	bool ignore_conflicts;      /* on_conflict = 'ignore' */
	StreamTrigger trigger;
	int64 trigger_interval_ms;
	int64 max_offsets_per_trigger; /* 0: no limit */
	int workers;                   /* that share the partitions: 1 .. STREAM_MAX_WORKERS */
	bool enabled;                  /* a worker shall run ... */
	bool started_here;             /* ... in this very cluster and database */
	bool failed;                   /* error_at is set */
} Stream;

/*
 * Reads a stream by name or by id, in the current memory context.  By name:
 * ERRCODE_UNDEFINED_OBJECT unless missing_ok.  By id: NULL when it is gone, or when the
 * extension is.
 */
extern Stream *stream_load(const char *name, bool missing_ok);
extern Stream *stream_load_by_id(int64 stream_id);

/*
 * stream_load() for a caller who wants to change or wait for the stream:
 * ERRCODE_INSUFFICIENT_PRIVILEGE unless it has the privileges of the stream's owner.
 */
extern Stream *stream_load_owned(const char *name, bool missing_ok);

/* Stores a new stream, sets stream_id; ERRCODE_DUPLICATE_OBJECT when the name is taken. */
extern void stream_insert(Stream *stream);

/* Writes the settings (source, target, trigger, limits ...) of an existing stream. */
extern void stream_update(const Stream *stream);

/*
 * Gives a stream, and what is kept for it, to another role.  A role with streams is
 * on record with PostgreSQL: DROP ROLE is refused.
 */
extern void stream_change_owner(Stream *stream, Oid owner);

/* enabled here and now, or not; either way an earlier failure is forgotten. */
extern void stream_set_enabled(int64 stream_id, bool enabled);

/* Removes the row, the checkpoint with it, and the view of its query. */
extern void stream_delete(const Stream *stream);

/* The next stream_id, for a stream that is about to be stored. */
extern int64 stream_next_id(void);

#endif /* STREAM_H */
