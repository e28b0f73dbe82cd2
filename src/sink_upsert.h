/*-------------------------------------------------------------------------
 *
 * sink_upsert.h
 *	  Update mode without aggregation: insert or update by key, delete by
 *	  tombstone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SINK_UPSERT_H
#define SINK_UPSERT_H

#include "sink.h"

/*
 * See sink_create().  Raises what upsert_target.h names, what parse analysis raises, and
 * ERRCODE_INSUFFICIENT_PRIVILEGE when the current user may not read the source or
 * write the target.
 */
extern Sink *upsert_sink_create(const Stream *stream, Oid topic_table);

/*
 * For streams of other modes: raises ERRCODE_INVALID_PARAMETER_VALUE if the stream
 * has an option that only upserts have.
 */
extern void upsert_refuse_options(const Stream *stream);

#endif /* SINK_UPSERT_H */
