/*-------------------------------------------------------------------------
 *
 * data_loss.c
 *	  What becomes of a stream whose topic has lost something.
 *
 * With fail_on_data_loss (the default) it stops, with the range that is gone.  Without, it goes
 * on with what is there: at the log's start, where that has passed the
 * checkpoint, or from the start of a topic that was created anew.  Facts come from
 * log_check.c, positions are moved by checkpoint.c.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "data_loss.h"

#define HINT_GO_ON                                                                             \
	"Use kafka.reset_stream to go on with what is there, or set fail_on_data_loss => false "   \
	"with kafka.alter_stream and start the stream."
#define HINT_PASS_OVER                                                                         \
	"To go on at the start of the log, set fail_on_data_loss => false with "                   \
	"kafka.alter_stream and start the stream. kafka.reset_stream would read all partitions "   \
	"anew, also what has been written of them."
#define HINT_READ_ON                                                                           \
	"Rows of the new log are in the target already, from the position on that the stream had " \
	"in the old one: kafka.stream_progress has the batches. kafka.reset_stream would write "   \
	"them once more, so remove them first."
#define HINT_CONFIRM                                                                           \
	"If it is still so after a pause, the stream goes on with what is there: "                 \
	"fail_on_data_loss is false."

pg_noreturn static void
raise_other_cluster(const Stream *stream, const Checkpoint *checkpoint, const LogCheck *check)
{
	ereport(ERROR,
	        (errcode(ERRCODE_DATA_CORRUPTED),
	         errmsg("stream \"%s\" is connected to another Kafka cluster than before",
	                stream->name),
	         errdetail("Its checkpoint is of cluster \"%s\"; the servers answer as \"%s\".",
	                   checkpoint->cluster_id, check->cluster_id),
	         errhint(
	             "Offsets of one cluster mean nothing in another. Use kafka.reset_stream to "
	             "start in the new one.")));
}

void
data_loss_topic_gone(const Stream *stream, const char *topic, const char *detail)
{
	if (!stream->fail_on_data_loss)
		ereport(ERROR,
		        (errcode(ERRCODE_FDW_TABLE_NOT_FOUND),
		         errmsg("topic \"%s\" of stream \"%s\" is not there", topic, stream->name),
		         errdetail_internal("%s", detail),
		         errhint("The stream waits for it: fail_on_data_loss is false.")));
	ereport(
	    ERROR,
	    (errcode(ERRCODE_DATA_CORRUPTED),
	     errmsg("topic \"%s\" of stream \"%s\" is gone, or has fewer partitions than before",
	            topic, stream->name),
	     errdetail_internal("%s", detail),
	     errhint("If it was recreated, use kafka.reset_stream to start in the new one, or set "
	             "fail_on_data_loss => false with kafka.alter_stream and start the stream.")));
}

pg_noreturn static void
raise_loss(const Stream *stream, const char *topic, const LogFinding *finding)
{
	const char *hint = !stream->fail_on_data_loss ? HINT_CONFIRM
	                   : finding->read_on         ? HINT_READ_ON
	                                              : HINT_GO_ON;

	switch (finding->kind)
	{
		case LOG_START_PASSED:
			ereport(ERROR,
			        (errcode(ERRCODE_DATA_CORRUPTED),
			         errmsg("messages of topic \"%s\" are gone that stream \"%s\" has not read",
			                topic, stream->name),
			         errdetail("Partition %d: the stream is at offset %lld, but the log starts "
			                   "at %lld; %lld offset(s) are lost. Retention, or a deletion of "
			                   "records, has passed the checkpoint.",
			                   finding->partition, (long long) finding->next_offset,
			                   (long long) finding->low,
			                   (long long) (finding->low - finding->next_offset)),
			         errhint("%s", stream->fail_on_data_loss ? HINT_PASS_OVER : hint)));
			break;
		case LOG_ENDS_BEFORE:
			ereport(
			    ERROR,
			    (errcode(ERRCODE_DATA_CORRUPTED),
			     errmsg("topic \"%s\" has lost messages that stream \"%s\" has read", topic,
			            stream->name),
			     errdetail("Partition %d: the stream is at offset %lld, but the log ends at "
			               "%lld: the topic was truncated or recreated.",
			               finding->partition, (long long) finding->next_offset,
			               (long long) finding->high),
			     errhint("%s", hint)));
			break;
		case LOG_OTHER_MESSAGE:
		case LOG_OTHER_TOPIC:
			ereport(
			    ERROR,
			    (errcode(ERRCODE_DATA_CORRUPTED),
			     errmsg("topic \"%s\" is not the one that stream \"%s\" has read", topic,
			            stream->name),
			     finding->kind == LOG_OTHER_TOPIC
			         ? errdetail("The topic was deleted and created again.")
			     : finding->read_on
			         ? errdetail("Partition %d has another message than before at an offset "
			                     "that was read, but the one before offset %lld is the "
			                     "same: the topic was deleted and created again, and read "
			                     "on before that was noticed.",
			                     finding->partition, (long long) finding->next_offset)
			         : errdetail("Partition %d has another message before offset %lld than "
			                     "before: the topic was deleted and created again, or "
			                     "truncated and written again.",
			                     finding->partition, (long long) finding->next_offset),
			     errhint("%s", hint)));
			break;
		case LOG_PARTITION_GONE:
			ereport(
			    ERROR,
			    (errcode(ERRCODE_DATA_CORRUPTED),
			     errmsg("partition %d of topic \"%s\", which stream \"%s\" has read, is gone",
			            finding->partition, topic, stream->name),
			     errdetail("The stream is at offset %lld: the topic was recreated with "
			               "fewer partitions.",
			               (long long) finding->next_offset),
			     errhint("%s", hint)));
			break;
		case LOG_AGREES:
		case LOG_PARTITION_NEW:
			break;
	}
	elog(ERROR, "unexpected finding %d about partition %d", finding->kind, finding->partition);
}

bool
data_loss_raised(const ErrorData *error)
{
	/* users' code and damaged tables have the SQLSTATE too; where it was raised they can't choose */
	return error->filename != NULL && strcmp(error->filename, "data_loss.c") == 0 &&
	       error->funcname != NULL && strcmp(error->funcname, "raise_loss") == 0;
}

