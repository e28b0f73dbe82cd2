/*-------------------------------------------------------------------------
 *
 * decode_value.c
 *	  The text of one value, or a piece of JSON, to a Datum of any type.
 *
 * Follows json_populate_record(): scalars go to the type's input function, JSON
 * arrays and objects to PostgreSQL's arrays and composite types.  Common types
 * and forms are converted directly (decode_direct.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "compat.h"
#include "decode_internal.h"

typedef enum ValueShape
{
	VALUE_SCALAR,
	VALUE_JSON,
	VALUE_JSONB,
	VALUE_EPOCH,
	VALUE_ARRAY,
	VALUE_COMPOSITE,
	VALUE_DOMAIN
} ValueShape;

struct ValueConverter
{
	ValueWorkspace *workspace;
	ValueShape shape;
	DirectType direct;
	Oid type;
	int32 typmod;
	TopicEpoch epoch;
	FmgrInfo input; /* the type's input function; not set for domains */
	Oid input_parameter;

	ValueConverter *inner; /* an array's element, a domain's base type */
	int16 element_length;  /* of an array's elements */
	bool element_by_value;
	char element_alignment;
	void *domain_cache; /* domain_check()'s */

	/* a composite type's columns */
	TupleDesc tuple_descriptor;
	JsonFields *fields;
	ValueConverter **column_converters; /* NULL for dropped columns */
	int *column_fragments;
};

/* An array's elements, as they are found. */
typedef struct ArrayElements
{
	Datum *values;
	bool *nulls;
	int count;
	int capacity;
	int dimension_count; /* 0: not known yet */
	int dimensions[MAXDIM];
} ArrayElements;

static Datum array_from_json(ValueConverter *converter, const JsonFragment *json);
static Datum composite_from_json(ValueConverter *converter, const JsonFragment *json);

/* JSON's \u escapes in another server encoding than UTF-8. */
static size_t
put_server_code_point(uint32_t code_point, char *out)
{
	unsigned char buffer[MAX_UNICODE_EQUIVALENT_STRING + 1];
	size_t length;

	pg_unicode_to_server(code_point, buffer);
	length = strlen((char *) buffer);
	memcpy(out, buffer, length);
	return length;
}

ValueWorkspace *
value_workspace_create(void)
{
	ValueWorkspace *workspace = palloc0(sizeof(ValueWorkspace));

	workspace->context = CurrentMemoryContext;
	workspace->memory.context = CurrentMemoryContext;
	initStringInfo(&workspace->text);
	if (GetDatabaseEncoding() != PG_UTF8)
		workspace->put_code_point = put_server_code_point;
	return workspace;
}

static void
prepare_composite(ValueConverter *converter)
{
	ValueWorkspace *workspace = converter->workspace;
	TupleDesc row_type = lookup_rowtype_tupdesc(converter->type, converter->typmod);
	int column_count = row_type->natts;
	JsonField **fields = palloc0(sizeof(JsonField *) * column_count);

	converter->tuple_descriptor = CreateTupleDescCopy(row_type);
	ReleaseTupleDesc(row_type);
	converter->fields = json_fields_create(workspace->put_code_point);
	converter->column_converters = palloc0(sizeof(ValueConverter *) * column_count);
	converter->column_fragments = palloc0(sizeof(int) * column_count);
	for (int i = 0; i < column_count; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(converter->tuple_descriptor, i);
		char *name = NameStr(attribute->attname);

		if (attribute->attisdropped)
			continue;
		fields[i] = json_fields_add(converter->fields, &name, 1);
		converter->column_converters[i] =
		    value_converter_create(workspace, attribute->atttypid, attribute->atttypmod,
		                           EPOCH_NONE);
	}
	json_fields_finish(converter->fields);
	for (int i = 0; i < column_count; i++)
		if (fields[i] != NULL)
			converter->column_fragments[i] = json_field_number(fields[i]);
	pfree(fields);
}

ValueConverter *
value_converter_create(ValueWorkspace *workspace, Oid type, int32 typmod, TopicEpoch epoch)
{
	MemoryContext old_context = MemoryContextSwitchTo(workspace->context);
	ValueConverter *converter = palloc0(sizeof(ValueConverter));
	char kind = get_typtype(type);
	Oid element_type = get_element_type(type);

	check_stack_depth();
	converter->workspace = workspace;
	converter->type = type;
	converter->typmod = typmod;
	converter->epoch = epoch;
	if (kind == TYPTYPE_DOMAIN)
	{
		int32 base_typmod = typmod;
		Oid base_type = getBaseTypeAndTypmod(type, &base_typmod);

		converter->shape = VALUE_DOMAIN;
		converter->inner = value_converter_create(workspace, base_type, base_typmod, epoch);
	}
	else
	{
		Oid input_function;

		getTypeInputInfo(type, &input_function, &converter->input_parameter);
		fmgr_info_cxt(input_function, &converter->input, workspace->context);

		if (epoch != EPOCH_NONE)
			converter->shape = VALUE_EPOCH;
		else if (type == JSONOID)
			converter->shape = VALUE_JSON;
		else if (type == JSONBOID)
			converter->shape = VALUE_JSONB;
		else if (OidIsValid(element_type))
		{
			converter->shape = VALUE_ARRAY;
			converter->inner =
			    value_converter_create(workspace, element_type, typmod, EPOCH_NONE);
			get_typlenbyvalalign(element_type, &converter->element_length,
			                     &converter->element_by_value, &converter->element_alignment);
		}
		else if (kind == TYPTYPE_COMPOSITE)
		{
			converter->shape = VALUE_COMPOSITE;
			prepare_composite(converter);
		}
		else
		{
			converter->shape = VALUE_SCALAR;
			converter->direct = direct_type(type);
		}
	}
	MemoryContextSwitchTo(old_context);
	return converter;
}

