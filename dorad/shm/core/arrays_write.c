/* Arrays to send: their parts, which are the memory of the application where possible; see parts.h. */

#include "parts.h"

struct writer {
    const struct dora_type *type;
    struct dora_written *written;
    uint8_t *marks; /* NULL without a description */
    size_t node;
    const char *wrong;
};

static bool fault(struct writer *writer, const char *text)
{
    writer->wrong = text;
    return false;
}

static bool add(struct writer *writer, const void *data, uint64_t size)
{
    struct dora_written *written = writer->written;
    uint64_t at = dora_padded(written->size);
    written->parts[written->count++] = (struct dora_part){at, size, data};
    return !__builtin_add_overflow(at, size, &written->size) && written->size <= INT64_MAX;
}

/* Add bits from an offset, moved to the start of a byte where they are not. */
static bool add_bits(struct writer *writer, const uint8_t *bits, uint64_t offset, uint64_t length)
{
    uint64_t size = dora_bitmap_size(length);
    if (offset % 8 == 0 || length == 0)
        return add(writer, bits + offset / 8, size);
    uint8_t *moved = (uint8_t *)new_chunk(&writer->written->chunks, size);
    if (moved == NULL)
        return fault(writer, NO_MEMORY);
    memset(moved, 0, size);
    for (uint64_t bit = 0; bit < length; bit++)
        moved[bit / 8] |= (uint8_t)(bit_at(bits, offset + bit) << (bit % 8));
    return add(writer, moved, size);
}

/* Add offsets, moved so that they begin with 0, and find what they enclose. */
static bool add_offsets(struct writer *writer, const char *offsets, uint64_t from, uint64_t length,
                        bool wide, uint64_t *first, uint64_t *size)
{
    static const char zero[8];
    const uint64_t width = wide ? 8 : 4;
    *first = *size = 0;
    if (length == 0)
        return add(writer, zero, width);
    if (offsets == NULL)
        return fault(writer, "it has no offsets");
    int64_t begin = offset_at(offsets, from, wide);
    if (begin < 0)
        return fault(writer, "its offsets are negative");
    if (!are_ascending(offsets + from * width, length, wide))
        return fault(writer, "its offsets go backwards");
    *first = (uint64_t)begin;
    *size = (uint64_t)(offset_at(offsets, from + length, wide) - begin);
    if (begin == 0)
        return add(writer, offsets + from * width, (length + 1) * width);
    char *moved = new_chunk(&writer->written->chunks, (length + 1) * width);
    if (moved == NULL)
        return fault(writer, NO_MEMORY);
    for (uint64_t item = 0; item <= length; item++) {
        int64_t here = offset_at(offsets, from + item, wide) - begin;
        int32_t narrow = (int32_t)here;
        memcpy(moved + item * width, wide ? (const void *)&here : (const void *)&narrow, width);
    }
    return add(writer, moved, (length + 1) * width);
}

static bool write_node(struct writer *writer, const struct ArrowArray *array, uint64_t from,
                       uint64_t length);

/* Write the values behind a node's bitmap, from an offset of its buffers. */
static bool write_values(struct writer *writer, const struct dora_node *node,
                         const struct ArrowArray *array, uint64_t from, uint64_t length)
{
    uint64_t first, size;
    const char *values = node->kind == DORA_FIXED || node->kind == DORA_BYTES
                             ? array->buffers[node->kind == DORA_FIXED ? 1 : 2]
                             : NULL;
    switch (node->kind) {
    case DORA_FIXED:
        if (!bytes_of(from + length, node->width, &size))
            return fault(writer, "it is too long");
        size = (length * node->width + 7) / 8;
        if (values == NULL && size > 0)
            return fault(writer, "it has no values");
        return node->width == 1 && values != NULL
                   ? add_bits(writer, (const uint8_t *)values, from, length)
                   : add(writer, values == NULL ? "" : values + from * node->width / 8, size);
    case DORA_BYTES:
        if (!add_offsets(writer, array->buffers[1], from, length, node->wide, &first, &size))
            return false;
        if (values == NULL && size > 0)
            return fault(writer, "it has no values");
        return add(writer, values == NULL ? "" : values + first, size);
    case DORA_LIST:
        return add_offsets(writer, array->buffers[1], from, length, node->wide, &first, &size) &&
               write_node(writer, array->children[0], first, size);
    case DORA_FIXED_LIST:
        if (__builtin_mul_overflow(from, node->width, &first) ||
            __builtin_mul_overflow(length, node->width, &size))
            return fault(writer, "it is too long");
        return write_node(writer, array->children[0], first, size);
    case DORA_STRUCT:
        for (uint32_t at = 0; at < node->children; at++)
            if (!write_node(writer, array->children[at], from, length))
                return false;
        return true;
    default:
        return true;
    }
}

