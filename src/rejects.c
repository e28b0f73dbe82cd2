/*-------------------------------------------------------------------------
 *
 * rejects.c
 *	  The messages of a batch that on_error keeps out of it.
 *
 * A batch with many bad messages must not be tried again for each of them.
 * Most are bad because they can't be decoded, and decoding has no effects: so
 * after a first such error the rest of the batch is decoded for its errors
 * alone, in subtransactions that end at each error, and then written without
 * the bad ones.  Errors that come later (constraints, triggers) are found by
 * micro_batch.c, by halves.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "rejects.h"

#include "access/xact.h"
#include "decode.h"
#include "error_class.h"
#include "miscadmin.h"
#include "topic_schema.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

void
search_begin(BadMessageSearch *search, int first, int end)
{
	search->first = first;
	search->end = end;
	search->bad_end = -1;
}

/*
 * Most errors come while the executor works on the row of the bad message.  So what is before
 * the message that the scan was at is tried first, then that message alone.  Where that
 * does not hold, because rows are sorted or gathered before they are written, halves find it.
 */
void
search_failed(BadMessageSearch *search, int suspect)
{
	bool first_time = search->bad_end < 0;

	search->bad_end = search->end;
	if (suspect >= search->first)
		search->bad_end = Min(search->bad_end, suspect + 1);
	if (first_time && suspect >= search->first)
		search->end = Max(suspect, search->first + 1);
	else
		search->end = search->first + (search->end - search->first) / 2;
}

void
search_passed(BadMessageSearch *search, int step, int last)
{
	search->first = search->end;
	if (search->bad_end > search->first)
		search->end = search->first + Max((search->bad_end - search->first) / 2, 1);
	else
		search_begin(search, search->first,
		             last - search->first > step ? search->first + step : last);
}

Rejects *
rejects_create(int message_count, int64 allowed)
{
	Rejects *rejects = palloc0(sizeof(Rejects));

	rejects->allowed = allowed;
	rejects->excluded = palloc0(sizeof(bool) * Max(message_count, 1));
	rejects->errors = palloc0(sizeof(ErrorData *) * Max(message_count, 1));
	return rejects;
}

bool
rejects_allow_more(const Rejects *rejects)
{
	return rejects->count < rejects->allowed;
}

void
rejects_add(Rejects *rejects, int index, ErrorData *error)
{
	Assert(!rejects->excluded[index]);
	rejects->excluded[index] = true;
	rejects->errors[index] = error;
	rejects->count++;
}

void
blame_message(const char *topic, const KafkaMessage *message, ErrorData *error)
{
	add_to_error_detail(error, psprintf("Topic \"%s\", partition %d, offset %lld.", topic,
	                                    message->partition, (long long) message->offset));
	if (error->hint == NULL)
		error->hint = pstrdup("Correct the target table or the query.");
}

void
mention_message(const char *topic, const KafkaMessage *message, bool passes, ErrorData *error)
{
	add_to_error_detail(error,
	                    psprintf("The batch was at topic \"%s\", partition %d, offset %lld.",
	                             topic, message->partition, (long long) message->offset));
	/* of others the cause is more often the stream's definition */
	if (error->hint == NULL && error_is_raised_by_code(error))
		error->hint =
		    passes
		        ? pstrdup("It is tried again. If it does not pass, correct the cause; or use "
		                  "kafka.stop_stream, leave the message out with "
		                  "kafka.skip_message, and use kafka.start_stream.")
		        : pstrdup("Correct the cause, or leave the message out with "
		                  "kafka.skip_message; then kafka.start_stream goes on.");
}

/*
 * Decodes messages from "first" on until one fails; returns its index, or
 * "last".  The error is copied into the caller's memory context.
 */
static int
decode_until_error(const TopicSchema *schema, const Bitmapset *wanted,
                   const KafkaMessage *messages, int first, int last, const bool *excluded,
                   ErrorData **error)
{
	MemoryContext caller_context = CurrentMemoryContext;
	ResourceOwner caller_owner = CurrentResourceOwner;
	int natts = schema->tuple_descriptor->natts;
	int volatile index = first;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		/* in the subtransaction's memory, freed with it */
		Decoder *decoder = decoder_create(schema, wanted);
		Datum *values = palloc(sizeof(Datum) * natts);
		bool *nulls = palloc(sizeof(bool) * natts);
		MemoryContext row_context =
		    AllocSetContextCreate(CurrentMemoryContext, "kafka row being checked",
		                          ALLOCSET_DEFAULT_SIZES);

		MemoryContextSwitchTo(row_context);
		for (; index < last; index++)
		{
			CHECK_FOR_INTERRUPTS();
			if (excluded[index])
				continue;
			MemoryContextReset(row_context);
			(void) decode_message(decoder, &messages[index], values, nulls, NULL);
		}
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller_context);
		*error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller_context);
	CurrentResourceOwner = caller_owner;
	return index;
}

int
rejects_add_undecodable(Rejects *rejects, Oid topic_table, List *wanted,
                        const KafkaMessage *messages, int first, int last)
{
	TopicSchema *schema = topic_schema_load(topic_table);
	Bitmapset *wanted_set = NULL;
	int added = 0;
	ListCell *cell;

	if (wanted == NIL)
		return 0; /* nothing is decoded */
	foreach (cell, wanted)
		wanted_set = bms_add_member(wanted_set, lfirst_int(cell));

	while (rejects_allow_more(rejects))
	{
		ErrorData *error = NULL;

		first = decode_until_error(schema, wanted_set, messages, first, last, rejects->excluded,
		                           &error);
		if (error == NULL)
			break;
		if (classify_decoding_error(error) != ERROR_OF_MESSAGE)
			ReThrowError(error);
		rejects_add(rejects, first, error);
		added++;
	}
	return added;
}
