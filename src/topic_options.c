/*-------------------------------------------------------------------------
 *
 * topic_options.c
 *	  The options of a topic table and of its columns, one by one.
 *
 * Whether a column's options fit its type is seen in topic_schema.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/defrem.h"
#include "utils/varlena.h"

#include "compat.h"
#include "topic_options.h"
#include "topic_path.h"

/* Kafka's own limit. */
#define MAX_TOPIC_LENGTH 249

/* An option that is one of a few words. */
typedef struct OptionWord
{
	const char *word;
	int value;
} OptionWord;

static const OptionWord format_words[] = {{"json", TOPIC_FORMAT_JSON},
                                          {"text", TOPIC_FORMAT_TEXT},
                                          {"bytea", TOPIC_FORMAT_BYTEA},
                                          {"csv", TOPIC_FORMAT_CSV}};

static const OptionWord key_format_words[] = {{"text", KEY_FORMAT_TEXT},
                                              {"json", KEY_FORMAT_JSON},
                                              {"bytea", KEY_FORMAT_BYTEA}};

static const OptionWord unknown_field_words[] = {{"ignore", UNKNOWN_FIELD_IGNORE},
                                                 {"error", UNKNOWN_FIELD_ERROR}};

static const OptionWord null_value_words[] = {{"row", NULL_VALUE_ROW},
                                              {"skip", NULL_VALUE_SKIP},
                                              {"error", NULL_VALUE_ERROR}};

static const OptionWord metadata_words[] = {{"topic", COLUMN_FROM_TOPIC},
                                            {"partition", COLUMN_FROM_PARTITION},
                                            {"offset", COLUMN_FROM_OFFSET},
                                            {"timestamp", COLUMN_FROM_TIMESTAMP},
                                            {"timestamp_type", COLUMN_FROM_TIMESTAMP_TYPE},
                                            {"key", COLUMN_FROM_KEY},
                                            {"value", COLUMN_FROM_VALUE},
                                            {"headers", COLUMN_FROM_HEADERS}};

static const OptionWord epoch_words[] = {{"s", EPOCH_SECONDS},
                                         {"ms", EPOCH_MILLISECONDS},
                                         {"us", EPOCH_MICROSECONDS}};

static const char *const table_option_names[] = {"topic",         "format",     "key_format",
                                                 "unknown_field", "null_value", "delimiter",
                                                 "quote",         "escape",     "null"};

static const char *const column_option_names[] = {"path", "key", "metadata", "epoch"};

pg_noreturn static void
unknown_option(const char *name, const char *of_what, const char *const *valid_names,
               int valid_count)
{
	StringInfoData valid;
	const char *closest = NULL;
	int closest_distance = 4; /* further away is no slip of the pen */

	initStringInfo(&valid);
	for (int i = 0; i < valid_count; i++)
	{
		const char *candidate = valid_names[i];
		int distance =
		    varstr_levenshtein_less_equal(name, strlen(name), candidate, strlen(candidate), 1,
		                                  1, 1, closest_distance, true);

		if (distance < closest_distance && distance <= strlen(name) / 2)
		{
			closest = candidate;
			closest_distance = distance;
		}
		appendStringInfo(&valid, "%s%s", i > 0 ? ", " : "", candidate);
	}
	ereport(ERROR,
	        (errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("invalid option \"%s\"", name),
	         closest != NULL
	             ? errhint("Perhaps you meant the option \"%s\". Options of a topic %s: %s.",
	                       closest, of_what, valid.data)
	             : errhint("Options of a topic %s: %s.", of_what, valid.data)));
}

pg_noreturn static void
invalid_value(const DefElem *option, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
	                errmsg("invalid value for option \"%s\": \"%s\"", option->defname,
	                       defGetString(unconstify(DefElem *, option))),
	                errhint("%s", hint)));
}

/* The value of the word that an option is set to. */
static int
read_word(DefElem *option, const OptionWord *words, int count)
{
	const char *word = defGetString(option);
	StringInfoData hint;

	for (int i = 0; i < count; i++)
		if (strcmp(words[i].word, word) == 0)
			return words[i].value;

	initStringInfo(&hint);
	appendStringInfoString(&hint, "Valid values: ");
	for (int i = 0; i < count; i++)
		appendStringInfo(&hint, "%s%s", i > 0 ? ", " : "", words[i].word);
	appendStringInfoChar(&hint, '.');
	invalid_value(option, hint.data);
}

static char *
read_topic(DefElem *option)
{
	char *topic = defGetString(option);
	size_t length = strlen(topic);

	if (length == 0 || length > MAX_TOPIC_LENGTH || strcmp(topic, ".") == 0 ||
	    strcmp(topic, "..") == 0 ||
	    strspn(topic, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") !=
	        length)
		invalid_value(option, "A topic's name has up to 249 of the characters a-z, A-Z, 0-9, "
		                      "\".\", \"_\" and \"-\".");
	return topic;
}

static char
read_character(DefElem *option)
{
	const char *value = defGetString(option);

	if (strlen(value) != 1 || *value == '\n' || *value == '\r')
		invalid_value(option,
		              "The value must be a single one-byte character, and no line end.");
	return *value;
}

/* The rules between the CSV options are those of COPY. */
static void
check_csv_options(const TopicSchema *schema)
{
	if (schema->csv_delimiter == schema->csv_quote)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
		                errmsg("options \"delimiter\" and \"quote\" must be different")));
	if (strchr(schema->csv_null, schema->csv_delimiter) != NULL ||
	    strchr(schema->csv_null, schema->csv_quote) != NULL ||
	    strpbrk(schema->csv_null, "\r\n") != NULL)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
		                errmsg("option \"null\" must not contain the delimiter, the quote "
		                       "character or a line end")));
}

