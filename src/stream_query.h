/*-------------------------------------------------------------------------
 *
 * stream_query.h
 *	  What a stream's query may be, and the INSERT that it becomes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STREAM_QUERY_H
#define STREAM_QUERY_H

#include "compat.h"

#include "nodes/parsenodes.h"
#include "stream.h"

/*
 * Analyzes the text of a query as the current user, with its search_path.
 * ERRCODE_SYNTAX_ERROR unless it is one SELECT.
 */
extern Query *stream_query_analyze(const char *query);

/*
 * The one topic table that a source reads.  Raises ERRCODE_WRONG_OBJECT_TYPE when source is
 * neither a topic table nor a view over one, and ERRCODE_FEATURE_NOT_SUPPORTED with
 * the reason for everything that a stream can't honour in any mode.
 */
extern Oid stream_query_topic_table(Oid source);

/* Does the source aggregate (GROUP BY, aggregates, DISTINCT), so that it has groups with a state? */
extern bool stream_query_aggregates(Oid source);

/*
 * The rules of the stream's mode for its source and its settings.  Raises
 * ERRCODE_FEATURE_NOT_SUPPORTED, ERRCODE_INVALID_PARAMETER_VALUE.
 */
extern void stream_query_check_mode(const Stream *stream);

/* ERRCODE_FEATURE_NOT_SUPPORTED: what, why, and what to do instead; texts as they are. */
pg_noreturn extern void stream_query_refuse(const char *message, const char *detail,
                                            const char *hint);

/*
 * SQL of a query, of an expression of it, or of one over one table's rows, with every name
 * qualified that is not in pg_catalog: for a session whose search_path has only that.
 */
extern char *stream_query_deparse(Query *query);
extern char *stream_query_expression_text(const Query *query, Node *expression);
extern char *stream_query_deparse_expression(Node *expression, Oid table, const char *alias);

/* An operator as it is written there; the one by which values of a type are grouped. */
extern char *stream_query_operator(Oid operator_id);
extern char *stream_query_equality(Oid type);

/*
 * The statement that writes a batch: columns of source and target matched by
 * name.  Raises ERRCODE_DATATYPE_MISMATCH / ERRCODE_WRONG_OBJECT_TYPE with the columns in the
 * detail when they don't fit.
 */
extern char *stream_query_insert_statement(const Stream *stream);

/*
 * The defaults (TopicColumnDefault) that target columns have for fields which
 * are missing in a message: for every column of topic_table that the analyzed and
 * rewritten INSERT hands through to one target column with a default.
 */
extern List *stream_query_missing_defaults(Query *insert, Oid topic_table);

#endif /* STREAM_QUERY_H */
