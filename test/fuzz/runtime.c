/* See runtime.h. */
#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/datetime.h"
#include "utils/memutils.h"

#include "runtime.h"

sigjmp_buf fuzz_error_jump;
const char *fuzz_error_message;

/* --- memory --- */

typedef struct Block
{
	struct Block *next;
	struct Block **link;
	size_t size;
	char data[] __attribute__((aligned(16)));
} Block;

static Block *blocks;

MemoryContext CurrentMemoryContext;
MemoryContext TopMemoryContext;

static Block *
block_of(void *pointer)
{
	return (Block *) ((char *) pointer - offsetof(Block, data));
}

static void *
allocate(size_t size)
{
	Block *block = malloc(offsetof(Block, data) + size);

	if (block == NULL)
		abort();
	block->size = size;
	block->next = blocks;
	block->link = &blocks;
	if (blocks != NULL)
		blocks->link = &block->next;
	blocks = block;
	return block->data;
}

void
pfree(void *pointer)
{
	Block *block = block_of(pointer);

	*block->link = block->next;
	if (block->next != NULL)
		block->next->link = block->link;
	free(block);
}

void
fuzz_reset(void)
{
	while (blocks != NULL)
		pfree(blocks->data);
}

void *
palloc(Size size)
{
	void *result = allocate(size);

	memset(result, 0x7f, size);
	return result;
}

void *
palloc0(Size size)
{
	return memset(allocate(size), 0, size);
}

void *
palloc_extended(Size size, int flags)
{
	return palloc0(size);
}

void *
repalloc(void *pointer, Size size)
{
	void *result = palloc(size);

	memcpy(result, pointer, Min(size, block_of(pointer)->size));
	pfree(pointer);
	return result;
}

void *
MemoryContextAlloc(MemoryContext context, Size size)
{
	return palloc(size);
}

void *
MemoryContextAllocZero(MemoryContext context, Size size)
{
	return palloc0(size);
}

char *
pnstrdup(const char *text, Size length)
{
	char *result;

	length = strnlen(text, length);
	result = palloc(length + 1);
	memcpy(result, text, length);
	result[length] = '\0';
	return result;
}

char *
pstrdup(const char *text)
{
	return pnstrdup(text, strlen(text));
}

/* what the library of PostgreSQL's client programs calls instead */
void *
pg_malloc(size_t size)
{
	return palloc(size);
}

void *
pg_malloc0(size_t size)
{
	return palloc0(size);
}

void *
pg_realloc(void *pointer, size_t size)
{
	return pointer == NULL ? palloc(size) : repalloc(pointer, size);
}

char *
pg_strdup(const char *text)
{
	return pstrdup(text);
}

void
pg_free(void *pointer)
{
	if (pointer != NULL)
		pfree(pointer);
}

void *
pg_malloc_extended(size_t size, int flags)
{
	return palloc0(size);
}

void
check_stack_depth(void)
{
}

/* --- lists --- */

List *
lappend(List *list, void *datum)
{
	if (list == NIL)
	{
		list = palloc0(sizeof(List));
		list->type = T_List;
		list->max_length = 1;
		list->elements = palloc(sizeof(ListCell));
	}
	else if (list->length == list->max_length)
	{
		list->max_length *= 2;
		list->elements = repalloc(list->elements, sizeof(ListCell) * list->max_length);
	}
	list->elements[list->length++].ptr_value = datum;
	return list;
}

void
list_free(List *list)
{
	if (list != NIL)
	{
		pfree(list->elements);
		pfree(list);
	}
}

void
list_sort(List *list, list_sort_comparator compare)
{
	if (list_length(list) > 1)
		qsort(list->elements, list->length, sizeof(ListCell),
		      (int (*)(const void *, const void *)) compare);
}

/* --- errors --- */

bool
errstart(int elevel, const char *domain)
{
	fuzz_error_message = NULL;
	return elevel >= ERROR;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return errstart(elevel, domain);
}

void
errfinish(const char *filename, int lineno, const char *funcname)
{
	siglongjmp(fuzz_error_jump, 1);
}

int
errcode(int sqlerrcode)
{
	return 0;
}

int
errmsg(const char *format, ...)
{
	fuzz_error_message = format;
	return 0;
}

int
errmsg_internal(const char *format, ...)
{
	fuzz_error_message = format;
	return 0;
}

int
errdetail(const char *format, ...)
{
	return 0;
}

int
errdetail_internal(const char *format, ...)
{
	return 0;
}

int
errhint(const char *format, ...)
{
	return 0;
}

void
ExceptionalCondition(const char *condition, const char *type, const char *file, int line)
{
	fprintf(stderr, "%s:%d: %s\n", file, line, condition);
	abort();
}

/* --- calendar --- */

const int day_tab[2][13] = {{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0},
                            {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0}};

/* Not PostgreSQL's formula: the days of a proleptic Gregorian calendar, counted. */
int
date2j(int year, int month, int day)
{
	int days = 365 * (year - 1) + (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;

	for (int i = 1; i < month; i++)
		days += day_tab[isleap(year)][i - 1];
	return days + day - 1 + 1721426; /* 0001-01-01 is Julian day 1721426 */
}