void
topic_options_read_table(List *options, TopicSchema *schema)
{
	const DefElem *csv_option = NULL;
	bool escape_given = false;
	ListCell *cell;

	schema->topic = NULL;
	schema->format = TOPIC_FORMAT_JSON;
	schema->key_format = KEY_FORMAT_TEXT;
	schema->unknown_field = UNKNOWN_FIELD_IGNORE;
	schema->null_value = NULL_VALUE_ROW;
	schema->csv_delimiter = ',';
	schema->csv_quote = '"';
	schema->csv_null = "";
	foreach (cell, options)
	{
		DefElem *option = lfirst(cell);

		if (strcmp(option->defname, "topic") == 0)
			schema->topic = read_topic(option);
		else if (strcmp(option->defname, "format") == 0)
			schema->format = read_word(option, format_words, lengthof(format_words));
		else if (strcmp(option->defname, "key_format") == 0)
			schema->key_format =
			    read_word(option, key_format_words, lengthof(key_format_words));
		else if (strcmp(option->defname, "unknown_field") == 0)
			schema->unknown_field =
			    read_word(option, unknown_field_words, lengthof(unknown_field_words));
		else if (strcmp(option->defname, "null_value") == 0)
			schema->null_value =
			    read_word(option, null_value_words, lengthof(null_value_words));
		else
		{
			csv_option = option;
			if (strcmp(option->defname, "delimiter") == 0)
				schema->csv_delimiter = read_character(option);
			else if (strcmp(option->defname, "quote") == 0)
				schema->csv_quote = read_character(option);
			else if (strcmp(option->defname, "escape") == 0)
			{
				schema->csv_escape = read_character(option);
				escape_given = true;
			}
			else if (strcmp(option->defname, "null") == 0)
				schema->csv_null = defGetString(option);
			else
				unknown_option(option->defname, "table", table_option_names,
				               lengthof(table_option_names));
		}
	}
	if (!escape_given)
		schema->csv_escape = schema->csv_quote;

	if (schema->topic == NULL)
		ereport(ERROR, (errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
		                errmsg("option \"topic\" is required for a topic table"),
		                errhint("Name the Kafka topic: OPTIONS (topic 'orders').")));
	if (schema->format != TOPIC_FORMAT_CSV && csv_option != NULL)
		ereport(ERROR,
		        (errcode(ERRCODE_SYNTAX_ERROR),
		         errmsg("option \"%s\" is for format \"csv\" only", csv_option->defname)));
	if (schema->format != TOPIC_FORMAT_JSON && schema->unknown_field == UNKNOWN_FIELD_ERROR)
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
		                errmsg("option \"unknown_field\" is for format \"json\" only")));
	check_csv_options(schema);
}

/* "true" is the whole key, "false" as without the option, all else a path into it. */
static void
read_key(DefElem *option, TopicColumn *column)
{
	const char *value = defGetString(option);

	column->has_key = strcmp(value, "false") != 0;
	if (column->has_key && strcmp(value, "true") != 0)
		column->key_path_length = topic_path_parse(value, &column->key_path);
}

void
topic_options_read_column(List *options, TopicColumn *column)
{
	const DefElem *metadata = NULL;
	ListCell *cell;

	column->source = COLUMN_FROM_FIELD;
	column->path = NULL;
	column->path_length = 0;
	column->has_key = false;
	column->key_path = NULL;
	column->key_path_length = 0;
	column->epoch = EPOCH_NONE;
	foreach (cell, options)
	{
		DefElem *option = lfirst(cell);

		if (strcmp(option->defname, "path") == 0)
			column->path_length = topic_path_parse(defGetString(option), &column->path);
		else if (strcmp(option->defname, "key") == 0)
			read_key(option, column);
		else if (strcmp(option->defname, "metadata") == 0)
		{
			column->source = read_word(option, metadata_words, lengthof(metadata_words));
			metadata = option;
		}
		else if (strcmp(option->defname, "epoch") == 0)
			column->epoch = read_word(option, epoch_words, lengthof(epoch_words));
		else
			unknown_option(option->defname, "table's column", column_option_names,
			               lengthof(column_option_names));
	}
	if (metadata != NULL &&
	    (column->path != NULL || column->has_key || column->epoch != EPOCH_NONE))
		ereport(ERROR,
		        (errcode(ERRCODE_SYNTAX_ERROR),
		         errmsg("option \"metadata\" excludes options \"path\", \"key\" and \"epoch\""),
		         errdetail("A column is filled from the message's metadata or from a field of "
		                   "its value or key.")));
	if (column->has_key && column->path == NULL)
		column->source = COLUMN_FROM_DECODED_KEY;
}
