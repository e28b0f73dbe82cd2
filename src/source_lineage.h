/*-------------------------------------------------------------------------
 *
 * source_lineage.h
 *	  Which message, and which columns of the topic table, a row of a stream's
 *	  query comes from.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SOURCE_LINEAGE_H
#define SOURCE_LINEAGE_H

#include "postgres.h"
#include "nodes/parsenodes.h"

/*
 * Both take a query that has been analyzed and rewritten, but not planned, and
 * that reads the topic table once, at no level with aggregation, DISTINCT or
 * sorting: what stream_query_topic_table() lets through for rows.
 */

/*
 * Adds a column of type tid to the query's output, and to that of every subquery on the way,
 * that holds ctid of the topic table's row: see topic_scan_get_index().  Changes
 * query.  Returns the number of the column.
 */
extern AttrNumber source_lineage_add_index(Query *query, Oid topic_table);

/*
 * An expression of the query's target list over the columns of the topic
 * table only: its Vars have varno 1 and the topic table's attribute numbers.  A new
 * tree, or NULL if the expression depends on anything else (another
 * relation, a sub-select).
 */
extern Expr *source_lineage_of(Query *query, Expr *expression, Oid topic_table);

#endif /* SOURCE_LINEAGE_H */
