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
mention_message(const char *topic, const KafkaMessage *message, bool decoding, bool passes,
                ErrorData *error)
{
	/* the decoder says it in most errors, with the column */
	char *place = psprintf("Topic \"%s\", partition %d, offset %lld", topic, message->partition,
	                       (long long) message->offset);

	if (error->detail == NULL || strstr(error->detail, place) == NULL)
		add_to_error_detail(error, psprintf("The batch was at t%s.", place + 1));

	/* of others the cause is more often the stream's definition, or passes */
	if (!decoding && (error->hint != NULL || !error_is_raised_by_code(error)))
		return;
	if (error->hint == NULL && !passes)
		error->hint = pstrdup("Correct the cause.");
	add_to_error_hint(error,
	                  passes ? "It is tried again. If it does not pass, correct the cause; or "
	                           "use kafka.stop_stream, leave the message out with "
	                           "kafka.skip_message, and use kafka.start_stream."
	                         : "Then kafka.start_stream goes on at this message; or leave it "
	                           "out with kafka.skip_message.");
}

/* Decodes what the scan that failed decodes of each message. */
typedef struct Recheck
{
	const TopicScanBatch *scan;
	Decoder *rows;
	Decoder *tombstones; /* NULL: the sink does not look at them */
	Datum *values;
	bool *nulls;
	bool *missing;
} Recheck;

static Recheck *
recheck_create(const TopicScanBatch *scan, const TopicSchema *schema)
{
	Recheck *recheck = palloc0(sizeof(Recheck));
	int natts = schema->tuple_descriptor->natts;
	Bitmapset *wanted = NULL;
	ListCell *cell;

	foreach (cell, scan->wanted)
		wanted = bms_add_member(wanted, lfirst_int(cell));
	recheck->scan = scan;
	recheck->rows = decoder_create(schema, wanted, scan->defaulted);
	if (scan->of_tombstones != NULL)
		recheck->tombstones = decoder_create(schema, scan->of_tombstones, NULL);
	recheck->values = palloc(sizeof(Datum) * natts);
	recheck->nulls = palloc(sizeof(bool) * natts);
	recheck->missing = palloc(sizeof(bool) * natts);
	return recheck;
}

static void
recheck_message(Recheck *recheck, const KafkaMessage *message)
{
	if (message->value != NULL || !recheck->scan->without_tombstones)
		(void) decode_message(recheck->rows, message, recheck->values, recheck->nulls,
		                      recheck->missing);
	else if (recheck->tombstones != NULL)
		decode_tombstone(recheck->tombstones, message, recheck->values, recheck->nulls);
}

/*
 * Decodes messages from "first" on until one fails; returns its index, or
 * "last".  The error is copied into the caller's memory context.
 */
static int
decode_until_error(const TopicScanBatch *scan, const TopicSchema *schema,
                   const KafkaMessage *messages, int first, int last, const bool *excluded,
                   ErrorData **error)
{
	MemoryContext caller_context = CurrentMemoryContext;
	ResourceOwner caller_owner = CurrentResourceOwner;
	int volatile index = first;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		/* in the subtransaction's memory, freed with it */
		Recheck *recheck = recheck_create(scan, schema);
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
			recheck_message(recheck, &messages[index]);
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
rejects_add_undecodable(Rejects *rejects, const TopicScanBatch *scan,
                        const KafkaMessage *messages, int first, int last)
{
	TopicSchema *schema = topic_schema_load(scan->topic_table);
	int added = 0;

	if (scan->wanted == NIL)
		return 0; /* nothing is decoded */
	while (rejects_allow_more(rejects))
	{
		ErrorData *error = NULL;
		ErrorClass class;

		first =
		    decode_until_error(scan, schema, messages, first, last, rejects->excluded, &error);
		if (error == NULL)
			break;
		class = classify_decoding_error(error);
		if (class == ERROR_OF_ENVIRONMENT && !error_is_raised_by_code(error))
			ReThrowError(error);
		/* the batch will meet it, once what is before it has been written */
		if (class != ERROR_OF_MESSAGE)
			break;
		rejects_add(rejects, first, error);
		added++;
	}
	return added;
}
