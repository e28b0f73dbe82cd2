/*-------------------------------------------------------------------------
 *
 * aggregate_state_seal.c
 *	  Tells our own aggregate states from bytes that somebody made up.
 *
 * Deserialization functions of type internal believe what they read (lengths,
 * even pointers): PostgreSQL calls them for its own parallel workers only.  Our
 * states lie in tables that users can write to.  So each carries a seal, the
 * SipHash-2-4 of its bytes under a key that users can't read
 * (kafka.state_key).  The key is dumped with the extension: there can be
 * several in a restored database, of which the first makes new seals and each
 * is good to check old ones.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "aggregate_state_seal.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "port/pg_bswap.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#define KEY_SIZE 16

typedef struct SealKey
{
	uint64 low;
	uint64 high;
} SealKey;

struct StateSeal
{
	int key_count;
	SealKey keys[FLEXIBLE_ARRAY_MEMBER];
};

/* Eight bytes as a number that is the same on every machine. */
static inline uint64
little_endian_word(const uint8 *bytes)
{
	uint64 word;

	memcpy(&word, bytes, sizeof(word));
#ifdef WORDS_BIGENDIAN
	word = pg_bswap64(word);
#endif
	return word;
}

static inline uint64
rotate_left(uint64 word, int bits)
{
	return (word << bits) | (word >> (64 - bits));
}

static inline void
sip_round(uint64 v[4])
{
	v[0] += v[1];
	v[1] = rotate_left(v[1], 13) ^ v[0];
	v[0] = rotate_left(v[0], 32);
	v[2] += v[3];
	v[3] = rotate_left(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate_left(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate_left(v[1], 17) ^ v[2];
	v[2] = rotate_left(v[2], 32);
}

static inline void
sip_word(uint64 v[4], uint64 word)
{
	v[3] ^= word;
	sip_round(v);
	sip_round(v);
	v[0] ^= word;
}

/* SipHash-2-4 (Aumasson and Bernstein): a keyed hash made for short messages. */
static uint64
siphash(const SealKey *key, const void *data, Size length)
{
	const uint8 *bytes = data;
	Size whole = length - length % 8;
	uint8 rest[8] = {0};
	uint64 v[4] = {
	    key->low ^ UINT64CONST(0x736f6d6570736575),
	    key->high ^ UINT64CONST(0x646f72616e646f6d),
	    key->low ^ UINT64CONST(0x6c7967656e657261),
	    key->high ^ UINT64CONST(0x7465646279746573),
	};

	for (Size i = 0; i < whole; i += 8)
		sip_word(v, little_endian_word(bytes + i));
	memcpy(rest, bytes + whole, length - whole);
	rest[7] = (uint8) length;
	sip_word(v, little_endian_word(rest));
	v[2] ^= 0xff;
	for (int i = 0; i < 4; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* Keys of one purpose are of no use for another. */
static void
derive_key(const SealKey *key, const char *purpose, SealKey *derived)
{
	Size length = strlen(purpose) + 1;
	char *text = palloc(length + 1);

	memcpy(text, purpose, length);
	text[length] = 0;
	derived->low = siphash(key, text, length + 1);
	text[length] = 1;
	derived->high = siphash(key, text, length + 1);
	pfree(text);
}

static void
read_key(HeapTuple tuple, TupleDesc columns, SealKey *key)
{
	bool is_null;
	Datum value = heap_getattr(tuple, 1, columns, &is_null);
	bytea *secret = is_null ? NULL : DatumGetByteaPP(value);

	/* a CHECK constraint sees to this */
	if (secret == NULL || VARSIZE_ANY_EXHDR(secret) != KEY_SIZE)
		elog(ERROR, "kafka.state_key holds no key");
	key->low = little_endian_word((uint8 *) VARDATA_ANY(secret));
	key->high = little_endian_word((uint8 *) VARDATA_ANY(secret) + KEY_SIZE / 2);
}

StateSeal *
state_seal_load(const char *purpose)
{
	int capacity = 1;
	StateSeal *seal = palloc(offsetof(StateSeal, keys) + capacity * sizeof(SealKey));
	Oid table_id = get_relname_relid("state_key", get_namespace_oid("kafka", false));
	Relation table;
	SysScanDesc scan;
	HeapTuple tuple;

	/* read directly: the caller has, and shall have, no privilege to */
	seal->key_count = 0;
	table = table_open(table_id, AccessShareLock);
	scan = systable_beginscan(table, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		SealKey key;

		if (seal->key_count == capacity)
		{
			capacity *= 2;
			seal = repalloc(seal, offsetof(StateSeal, keys) + capacity * sizeof(SealKey));
		}
		read_key(tuple, RelationGetDescr(table), &key);
		derive_key(&key, purpose, &seal->keys[seal->key_count++]);
	}
	systable_endscan(scan);
	table_close(table, AccessShareLock);
	if (seal->key_count == 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("table \"kafka.state_key\" is empty"),
		                errdetail("Aggregate states are sealed with the key in it."),
		                errhint("Restore it from a backup, or create the extension again.")));
	return seal;
}

uint64
state_seal_compute(const StateSeal *seal, const void *data, Size length)
{
	return siphash(&seal->keys[0], data, length);
}

bool
state_seal_matches(const StateSeal *seal, uint64 value, const void *data, Size length)
{
	for (int i = 0; i < seal->key_count; i++)
		if (siphash(&seal->keys[i], data, length) == value)
			return true;
	return false;
}
