/* Arrays that have arrived: their parts are checked, and exported where they lie; see parts.h. */

#include "parts.h"

/* What an exported array consists of; one for all nodes, which count their uses. */
struct held {
    atomic_size_t uses;
    void *owner;
    void (*drop)(void *owner);
    struct dora_chunk *chunks;
    const void *(*buffers)[3];
    struct ArrowArray *arrays, **pointers;
    char *copy;
};

struct reader {
    const struct dora_type *type;
    const uint8_t *marks; /* in memory of its own */
    const char *data;
    uint64_t size, at;
    bool shared;
    size_t node, pointer;
    struct held *held;
    const char *wrong;
};

static void release_array(struct ArrowArray *array);

/* Release an array and all below it; return how many of them were uses of `held`. A child may have been
   moved away before, or another one put in its place. */
static size_t mark_released(struct ArrowArray *array, const struct held *held)
{
    size_t count = 1;
    if (array->release == NULL)
        return 0;
    if (array->release != release_array || array->private_data != held) {
        array->release(array);
        return 0;
    }
    for (int64_t at = 0; at < array->n_children; at++)
        count += mark_released(array->children[at], held);
    if (array->dictionary != NULL)
        count += mark_released(array->dictionary, held);
    array->release = NULL;
    return count;
}

/* Called by any thread. */
static void release_array(struct ArrowArray *array)
{
    struct held *held = array->private_data;
    size_t count = mark_released(array, held);
    if (atomic_fetch_sub_explicit(&held->uses, count, memory_order_acq_rel) > count)
        return;
    if (held->owner != NULL)
        held->drop(held->owner);
    free_chunks(held->chunks);
    free(held);
}

static bool refuse(struct reader *reader, const char *text)
{
    reader->wrong = text;
    return false;
}

/* Find the next part. One that is `checked` is memory of its own afterwards. */
static const char *get(struct reader *reader, uint64_t size, bool checked)
{
    uint64_t at = dora_padded(reader->at);
    if (at > reader->size || size > reader->size - at) {
        refuse(reader, "its bytes are too few for its items");
        return NULL;
    }
    const char *part = reader->data + at;
    reader->at = at + size;
    if (!checked || !reader->shared)
        return part;
    char *copy = new_chunk(&reader->held->chunks, size);
    if (copy == NULL)
        refuse(reader, NO_MEMORY);
    return copy == NULL ? NULL : memcpy(copy, part, size);
}

/* Read offsets and check them; `end` is the last. */
static const char *get_offsets(struct reader *reader, uint64_t length, bool wide, uint64_t *end)
{
    const char *offsets = get(reader, (length + 1) * (wide ? 8 : 4), true);
    if (offsets == NULL)
        return NULL;
    *end = (uint64_t)offset_at(offsets, length, wide);
    if (offset_at(offsets, 0, wide) == 0 && are_ascending(offsets, length, wide))
        return offsets;
    refuse(reader, "its offsets do not begin with 0, or go backwards");
    return NULL;
}

static uint64_t index_at(const char *indices, uint64_t at, char letter)
{
    union {
        int8_t c;
        int16_t s;
        int32_t i;
        int64_t l;
        uint8_t C;
        uint16_t S;
        uint32_t I;
    } index;
    /* A negative one becomes a large one. */
#define INDEX(name)                                                                                \
    (memcpy(&index.name, indices + at * sizeof index.name, sizeof index.name), (uint64_t)index.name)
    switch (letter) {
    case 'c':
        return INDEX(c);
    case 's':
        return INDEX(s);
    case 'i':
        return INDEX(i);
    case 'C':
        return INDEX(C);
    case 'S':
        return INDEX(S);
    case 'I':
        return INDEX(I);
    default:
        return INDEX(l);
    }
}

static bool read_node(struct reader *reader, uint64_t length);

static bool read_dictionary(struct reader *reader, const struct dora_node *node,
                            struct ArrowArray *array)
{
    const char *indices = array->buffers[1], *part = get(reader, sizeof(uint64_t), false);
    uint64_t length;
    if (part == NULL)
        return false;
    memcpy(&length, part, sizeof length);
    for (int64_t at = 0; at < array->length; at++)
        if ((array->buffers[0] == NULL || bit_at(array->buffers[0], (uint64_t)at)) &&
            index_at(indices, (uint64_t)at, node->format[0]) >= length)
            return refuse(reader, "an index is not in its dictionary");
    array->dictionary = &reader->held->arrays[reader->node];
    return read_node(reader, length);
}

static bool read_children(struct reader *reader, struct ArrowArray *array, uint64_t length)
{
    array->children = reader->held->pointers + reader->pointer;
    reader->pointer += (size_t)array->n_children;
    for (int64_t at = 0; at < array->n_children; at++) {
        array->children[at] = &reader->held->arrays[reader->node];
        if (!read_node(reader, length))
            return false;
    }
    return true;
}