void
data_loss_out_of_range(const Stream *stream, const char *topic, const LogFinding *finding)
{
	if (finding->kind == LOG_START_PASSED && !stream->fail_on_data_loss)
		return;
	if (finding->kind != LOG_AGREES)
		raise_loss(stream, topic, finding);
	/* passes, when it is a new leader that has not caught up; what stays is believed in the end */
	ereport(ERROR,
	        (errcode(ERRCODE_DATA_CORRUPTED),
	         errmsg("Kafka refuses offset %lld of partition %d of topic \"%s\"",
	                (long long) finding->next_offset, finding->partition, topic),
	         errdetail("It says that the log goes from offset %lld up to, not including, %lld.",
	                   (long long) finding->low, (long long) finding->high)));
}

/* From where a stream goes on in a partition. */
static CheckpointJump
jump_over(const LogFinding *finding, const PartitionPosition *position, bool known_topic)
{
	CheckpointJump jump = {.partition = finding->partition,
	                       .from_offset = finding->next_offset,
	                       .to_offset = finding->low,
	                       .log_end = finding->high};

	if (finding->kind == LOG_START_PASSED)
		jump.lost = finding->low - finding->next_offset;
	else
	{
		/* unread messages of the old log, as far as it was known */
		jump.lost = Max(position->known_end - finding->next_offset, 0);
		jump.other_log = true;
		if (finding->kind == LOG_PARTITION_GONE)
		{
			jump.removed = true;
			jump.to_offset = finding->next_offset;
		}
		/* the same topic, cut off: what is left of it has been read */
		if (finding->kind == LOG_ENDS_BEFORE && known_topic)
			jump.to_offset = finding->high;
	}
	return jump;
}

/* The finding to be told: rows of another log in the target are what must be known. */
static const LogFinding *
gravest(const LogCheck *check, int count, const LogFinding *finding)
{
	for (int i = 0; i < count; i++)
		if (check->findings[i].read_on)
			return &check->findings[i];
	return finding;
}

CheckpointJump *
data_loss_examine(const Stream *stream, const char *topic, const Checkpoint *checkpoint,
                  const LogCheck *check, bool confirmed, int *count)
{
	CheckpointJump *jumps;

	*count = 0;
	if (check->other_cluster)
		raise_other_cluster(stream, checkpoint, check);
	if (check->partition_count == 0)
		data_loss_topic_gone(stream, topic, "The cluster knows no such topic.");
	if (check->partition_count < checkpoint->count && stream->fail_on_data_loss)
		data_loss_topic_gone(stream, topic,
		                     psprintf("The checkpoint has %d partition(s), the topic %d.",
		                              checkpoint->count, check->partition_count));

	jumps = palloc0(sizeof(CheckpointJump) * Max(checkpoint->count, 1));
	for (int i = 0; i < checkpoint->count; i++)
	{
		const LogFinding *finding = &check->findings[i];
		const char *topic_id = checkpoint->positions[i].topic_id;
		bool known_topic = check->topic_id != NULL && topic_id != NULL;

		if (finding->kind == LOG_AGREES)
			continue;
		if (stream->fail_on_data_loss || (finding->kind != LOG_START_PASSED && !confirmed))
			raise_loss(stream, topic, gravest(check, checkpoint->count, finding));
		jumps[(*count)++] = jump_over(finding, &checkpoint->positions[i], known_topic);
	}
	return jumps;
}

void
data_loss_report(const Stream *stream, const char *topic, const CheckpointJump *jumps,
                 int count)
{
	for (int i = 0; i < count; i++)
	{
		const CheckpointJump *jump = &jumps[i];

		if (jump->removed)
			ereport(
			    WARNING,
			    (errcode(ERRCODE_DATA_CORRUPTED),
			     errmsg("kafka stream \"%s\": partition %d of topic \"%s\" is gone",
			            stream->name, jump->partition, topic),
			     errdetail("The stream was at offset %lld; at least %lld offset(s) are lost.",
			               (long long) jump->from_offset, (long long) jump->lost)));
		else if (jump->other_log)
			ereport(
			    WARNING,
			    (errcode(ERRCODE_DATA_CORRUPTED),
			     errmsg("kafka stream \"%s\" goes on at offset %lld of partition %d of topic "
			            "\"%s\", which was truncated or recreated",
			            stream->name, (long long) jump->to_offset, jump->partition, topic),
			     errdetail("It was at offset %lld; at least %lld offset(s) are lost.",
			               (long long) jump->from_offset, (long long) jump->lost)));
		else
			ereport(WARNING,
			        (errcode(ERRCODE_DATA_CORRUPTED),
			         errmsg("kafka stream \"%s\" has lost offsets %lld to %lld of partition %d "
			                "of topic \"%s\"",
			                stream->name, (long long) jump->from_offset,
			                (long long) jump->to_offset - 1, jump->partition, topic),
			         errdetail("The log starts at offset %lld now: the stream goes on there.",
			                   (long long) jump->to_offset)));
	}
}
