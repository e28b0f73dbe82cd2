/*-------------------------------------------------------------------------
 *
 * json_field_tree.c
 *	  Names of JSON fields as a tree: built, looked up, numbered.
 *
 * What is found under the names, and in which order they come, is left to json_fields.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/pg_bitutils.h"

#include "json_field_tree.h"

static inline uint64
mix(uint64 hash)
{
	hash *= UINT64CONST(0x9e3779b97f4a7c15);
	return hash ^ hash >> 32;
}

/* Names that nobody wants are compared with at most all that are known: no need to be safe from collisions. */
static inline uint32
hash_name(const char *name, int length)
{
	uint64 hash = length;
	uint64 rest = 0;

	for (; length >= (int) sizeof(uint64); name += sizeof(uint64), length -= sizeof(uint64))
		hash = mix(hash ^ json_load_word(name));
	memcpy(&rest, name, length);
	return mix(hash ^ rest);
}

/* The name as an array index, or -1. */
static int
index_of_name(const char *name)
{
	int result = 0;

	if (name[0] == '\0' || strlen(name) > 9 || (name[0] == '0' && name[1] != '\0'))
		return -1;
	for (; *name != '\0'; name++)
	{
		if (*name < '0' || *name > '9')
			return -1;
		result = result * 10 + (*name - '0');
	}
	return result;
}

/* The slot of a name among the children: the child's, or the free one. */
static JsonField **
find_bucket(const JsonField *parent, const char *name, int length, uint32 hash)
{
	uint32 i = hash & parent->bucket_mask;

	while (parent->buckets[i] != NULL &&
	       (parent->buckets[i]->hash != hash || parent->buckets[i]->name_length != length ||
	        memcmp(parent->buckets[i]->name, name, length) != 0))
		i = (i + 1) & parent->bucket_mask;
	return &parent->buckets[i];
}

/* Keeps at least half of the buckets free. */
static void
grow_buckets(JsonField *parent)
{
	int count = list_length(parent->children) + 1;
	ListCell *cell;

	if (parent->buckets != NULL && parent->bucket_mask + 1 >= 2 * count)
		return;
	if (parent->buckets != NULL)
		pfree(parent->buckets);
	parent->bucket_mask = pg_nextpower2_32(4 * count) - 1;
	parent->buckets = palloc0(sizeof(JsonField *) * (parent->bucket_mask + 1));
	foreach (cell, parent->children)
	{
		JsonField *child = lfirst(cell);

		*find_bucket(parent, child->name, child->name_length, child->hash) = child;
	}
}

/* Sets what the field's key is compared with. */
static void
set_key(JsonField *field)
{
	char *last_word = (char *) &field->last_word;

	field->key_length = field->name_length + 3;
	field->padded_length = TYPEALIGN(sizeof(uint64), field->key_length);
	field->key = palloc0(field->padded_length + 1);
	snprintf(field->key, field->padded_length + 1, "\"%s\":", field->name);
	memset(last_word, 0xff, field->key_length - (field->padded_length - (int) sizeof(uint64)));
}

JsonField *
json_field_add_child(JsonField *parent, const char *name, MemoryContext context)
{
	int length = strlen(name);
	uint32 hash = hash_name(name, length);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	JsonField **bucket;

	grow_buckets(parent);
	bucket = find_bucket(parent, name, length, hash);
	if (*bucket == NULL)
	{
		JsonField *child = palloc0(sizeof(JsonField));
		bool plain = true;

		child->name = pstrdup(name);
		child->name_length = length;
		child->hash = hash;
		child->array_index = index_of_name(name);
		for (const char *p = name; *p != '\0'; p++)
			if (*p == '"' || *p == '\\' || (unsigned char) *p < ' ')
				plain = false;
		if (plain)
			set_key(child);
		*bucket = child;
		parent->children = lappend(parent->children, child);
	}
	MemoryContextSwitchTo(old_context);
	return *bucket;
}

JsonField *
json_field_child(const JsonField *parent, const char *name, int length)
{
	if (parent->buckets == NULL)
		return NULL;
	return *find_bucket(parent, name, length, hash_name(name, length));
}

static int
compare_array_index(const ListCell *a, const ListCell *b)
{
	const JsonField *field_a = lfirst(a);
	const JsonField *field_b = lfirst(b);

	return field_a->array_index < field_b->array_index   ? -1
	       : field_a->array_index > field_b->array_index ? 1
	                                                     : 0;
}

int
json_field_number_from(JsonField *field, int first)
{
	JsonField *previous = NULL;
	List *indexed = NIL;
	ListCell *cell;
	int next = field->wanted ? first + 1 : first;

	check_stack_depth();
	field->fragment = first;
	foreach (cell, field->children)
	{
		JsonField *child = lfirst(cell);

		next = json_field_number_from(child, next);
		if (child->array_index >= 0)
			indexed = lappend(indexed, child);

		/* until the first message has shown better */
		if (previous == NULL)
			field->first = child;
		else
			previous->next = child;
		previous = child;
	}
	field->fragments_end = next;

	list_sort(indexed, compare_array_index);
	field->by_index = palloc(sizeof(JsonField *) * (list_length(indexed) + 1));
	foreach (cell, indexed)
		field->by_index[field->by_index_count++] = lfirst(cell);
	list_free(indexed);
	return next;
}
