/*-------------------------------------------------------------------------
 *
 * catalog.h
 *	  SQL on the extension's own tables, as their owner.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KAFKA_CATALOG_H
#define KAFKA_CATALOG_H

#include "postgres.h"
#include "executor/spi.h"

/* What catalog_begin() has changed, for catalog_end(). */
typedef struct CatalogAccess
{
	Oid user_id;
	int security_context;
	int guc_nest_level;
	bool snapshot_pushed;
} CatalogAccess;

/* OIDs of kafka.stream and its owner; InvalidOid / false when the extension is not there. */
extern Oid catalog_stream_table(void);
extern bool catalog_exists(void);

/*
 * Keeps the extension from being dropped until the transaction ends.  DROP EXTENSION locks the extension
 * before it locks tables: so do we, lest the two deadlock.  false: it is being dropped, and wait is not set.
 */
extern bool catalog_lock(bool wait);

/*
 * Locks the extension (catalog_lock), connects to SPI as the owner of the extension's tables, with a search_path
 * of pg_catalog alone and security-restricted, so that nothing of the
 * caller's can take part in a statement.  Needs a transaction.  An error in
 * between is undone by the abort of the (sub)transaction.
 */
extern void catalog_begin(CatalogAccess *access);
extern void catalog_end(CatalogAccess *access);

/*
 * Executes a statement between catalog_begin and catalog_end; checks that SPI
 * answered "expected" (SPI_OK_...).  Arguments as in SPI_execute_with_args.
 * Returns SPI_processed.
 */
extern uint64 catalog_execute(int expected, const char *sql, int nargs, Oid *types,
                              Datum *values, const char *nulls);

/*
 * The same for what runs in every batch: the statement is prepared once, and kept in *plan,
 * a static variable, for the life of the session.
 */
extern uint64 catalog_execute_kept(SPIPlanPtr *plan, int expected, const char *sql, int nargs,
                                   Oid *types, Datum *values, const char *nulls);

#endif /* KAFKA_CATALOG_H */
