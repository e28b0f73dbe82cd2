/*-------------------------------------------------------------------------
 *
 * domain_trust.h
 *	  Domains of roles that are not trusted with the rights of a stream's owner.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DOMAIN_TRUST_H
#define DOMAIN_TRUST_H

#include "postgres.h"

#include "nodes/nodes.h"

/*
 * Looks at the domains that a value of this type is checked by: the type itself, its base types,
 * elements, columns and bounds.  Raises ERRCODE_INSUFFICIENT_PRIVILEGE when one belongs to
 * somebody without the rights of "owner" and may do more than compute.
 */
extern void domain_trust_check_type(Oid type, Oid owner);

/* The same for the types of all columns of a relation, which is locked. */
extern void domain_trust_check_columns(Oid relid, Oid owner);

/* The same for the type that an expression makes, if it is one that makes values of domains. */
extern void domain_trust_check_cast(Node *node, Oid owner);

/*
 * For a function about to be readied for execution: raises ERRCODE_INSUFFICIENT_PRIVILEGE
 * when it is a built-in one that could do harm, and there is a domain of somebody
 * without the rights of "owner" that calls it.
 */
extern void domain_trust_check_builtin(Oid function, Oid owner);

/* Is there a domain of somebody without the rights of "owner" that calls this function, not built in? */
extern bool domain_trust_names(Oid function, Oid owner);

/*
 * For a call of such a function, with the expression that calls it, or NULL: raises
 * ERRCODE_INSUFFICIENT_PRIVILEGE when that may be a domain's.
 */
extern void domain_trust_check_call(Oid function, Node *expression, Oid owner);

#endif /* DOMAIN_TRUST_H */
