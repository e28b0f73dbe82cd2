/*-------------------------------------------------------------------------
 *
 * json_field_tree.h
 *	  Names of JSON fields as a tree; inside of json_fields.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JSON_FIELD_TREE_H
#define JSON_FIELD_TREE_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "json_fields.h"

struct JsonField
{
	/* the key as it is written most often: with quotes and colon; length 0 if it needs escapes */
	char *key;
	int key_length;
	int padded_length; /* whole words, filled up with zeros */
	uint64 last_word;  /* a mask: the bytes of the last word that count */
	char *name;
	int name_length;
	uint32 hash;
	int array_index; /* -1: the name is not an index */

	bool known; /* not only learned */
	bool wanted;
	int fragment;      /* of the field itself, if wanted, or of the first one below */
	int fragments_end; /* behind the last one below */
	uint64 found_in;   /* number of the search that found it last */

	/* children */
	List *children;
	JsonField **buckets; /* by hash, open addressing */
	uint32 bucket_mask;
	JsonField **by_index; /* those with an index, in its order */
	int by_index_count;

	/* what is expected */
	JsonField *first; /* the first wanted child of the last search */
	JsonField *next;  /* the sibling that followed this one the last time */
};

/* Eight bytes of a text, wherever they stand. */
static inline uint64
json_load_word(const char *p)
{
	uint64 word;

	memcpy(&word, p, sizeof(word));
	return word;
}

/* The child of that name, created if need be, in "context". */
extern JsonField *json_field_add_child(JsonField *parent, const char *name,
                                       MemoryContext context);

/* The child of a name that needs no '\0' at its end, or NULL. */
extern JsonField *json_field_child(const JsonField *parent, const char *name, int length);

/*
 * Numbers the fragments of a field and of those below it depth first, so that they are a range, from "first"
 * on.  Returns the number behind the last.  To be called once; allocates in the current memory context.
 */
extern int json_field_number_from(JsonField *field, int first);

#endif /* JSON_FIELD_TREE_H */