static bool write_dictionary(struct writer *writer, const struct ArrowArray *dictionary)
{
    return add(writer, &dictionary->length, sizeof dictionary->length) &&
           write_node(writer, dictionary, 0, (uint64_t)dictionary->length);
}

/* Write `length` items of an array, from one of them. */
static bool write_node(struct writer *writer, const struct ArrowArray *array, uint64_t from,
                       uint64_t length)
{
    size_t at = writer->node++;
    const struct dora_node *node = &writer->type->nodes[at];
    /* A negative number is a large one. */
    if (array == NULL || (uint64_t)array->length > MAX_ITEMS ||
        (uint64_t)array->offset > MAX_ITEMS || from > (uint64_t)array->length || length > (uint64_t)array->length - from ||
        array->n_buffers != buffers_of[node->kind] || array->n_children != node->children ||
        (array->dictionary != NULL) != node->dictionary)
        return fault(writer, "it does not match its type, or was released");
    const uint8_t *validity = node->kind == DORA_NULLS ? NULL : array->buffers[0];
    bool whole = from == 0 && length == (uint64_t)array->length;
    uint64_t nulls = node->kind == DORA_NULLS ? length : 0;
    from += (uint64_t)array->offset;
    if (validity != NULL && array->null_count != 0)
        nulls = whole && array->null_count > 0 ? (uint64_t)array->null_count
                                               : count_nulls(validity, from, length);
    if (at == 0)
        writer->written->nulls = nulls;
    if (nulls > 0 && validity != NULL) {
        if (writer->marks != NULL)
            writer->marks[at] = 1;
        if (!add_bits(writer, validity, from, length))
            return false;
    }
    return write_values(writer, node, array, from, length) &&
           (!node->dictionary || write_dictionary(writer, array->dictionary));
}

/* Add what a payload with a description begins with. */
static void add_head(struct writer *writer, uint8_t *marks)
{
    const struct dora_type *type = writer->type;
    struct dora_written *written = writer->written;
    const uint64_t size = sizeof(uint32_t) + type->size;
    writer->marks = memset(marks, 0, type->count);
    written->parts[0] = (struct dora_part){0, size, type->text - sizeof(uint32_t)};
    written->parts[1] = (struct dora_part){size, type->count, marks};
    written->count = 2;
    written->size = size + type->count;
}

const char *dora_array_write(const struct dora_type *type, const struct ArrowArray *array,
                             struct dora_written *written)
{
    struct writer writer = {.type = type, .written = written};
    *written = (struct dora_written){.length = (uint64_t)array->length};
    /* Of a node: bitmap, offsets and bytes, or bitmap, indices and the dictionary's length. */
    const size_t room = 3 * type->count + 2;
    written->parts = malloc(room * sizeof *written->parts + type->count);
    if (written->parts == NULL)
        return NO_MEMORY;
    if (type->size > 0)
        add_head(&writer, (uint8_t *)(written->parts + room));
    if (write_node(&writer, array, 0, (uint64_t)array->length))
        return NULL;
    return writer.wrong != NULL ? writer.wrong : "it is too long";
}

void dora_written_free(struct dora_written *written)
{
    free(written->parts);
    free_chunks(written->chunks);
    *written = (struct dora_written){0};
}

void dora_written_place(const struct dora_written *written, char *into)
{
    for (size_t at = 0; at < written->count; at++)
        if (written->parts[at].size > 0)
            memcpy(into + written->parts[at].at, written->parts[at].data, written->parts[at].size);
}
