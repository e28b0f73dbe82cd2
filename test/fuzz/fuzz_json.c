/*
 * The JSON scanner and the search for fields against PostgreSQL's own parser:
 * both accept the same texts, and find the same pieces for the same paths.
 */
#include "postgres.h"

#include "common/jsonapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "json_fields.h"
#include "runtime.h"

#define DEEPEST 3

typedef struct WantedPath
{
	int length;
	char *steps[DEEPEST];
} WantedPath;

/* the letters are those of the dictionary and the seeds */
static WantedPath wanted[] = {
    {1, {"a"}},           {1, {"b"}},           {2, {"b", "c"}}, {2, {"l", "0"}},
    {2, {"l", "2"}},      {3, {"l", "1", "x"}}, {1, {"\303\251"}}, {3, {"b", "d", "e"}},
    {1, {"quo\"te\\d"}},  {1, {""}},            {2, {"0", "0"}},
};

/* --- the reference --- */

typedef enum Found
{
	FOUND_NOTHING,
	FOUND_NULL,
	FOUND_VALUE
} Found;

typedef struct Reference
{
	JsonLexContext *lex;
	/* where the parser stands: names, or indexes as names; deeper levels are counted only */
	char *path[DEEPEST];
	int depth;
	int level_index[DEEPEST + 1]; /* next element of the array whose elements are at this depth */
	const char *starts[DEEPEST];
	Found found[lengthof(wanted)];
	const char *text[lengthof(wanted)];
	size_t length[lengthof(wanted)];
	char *string[lengthof(wanted)]; /* without escapes */
	char *last_string;
} Reference;

static bool
is_below(const WantedPath *path, char *const *steps, int depth)
{
	if (path->length < depth)
		return false;
	for (int i = 0; i < depth; i++)
		if (strcmp(path->steps[i], steps[i]) != 0)
			return false;
	return true;
}

static void
value_starts(Reference *reference, char *name, bool isnull)
{
	if (reference->depth < DEEPEST)
	{
		reference->path[reference->depth] = name;
		reference->starts[reference->depth] = reference->lex->token_start;
	}
	reference->depth++;
	reference->last_string = NULL;
	if (reference->depth > DEEPEST)
		return;
	reference->level_index[reference->depth] = 0;
	/* of duplicate keys the last counts, with all that is below it; null has nothing but null below */
	for (int i = 0; i < lengthof(wanted); i++)
		if (is_below(&wanted[i], reference->path, reference->depth))
			reference->found[i] = isnull ? FOUND_NULL : FOUND_NOTHING;
}

static void
value_ends(Reference *reference)
{
	reference->depth--;
	if (reference->depth >= DEEPEST)
		return;
	for (int i = 0; i < lengthof(wanted); i++)
		if (wanted[i].length == reference->depth + 1 &&
		    is_below(&wanted[i], reference->path, reference->depth + 1) &&
		    reference->found[i] != FOUND_NULL)
		{
			reference->found[i] = FOUND_VALUE;
			reference->text[i] = reference->starts[reference->depth];
			reference->length[i] =
			    reference->lex->prev_token_terminator - reference->starts[reference->depth];
			reference->string[i] = reference->last_string;
		}
}

static void
field_start(void *state, char *name, bool isnull)
{
	value_starts(state, name, isnull);
}

static void
field_end(void *state, char *name, bool isnull)
{
	value_ends(state);
}

static void
element_start(void *state, bool isnull)
{
	Reference *reference = state;
	char *name = "";

	if (reference->depth < DEEPEST)
		name = psprintf("%d", reference->level_index[reference->depth]++);
	value_starts(reference, name, isnull);
}

static void
element_end(void *state, bool isnull)
{
	value_ends(state);
}

static void
scalar(void *state, char *token, JsonTokenType type)
{
	((Reference *) state)->last_string = type == JSON_TOKEN_STRING ? token : NULL;
}

/* --- the comparison --- */

static bool
postgres_accepts(const char *text, size_t length)
{
	return pg_parse_json(makeJsonLexContextCstringLen((char *) text, length, PG_UTF8, false),
	                     &nullSemAction) == JSON_SUCCESS;
}

