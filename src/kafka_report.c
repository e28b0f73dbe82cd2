/*-------------------------------------------------------------------------
 *
 * kafka_report.c
 *	  What librdkafka says besides messages: log lines and errors.
 *
 * With log.queue, librdkafka hands both out only when we serve its queues, on
 * our thread.  The callbacks write them down; outside of the library they
 * become lines of the server log and events of the consumer.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kafka_client.h"

#define SYSLOG_WARNING     4
#define REPEAT_EVENT_AFTER 5000.0  /* ms */
#define REPEAT_LINE_AFTER  30000.0 /* ms */
#define LOG_LINES_KNOWN    16      /* looked for when one comes again */

/* ms for which a cause is kept when errors come that say less; the library repeats one every 30 s */
#define KEEP_CAUSE 35000.0

/* Lines that this process does not write again for a while, whichever consumer they come from; a ring. */
static struct
{
	char server[NAMEDATALEN];
	char start[256]; /* without what differs each time */
	instr_time written_at;
	int repeated; /* since then */
} known_lines[LOG_LINES_KNOWN];
static int next_known_line = 0;

char *
kafka_event_detail(const KafkaEvent *event)
{
	/* an answer that is too large as a whole is about no partition */
	if (event->partition < 0)
		return psprintf("%s.", event->message);
	return psprintf("Partition %d, offset %lld: %s.", event->partition,
	                (long long) event->offset, event->message);
}

KafkaEventType
kafka_report_classify(rd_kafka_resp_err_t code)
{
	switch (code)
	{
		case RD_KAFKA_RESP_ERR__PARTITION_EOF:
			return KAFKA_EVENT_PARTITION_END;

		/* auto.offset.reset=error: the log does not have the position */
		case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
		case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
#if RD_KAFKA_VERSION >= 0x020100ff
		case RD_KAFKA_RESP_ERR__LOG_TRUNCATION:
#endif
			return KAFKA_EVENT_OUT_OF_RANGE;

		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
			return KAFKA_EVENT_UNKNOWN_TOPIC;

		case RD_KAFKA_RESP_ERR__BAD_MSG:
		case RD_KAFKA_RESP_ERR__BAD_COMPRESSION:
		case RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED:
		case RD_KAFKA_RESP_ERR_INVALID_MSG:
		case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
			return KAFKA_EVENT_UNREADABLE;

		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
		case RD_KAFKA_RESP_ERR_SECURITY_DISABLED:
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
			return KAFKA_EVENT_UNAUTHORIZED;

		default:
			return KAFKA_EVENT_UNAVAILABLE;
	}
}

static double
milliseconds_since(instr_time start)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return INSTR_TIME_GET_MILLISEC(now);
}

/*
 * The library tries to connect many times a second, and takes "(after 0ms ...)" and "(after 2ms ...)" for
 * different failures.  Returns the number of the known line that this one is, or becomes; -1 when it was
 * written a short time ago.
 */
static int
know_log_line(const char *server, const char *facility, const char *text)
{
	char start[sizeof(known_lines[0].start)];
	char *varies;
	int known;

	snprintf(start, sizeof(start), "%s: %s", facility, text);
	varies = strstr(start, " (after ");
	if (varies != NULL)
		*varies = '\0';

	for (known = 0; known < LOG_LINES_KNOWN; known++)
	{
		if (strcmp(known_lines[known].start, start) != 0 ||
		    strcmp(known_lines[known].server, server) != 0)
			continue;
		if (milliseconds_since(known_lines[known].written_at) < REPEAT_LINE_AFTER)
		{
			known_lines[known].repeated++;
			return -1;
		}
		break;
	}
	if (known == LOG_LINES_KNOWN)
	{
		known = next_known_line;
		next_known_line = (known + 1) % LOG_LINES_KNOWN;
		strlcpy(known_lines[known].server, server, sizeof(known_lines[known].server));
		strlcpy(known_lines[known].start, start, sizeof(start));
		known_lines[known].repeated = 0;
	}
	INSTR_TIME_SET_CURRENT(known_lines[known].written_at);
	return known;
}

/* Called by librdkafka: must not allocate or raise. */
static void
note_log_line(const rd_kafka_t *client, int level, const char *facility, const char *text)
{
	KafkaConsumer *consumer = client ? rd_kafka_opaque(client) : NULL;
	int known;

	if (consumer == NULL)
		return;
	known = know_log_line(consumer->server_name, facility, text);
	if (known < 0)
		return;
	if (consumer->reports.log_line_count < LOG_LINES_AT_ONCE)
	{
		int i = consumer->reports.log_line_count++;

		consumer->reports.log_lines[i].level = level;
		consumer->reports.log_lines[i].known = known;
		snprintf(consumer->reports.log_lines[i].text,
		         sizeof(consumer->reports.log_lines[i].text), "%s: %s", facility, text);
	}
	else
		consumer->reports.log_lines_lost++;
}

/*
 * How much does an error say about what has to be mended?  A name like localhost has several addresses, of
 * which some may lead nowhere: that a connection was refused there says less than what
 * the broker at another one makes of ours.
 */
