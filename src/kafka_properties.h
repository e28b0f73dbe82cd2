/*-------------------------------------------------------------------------
 *
 * kafka_properties.h
 *	  The closed list of librdkafka properties that may be set, and their values.
 *
 * No librdkafka type appears here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef KAFKA_PROPERTIES_H
#define KAFKA_PROPERTIES_H

#include "postgres.h"

typedef enum OptionPlace
{
	PLACE_SERVER,
	PLACE_USER_MAPPING,
	PLACE_BOTH
} OptionPlace;

typedef struct OptionDefinition
{
	const char *name;  /* librdkafka's name */
	const char *alias; /* librdkafka's other name for it, or NULL */
	OptionPlace place;
	bool secret;
	const char *allowed;  /* the only values allowed, '|' between, any case; the
						  * first letter-exact form is what the library gets */
	const char *reserved; /* a value for pg_read_server_files only; "": all are */
} OptionDefinition;

/*
 * The definition of an option by the name that the user gave, librdkafka's own or the same with underscores for
 * dots.  Raises ERRCODE_FDW_INVALID_OPTION_NAME for one that is unknown or belongs elsewhere.
 */
extern const OptionDefinition *kafka_property_find(const char *given, OptionPlace place);

/*
 * The value to give to librdkafka for a value given by the user: "value" itself, a constant, or palloc'd.
 * Raises ERRCODE_INVALID_PARAMETER_VALUE, with the value only when it is no secret, and
 * ERRCODE_FDW_INVALID_OPTION_NAME for what the library in use does not have.
 */
extern const char *kafka_property_value(const OptionDefinition *definition, const char *given,
                                        const char *value);

#endif /* KAFKA_PROPERTIES_H */
