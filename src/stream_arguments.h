/*-------------------------------------------------------------------------
 *
 * stream_arguments.h
 *	  The arguments of create_stream and alter_stream, as a Stream.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STREAM_ARGUMENTS_H
#define STREAM_ARGUMENTS_H

#include "postgres.h"
#include "fmgr.h"
#include "start_position.h"
#include "stream.h"

/* create_stream, in the order of its declaration. */
enum
{
	CREATE_NAME,
	CREATE_SOURCE,
	CREATE_QUERY,
	CREATE_TARGET,
	CREATE_MODE,
	CREATE_START_OPTIONS,
	CREATE_SETTINGS = CREATE_START_OPTIONS + 4,
	CREATE_START = CREATE_SETTINGS + 17
};

/* alter_stream, likewise: its settings are those of create_stream. */
enum
{
	ALTER_NAME,
	ALTER_QUERY,
	ALTER_TARGET,
	ALTER_SETTINGS
};

/*
 * The stream that create_stream is asked for, before anything is looked up; it belongs to
 * the current user.  Raises ERRCODE_INVALID_PARAMETER_VALUE and the like for what can't be.
 */
extern Stream *stream_from_arguments(FunctionCallInfo fcinfo);

/*
 * Changes a stream as alter_stream is asked to; settings that are NULL stay as they are, 0, '' and '{}'
 * remove one.  The query is left to the caller.  Returns whether what the stream keeps may have to
 * be another state.
 */
extern bool stream_change_by_arguments(Stream *stream, FunctionCallInfo fcinfo);

/* The four start options, from argument "first" on. */
extern StartOptions start_options_from_arguments(FunctionCallInfo fcinfo, int first);

#endif /* STREAM_ARGUMENTS_H */
