/*-------------------------------------------------------------------------
 *
 * worker_open.c
 *	  Opening a stream in its worker: from the catalog to a connection that reads.
 *
 * Loads the definition, compares the checkpoint with the topic, takes up what is new in
 * it, and starts reading; notices when any of that has changed and must be opened
 * anew.  What runs is left to worker.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "worker_open.h"

#include "catalog.h"
#include "data_loss.h"
#include "kafka_hosts.h"
#include "pgstat.h"
#include "privileges.h"
#include "progress.h"
#include "stream_lock.h"
#include "stream_objects.h"
#include "stream_query.h"
#include "stream_trust.h"
#include "topic_schema.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* set by cache invalidation: server, user mapping or topic table has changed */
static bool connection_changed = false;

/* kafka_hosts_changes when the connection was made */
static uint32 hosts_changes_seen = 0;

static void
connection_invalidated(Datum argument, int cache_id, uint32 hash_value)
{
	connection_changed = true;
}

void
worker_watch_connection(void)
{
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, connection_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, connection_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNTABLEREL, connection_invalidated, (Datum) 0);
}

bool
worker_connection_changed(void)
{
	return connection_changed || hosts_changes_seen != kafka_hosts_changes;
}

bool
worker_take_up_new_partitions(StreamRun *run)
{
	MemoryContext run_context = CurrentMemoryContext;
	KafkaPartitionOffset *added;
	Checkpoint *stored;
	int added_count;

	added = stream_reader_find_new_partitions(run->reader, &added_count);
	if (added_count == 0)
		return true;
	ereport(LOG, (errmsg("kafka stream \"%s\" takes up %d new partition(s) of topic \"%s\"",
	                     run->stream->name, added_count, run->topic)));
	if (!micro_batch_begin_transaction(run->stream))
		return false;
	checkpoint_add_partitions(run->stream->name, run->topic, added, added_count);
	/* another worker may have been faster, and their owner have moved already */
	MemoryContextSwitchTo(run_context);
	stored = checkpoint_load(run->stream->name, run->topic);
	CommitTransactionCommand();
	MemoryContextSwitchTo(run_context);
	stream_reader_add_partitions(run->reader, stored);
	pfree(stored->positions);
	pfree(stored);
	pfree(added);
	return true;
}

/*
 * Takes the stream over what Kafka has lost, in a transaction of its own, which shows as a
 * batch without messages.  False when the extension is gone.
 */
static bool
pass_loss(StreamRun *run, const CheckpointJump *jumps, int count)
{
	const LogCheck *check = run->reader->log;
	const Stream *stream = run->stream;
	MemoryContext run_context = CurrentMemoryContext;
	BatchProgress progress = {.started_at = GetCurrentTimestamp(),
	                          .batch_id = micro_batch_next_id(run),
	                          .decode_us = -1,
	                          .state_rows = -1,
	                          .partition_count = count};
	BatchPartition *partitions = palloc(sizeof(BatchPartition) * count);

	if (!micro_batch_begin_transaction(stream))
		return false;
	for (int i = 0; i < count; i++)
	{
		partitions[i].partition = jumps[i].partition;
		partitions[i].start_offset = jumps[i].from_offset;
		partitions[i].end_offset = jumps[i].to_offset;
		partitions[i].behind_latest =
		    jumps[i].removed ? -1 : jumps[i].log_end - jumps[i].to_offset;
		progress.lost_offsets += jumps[i].lost;
	}
	checkpoint_pass_loss(stream->name, run->topic, progress.batch_id, jumps, count,
	                     check->topic_id);
	checkpoint_remove_partitions(stream->name, run->topic, check->partition_count);
	progress.xid = U64FromFullTransactionId(GetTopFullTransactionId());
	progress_batch_commits();
	CommitTransactionCommand();
	MemoryContextSwitchTo(run_context);

	data_loss_report(stream, run->topic, jumps, count);
	progress_forget_partitions();
	progress_batch_committed(&progress, partitions);
	return true;
}

