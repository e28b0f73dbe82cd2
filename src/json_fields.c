/*-------------------------------------------------------------------------
 *
 * json_fields.c
 *	  Find the wanted fields of a JSON object in one pass.
 *
 * Producers write their fields in the same order again and again: each field
 * remembers which one came next the last time, and that name is compared first, as
 * it stands in the text.  Other keys are looked up by hash.  Names that nobody wants are learned, so
 * that they are passed as fast: a message may have many of them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "port/pg_bitutils.h"

#include "json_fields.h"

/* Names that are learned: so many, and so long.  Where keys are data, there is no end of them. */
#define MOST_LEARNED_NAMES   256
#define LONGEST_LEARNED_NAME 64

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

struct JsonFields
{
	MemoryContext context;
	JsonPutCodePoint put_code_point;
	JsonField root;
	JsonFragment *fragments;
	int fragment_count;
	uint64 search;
	JsonFragment unknown; /* kind MISSING: none */
	char *key_buffer;     /* for keys with escapes */
	int longest_name;
	int learned_names;
};

static bool find_in_object(JsonFields *fields, JsonScanner *scanner, JsonField *parent);
static bool find_in_array(JsonFields *fields, JsonScanner *scanner, JsonField *parent);

JsonFields *
json_fields_create(JsonPutCodePoint put_code_point)
{
	JsonFields *fields = palloc0(sizeof(JsonFields));

	fields->context = CurrentMemoryContext;
	fields->put_code_point = put_code_point;
	fields->root.array_index = -1;
	fields->longest_name = LONGEST_LEARNED_NAME;
	return fields;
}

static inline uint64
load_word(const char *p)
{
	uint64 word;

	memcpy(&word, p, sizeof(word));
	return word;
}

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
		hash = mix(hash ^ load_word(name));
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

/* The child of that name, created if need be. */
static JsonField *
add_child(JsonFields *fields, JsonField *parent, const char *name)
{
	int length = strlen(name);
	uint32 hash = hash_name(name, length);
	MemoryContext old_context = MemoryContextSwitchTo(fields->context);
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
		fields->longest_name = Max(fields->longest_name, length);
	}
	MemoryContextSwitchTo(old_context);
	return *bucket;
}

JsonField *
json_fields_add(JsonFields *fields, char **path, int path_length)
{
	JsonField *field = &fields->root;

	for (int i = 0; i < path_length; i++)
	{
		field = add_child(fields, field, path[i]);
		field->known = true;
	}
	field->wanted = true;
	return field;
}

