/*-------------------------------------------------------------------------
 *
 * error_class.h
 *	  What an error means for a stream: is it a message's fault, will it pass
 *	  by itself, or must somebody act?  And how more is said in it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ERROR_CLASS_H
#define ERROR_CLASS_H

#include "postgres.h"

typedef enum ErrorClass
{
	ERROR_OF_MESSAGE,     /* data: the same message will fail again */
	ERROR_OF_ENVIRONMENT, /* passes by itself: retried with backoff */
	ERROR_OF_DEFINITION   /* all else: the stream stops */
} ErrorClass;

extern ErrorClass classify_error(const ErrorData *error);

/*
 * The same for an error that came while a message was decoded: input functions of some types say with codes of
 * programming errors (a syntax error, an undefined object) that a value is no good.
 */
extern ErrorClass classify_decoding_error(const ErrorData *error);

/* Has a RAISE of PL/pgSQL raised it, rather than PostgreSQL or an extension? */
extern bool error_is_raised_by_code(const ErrorData *error);

/* Add a sentence to the error's detail or hint, in the current memory context. */
extern void add_to_error_detail(ErrorData *error, const char *sentence);
extern void add_to_error_hint(ErrorData *error, const char *sentence);

#endif /* ERROR_CLASS_H */
