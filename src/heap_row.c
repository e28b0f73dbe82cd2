/*-------------------------------------------------------------------------
 *
 * heap_row.c
 *	  Form the heap tuples of many rows of one table.
 *
 * heap_form_tuple() looks at each value twice, once for the size of the tuple and
 * once to write it, by attributes as they stand in the catalog.  Here what matters of the
 * attributes is prepared once, and each value is written in one pass into memory
 * that is large enough.  What is unusual is left to heap_form_tuple().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "utils/memutils.h"

#include "heap_row.h"

typedef enum ValueLayout
{
	LAYOUT_BYTES_1, /* passed by value, so many bytes */
	LAYOUT_BYTES_2,
	LAYOUT_BYTES_4,
	LAYOUT_BYTES_8,
	LAYOUT_FIXED,    /* passed by reference, of fixed length */
	LAYOUT_PACKABLE, /* varlena that may have a header of one byte */
	LAYOUT_VARLENA
} ValueLayout;

typedef struct AttributeLayout
{
	ValueLayout layout;
	int length;
	uintptr_t alignment_mask;
} AttributeLayout;

struct HeapRowFormer
{
	TupleDesc descriptor;
	bool usual;        /* all attributes have a layout known here */
	int varlena_count; /* attribute indexes of varlenas */
	int *varlenas;
	size_t fixed_size; /* most bytes of all else, and of alignment */
	AttributeLayout attributes[FLEXIBLE_ARRAY_MEMBER];
};

static uintptr_t
alignment_mask(char alignment)
{
	switch (alignment)
	{
		case TYPALIGN_SHORT:
			return ALIGNOF_SHORT - 1;
		case TYPALIGN_INT:
			return ALIGNOF_INT - 1;
		case TYPALIGN_DOUBLE:
			return ALIGNOF_DOUBLE - 1;
		default:
			return 0;
	}
}

/* False for an attribute that is left to heap_form_tuple(). */
static bool
prepare_attribute(AttributeLayout *layout, Form_pg_attribute attribute)
{
	layout->length = attribute->attlen;
	layout->alignment_mask = alignment_mask(attribute->attalign);
	if (attribute->attlen == -1)
		layout->layout =
		    attribute->attstorage == TYPSTORAGE_PLAIN ? LAYOUT_VARLENA : LAYOUT_PACKABLE;
	else if (attribute->attlen < 0)
		return false;
	else if (!attribute->attbyval)
		layout->layout = LAYOUT_FIXED;
	else
		switch (attribute->attlen)
		{
			case 1:
				layout->layout = LAYOUT_BYTES_1;
				break;
			case 2:
				layout->layout = LAYOUT_BYTES_2;
				break;
			case 4:
				layout->layout = LAYOUT_BYTES_4;
				break;
			case 8:
				layout->layout = LAYOUT_BYTES_8;
				break;
			default:
				return false;
		}
	return true;
}

HeapRowFormer *
heap_row_former_create(TupleDesc descriptor)
{
	HeapRowFormer *former = palloc0(offsetof(HeapRowFormer, attributes) +
	                                sizeof(AttributeLayout) * descriptor->natts);

	former->descriptor = descriptor;
	former->varlenas = palloc(sizeof(int) * Max(descriptor->natts, 1));
	former->usual = true;
	for (int i = 0; i < descriptor->natts; i++)
	{
		AttributeLayout *layout = &former->attributes[i];

		if (!prepare_attribute(layout, TupleDescAttr(descriptor, i)))
			former->usual = false;
		if (layout->length < 0)
			former->varlenas[former->varlena_count++] = i;
		else
			former->fixed_size += layout->length;
		former->fixed_size += layout->alignment_mask;
	}
	return former;
}

/* Zeros up to the next aligned position. */
static inline char *
align(char *position, uintptr_t mask)
{
	while (((uintptr_t) position & mask) != 0)
		*position++ = 0;
	return position;
}

