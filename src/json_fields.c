/*-------------------------------------------------------------------------
 *
 * json_fields.c
 *	  Find the wanted fields of a JSON object in one pass.
 *
 * Producers write their fields in the same order again and again: each field
 * remembers which one came next the last time, and that name is compared first, as
 * it stands in the text.  Other keys are looked up by hash.  Names that nobody wants are learned, so
 * that they are passed as fast: a message may have many of them.  The names are kept by
 * json_field_tree.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "json_field_tree.h"
#include "json_fields.h"

/* Names that are learned: so many, and so long.  Where keys are data, there is no end of them. */
#define MOST_LEARNED_NAMES   256
#define LONGEST_LEARNED_NAME 64

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

/* The child of that name, created if need be. */
static JsonField *
add_child(JsonFields *fields, JsonField *parent, const char *name)
{
	JsonField *child = json_field_add_child(parent, name, fields->context);

	fields->longest_name = Max(fields->longest_name, child->name_length);
	return child;
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

void
json_fields_finish(JsonFields *fields)
{
	MemoryContext old_context = MemoryContextSwitchTo(fields->context);

	fields->fragment_count = json_field_number_from(&fields->root, 0);
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
	return json_field_child(parent, name, length);
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
		if (json_load_word(text + i) != json_load_word(field->key + i))
			return false;
	return ((json_load_word(text + last) ^ json_load_word(field->key + last)) &
	        field->last_word) == 0;
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
