/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  The only place that knows PostgreSQL versions.
 *
 * Supported: PostgreSQL 15 to 18.  Every other file is written against the
 * newest of them; what an older one lacks or spells otherwise is here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KAFKA_INGEST_COMPAT_H
#define KAFKA_INGEST_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "kafka_ingest needs PostgreSQL 15 or later"
#endif

#endif /* KAFKA_INGEST_COMPAT_H */
