/*
 * The little of a PostgreSQL backend that the decoding code calls, for fuzzers:
 * every palloc is a malloc of its own, so that AddressSanitizer sees its
 * ends, and all of them are freed by fuzz_reset().
 */
#ifndef FUZZ_RUNTIME_H
#define FUZZ_RUNTIME_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Where ereport(ERROR) goes, and the message that it came with. */
extern sigjmp_buf fuzz_error_jump;
extern const char *fuzz_error_message;

/* Frees all that was allocated since the last call. */
extern void fuzz_reset(void);

/* What both sides must agree on. */
#define FUZZ_CHECK(condition)                                                                  \
	do                                                                                         \
	{                                                                                          \
		if (!(condition))                                                                      \
		{                                                                                      \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);           \
			abort();                                                                           \
		}                                                                                      \
	} while (0)

#endif /* FUZZ_RUNTIME_H */