/* Calls the input function. */
static Datum
input_value(ValueConverter *converter, const char *text, size_t length)
{
	StringInfo buffer = &converter->workspace->text;

	if (text != buffer->data)
	{
		resetStringInfo(buffer);
		appendBinaryStringInfo(buffer, text, length);
	}
	return InputFunctionCall(&converter->input, buffer->data, converter->input_parameter,
	                         converter->typmod);
}

/* The contents of a string with its escapes resolved, in the workspace's text. */
static void
unescape_string(ValueWorkspace *workspace, const JsonFragment *json)
{
	StringInfo buffer = &workspace->text;
	size_t contents_length = json->length - 2;
	JsonScanError error;
	ptrdiff_t length;

	resetStringInfo(buffer);
	enlargeStringInfo(buffer, workspace->put_code_point == NULL
	                              ? contents_length
	                              : JSON_UNESCAPED_SIZE(contents_length));
	length = json_unescape(json->text + 1, contents_length, buffer->data,
	                       workspace->put_code_point, &error);
	if (length < 0 && error == JSON_SCAN_NUL_CHARACTER)
		ereport(ERROR, (errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
		                errmsg("unsupported Unicode escape sequence"),
		                errdetail("\\u0000 cannot be converted to text.")));
	if (length < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
		                errmsg("invalid input syntax for type %s", "json"),
		                errdetail("A Unicode surrogate is not part of a pair.")));
	buffer->len = length;
	buffer->data[length] = '\0';
}

Datum
value_from_text(ValueConverter *converter, const char *text, size_t length)
{
	Datum value;

	switch (converter->shape)
	{
		case VALUE_SCALAR:
			if (direct_value(converter->direct, converter->typmod, text, length,
			                 &converter->workspace->memory, &value))
				return value;
			break;
		case VALUE_EPOCH:
			return epoch_value_from_text(converter->epoch, converter->type, converter->typmod,
			                             text, length);
		case VALUE_DOMAIN:
			value = value_from_text(converter->inner, text, length);
			domain_check(value, false, converter->type, &converter->domain_cache,
			             converter->workspace->context);
			return value;
		default:
			break;
	}
	return input_value(converter, text, length);
}

Datum
value_from_bytes(ValueConverter *converter, const char *bytes, size_t length)
{
	Datum value = PointerGetDatum(cstring_to_text_with_len(bytes, length));

	if (converter->shape == VALUE_DOMAIN)
		domain_check(value, false, converter->type, &converter->domain_cache,
		             converter->workspace->context);
	return value;
}

/* A string's contents, anything else as it stands: what input functions get. */
static Datum
text_from_json(ValueConverter *converter, const JsonFragment *json)
{
	StringInfo buffer = &converter->workspace->text;

	if (json->kind != JSON_KIND_STRING)
		return value_from_text(converter, json->text, json->length);
	if (!json->escaped)
		return value_from_text(converter, json->text + 1, json->length - 2);
	unescape_string(converter->workspace, json);
	return value_from_text(converter, buffer->data, buffer->len);
}

void
value_check_null(ValueConverter *converter)
{
	if (converter->shape == VALUE_DOMAIN)
		domain_check((Datum) 0, true, converter->type, &converter->domain_cache,
		             converter->workspace->context);
}

Datum
value_from_json(ValueConverter *converter, const JsonFragment *json, bool *is_null)
{
	Datum value;

	*is_null = json->kind == JSON_KIND_MISSING || json->kind == JSON_KIND_NULL;
	if (*is_null)
	{
		value_check_null(converter);
		return (Datum) 0;
	}
	switch (converter->shape)
	{
		case VALUE_JSON:
			return PointerGetDatum(cstring_to_text_with_len(json->text, json->length));
		case VALUE_JSONB:
			return input_value(converter, json->text, json->length);
		case VALUE_ARRAY:
			if (json->kind != JSON_KIND_STRING)
				return array_from_json(converter, json);
			break;
		case VALUE_COMPOSITE:
			if (json->kind != JSON_KIND_STRING)
				return composite_from_json(converter, json);
			break;
		case VALUE_DOMAIN:
			value = value_from_json(converter->inner, json, is_null);
			domain_check(value, *is_null, converter->type, &converter->domain_cache,
			             converter->workspace->context);
			return value;
		default:
			break;
	}
	return text_from_json(converter, json);
}

