/* The column option "path": any text, and back again from its steps. */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "runtime.h"
#include "topic_path.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *path = pnstrdup((const char *) data, size);
	char **steps;
	int count;

	if (sigsetjmp(fuzz_error_jump, 0) == 0)
	{
		count = topic_path_parse(path, &steps);
		FUZZ_CHECK(count > 0);
		if (sigsetjmp(fuzz_error_jump, 0) == 0)
		{
			StringInfoData quoted;
			char **again;

			initStringInfo(&quoted);
			for (int i = 0; i < count; i++)
			{
				if (i > 0)
					appendStringInfoChar(&quoted, '.');
				appendStringInfoChar(&quoted, '"');
				for (const char *p = steps[i]; *p != '\0'; p++)
				{
					if (*p == '"')
						appendStringInfoChar(&quoted, '"');
					appendStringInfoChar(&quoted, *p);
				}
				appendStringInfoChar(&quoted, '"');
			}
			FUZZ_CHECK(topic_path_parse(quoted.data, &again) == count);
			for (int i = 0; i < count; i++)
				FUZZ_CHECK(strcmp(steps[i], again[i]) == 0);
		}
		else
			FUZZ_CHECK(!"steps in quotes are a path");
	}
	fuzz_reset();
	return 0;
}
