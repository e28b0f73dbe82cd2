/*-------------------------------------------------------------------------
 *
 * privileges.h
 *	  What a role must be granted for a stream, named exactly when it is missing.
 *
 * PostgreSQL checks all of this itself when statements run, but its errors say neither
 * which privilege is missing nor for whom.  So it is looked at before.  All of these are about the
 * current user, or the owner of a view in between, and raise
 * ERRCODE_INSUFFICIENT_PRIVILEGE: role, privilege and object in the detail, the GRANTs to run
 * in the hint.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PRIVILEGES_H
#define PRIVILEGES_H

#include "compat.h"

#include "executor/spi.h"
#include "nodes/pg_list.h"
#include "stream.h"

/* USAGE on the server of a topic table, which no statement asks for. */
extern void privileges_check_server(Oid topic_table);

/* USAGE on the schemas of source and target, so that statements can name them. */
extern void privileges_check_schemas(const Stream *stream);

/* SELECT on a source, or on any column of it. */
extern void privileges_check_source(Oid source);

/* EXECUTE on a function, procedure or aggregate. */
extern void privileges_check_routine(Oid routine);

/*
 * What prepared statements need: a list of SPIPlanPtr of one command each, in which NULL is
 * passed over.  Everything that is missing is in one error.  They need not be planned yet, which
 * is an error of PostgreSQL's own where a view may not be read.
 */
extern void privileges_check_plans(List *plans);

#endif /* PRIVILEGES_H */
