/*-------------------------------------------------------------------------
 *
 * stream_view.h
 *	  The view in which a stream's query is stored.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STREAM_VIEW_H
#define STREAM_VIEW_H

#include "nodes/parsenodes.h"
#include "stream.h"

/* Its name in the schema kafka; palloc'd. */
extern char *stream_view_name(int64 stream_id);

/*
 * Creates the view of an analyzed query for the stream's owner, in place of the one it has, and
 * returns its OID.  Errors are those of CREATE VIEW; ERRCODE_WRONG_OBJECT_TYPE when
 * the query reads temporary tables.
 */
extern Oid stream_view_create(const Stream *stream, Query *query);

#endif /* STREAM_VIEW_H */
