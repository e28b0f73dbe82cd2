/*-------------------------------------------------------------------------
 *
 * kafka_prelude.h
 *	  The one place that includes librdkafka's header.
 *
 * Included by kafka_*.c only: no librdkafka type appears in a header that
 * other files see.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KAFKA_PRELUDE_H
#define KAFKA_PRELUDE_H

#include "postgres.h"

/* rdkafka.h of 2.3 and later has a const that means nothing */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-qualifiers"
#include <librdkafka/rdkafka.h>
#pragma GCC diagnostic pop

StaticAssertDecl(RD_KAFKA_VERSION >= 0x020002ff,
                 "kafka_ingest needs librdkafka 2.0.2 or later");

#endif /* KAFKA_PRELUDE_H */
