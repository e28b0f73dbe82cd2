/*-------------------------------------------------------------------------
 *
 * kafka_message.c
 *	  Batches of messages, their headers and timestamps.
 *
 * A batch holds librdkafka's own message handles, so payloads are never
 * copied.  The library cannot be shut down while a handle is held: batches are
 * kept in a list, and releasing them is part of closing their consumer.
 *
 * Messages are taken from the front of a batch without moving the rest: what is
 * held for later batches may be a hundred thousand, of which each takes a few.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"
#include "lib/ilist.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "kafka_client.h"

#define SMALLEST_CAPACITY 64

/* A batch as it really is. */
typedef struct OwnedBatch
{
	KafkaMessageBatch batch; /* first: callers see only this */
	KafkaMessage *memory; /* batch.messages stands in it, behind those taken from the front */
	int memory_capacity;
	KafkaConsumer *consumer; /* the messages' */
	MemoryContext context;
	MemoryContextCallback release_callback;
	dlist_node node;
} OwnedBatch;

static dlist_head all_batches = DLIST_STATIC_INIT(all_batches);

static void
release_with_context(void *argument)
{
	OwnedBatch *owned = argument;

	kafka_message_batch_clear(&owned->batch);
	dlist_delete(&owned->node);
}

KafkaMessageBatch *
kafka_message_batch_create(void)
{
	OwnedBatch *owned = palloc0(sizeof(OwnedBatch));

	/* memory comes with the first messages: there can be a batch for each of many partitions */
	owned->context = CurrentMemoryContext;
	dlist_push_head(&all_batches, &owned->node);
	owned->release_callback.func = release_with_context;
	owned->release_callback.arg = owned;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &owned->release_callback);
	return &owned->batch;
}

static void
release_messages(KafkaMessage *messages, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (messages[i].handle)
			rd_kafka_message_destroy(messages[i].handle);
	}
}

/* The first n messages are somebody else's now, or gone. */
static void
forget_first(OwnedBatch *owned, int n)
{
	KafkaMessageBatch *batch = &owned->batch;

	Assert(n >= 0 && n <= batch->count);
	batch->count -= n;
	if (batch->count == 0)
		batch->messages = owned->memory;
	else
		batch->messages += n;
}

void
kafka_message_batch_clear(KafkaMessageBatch *batch)
{
	release_messages(batch->messages, batch->count);
	batch->bytes = 0;
	forget_first((OwnedBatch *) batch, batch->count);
}

void
kafka_message_batch_filter(KafkaMessageBatch *batch, int first, KafkaMessageTest keep,
                           void *argument)
{
	int kept = first;

	for (int i = first; i < batch->count; i++)
	{
		KafkaMessage *message = &batch->messages[i];

		if (keep(message, argument))
			batch->messages[kept++] = *message;
		else
		{
			batch->bytes -= message->key_length + message->value_length;
			release_messages(message, 1);
		}
	}
	batch->count = kept;
}

size_t
kafka_message_batch_take(KafkaMessageBatch *from, KafkaMessageBatch *to, int n)
{
	size_t bytes = 0;

	kafka_message_batch_reserve(to, ((OwnedBatch *) from)->consumer, n);
	for (int i = 0; i < n; i++)
		bytes += from->messages[i].key_length + from->messages[i].value_length;
	memcpy(to->messages + to->count, from->messages, n * sizeof(KafkaMessage));
	to->count += n;
	to->bytes += bytes;
	from->bytes -= bytes;
	forget_first((OwnedBatch *) from, n);
	return bytes;
}

void
kafka_message_batches_release(KafkaConsumer *consumer)
{
	dlist_iter iterator;

	dlist_foreach(iterator, &all_batches)
	{
		OwnedBatch *owned = dlist_container(OwnedBatch, node, iterator.cur);

		if (owned->consumer == consumer)
		{
			kafka_message_batch_clear(&owned->batch);
			owned->consumer = NULL;
		}
	}
}

