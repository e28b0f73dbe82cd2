/*
 * For LD_PRELOAD: a name server that doesn't answer.  Names that end in ".silent" take a minute; the
 * file that SLOW_NAMES_ASKED names is there from the first question on.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
            struct addrinfo **addresses)
{
	int (*original)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
	    dlsym(RTLD_NEXT, "getaddrinfo");
	size_t length = node != NULL ? strlen(node) : 0;

	if (length > 7 && strcmp(node + length - 7, ".silent") == 0)
	{
		close(open(getenv("SLOW_NAMES_ASKED"), O_CREAT | O_WRONLY, 0644));
		sleep(60);
		return EAI_AGAIN;
	}
	return original(node, service, hints, addresses);
}
