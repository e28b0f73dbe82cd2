/*-------------------------------------------------------------------------
 *
 * aggregate_state_seal.h
 *	  Tells our own aggregate states from bytes that somebody made up.
 *
 *-------------------------------------------------------------------------
 */
#ifndef AGGREGATE_STATE_SEAL_H
#define AGGREGATE_STATE_SEAL_H

#include "postgres.h"

/* The keys for the states of one aggregate. */
typedef struct StateSeal StateSeal;

/*
 * Derives the keys for "purpose" from those of this database, in the current
 * memory context.  Raises ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE when the
 * database has none.
 */
extern StateSeal *state_seal_load(const char *purpose);

/* The seal of these bytes. */
extern uint64 state_seal_compute(const StateSeal *seal, const void *data, Size length);

/* Was this seal computed of these bytes, for the same purpose? */
extern bool state_seal_matches(const StateSeal *seal, uint64 value, const void *data,
                               Size length);

#endif /* AGGREGATE_STATE_SEAL_H */
