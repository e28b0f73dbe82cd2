/*-------------------------------------------------------------------------
 *
 * event_time.h
 *	  Watermarks of streams, and windows of event time.
 *
 * A watermark is max(event time) - delay over all messages so far.  It is computed at
 * the end of a batch, is valid from the next one on, and never moves backwards.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENT_TIME_H
#define EVENT_TIME_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "nodes/parsenodes.h"

#include "stream.h"
#include "topic_scan.h"

typedef enum WindowKind
{
	WINDOW_NONE,
	WINDOW_TUMBLING, /* date_bin(): the key is the start */
	WINDOW_INSTANT,  /* the watermark column itself */
	WINDOW_RANGE,    /* kafka.sliding_window(): the key is a tstzrange */
	WINDOW_SESSION   /* kafka.session_window(): a tstzrange that grows with its messages */
} WindowKind;

typedef struct EventWindow
{
	WindowKind kind;
	int64 size_us; /* WINDOW_TUMBLING */
} EventWindow;

/* A row of kafka.stream_watermark. */
typedef struct StreamWatermark
{
	TimestampTz watermark;      /* DT_NOBEGIN: none yet */
	TimestampTz previous;       /* that the last batch ran with: what is late is late by it */
	TimestampTz max_event_time; /* DT_NOBEGIN: none yet */
	int64 late_rows;            /* since the start */
} StreamWatermark;

/* Attribute number of the watermark column; ERRCODE_UNDEFINED_COLUMN, ERRCODE_DATATYPE_MISMATCH. */
extern AttrNumber event_time_column(Oid topic_table, const char *watermark_column);

/*
 * Is this expression of a query a window on the topic table's watermark column?
 * Looks through sub-selects, CTEs and views.
 */
extern bool event_time_find_window(Query *query, Node *expression, Oid topic_table,
                                   const char *watermark_column, EventWindow *window);

/* Is kafka.session_window() called in this expression of a query, or in the column that it is? */
extern bool event_time_calls_session_window(Query *query, Node *expression);

/* The column of a source that is the watermark column, as it is; InvalidAttrNumber: none. */
extern AttrNumber event_time_output(Oid source, Oid topic_table, const char *watermark_column);

/* SQL: the end of the window in a key, e.g. "b.k1"; is it at or before a time, e.g. "$1"? */
extern char *event_window_end(const EventWindow *window, const char *key);
extern char *event_window_closed(const EventWindow *window, const char *key, const char *time);

/* The stored watermark of a stream, or none. */
extern StreamWatermark watermark_load(const char *stream);
extern void watermark_store(const char *stream, const StreamWatermark *watermark);
extern void watermark_delete(const char *stream);

/* The statement, with two parameters that don't matter, that finds the oldest and newest event time of a batch. */
extern char *watermark_statement(const Stream *stream, Oid topic_table);

/*
 * Moves a watermark on over the batch that is set for the topic scan, by the plan of that
 * statement; NULL: without data.  What was valid becomes the previous one.  *oldest and *newest are
 * set to the event times of the batch, if it has any.  SPI is connected.
 */
extern void watermark_advance(StreamWatermark *watermark, SPIPlanPtr plan,
                              const Interval *delay, TimestampTz *oldest, TimestampTz *newest);

#endif /* EVENT_TIME_H */
