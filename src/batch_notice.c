/*-------------------------------------------------------------------------
 *
 * batch_notice.c
 *	  notify => 'channel': tell listeners about a batch when it commits.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "batch_notice.h"

#include "commands/async.h"
#include "lib/stringinfo.h"
#include "utils/json.h"

/* PostgreSQL's own limit, NOTIFY_PAYLOAD_MAX_LENGTH in async.c */
#define LONGEST_PAYLOAD 7999

static void
append_offsets(StringInfo payload, const char *name, const BatchPartition *partitions,
               int count, bool end)
{
	appendStringInfo(payload, ", \"%s\": {", name);
	for (int i = 0; i < count; i++)
		appendStringInfo(payload, "%s\"%d\": " INT64_FORMAT, i > 0 ? ", " : "",
		                 partitions[i].partition,
		                 end ? partitions[i].end_offset : partitions[i].start_offset);
	appendStringInfoChar(payload, '}');
}

void
batch_notice_queue(const char *channel, const char *stream, const BatchProgress *progress,
                   const BatchPartition *partitions)
{
	StringInfoData payload;
	int without_offsets;

	initStringInfo(&payload);
	appendStringInfoString(&payload, "{\"stream\": ");
	escape_json(&payload, stream);
	appendStringInfo(&payload,
	                 ", \"batch_id\": " INT64_FORMAT ", \"num_input_rows\": " INT64_FORMAT
	                 ", \"num_output_rows\": " INT64_FORMAT,
	                 progress->batch_id, progress->input_rows, progress->output_rows);
	if (progress->state_rows >= 0)
		appendStringInfo(&payload,
		                 ", \"late_rows\": " INT64_FORMAT ", \"state_rows\": " INT64_FORMAT,
		                 progress->late_rows, progress->state_rows);
	without_offsets = payload.len;
	append_offsets(&payload, "start_offsets", partitions, progress->partition_count, false);
	append_offsets(&payload, "end_offsets", partitions, progress->partition_count, true);
	if (payload.len + 1 > LONGEST_PAYLOAD)
	{
		payload.len = without_offsets;
		payload.data[payload.len] = '\0';
	}
	appendStringInfoChar(&payload, '}');
	Async_Notify(channel, payload.data);
	pfree(payload.data);
}
