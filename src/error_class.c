/*-------------------------------------------------------------------------
 *
 * error_class.c
 *	  What an error means for a stream.
 *
 * The table is by SQLSTATE, because that is what PostgreSQL, its types, its
 * extensions and users' triggers agree on.  An error that is not in it is a
 * surprise, and a surprise stops the stream.
 *
 *-------------------------------------------------------------------------
 */
#include "compat.h"

#include "error_class.h"

ErrorClass
classify_error(const ErrorData *error)
{
	int sqlerrcode = error->sqlerrcode;

	/*
	 * A row that row security's WITH CHECK refuses has the SQLSTATE of a missing
	 * privilege, but it is the row's fault.
	 */
	if (sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE && error->funcname != NULL &&
	    strcmp(error->funcname, "ExecWithCheckOptions") == 0)
		return ERROR_OF_MESSAGE;

	switch (sqlerrcode)
	{
		case ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION: /* no broker answers */
		case ERRCODE_FDW_TABLE_NOT_FOUND:                /* a topic that is waited for */
			return ERROR_OF_ENVIRONMENT;
		case ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION:
			return ERROR_OF_MESSAGE;
		/* of the target's: all further messages would be left out for it */
		case ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED:
			return ERROR_OF_DEFINITION;
	}

	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION):                 /* 22 */
		case ERRCODE_TO_CATEGORY(ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION): /* 23 */
		case ERRCODE_TO_CATEGORY(ERRCODE_CARDINALITY_VIOLATION):          /* 21 */
		case ERRCODE_TO_CATEGORY(ERRCODE_WITH_CHECK_OPTION_VIOLATION):    /* 44 */
		case ERRCODE_TO_CATEGORY(ERRCODE_PROGRAM_LIMIT_EXCEEDED):         /* 54 */
		case ERRCODE_TO_CATEGORY(ERRCODE_PLPGSQL_ERROR):                  /* P0 */
			return ERROR_OF_MESSAGE;

		case ERRCODE_TO_CATEGORY(ERRCODE_CONNECTION_EXCEPTION):                /* 08 */
		case ERRCODE_TO_CATEGORY(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION): /* 28: Kafka's */
		case ERRCODE_TO_CATEGORY(ERRCODE_TRANSACTION_ROLLBACK):                /* 40 */
		case ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES):              /* 53 */
		case ERRCODE_TO_CATEGORY(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE):    /* 55 */
		case ERRCODE_TO_CATEGORY(ERRCODE_OPERATOR_INTERVENTION):               /* 57 */
		case ERRCODE_TO_CATEGORY(ERRCODE_SYSTEM_ERROR):                        /* 58 */
			/* 55000 itself says that somebody must act; 55P03 and 55006 pass */
			return sqlerrcode == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
			           ? ERROR_OF_DEFINITION
			           : ERROR_OF_ENVIRONMENT;
		default:
			return ERROR_OF_DEFINITION;
	}
}

ErrorClass
classify_decoding_error(const ErrorData *error)
{
	ErrorClass class = classify_error(error);

	if (class != ERROR_OF_DEFINITION || error->column_name == NULL)
		return class;
	switch (error->sqlerrcode)
	{
		case ERRCODE_SYNTAX_ERROR: /* tsquery, jsonpath */
		case ERRCODE_INVALID_NAME:
		case ERRCODE_NAME_TOO_LONG:       /* aclitem */
		case ERRCODE_UNDEFINED_PARAMETER: /* regoperator */
		case ERRCODE_UNDEFINED_OBJECT:    /* regtype, aclitem, ... */
		case ERRCODE_UNDEFINED_TABLE:
		case ERRCODE_UNDEFINED_FUNCTION:
		case ERRCODE_AMBIGUOUS_FUNCTION:
		case ERRCODE_UNDEFINED_SCHEMA:
		case ERRCODE_FEATURE_NOT_SUPPORTED:
			return ERROR_OF_MESSAGE;
		default:
			return class;
	}
}

bool
error_is_raised_by_code(const ErrorData *error)
{
	return error->funcname != NULL && strcmp(error->funcname, "exec_stmt_raise") == 0;
}

static char *
add_sentence(const char *text, const char *sentence)
{
	size_t length = text != NULL ? strlen(text) : 0;
	const char *separator = "";

	/* the detail or hint of a user's RAISE need not be a sentence */
	if (length > 0)
		separator = strchr(".!?:;\n", text[length - 1]) != NULL ? " " : ". ";
	return psprintf("%s%s%s", length > 0 ? text : "", separator, sentence);
}

void
add_to_error_detail(ErrorData *error, const char *sentence)
{
	error->detail = add_sentence(error->detail, sentence);
}

void
add_to_error_hint(ErrorData *error, const char *sentence)
{
	error->hint = add_sentence(error->hint, sentence);
}
