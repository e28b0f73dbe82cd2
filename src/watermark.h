/*-------------------------------------------------------------------------
 *
 * watermark.h
 *	  How far event time has come in a stream: kafka.stream_watermark.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WATERMARK_H
#define WATERMARK_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "stream.h"

/* A row of kafka.stream_watermark. */
typedef struct StreamWatermark
{
	TimestampTz watermark;      /* DT_NOBEGIN: none yet */
	TimestampTz previous;       /* that the last batch ran with: what is late is late by it */
	TimestampTz max_event_time; /* DT_NOBEGIN: none yet */
	int64 late_rows;            /* since the start */
} StreamWatermark;

/* The stored watermark of a stream, or none. */
extern StreamWatermark watermark_load(const char *stream);
extern void watermark_store(const char *stream, const StreamWatermark *watermark);
extern void watermark_delete(const char *stream);

/* The statement, with two parameters that don't matter, that finds the oldest and newest event time of a batch. */
extern char *watermark_statement(const Stream *stream, Oid topic_table);

/*
 * Moves a watermark on over the batch that is set for the topic scan, by the plan of that
 * statement; NULL: without data.  What was valid becomes the previous one.  *oldest and *newest are
 * set to the event times of the batch, if it has any.  SPI is connected.
 */
extern void watermark_advance(StreamWatermark *watermark, SPIPlanPtr plan,
                              const Interval *delay, TimestampTz *oldest, TimestampTz *newest);

#endif /* WATERMARK_H */