void
kafka_message_batch_reserve(KafkaMessageBatch *batch, KafkaConsumer *consumer, int n)
{
	OwnedBatch *owned = (OwnedBatch *) batch;
	int skipped;
	int capacity;

	if (owned->consumer != consumer)
	{
		Assert(batch->count == 0);
		owned->consumer = consumer;
	}
	skipped = batch->messages - owned->memory;
	if (n <= owned->memory_capacity - skipped - batch->count)
		return;
	/* moves no more messages than have been taken from the front since the last time */
	if (skipped >= batch->count && n <= owned->memory_capacity - batch->count)
	{
		memmove(owned->memory, batch->messages, batch->count * sizeof(KafkaMessage));
		batch->messages = owned->memory;
		return;
	}
	capacity = Max(owned->memory_capacity * 2, skipped + batch->count + n);
	capacity = Max(capacity, SMALLEST_CAPACITY);
	if (owned->memory == NULL)
		owned->memory =
		    MemoryContextAllocHuge(owned->context, (Size) capacity * sizeof(KafkaMessage));
	else
		owned->memory = repalloc_huge(owned->memory, (Size) capacity * sizeof(KafkaMessage));
	owned->memory_capacity = capacity;
	batch->messages = owned->memory + skipped;
}

void
kafka_message_batch_append(KafkaMessageBatch *batch, rd_kafka_message_t *handle)
{
	KafkaMessage *message = &batch->messages[batch->count++];
	rd_kafka_timestamp_type_t timestamp_type;

	message->value = handle->payload;
	message->key = handle->key;
	message->value_length = handle->payload ? handle->len : 0;
	message->key_length = handle->key ? handle->key_len : 0;
	message->offset = handle->offset;
	message->partition = handle->partition;
	message->timestamp_ms = rd_kafka_message_timestamp(handle, &timestamp_type);
	message->timestamp_type = KAFKA_TIMESTAMP_NONE;
	if (timestamp_type == RD_KAFKA_TIMESTAMP_CREATE_TIME)
		message->timestamp_type = KAFKA_TIMESTAMP_CREATE_TIME;
	else if (timestamp_type == RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME)
		message->timestamp_type = KAFKA_TIMESTAMP_LOG_APPEND_TIME;
	if (message->timestamp_type == KAFKA_TIMESTAMP_NONE || message->timestamp_ms < 0)
	{
		message->timestamp_ms = -1;
		message->timestamp_type = KAFKA_TIMESTAMP_NONE;
	}
	message->own_header_count = 0;
	message->own_headers = NULL;
	message->handle = handle;
	batch->bytes += message->key_length + message->value_length;
}

int
kafka_message_headers(const KafkaMessage *message, KafkaHeader **headers)
{
	rd_kafka_headers_t *list;
	int count;

	*headers = NULL;
	if (message->handle == NULL)
	{
		*headers = palloc(Max(message->own_header_count, 1) * sizeof(KafkaHeader));
		for (int i = 0; i < message->own_header_count; i++)
			(*headers)[i] = message->own_headers[i];
		return message->own_header_count;
	}
	if (rd_kafka_message_headers(message->handle, &list) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return 0;

	count = (int) rd_kafka_header_cnt(list);
	*headers = palloc(count * sizeof(KafkaHeader));
	for (int i = 0; i < count; i++)
	{
		const void *value;
		KafkaHeader *header = &(*headers)[i];

		rd_kafka_header_get_all(list, i, &header->name, &value, &header->value_length);
		header->value = value;
	}
	return count;
}

int32
kafka_message_leader_epoch(const KafkaMessage *message)
{
#if RD_KAFKA_VERSION >= 0x020100ff
	if (message->handle != NULL)
		return rd_kafka_message_leader_epoch(message->handle);
#endif
	return -1;
}

int64
kafka_timestamp_to_ms(TimestampTz time)
{
	const int64 epoch_ms =
	    INT64CONST(1000) * SECS_PER_DAY * (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE);
	int64 ms;

	if (TIMESTAMP_IS_NOBEGIN(time))
		return 0;
	if (TIMESTAMP_IS_NOEND(time))
		return PG_INT64_MAX;
	/* C's division rounds towards zero, which is up below it */
	ms = time / 1000;
	if (time > 0 && time % 1000 != 0)
		ms++;
	return Max(ms + epoch_ms, 0);
}

TimestampTz
kafka_timestamp_from_ms(int64 timestamp_ms)
{
	const int64 epoch_ms =
	    INT64CONST(1000) * SECS_PER_DAY * (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE);
	int64 time;

	/* A producer may send any 64 bits: what no timestamp can be is infinite. */
	if (pg_mul_s64_overflow(timestamp_ms - epoch_ms, 1000, &time) || !IS_VALID_TIMESTAMP(time))
		return DT_NOEND;
	return time;
}

const char *
kafka_library_version(void)
{
	return rd_kafka_version_str();
}
