/*-------------------------------------------------------------------------
 *
 * json_fields.h
 *	  Find the wanted fields of a JSON object in one pass.
 *
 * The wanted fields are a tree of names and array indexes, built once; a
 * search then validates a whole text and leaves, for each wanted field, the
 * piece of text that is its value.  Converting it is left to others.
 *
 *-------------------------------------------------------------------------
 */
#ifndef JSON_FIELDS_H
#define JSON_FIELDS_H

#include "postgres.h"
#include "json_scanner.h"

typedef struct JsonField JsonField;
typedef struct JsonFields JsonFields;

/*
 * Creates an empty set of wanted fields in the current memory context.
 * put_code_point: see json_unescape(), for keys with \u escapes.
 */
extern JsonFields *json_fields_create(JsonPutCodePoint put_code_point);

/*
 * Adds the field that a path leads to: names of object members; a name of
 * digits only is also the index of an array's element.  Adding a path again
 * returns the same field.  The names are copied.
 */
extern JsonField *json_fields_add(JsonFields *fields, char **path, int path_length);

/*
 * Makes a top-level name known without wanting its value, for
 * json_fields_unknown().
 */
extern void json_fields_add_known(JsonFields *fields, const char *name);

/* Numbers the fields; to be called once, after the last of them was added. */
extern void json_fields_finish(JsonFields *fields);

/*
 * Passes one object, which must be next in the text, and fills the fragments.
 * Of a duplicate key the last value counts.  Returns false with the scanner's error set when
 * the text is no valid JSON or no object; trailing bytes are not looked at.
 */
extern bool json_fields_find(JsonFields *fields, JsonScanner *scanner);

/* The number of a field's fragment, and all fragments of the last search. */
extern int json_field_number(const JsonField *field);
extern const JsonFragment *json_fields_fragments(const JsonFields *fields);

/*
 * The first top-level key of the last search that is neither wanted nor
 * known (with its quotes, as it stands in the text), or NULL.
 */
extern const JsonFragment *json_fields_unknown(const JsonFields *fields);

#endif /* JSON_FIELDS_H */
