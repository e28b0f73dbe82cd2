/*-------------------------------------------------------------------------
 *
 * stream_state.h
 *	  The table in which a stream keeps its state: kafka.stream_<id>_state.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STREAM_STATE_H
#define STREAM_STATE_H

#include "compat.h"

#include "nodes/pg_list.h"
#include "stream.h"

typedef struct StateColumn
{
	char *name;
	Oid type;
	int32 typmod;
	Oid collation;
	bool is_key;
	char *meaning; /* SQL of what it stands for: kept as the column's comment */
} StateColumn;

typedef struct StateDefinition
{
	List *columns; /* of StateColumn *, keys first */
	char *expiry;  /* expression to be indexed as well, or NULL */
} StateDefinition;

/* A column, palloc'd; the strings are not copied. */
extern StateColumn *stream_state_column(char *name, Oid type, int32 typmod, Oid collation,
                                        bool is_key, char *meaning);

/* Its qualified name, palloc'd; its OID, InvalidOid when there is none. */
extern char *stream_state_name(const Stream *stream);
extern Oid stream_state_find(const Stream *stream);

/* Creates the table, empty, for the stream's owner. */
extern void stream_state_create(const Stream *stream, const StateDefinition *definition);

/*
 * Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, with the hint to reset the stream, unless
 * the table was created for this definition; what has been renamed since then is the same.
 * Brings its comments up to date.  OID of the table.
 */
extern Oid stream_state_check(const Stream *stream, const StateDefinition *definition);

/* Was the table last checked against the stream's source as it is stored now? */
extern bool stream_state_is_of_query(const Stream *stream);

/* That error, with a detail. */
pg_noreturn extern void stream_state_refuse(const Stream *stream, const char *detail);

/* Is there no state, or none in it? */
extern bool stream_state_is_empty(const Stream *stream);

extern void stream_state_clear(const Stream *stream);
/* Gives the table, if there is one, to the stream's owner. */
extern void stream_state_set_owner(const Stream *stream);

extern void stream_state_drop(const Stream *stream);

#endif /* STREAM_STATE_H */
