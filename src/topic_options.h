/*-------------------------------------------------------------------------
 *
 * topic_options.h
 *	  The options of a topic table and of its columns, one by one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TOPIC_OPTIONS_H
#define TOPIC_OPTIONS_H

#include "topic_schema.h"

/*
 * Read options into the fields of a schema or column that they set, the others
 * getting their defaults.  A column's path is left NULL without the option.
 * Raise ERRCODE_FDW_INVALID_OPTION_NAME, ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE,
 * ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED for a missing topic, and
 * ERRCODE_SYNTAX_ERROR for options that exclude each other.
 */
extern void topic_options_read_table(List *options, TopicSchema *schema);
extern void topic_options_read_column(List *options, TopicColumn *column);

#endif /* TOPIC_OPTIONS_H */
