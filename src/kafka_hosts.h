/*-------------------------------------------------------------------------
 *
 * kafka_hosts.h
 *	  The setting kafka_ingest.allowed_hosts: which brokers may be talked to.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KAFKA_HOSTS_H
#define KAFKA_HOSTS_H

#include "postgres.h"

#include <sys/socket.h>

typedef struct AllowedHosts AllowedHosts;

/* Counts the changes of the setting: connections made before one are to be made anew. */
extern uint32 kafka_hosts_changes;

extern void kafka_hosts_define_setting(void);

/* The setting as it is now, palloc'd; NULL when every host is allowed. */
extern AllowedHosts *kafka_hosts_current(void);

/*
 * May this be connected to?  "node" is the host as the cluster or the server's
 * options name it, "name:port".  Touches nothing of the server's: callable on any thread.
 */
extern bool kafka_hosts_allow(const AllowedHosts *hosts, const char *node,
                              const struct sockaddr *address);

/*
 * Checks the servers of a bootstrap.servers list as far as that is possible before their
 * names are looked up: ERRCODE_INSUFFICIENT_PRIVILEGE.
 */
extern void kafka_hosts_check_servers(const char *servers);

#endif /* KAFKA_HOSTS_H */
