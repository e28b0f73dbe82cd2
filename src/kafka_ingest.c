/*-------------------------------------------------------------------------
 *
 * kafka_ingest.c
 *	  Loading the library: settings, shared memory, the launcher.
 *
 * Streams need the library in shared_preload_libraries.  Loaded by a session
 * alone it can read topics and keep streams' definitions, but run none.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "fmgr.h"
#include "kafka_hosts.h"
#include "launcher.h"
#include "miscadmin.h"
#include "progress.h"
#include "utils/guc.h"
#include "worker.h"

PG_MODULE_MAGIC;

void _PG_init(void);

void
_PG_init(void)
{
	kafka_hosts_define_setting();
	if (!process_shared_preload_libraries_in_progress)
		return;

	progress_define_settings();
	worker_define_settings();
	MarkGUCPrefixReserved("kafka_ingest");
	progress_request_shared_memory();

	/* pg_upgrade needs the catalog to stand still */
	if (!IsBinaryUpgrade)
		launcher_register();
}
