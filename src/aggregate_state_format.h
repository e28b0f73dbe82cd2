/*-------------------------------------------------------------------------
 *
 * aggregate_state_format.h
 *	  The bytes of a stored aggregate state.
 *
 *-------------------------------------------------------------------------
 */
#ifndef AGGREGATE_STATE_FORMAT_H
#define AGGREGATE_STATE_FORMAT_H

#include "postgres.h"

#include "aggregate_state_seal.h"
#include "aggregate_support.h"

/*
 * What a state is made for besides its aggregate, in a form that can be stored
 * and compared: the collation, and the argument types where the state depends
 * on them.  All zero for neither.
 */
typedef struct StateSignature
{
	uint8 flags;
	uint16 length;
	const char *names;
} StateSignature;

/* A stored state, taken apart; points into its bytes. */
typedef struct StoredState
{
	StateSignature signature;
	bool no_value;       /* see TransitionState */
	const char *payload; /* NULL for a null state */
	Size payload_length;
} StoredState;

/* The keys for states of this aggregate, in the current memory context. */
extern StateSeal *stored_state_seal(Oid aggregate);

/* The signature of states of an aggregate as it was loaded; lives with it. */
extern StateSignature state_signature_make(const AggregateSupport *support);
extern bool state_signature_equal(const StateSignature *a, const StateSignature *b);

/*
 * Looks up the aggregate for a signature, in the current memory context.
 * Raises ERRCODE_UNDEFINED_OBJECT when a type or collation in it is gone, and
 * what aggregate_support_load() does.
 */
extern AggregateSupport *state_signature_resolve(Oid aggregate,
                                                 const StateSignature *signature);

/*
 * Takes the bytes of a state apart; NULL is the state before any input.
 * Raises ERRCODE_DATA_CORRUPTED unless stored_state_make() made these bytes,
 * for this aggregate and in this database.
 */
extern void stored_state_read(Oid aggregate, const StateSeal *seal, const bytea *bytes,
                              StoredState *stored);

/*
 * The bytes of a state, in the current memory context (where others are left
 * behind); NULL for one that is as before any input.
 */
extern bytea *stored_state_make(AggregateSupport *support, const StateSeal *seal,
                                const StateSignature *signature, const TransitionState *state);

#endif /* AGGREGATE_STATE_FORMAT_H */