/* Writes a value; returns the position behind it. */
static inline char *
write_value(const AttributeLayout *attribute, Datum value, char *position)
{
	const char *source = DatumGetPointer(value);
	size_t size;

	switch (attribute->layout)
	{
		case LAYOUT_BYTES_1:
			*position = DatumGetChar(value);
			return position + 1;
		case LAYOUT_BYTES_2:
			position = align(position, attribute->alignment_mask);
			*(int16 *) position = DatumGetInt16(value);
			return position + 2;
		case LAYOUT_BYTES_4:
			position = align(position, attribute->alignment_mask);
			*(int32 *) position = DatumGetInt32(value);
			return position + 4;
		case LAYOUT_BYTES_8:
			position = align(position, attribute->alignment_mask);
			*(Datum *) position = value;
			return position + 8;
		case LAYOUT_FIXED:
			position = align(position, attribute->alignment_mask);
			memcpy(position, source, attribute->length);
			return position + attribute->length;
		case LAYOUT_PACKABLE:
			if (VARATT_CAN_MAKE_SHORT(source))
			{
				size = VARATT_CONVERTED_SHORT_SIZE(source);
				SET_VARSIZE_SHORT(position, size);
				memcpy(position + VARHDRSZ_SHORT, VARDATA(source), size - VARHDRSZ_SHORT);
				return position + size;
			}
			/* FALLTHROUGH */
		case LAYOUT_VARLENA:
			size = VARSIZE_ANY(source);
			if (!VARATT_IS_SHORT(source))
				position = align(position, attribute->alignment_mask);
			memcpy(position, source, size);
			return position + size;
	}
	return position; /* not reached */
}

HeapTuple
heap_row_form(const HeapRowFormer *former, const Datum *values, const bool *nulls)
{
	int count = former->descriptor->natts;
	size_t size = former->fixed_size;
	bool has_null = memchr(nulls, true, count) != NULL;
	bool has_varlena = false;
	int header_size = SizeofHeapTupleHeader;
	HeapTuple tuple;
	HeapTupleHeader header;
	char *start;
	char *position;

	for (int i = 0; i < former->varlena_count; i++)
	{
		int attribute = former->varlenas[i];
		const char *value = DatumGetPointer(values[attribute]);

		if (nulls[attribute])
			continue;
		has_varlena = true;
		/* toasted elsewhere, or not a flat value */
		if (VARATT_IS_EXTERNAL(value))
			return heap_form_tuple(former->descriptor, unconstify(Datum *, values),
			                       unconstify(bool *, nulls));
		size += VARSIZE_ANY(value);
	}
	if (has_null)
		header_size += BITMAPLEN(count);
	header_size = MAXALIGN(header_size);
	if (!former->usual || count > MaxTupleAttributeNumber ||
	    !AllocSizeIsValid(HEAPTUPLESIZE + header_size + size))
		return heap_form_tuple(former->descriptor, unconstify(Datum *, values),
		                       unconstify(bool *, nulls));

	tuple = palloc(HEAPTUPLESIZE + header_size + size);
	memset(tuple, 0, HEAPTUPLESIZE + header_size);
	header = (HeapTupleHeader) ((char *) tuple + HEAPTUPLESIZE);
	start = position = (char *) header + header_size;
	for (int i = 0; i < count; i++)
	{
		if (has_null)
		{
			if (nulls[i])
				continue;
			header->t_bits[i >> 3] |= 1 << (i & 7);
		}
		position = write_value(&former->attributes[i], values[i], position);
	}

	tuple->t_data = header;
	tuple->t_len = header_size + (position - start);
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_tableOid = InvalidOid;
	HeapTupleHeaderSetDatumLength(header, tuple->t_len);
	HeapTupleHeaderSetTypeId(header, former->descriptor->tdtypeid);
	HeapTupleHeaderSetTypMod(header, former->descriptor->tdtypmod);
	ItemPointerSetInvalid(&header->t_ctid);
	HeapTupleHeaderSetNatts(header, count);
	header->t_hoff = header_size;
	if (has_null)
		header->t_infomask |= HEAP_HASNULL;
	if (has_varlena)
		header->t_infomask |= HEAP_HASVARWIDTH;
	return tuple;
}