static int
says_how_much(rd_kafka_resp_err_t code, const char *reason)
{
	if (code == RD_KAFKA_RESP_ERR__SSL ||
	    kafka_report_classify(code) == KAFKA_EVENT_UNAUTHORIZED)
		return 2;
	return strstr(reason, "Connect to ") != NULL ? 0 : 1;
}

/* Notes an error as the last one, unless a recent one says more. */
static void
note_cause(KafkaReports *reports, rd_kafka_resp_err_t code, const char *reason)
{
	int says = says_how_much(code, reason);

	if (reports->last_error != 0 && says < reports->last_error_says &&
	    milliseconds_since(reports->last_error_at) < KEEP_CAUSE)
		return;
	reports->last_error = code;
	reports->last_error_says = says;
	INSTR_TIME_SET_CURRENT(reports->last_error_at);
	strlcpy(reports->last_error_text, reason, sizeof(reports->last_error_text));
}

/* Called by librdkafka: must not allocate or raise. */
static void
note_error(rd_kafka_t *client, int code, const char *reason, void *opaque)
{
	KafkaConsumer *consumer = opaque;
	KafkaReports *reports = &consumer->reports;
	KafkaEventType type = kafka_report_classify(code);
	char refusal[512];
	const char *hint;

	/* we know more about our own refusals than the library does */
	if (type == KAFKA_EVENT_UNAVAILABLE && code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN &&
	    kafka_peer_refusal(consumer->peer, refusal, sizeof(refusal), &hint))
		reason = refusal;

	/*
	 * A single broker that is down is the library's business as long as others
	 * are up; that all are down comes separately, but without saying why.
	 */
	if (code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || reports->last_error == 0)
		note_cause(reports, code, reason);
	if (type == KAFKA_EVENT_UNAUTHORIZED)
		reports->authentication_failures++;
	if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || type != KAFKA_EVENT_UNAVAILABLE)
	{
		reports->pending[type] = true;
		strlcpy(reports->pending_text[type],
		        type == KAFKA_EVENT_UNAVAILABLE ? reports->last_error_text : reason,
		        sizeof(reports->pending_text[type]));
	}
}

void
kafka_report_install(rd_kafka_conf_t *configuration, KafkaConsumer *consumer)
{
	rd_kafka_conf_set_opaque(configuration, consumer);
	rd_kafka_conf_set_log_cb(configuration, note_log_line);
	rd_kafka_conf_set_error_cb(configuration, note_error);
}

void
kafka_report_serve(KafkaConsumer *consumer)
{
	KafkaReports *reports = &consumer->reports;
	int lines;
	int lost;

	rd_kafka_poll(consumer->client, 0);

	lines = reports->log_line_count;
	lost = reports->log_lines_lost;
	reports->log_line_count = 0;
	reports->log_lines_lost = 0;
	for (int i = 0; i < lines; i++)
	{
		int *repeated = &known_lines[reports->log_lines[i].known].repeated;
		int before = *repeated;

		*repeated = 0;
		ereport(reports->log_lines[i].level <= SYSLOG_WARNING ? LOG_SERVER_ONLY : DEBUG1,
		        (errmsg("librdkafka, server \"%s\": %s", consumer->server_name,
		                reports->log_lines[i].text),
		         before > 0
		             ? errdetail_log("It came %d more times since it was written.", before)
		             : 0,
		         errhidestmt(true)));
	}
	if (lost > 0)
		ereport(LOG_SERVER_ONLY, (errmsg("librdkafka, server \"%s\": %d more lines",
		                                 consumer->server_name, lost),
		                          errhidestmt(true)));
}

void
kafka_report_all_well(KafkaConsumer *consumer)
{
	KafkaReports *reports = &consumer->reports;

	if (reports->last_error == 0)
		return;
	reports->last_error = 0;
	kafka_peer_forget_refusal(consumer->peer);
	reports->last_error_text[0] = '\0';
	memset(reports->handed_out_at, 0, sizeof(reports->handed_out_at));
	for (int known = 0; known < LOG_LINES_KNOWN; known++)
		if (strcmp(known_lines[known].server, consumer->server_name) == 0)
			known_lines[known].start[0] = '\0';
}

bool
kafka_report_next_event(KafkaConsumer *consumer, KafkaEvent *event)
{
	KafkaReports *reports = &consumer->reports;

	for (int type = 0; type < KAFKA_EVENT_TYPES; type++)
	{
		if (!reports->pending[type])
			continue;
		reports->pending[type] = false;

		if (!INSTR_TIME_IS_ZERO(reports->handed_out_at[type]) &&
		    milliseconds_since(reports->handed_out_at[type]) < REPEAT_EVENT_AFTER)
			continue;
		INSTR_TIME_SET_CURRENT(reports->handed_out_at[type]);

		event->type = type;
		event->partition = -1;
		event->offset = -1;
		strlcpy(event->message, reports->pending_text[type], sizeof(event->message));
		return true;
	}
	return false;
}

const char *
kafka_consumer_last_error(KafkaConsumer *consumer)
{
	return consumer->reports.last_error ? consumer->reports.last_error_text : NULL;
}
