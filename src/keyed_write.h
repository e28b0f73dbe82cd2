/*-------------------------------------------------------------------------
 *
 * keyed_write.h
 *	  Planned INSERT ... ON CONFLICT DO UPDATE, with a shorter way to the rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KEYED_WRITE_H
#define KEYED_WRITE_H

#include "compat.h"

#include "executor/spi.h"
#include "nodes/params.h"
#include "tcop/dest.h"
#include "utils/queryenvironment.h"

/*
 * Runs a prepared statement as SPI_execute_plan() would, within an SPI connection, with the same
 * result in all tables, and gives what it returns to "receiver".  Every INSERT ... ON CONFLICT DO UPDATE
 * in it, at its top or in WITH, that goes to a plain table is written here instead of by
 * the executor's own node.  "parameters" and "environment" may be NULL; our_table: one that nobody else should
 * be writing to, see keyed_rows_begin(); InvalidOid: none.  Returns the number of rows that the statement's top
 * wrote or returned.
 *
 * A row that was updated looks to RETURNING as it does to PostgreSQL: its xmax is not 0.
 *
 * Raises what the statement raises, and what keyed_rows.h does.
 */
extern uint64 keyed_write_execute(SPIPlanPtr plan, ParamListInfo parameters,
                                  QueryEnvironment *environment, Oid our_table,
                                  DestReceiver *receiver);

#endif /* KEYED_WRITE_H */
