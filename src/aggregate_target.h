/*-------------------------------------------------------------------------
 *
 * aggregate_target.h
 *	  The table that the result of an aggregation is written to.
 *
 *-------------------------------------------------------------------------
 */
#ifndef AGGREGATE_TARGET_H
#define AGGREGATE_TARGET_H

#include "postgres.h"
#include "catalog/pg_attribute.h"
#include "stream.h"
#include "stream_aggregate.h"
#include "utils/relcache.h"

/* An output column, and where it goes. */
typedef struct TargetColumn
{
	char *name; /* quoted */
	Form_pg_attribute attribute;
	char *expression; /* over "s" */
	bool is_key;
} TargetColumn;

typedef struct AggregateTarget
{
	Relation relation;
	char *name;    /* qualified and quoted */
	List *columns; /* of TargetColumn *: c1 ... of a result */
	/* the keys, as attribute numbers in the order of a unique index that tells rows by them; NIL: none does */
	List *key_index;
	bool keys_not_null;
	bool is_one_table; /* neither partitioned nor with children */
} AggregateTarget;

/*
 * Looks the target of a stream up; its relation stays open.  Raises what is wrong with it:
 * as stream_query_insert_statement(), ERRCODE_WRONG_OBJECT_TYPE, and in update mode
 * ERRCODE_FEATURE_NOT_SUPPORTED (a key is not selected), ERRCODE_DATATYPE_MISMATCH (a
 * column can't hold it), ERRCODE_INVALID_TABLE_DEFINITION (no unique index).
 */
extern AggregateTarget *
aggregate_target_load(const Stream *stream, const StreamAggregate *aggregate, Oid state_table);

#endif /* AGGREGATE_TARGET_H */