static void
compare_value(const char *text, size_t length)
{
	JsonScanner scanner;
	JsonFragment value;

	json_scan_start(&scanner, text, length);
	if (json_scan_value(&scanner, &value) && json_scan_finish(&scanner))
	{
		FUZZ_CHECK(postgres_accepts(text, length));
		FUZZ_CHECK(value.text >= text && value.text + value.length <= text + length);
	}
	else if (scanner.error != JSON_SCAN_TOO_DEEP)
	{
		FUZZ_CHECK(!postgres_accepts(text, length));
		FUZZ_CHECK(scanner.error_position >= text && scanner.error_position <= text + length);
	}
}

static void
compare_fields(JsonFields *fields, JsonField **handles, const char *text, size_t length)
{
	JsonScanner scanner;
	JsonSemAction actions = {0};
	Reference reference = {0};
	const JsonFragment *fragments;

	json_scan_start(&scanner, text, length);
	if (!json_fields_find(fields, &scanner) || !json_scan_finish(&scanner))
	{
		if (scanner.error == JSON_SCAN_NOT_AN_OBJECT)
			FUZZ_CHECK(text[strspn(text, " \t\r\n")] != '{');
		else if (scanner.error != JSON_SCAN_TOO_DEEP)
			FUZZ_CHECK(!postgres_accepts(text, length));
		FUZZ_CHECK(scanner.error_position >= text && scanner.error_position <= text + length);
		return;
	}
	FUZZ_CHECK(postgres_accepts(text, length));
	FUZZ_CHECK(text[strspn(text, " \t\r\n")] == '{');

	reference.lex = makeJsonLexContextCstringLen((char *) text, length, PG_UTF8, true);
	actions.semstate = &reference;
	actions.object_field_start = field_start;
	actions.object_field_end = field_end;
	actions.array_element_start = element_start;
	actions.array_element_end = element_end;
	actions.scalar = scalar;
	if (pg_parse_json(reference.lex, &actions) != JSON_SUCCESS)
		return; /* an escape that is no text: valid JSON all the same */

	fragments = json_fields_fragments(fields);
	for (int i = 0; i < lengthof(wanted); i++)
	{
		const JsonFragment *fragment = &fragments[json_field_number(handles[i])];

		switch (reference.found[i])
		{
			case FOUND_NOTHING:
				FUZZ_CHECK(fragment->kind == JSON_KIND_MISSING);
				break;
			case FOUND_NULL:
				FUZZ_CHECK(fragment->kind == JSON_KIND_NULL);
				break;
			case FOUND_VALUE:
				FUZZ_CHECK(fragment->kind > JSON_KIND_NULL);
				FUZZ_CHECK(fragment->text == reference.text[i]);
				FUZZ_CHECK(fragment->length == reference.length[i]);
				FUZZ_CHECK((fragment->kind == JSON_KIND_STRING) == (fragment->text[0] == '"'));
				if (fragment->kind == JSON_KIND_STRING)
				{
					size_t content = fragment->length - 2;
					char *buffer = palloc(content);
					JsonScanError error;
					ptrdiff_t written =
					    json_unescape(fragment->text + 1, content, buffer, NULL, &error);

					FUZZ_CHECK(written >= 0 && (size_t) written <= content);
					FUZZ_CHECK((size_t) written == strlen(reference.string[i]));
					FUZZ_CHECK(memcmp(buffer, reference.string[i], written) == 0);
					FUZZ_CHECK(fragment->escaped ==
					           (memchr(fragment->text, '\\', fragment->length) != NULL));
				}
				break;
		}
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	JsonField *handles[lengthof(wanted)];
	JsonFields *fields;
	/* the exact bytes for what we read; PostgreSQL's parser gets the same */
	char *text = palloc(size);

	memcpy(text, data, size);
	if (memchr(text, '\0', size) != NULL)
	{
		/* no text for PostgreSQL, and no JSON */
		JsonScanner scanner;
		JsonFragment value;

		json_scan_start(&scanner, text, size);
		FUZZ_CHECK(!json_scan_value(&scanner, &value) || !json_scan_finish(&scanner));
	}
	else
	{
		compare_value(text, size);
		text = pnstrdup(text, size);
		fields = json_fields_create(NULL);
		for (int i = 0; i < lengthof(wanted); i++)
			handles[i] = json_fields_add(fields, wanted[i].steps, wanted[i].length);
		json_fields_finish(fields);
		compare_fields(fields, handles, text, size);
		/* again, now that the order of the fields is known */
		compare_fields(fields, handles, text, size);
	}
	fuzz_reset();
	return 0;
}
