/*-------------------------------------------------------------------------
 *
 * kafka_options.h
 *	  Server and user mapping options: what is allowed, and the resolved list
 *	  of librdkafka properties for one connection.
 *
 * No librdkafka type appears here: a connection is a list of names and
 * values, checked again right before kafka_consumer.c applies it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KAFKA_OPTIONS_H
#define KAFKA_OPTIONS_H

#include "postgres.h"
#include "nodes/pg_list.h"

/* One librdkafka property, by librdkafka's own name ("security.protocol"). */
typedef struct KafkaProperty
{
	const char *name;
	const char *value;
	bool secret; /* never shown in a message */
} KafkaProperty;

/* Everything that is needed to reach a cluster as one user. */
typedef struct KafkaConnection
{
	Oid server_id;
	const char *server_name;
	List *properties;      /* of KafkaProperty * */
	int lookup_timeout_ms; /* bound of metadata and offset look-ups;
									 * the server's socket_timeout_ms */
} KafkaConnection;

/* Raises ERRCODE_FDW_INVALID_OPTION_NAME, ..._ATTRIBUTE_VALUE, or a syntax error. */
extern void kafka_options_validate(List *options, Oid catalog);

/*
 * Resolves the options of server_id and of user_id's mapping (or PUBLIC's, or
 * none), re-validating both.  The result lives in the current memory context.
 */
extern KafkaConnection *kafka_connection_load(Oid server_id, Oid user_id);

#endif /* KAFKA_OPTIONS_H */
