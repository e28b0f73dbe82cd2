/*-------------------------------------------------------------------------
 *
 * kafka_options.h
 *	  Server and user mapping options: what is allowed, and the resolved list
 *	  of librdkafka properties for one connection.
 *
 * No librdkafka type appears here: a connection is a list of names and
 * values, checked against the allow-list whenever it is loaded.
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
	int lookup_timeout_ms; /* bound of metadata and offset look-ups: the
							* server's socket_timeout_ms */
	bool existing_only;    /* set by who reads only what is there already: no
							* broker shall wait for more to come */
} KafkaConnection;

/*
 * Validates the options of one catalog object (list of DefElem, OID of the
 * catalog it is in): wrapper, server and user mapping here, foreign table and
 * column through topic_schema.h.
 *
 * Raises ERRCODE_FDW_INVALID_OPTION_NAME for an option that is unknown or belongs to
 * another kind of object, ERRCODE_INVALID_PARAMETER_VALUE for its value,
 * ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED for one that is missing, ERRCODE_SYNTAX_ERROR for one
 * given twice, ERRCODE_INSUFFICIENT_PRIVILEGE for what the current user may
 * not set, and for servers that are not in kafka_ingest.allowed_hosts.  No message contains the value of a secret.
 */
extern void kafka_options_validate(List *options, Oid catalog);

/*
 * Resolves the options of a server and of the user's mapping (or PUBLIC's,
 * or none), validating both again, with the rights of the server's owner.  The result lives in the current memory
 * context.  Needs a transaction.  Raises the errors of kafka_options_validate, and
 * ERRCODE_UNDEFINED_OBJECT for an unknown server.
 */
extern KafkaConnection *kafka_connection_load(Oid server_id, Oid user_id);

#endif /* KAFKA_OPTIONS_H */