void
json_fields_add_known(JsonFields *fields, const char *name)
{
	add_child(fields, &fields->root, name)->known = true;
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

/* Numbers a field and those below it depth first, so that they are a range. */
static void
number_fields(JsonFields *fields, JsonField *field)
{
	JsonField *previous = NULL;
	List *indexed = NIL;
	ListCell *cell;

	check_stack_depth();
	field->fragment = fields->fragment_count;
	if (field->wanted)
		fields->fragment_count++;
	foreach (cell, field->children)
	{
		JsonField *child = lfirst(cell);

		number_fields(fields, child);
		if (child->array_index >= 0)
			indexed = lappend(indexed, child);

		/* until the first message has shown better */
		if (previous == NULL)
			field->first = child;
		else
			previous->next = child;
		previous = child;
	}
	field->fragments_end = fields->fragment_count;

	list_sort(indexed, compare_array_index);
	field->by_index = palloc(sizeof(JsonField *) * (list_length(indexed) + 1));
	foreach (cell, indexed)
		field->by_index[field->by_index_count++] = lfirst(cell);
	list_free(indexed);
}

void
json_fields_finish(JsonFields *fields)
{
	MemoryContext old_context = MemoryContextSwitchTo(fields->context);

	number_fields(fields, &fields->root);
	fields->fragments = palloc0(sizeof(JsonFragment) * (fields->fragment_count + 1));
	/* a key that is longer than this is none of ours, however it is escaped */
	fields->key_buffer =
	    palloc(JSON_UNESCAPED_SIZE(JSON_LONGEST_ESCAPE * fields->longest_name));
	MemoryContextSwitchTo(old_context);
}

int
json_field_number(const JsonField *field)
{
	return field->fragment;
}

const JsonFragment *
json_fields_fragments(const JsonFields *fields)
{
	return fields->fragments;
}

const JsonFragment *
json_fields_unknown(const JsonFields *fields)
{
	return fields->unknown.kind == JSON_KIND_MISSING ? NULL : &fields->unknown;
}

bool
json_fields_find(JsonFields *fields, JsonScanner *scanner)
{
	memset(fields->fragments, 0, sizeof(JsonFragment) * fields->fragment_count);
	fields->unknown.kind = JSON_KIND_MISSING;
	fields->search++;

	json_skip_white_space(scanner);
	if (scanner->position == scanner->end)
		return json_scan_fail(scanner, JSON_SCAN_UNEXPECTED_END, scanner->position);
	if (*scanner->position != '{')
	{
		JsonFragment other;

		if (scanner->end - scanner->position >= 3 &&
		    memcmp(scanner->position, "\xef\xbb\xbf", 3) == 0)
			return json_scan_fail(scanner, JSON_SCAN_BYTE_ORDER_MARK, scanner->position);
		/* other JSON is told from what is none at all */
		return json_scan_value(scanner, &other) &&
		       json_scan_fail(scanner, JSON_SCAN_NOT_AN_OBJECT, other.text);
	}
	return find_in_object(fields, scanner, &fields->root);
}

/* The child that a scanned key names, or NULL. */
static JsonField *
find_child(JsonFields *fields, const JsonField *parent, const JsonFragment *key)
{
	const char *name = key->text + 1;
	ptrdiff_t length = key->length - 2;

	if (parent->buckets == NULL)
		return NULL;
	if (key->escaped)
	{
		JsonScanError error;

		if (length > JSON_LONGEST_ESCAPE * fields->longest_name)
			return NULL;
		length =
		    json_unescape(name, length, fields->key_buffer, fields->put_code_point, &error);
		if (length < 0)
			return NULL; /* no name can have what PostgreSQL's text can't */
		name = fields->key_buffer;
	}
	if (length > fields->longest_name)
		return NULL;
	return *find_bucket(parent, name, length, hash_name(name, length));
}

/* The new child for a key that names none; NULL: it is not to be learned. */
static JsonField *
learn_name(JsonFields *fields, JsonField *parent, const JsonFragment *key)
{
	char name[LONGEST_LEARNED_NAME + 1];
	size_t length = key->length - 2;

	if (key->escaped || length > LONGEST_LEARNED_NAME ||
	    fields->learned_names == MOST_LEARNED_NAMES)
		return NULL;
	fields->learned_names++;
	memcpy(name, key->text + 1, length);
	name[length] = '\0';
	return add_child(fields, parent, name);
}

/* Notes a key of an object, if it is the first that json_fields_unknown() tells of. */
static void
note_unknown(JsonFields *fields, const JsonField *parent, const char *key, size_t length)
{
	if (parent != &fields->root || fields->unknown.kind != JSON_KIND_MISSING)
		return;
	fields->unknown.kind = JSON_KIND_STRING;
	fields->unknown.text = key;
	fields->unknown.length = length;
}

/* Sets the fragments below a field, all of which are missing, or null. */
static void
set_fragments_below(JsonFields *fields, const JsonField *field, JsonKind kind)
{
	for (int i = field->fragment; i < field->fragments_end; i++)
		fields->fragments[i].kind = kind;
}

/* Passes the value of a field that is in the tree. */
static bool
find_in_value(JsonFields *fields, JsonScanner *scanner, JsonField *field)
{
	JsonFragment value;
	bool found;

	if (field->children == NIL)
	{
		if (!field->wanted)
			return json_scan_value(scanner, &value);
		return json_scan_value(scanner, &fields->fragments[field->fragment]);
	}

	/* a duplicate key: what the earlier value had does not count */
	if (field->found_in == fields->search)
		set_fragments_below(fields, field, JSON_KIND_MISSING);
	field->found_in = fields->search;

	json_skip_white_space(scanner);
	value.text = scanner->position;
	value.escaped = false;
	if (scanner->position < scanner->end && *scanner->position == '{')
	{
		value.kind = JSON_KIND_OBJECT;
		found = find_in_object(fields, scanner, field);
	}
	else if (scanner->position < scanner->end && *scanner->position == '[')
	{
		value.kind = JSON_KIND_ARRAY;
		found = find_in_array(fields, scanner, field);
	}
	else
	{
		found = json_scan_value(scanner, &value);
		if (found && value.kind == JSON_KIND_NULL)
			set_fragments_below(fields, field, JSON_KIND_NULL);
	}
	if (!found)
		return false;
	if (field->wanted)
	{
		value.length = scanner->position - value.text;
		fields->fragments[field->fragment] = value;
	}
	return true;
}

/* Does the text go on with the field's key? */
static inline bool
key_is_next(const JsonField *field, const JsonScanner *scanner)
{
	const char *text = scanner->position;
	ptrdiff_t left = scanner->end - text;
	int last;

	if (field == NULL || field->key_length == 0)
		return false;
	if (left < field->padded_length)
		return left >= field->key_length && memcmp(text, field->key, field->key_length) == 0;
	last = field->padded_length - sizeof(uint64);
	for (int i = 0; i < last; i += sizeof(uint64))
		if (load_word(text + i) != load_word(field->key + i))
			return false;
	return ((load_word(text + last) ^ load_word(field->key + last)) & field->last_word) == 0;
}

/* Passes an object; position is at its opening brace. */
static bool
find_in_object(JsonFields *fields, JsonScanner *scanner, JsonField *parent)
{
	JsonField *previous = NULL;
	bool done;

	if (!json_scan_enter(scanner, &done))
		return false;
	while (!done)
	{
		JsonField **expected = previous == NULL ? &parent->first : &previous->next;
		JsonField *field = *expected;
		JsonFragment value;

		json_skip_white_space(scanner);
		if (key_is_next(field, scanner))
		{
			if (!field->known)
				note_unknown(fields, parent, scanner->position, field->key_length - 1);
			scanner->position += field->key_length;
		}
		else
		{
			JsonFragment key;

			if (!json_scan_key(scanner, &key))
				return false;
			field = find_child(fields, parent, &key);
			if (field == NULL || !field->known)
				note_unknown(fields, parent, key.text, key.length);
			if (field == NULL)
				field = learn_name(fields, parent, &key);
			if (field != NULL)
				*expected = field;
		}

		if (field == NULL)
		{
			if (!json_scan_value(scanner, &value))
				return false;
		}
		else
		{
			bool valid = field->wanted && field->children == NIL
			                 ? json_scan_value(scanner, &fields->fragments[field->fragment])
			                 : find_in_value(fields, scanner, field);

			if (!valid)
				return false;
			previous = field;
		}
		if (!json_scan_next(scanner, true, &done))
			return false;
	}
	return true;
}

/* Passes an array; position is at its opening bracket. */
static bool
find_in_array(JsonFields *fields, JsonScanner *scanner, JsonField *parent)
{
	int next_wanted = 0;
	bool done;

	if (!json_scan_enter(scanner, &done))
		return false;
	for (int64 i = 0; !done; i++)
	{
		if (next_wanted < parent->by_index_count &&
		    parent->by_index[next_wanted]->array_index == i)
		{
			if (!find_in_value(fields, scanner, parent->by_index[next_wanted++]))
				return false;
		}
		else
		{
			JsonFragment ignored;

			if (!json_scan_value(scanner, &ignored))
				return false;
		}
		if (!json_scan_next(scanner, false, &done))
			return false;
	}
	return true;
}