/* Stores what the cluster has told about itself since the checkpoint was pinned. */
static bool
note_identity(StreamRun *run)
{
	MemoryContext run_context = CurrentMemoryContext;
	const Checkpoint *checkpoint = run->reader->checkpoint;
	const LogCheck *check = run->reader->log;

	bool complete = checkpoint->cluster_id != NULL || check->cluster_id == NULL;

	for (int i = 0; i < checkpoint->count && check->topic_id != NULL; i++)
		complete = complete && checkpoint->positions[i].topic_id != NULL;
	if (complete)
		return true;
	if (!micro_batch_begin_transaction(run->stream))
		return false;
	checkpoint_set_identity(run->stream->name, run->topic, check->cluster_id, check->topic_id);
	CommitTransactionCommand();
	MemoryContextSwitchTo(run_context);
	return true;
}

OpenOutcome
worker_open_stream(StreamRun *run, int64 stream_id, int worker, bool loss_confirmed)
{
	MemoryContext run_context = CurrentMemoryContext;
	KafkaConnection *connection;
	Checkpoint *checkpoint;
	CheckpointJump *jumps;
	Stream *stream;
	TopicSchema *schema;
	OwnerIdentity saved;
	int lost;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	connection_changed = false;
	hosts_changes_seen = kafka_hosts_changes;
	if (!catalog_exists())
	{
		CommitTransactionCommand();
		return OPEN_NOTHING;
	}
	/* waits for a transaction that is about to change or drop the stream */
	stream_lock(stream_id, AccessShareLock);
	MemoryContextSwitchTo(run_context);
	run->stream = stream = stream_load_by_id(stream_id);
	if (stream == NULL || !stream->enabled || !stream->started_here || stream->failed ||
	    worker >= stream->workers)
	{
		CommitTransactionCommand();
		return OPEN_NOTHING;
	}
	progress_set_name(stream->name, stream->owner);
	pgstat_report_appname(stream->workers == 1
	                          ? psprintf("kafka_ingest %s", stream->name)
	                          : psprintf("kafka_ingest %s %d", stream->name, worker));
	if (!stream_try_lock_objects(stream))
	{
		/* whoever is in the way may want to drop the extension next: wait without any lock of it */
		CommitTransactionCommand();
		StartTransactionCommand();
		stream_wait_for_objects(stream);
		CommitTransactionCommand();
		return OPEN_AGAIN;
	}

	run->sink_context =
	    AllocSetContextCreate(run_context, "kafka sink", ALLOCSET_DEFAULT_SIZES);
	run->batch_context =
	    AllocSetContextCreate(run_context, "kafka batch", ALLOCSET_DEFAULT_SIZES);

	PushActiveSnapshot(GetTransactionSnapshot());
	become_owner(stream, &saved);
	run->topic_table = stream_query_topic_table(stream->source);
	stream_trust_check(stream);
	privileges_check_server(run->topic_table);
	schema = topic_schema_load(run->topic_table);
	run->topic = schema->topic;
	connection = kafka_connection_load(schema->server_id, stream->owner);
	/* what is wrong with source, target or privileges shall show now, not with the first message */
	MemoryContextSwitchTo(run->sink_context);
	run->sink = sink_create(stream, run->topic_table);
	MemoryContextSwitchTo(run_context);
	restore_identity(&saved);
	PopActiveSnapshot();

	checkpoint = checkpoint_load(stream->name, run->topic);
	run->batch_id = checkpoint->last_batch_id;
	CommitTransactionCommand();
	MemoryContextSwitchTo(run_context);

	pgstat_report_activity(STATE_IDLE, NULL);
	run->reader = stream_reader_open(stream, worker, run->topic, connection, checkpoint);
	jumps = data_loss_examine(stream, run->topic, checkpoint, run->reader->log, loss_confirmed,
	                          &lost);
	if (lost > 0)
		return pass_loss(run, jumps, lost) ? OPEN_AGAIN : OPEN_NOTHING;
	if (!note_identity(run))
		return OPEN_NOTHING;
	stream_reader_start(run->reader);
	return worker_take_up_new_partitions(run) ? OPEN_RUNNING : OPEN_NOTHING;
}
