/*-------------------------------------------------------------------------
 *
 * event_time.h
 *	  Windows of event time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENT_TIME_H
#define EVENT_TIME_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "nodes/parsenodes.h"

#include "stream.h"

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

#endif /* EVENT_TIME_H */