DirectType
value_converter_direct_type(const ValueConverter *converter)
{
	return converter->shape == VALUE_SCALAR ? converter->direct : DIRECT_NONE;
}

pg_noreturn static void
expected_json(const char *what, const JsonFragment *json)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
	                errmsg("expected JSON %s, but found \"%s\"", what,
	                       decode_excerpt(json->text, json->length, 0))));
}

static void
add_element(ArrayElements *elements, Datum value, bool is_null)
{
	if (elements->count == elements->capacity)
	{
		elements->capacity = Max(16, 2 * elements->capacity);
		elements->values = elements->values == NULL
		                       ? palloc(sizeof(Datum) * elements->capacity)
		                       : repalloc(elements->values, sizeof(Datum) * elements->capacity);
		elements->nulls = elements->nulls == NULL
		                      ? palloc(sizeof(bool) * elements->capacity)
		                      : repalloc(elements->nulls, sizeof(bool) * elements->capacity);
	}
	elements->values[elements->count] = value;
	elements->nulls[elements->count++] = is_null;
}

/*
 * Adds an array's elements; dimension is 0 for the outermost one.  How many
 * dimensions there are is known at the first thing that is no array.
 */
static void
add_elements(ValueConverter *converter, ArrayElements *elements, const JsonFragment *array,
             int dimension)
{
	JsonScanner scanner;
	bool done;
	int length = 0;

	if (dimension >= MAXDIM)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
		                errmsg("number of array dimensions exceeds the maximum allowed (%d)",
		                       MAXDIM)));
	if (array->kind != JSON_KIND_ARRAY)
		expected_json("array", array);

	/* the text has been scanned before: no errors are left in it */
	json_scan_start(&scanner, array->text, array->length);
	json_scan_enter(&scanner, &done);
	for (; !done; length++)
	{
		JsonFragment json;

		json_scan_value(&scanner, &json);
		if (elements->dimension_count == 0 && json.kind != JSON_KIND_ARRAY)
			elements->dimension_count = dimension + 1;
		if (elements->dimension_count == dimension + 1)
		{
			bool is_null;
			Datum value = value_from_json(converter->inner, &json, &is_null);

			add_element(elements, value, is_null);
		}
		else
			add_elements(converter, elements, &json, dimension + 1);
		json_scan_next(&scanner, false, &done);
	}
	if (elements->dimension_count == 0)
		elements->dimension_count = dimension + 1;

	if (elements->dimensions[dimension] == -1)
		elements->dimensions[dimension] = length;
	else if (elements->dimensions[dimension] != length)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_TEXT_REPRESENTATION), errmsg("malformed JSON array"),
		         errdetail("Multidimensional arrays must have sub-arrays with matching "
		                   "dimensions.")));
}

static Datum
array_from_json(ValueConverter *converter, const JsonFragment *json)
{
	ArrayElements elements = {0};
	int lower_bounds[MAXDIM];

	check_stack_depth();
	for (int i = 0; i < MAXDIM; i++)
	{
		elements.dimensions[i] = -1;
		lower_bounds[i] = 1;
	}
	add_elements(converter, &elements, json, 0);
	if (elements.count == 0)
		return PointerGetDatum(construct_empty_array(converter->inner->type));
	return PointerGetDatum(construct_md_array(
	    elements.values, elements.nulls, elements.dimension_count, elements.dimensions,
	    lower_bounds, converter->inner->type, converter->element_length,
	    converter->element_by_value, converter->element_alignment));
}

static Datum
composite_from_json(ValueConverter *converter, const JsonFragment *json)
{
	TupleDesc tuple_descriptor = converter->tuple_descriptor;
	Datum *values = palloc0(sizeof(Datum) * tuple_descriptor->natts);
	bool *nulls = palloc(sizeof(bool) * tuple_descriptor->natts);
	const JsonFragment *fragments;
	JsonScanner scanner;

	check_stack_depth();
	if (json->kind != JSON_KIND_OBJECT)
		expected_json("object", json);
	json_scan_start(&scanner, json->text, json->length);
	json_fields_find(converter->fields, &scanner);
	fragments = json_fields_fragments(converter->fields);
	for (int i = 0; i < tuple_descriptor->natts; i++)
	{
		if (converter->column_converters[i] == NULL)
			nulls[i] = true;
		else
			values[i] = value_from_json(converter->column_converters[i],
			                            &fragments[converter->column_fragments[i]], &nulls[i]);
	}
	return HeapTupleGetDatum(heap_form_tuple(tuple_descriptor, values, nulls));
}
