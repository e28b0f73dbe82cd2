/*-------------------------------------------------------------------------
 *
 * careful_write.c
 *	  Write messages of which some are known to be bad, in small parts.
 *
 * A part is a subtransaction: when it fails, only its few messages are written again.  How
 * the bad one is found is in rejects.c: mostly with three attempts.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "careful_write.h"

#include "access/xact.h"
#include "error_class.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

/* small, because what fails is written again; large, because a part costs some 50 us */
#define PART_MESSAGES 256

/* with more than 64 in a transaction, everybody's snapshots get slower */
#define PARTS_PER_TRANSACTION 60

ErrorData *
write_in_subtransaction(Sink *sink, SinkBatch *batch)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		/* sees what the parts before it have written */
		PushActiveSnapshot(GetTransactionSnapshot());
		sink->write(sink, batch);
		PopActiveSnapshot();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		topic_scan_set_batch(NULL);
		topic_scan_keep_columns(batch->messages);
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

/* Tries the messages [first, last).  *suspect: the one that the scan was at when it failed, or -1. */
static ErrorData *
try_part(Sink *sink, SinkBatch *batch, const Rejects *rejects, const KafkaMessage *messages,
         int first, int last, int *suspect, TopicScanBatch *scan)
{
	SinkBatch part = {.batch_id = batch->batch_id, .is_part = true};
	ErrorData *error;

	memset(scan, 0, sizeof(*scan));
	scan->topic_table = batch->messages->topic_table;
	scan->messages = messages + first;
	scan->count = last - first;
	scan->excluded = rejects->excluded + first;
	scan->current = -1;
	part.messages = scan;
	error = write_in_subtransaction(sink, &part);
	*suspect = error != NULL && scan->current >= 0 ? first + scan->current : -1;
	batch->messages->decode_us += scan->decode_us;
	if (error == NULL)
	{
		batch->output_rows += part.output_rows;
		batch->late_rows += part.late_rows;
		batch->watermark = part.watermark;
	}
	return error;
}

int
write_carefully(Sink *sink, SinkBatch *batch, Rejects *rejects, const char *topic,
                const KafkaMessage *messages, int first, int last)
{
	int parts = 0;
	BadMessageSearch search;

	search_begin(&search, first, Min(first + PART_MESSAGES, last));
	while (search.first < last && parts < PARTS_PER_TRANSACTION)
	{
		TopicScanBatch scan;
		ErrorData *error;
		ErrorClass class;
		int suspect;

		CHECK_FOR_INTERRUPTS();
		error =
		    try_part(sink, batch, rejects, messages, search.first, search.end, &suspect, &scan);
		if (error == NULL)
		{
			parts++;
			search_passed(&search, PART_MESSAGES, last);
			continue;
		}
		class = scan.decoding ? classify_decoding_error(error) : classify_error(error);
		if (class != ERROR_OF_MESSAGE)
		{
			batch->messages->current = suspect >= 0 ? suspect - first : -1;
			batch->messages->decoding = scan.decoding;
			ReThrowError(error);
		}
		if (!rejects_allow_more(rejects) && search.end - search.first == 1)
			break;

		if (scan.decoding && rejects_allow_more(rejects))
		{
			/* decoding has no effects: this and what else can't be decoded is found at once */
			if (rejects_add_undecodable(rejects, &scan, messages, suspect, last) == 0)
				break; /* by itself it can: a transaction of its own will tell more */
		}
		else if (search.end - search.first > 1)
			search_failed(&search, suspect);
		else
		{
			/* without the message it failed as well: not its fault alone */
			if (rejects->excluded[search.first])
				ReThrowError(error);
			blame_message(topic, &messages[search.first], error);
			rejects_add(rejects, search.first, error);
			search_begin(&search, search.first + 1,
			             Min(search.first + 1 + PART_MESSAGES, last));
			continue; /* which has taken the error over */
		}
		FreeErrorData(error);
	}
	return search.first;
}