static bool read_values(struct reader *reader, const struct dora_node *node,
                        struct ArrowArray *array, uint64_t length)
{
    uint64_t size = length;
    switch (node->kind) {
    case DORA_FIXED:
        if (!bytes_of(length, node->width, &size))
            return refuse(reader, "it is too long");
        array->buffers[1] = get(reader, size, node->dictionary);
        return array->buffers[1] != NULL &&
               (!node->dictionary || read_dictionary(reader, node, array));
    case DORA_BYTES:
        array->buffers[1] = get_offsets(reader, length, node->wide, &size);
        if (array->buffers[1] != NULL)
            array->buffers[2] = get(reader, size, false);
        return array->buffers[2] != NULL;
    case DORA_LIST:
        array->buffers[1] = get_offsets(reader, length, node->wide, &size);
        return array->buffers[1] != NULL && read_children(reader, array, size);
    case DORA_FIXED_LIST:
        if (__builtin_mul_overflow(length, node->width, &size))
            return refuse(reader, "it is too long");
        return read_children(reader, array, size);
    case DORA_STRUCT:
        return read_children(reader, array, length);
    default:
        return true;
    }
}

/* Arrow ends the process over a map whose entries or keys may be nulls. */
static bool are_entries(const struct ArrowArray *map)
{
    const struct ArrowArray *entries = map->children[0];
    return entries->null_count == 0 && entries->children[0]->null_count == 0;
}

static bool read_node(struct reader *reader, uint64_t length)
{
    size_t at = reader->node++;
    const struct dora_node *node = &reader->type->nodes[at];
    struct ArrowArray *array = &reader->held->arrays[at];
    if (length > MAX_ITEMS)
        return refuse(reader, "it is too long");
    *array = (struct ArrowArray){
        .length = (int64_t)length,
        .null_count = node->kind == DORA_NULLS ? (int64_t)length : 0,
        .n_buffers = buffers_of[node->kind],
        .n_children = node->children,
        .buffers = reader->held->buffers[at],
        .release = release_array,
        .private_data = reader->held,
    };
    memset(array->buffers, 0, sizeof reader->held->buffers[at]);
    if (reader->marks[at] != 0) {
        const char *validity = node->kind == DORA_NULLS || reader->marks[at] != 1
                                   ? NULL
                                   : get(reader, dora_bitmap_size(length), true);
        if (validity == NULL)
            return refuse(reader, "it has no such bitmap");
        array->buffers[0] = validity;
        array->null_count = (int64_t)count_nulls((const uint8_t *)validity, 0, length);
        if (array->null_count == 0)
            return refuse(reader, "a bitmap has no nulls");
    }
    return read_values(reader, node, array, length) &&
           (!node->map || are_entries(array) || refuse(reader, "a key of a map is null"));
}

const char *dora_payload_type(const struct dora_payload *payload, size_t *size)
{
    uint32_t number;
    if (payload->size < sizeof number)
        return NULL;
    memcpy(&number, payload->data, sizeof number);
    *size = number;
    return number <= payload->size - sizeof number ? payload->data + sizeof number : NULL;
}

/* Allocate what an array consists of, with `extra` bytes of copies. */
static struct held *new_held(const struct dora_type *type, uint64_t extra)
{
    size_t count = type->count, each = sizeof(struct ArrowArray) + sizeof(struct ArrowArray *) +
                                       3 * sizeof(void *);
    size_t size = dora_padded(sizeof(struct held)) + count * each;
    struct held *held = malloc(size + extra + 64);
    if (held == NULL)
        return NULL;
    char *at = (char *)held + dora_padded(sizeof *held);
    *held = (struct held){.arrays = (struct ArrowArray *)at};
    held->pointers = (struct ArrowArray **)(held->arrays + count);
    held->buffers = (const void *(*)[3])(held->pointers + count);
    /* At a multiple of 64 bytes, as Arrow recommends. */
    held->copy = (char *)(((uintptr_t)held + size + 63) & ~(uintptr_t)63);
    return held;
}

const char *dora_array_read(const struct dora_type *type, const struct dora_payload *payload,
                            struct ArrowArray *array)
{
    /* The description was compared by the caller: it is not read again, only passed over. */
    uint64_t head = type->size == 0 ? 0 : sizeof(uint32_t) + type->size;
    if (head > payload->size || (head > 0 && type->count > payload->size - head))
        return "its bytes are too few for its type";
    bool copied = payload->owner == NULL;
    struct held *held = new_held(type, type->count + (copied ? payload->size : 0) + 64);
    if (held == NULL)
        return NO_MEMORY;
    uint8_t bare = payload->nulls != 0 && type->nodes[0].kind != DORA_NULLS;
    struct reader reader = {.type = type,
                            .data = payload->data,
                            .size = payload->size,
                            .at = head == 0 ? 0 : head + type->count,
                            .shared = payload->shared && !copied,
                            .held = held};
    if (copied)
        reader.data = memcpy(held->copy, payload->data, payload->size);
    char *marks = held->copy + (copied ? payload->size : 0);
    reader.marks = head == 0 ? memcpy(marks, &bare, 1)
                             : memcpy(marks, reader.data + head, type->count);
    if (!read_node(&reader, payload->length) ||
        (reader.at != payload->size && !refuse(&reader, "it has more bytes than items"))) {
        free_chunks(held->chunks);
        free(held);
        return reader.wrong;
    }
    held->owner = payload->owner;
    held->drop = payload->drop;
    atomic_init(&held->uses, type->count);
    *array = held->arrays[0];
    return NULL;
}
