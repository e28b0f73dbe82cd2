/*-------------------------------------------------------------------------
 *
 * sink_procedure.h
 *	  foreach_batch: hand each batch to a procedure instead of a target.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SINK_PROCEDURE_H
#define SINK_PROCEDURE_H

#include "sink.h"

/*
 * See sink_create().  Raises ERRCODE_WRONG_OBJECT_TYPE unless foreach_batch is a procedure
 * with one bigint argument, ERRCODE_INVALID_PARAMETER_VALUE for options that only a target can
 * honour, and ERRCODE_INSUFFICIENT_PRIVILEGE when the current user may not call it.
 */
extern Sink *procedure_sink_create(const Stream *stream, Oid topic_table);

#endif /* SINK_PROCEDURE_H */
