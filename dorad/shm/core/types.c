/* Descriptions of Arrow types: `describe` and `read_type` of dorad/shm/typedescription.py.

   A description has the nodes of a type, parents first. A node is

       flags, size of the format, size of the name    one byte each
       format                                         as in Arrow's C data interface
       count of children                              two bytes, if the format begins with "+"
       name
       size of the metadata, metadata                 four bytes and they, with DESCRIBED_METADATA
       its children, then its dictionary              with DESCRIBED_DICTIONARY

   Types with other formats (unions, views, run-end encoding), longer names or more nodes have none:
   their arrays travel as a stream. */

#include "arrays.h"

#include <stdlib.h>
#include <string.h>

/* -- formats ----------------------------------------------------------------------------------- */

/* Read a decimal number at the start of a text; return the characters, 0 if there is none. */
static size_t read_number(const char *text, size_t size, uint64_t *number)
{
    size_t at = 0;
    for (*number = 0; at < size && at < 10 && text[at] >= '0' && text[at] <= '9'; at++)
        *number = *number * 10 + (uint64_t)(text[at] - '0');
    return at;
}

static bool is_among(char letter, const char *letters)
{
    return letter != '\0' && strchr(letters, letter) != NULL;
}

static bool read_decimal(const char *text, size_t size, struct dora_node *node)
{
    uint64_t digits, scale, bits = 128;
    size_t at = read_number(text, size, &digits);
    if (at == 0 || at >= size || text[at++] != ',')
        return false;
    if (at < size && text[at] == '-')
        at++;
    size_t more = read_number(text + at, size - at, &scale);
    at += more;
    if (more > 0 && at < size && text[at] == ',') {
        at++;
        more = read_number(text + at, size - at, &bits);
        at += more;
    }
    node->width = bits;
    return more > 0 && at == size && (bits == 32 || bits == 64 || bits == 128 || bits == 256);
}

static bool read_time(const char *text, size_t size, struct dora_node *node)
{
    node->width = 64;
    if (size < 2)
        return false;
    switch (text[0]) {
    case 'd':
        node->width = text[1] == 'D' ? 32 : 64;
        return size == 2 && is_among(text[1], "Dm");
    case 't':
        node->width = is_among(text[1], "sm") ? 32 : 64;
        return size == 2 && is_among(text[1], "smun");
    case 's':
        return size >= 3 && is_among(text[1], "smun") && text[2] == ':';
    case 'D':
        return size == 2 && is_among(text[1], "smun");
    case 'i':
        node->width = text[1] == 'M' ? 32 : text[1] == 'D' ? 64 : 128;
        return size == 2 && is_among(text[1], "MDn");
    default:
        return false;
    }
}

/* Read ":number" at the end of a format. */
static bool read_extent(const char *text, size_t size, uint64_t *number)
{
    size_t digits = size > 1 && text[0] == ':' ? read_number(text + 1, size - 1, number) : 0;
    return digits > 0 && digits == size - 1 && *number <= INT32_MAX;
}

static bool read_nesting(const char *text, size_t size, struct dora_node *node)
{
    switch (text[0]) {
    case 's':
        node->kind = DORA_STRUCT;
        return size == 1;
    case 'l':
    case 'L':
    case 'm':
        node->kind = DORA_LIST;
        node->wide = text[0] == 'L';
        node->map = text[0] == 'm';
        return size == 1 && node->children == 1;
    case 'w':
        node->kind = DORA_FIXED_LIST;
        return node->children == 1 && read_extent(text + 1, size - 1, &node->width);
    default:
        return false;
    }
}

/* Find what a format means; false if arrays of it travel as a stream. */
static bool read_format(const char *text, size_t size, struct dora_node *node)
{
    static const char letters[] = "bcCsSeiIflLg";
    static const uint8_t bits[] = {1, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64};
    if (size == 0)
        return false;
    node->kind = DORA_FIXED;
    switch (text[0]) {
    case '+':
        return size > 1 && read_nesting(text + 1, size - 1, node);
    case 'n':
        node->kind = DORA_NULLS;
        return size == 1;
    case 'z':
    case 'Z':
    case 'u':
    case 'U':
        node->kind = DORA_BYTES;
        node->wide = text[0] == 'Z' || text[0] == 'U';
        return size == 1;
    case 'w':
        if (!read_extent(text + 1, size - 1, &node->width))
            return false;
        node->width *= 8;
        return true;
    case 'd':
        return size > 2 && text[1] == ':' && read_decimal(text + 2, size - 2, node);
    case 't':
        return read_time(text + 1, size - 1, node);
    default:
        if (size != 1 || !is_among(text[0], letters))
            return false;
        node->width = bits[strchr(letters, text[0]) - letters];
        return true;
    }
}

/* Return whether a node may be the keys of a map: Arrow ends the process over keys with nulls. */
static bool may_be_entries(const struct dora_node *entries)
{
    return entries->kind == DORA_STRUCT && entries->children == 2 && entries[1].kind != DORA_NULLS;
}

static bool has_indices(const struct dora_node *node)
{
    return node->kind == DORA_FIXED && is_among(node->format[0], "cCsSiIlL");
}

size_t dora_metadata_size(const char *metadata)
{
    int32_t pairs, size;
    const char *at = metadata;
    memcpy(&pairs, at, sizeof pairs);
    at += sizeof pairs;
    for (int64_t part = 0; part < 2 * (int64_t)pairs; part++) {
        memcpy(&size, at, sizeof size);
        at += sizeof size + (size_t)size;
    }
    return (size_t)(at - metadata);
}

/* -- writing ----------------------------------------------------------------------------------- */

struct pen {
    char *into;
    size_t at, nodes;
};

static bool put(struct pen *pen, const void *data, size_t size)
{
    if (size > MAX_TYPE_SIZE - pen->at)
        return false;
    memcpy(pen->into + pen->at, data, size);
    pen->at += size;
    return true;
}

static bool write_type(struct pen *pen, const struct ArrowSchema *schema, int depth)
{
    const char *format = schema->format, *name = schema->name != NULL ? schema->name : "";
    if (format == NULL || depth >= MAX_TYPE_DEPTH || ++pen->nodes > MAX_TYPE_NODES ||
        schema->n_children < 0 || schema->n_children > MAX_TYPE_NODES)
        return false;
    size_t format_size = strlen(format), name_size = strlen(name);
    struct dora_node node = {.children = (uint32_t)schema->n_children};
    if (format_size > UINT8_MAX || name_size > UINT8_MAX ||
        !read_format(format, format_size, &node) || (format[0] != '+' && node.children > 0))
        return false;
    uint32_t meta = schema->metadata != NULL ? (uint32_t)dora_metadata_size(schema->metadata) : 0;
    uint16_t children = (uint16_t)schema->n_children;
    uint8_t head[3] = {(uint8_t)(schema->flags & ARROW_FLAGS), (uint8_t)format_size,
                       (uint8_t)name_size};
    if (schema->dictionary != NULL)
        head[0] |= DESCRIBED_DICTIONARY;
    if (schema->metadata != NULL)
        head[0] |= DESCRIBED_METADATA;
    if (!put(pen, head, sizeof head) || !put(pen, format, format_size) ||
        (format[0] == '+' && !put(pen, &children, sizeof children)) ||
        !put(pen, name, name_size) ||
        (schema->metadata != NULL &&
         (!put(pen, &meta, sizeof meta) || !put(pen, schema->metadata, meta))))
        return false;
    for (int64_t at = 0; at < schema->n_children; at++)
        if (!write_type(pen, schema->children[at], depth + 1))
            return false;
    return schema->dictionary == NULL || write_type(pen, schema->dictionary, depth + 1);
}

size_t dora_type_write(const struct ArrowSchema *schema, char *into)
{
    struct pen pen = {.into = into};
    return write_type(&pen, schema, 0) ? pen.at : 0;
}

/* -- reading ----------------------------------------------------------------------------------- */

/* How far a description was read; `strings` is where copies of its texts go. */
struct reading {
    const char *text;
    size_t size, at, count;
    struct dora_node *nodes;
    char *strings;
};

static const char *get(struct reading *reading, size_t size)
{
    if (size > reading->size - reading->at)
        return NULL;
    reading->at += size;
    return reading->text + reading->at - size;
}

/* Copy the next text, with a zero at its end. */
static const char *get_string(struct reading *reading, size_t size)
{
    const char *text = get(reading, size);
    char *copy = reading->strings;
    if (text == NULL || memchr(text, 0, size) != NULL)
        return NULL;
    memcpy(copy, text, size);
    copy[size] = 0;
    reading->strings += size + 1;
    return copy;
}

/* Return whether metadata have the form of Arrow's C data interface. */
static bool are_metadata(const char *text, size_t size)
{
    int32_t pairs, part;
    size_t at = sizeof pairs;
    if (size < at)
        return false;
    memcpy(&pairs, text, sizeof pairs);
    for (int64_t each = 0; each < 2 * (int64_t)pairs; each++) {
        if (size - at < sizeof part)
            return false;
        memcpy(&part, text + at, sizeof part);
        at += sizeof part;
        if (part < 0 || (size_t)part > size - at)
            return false;
        at += (size_t)part;
    }
    return pairs >= 0 && at == size;
}

static bool read_metadata(struct reading *reading, struct dora_node *node)
{
    const char *number = get(reading, sizeof node->metadata_size);
    if (number == NULL)
        return false;
    memcpy(&node->metadata_size, number, sizeof node->metadata_size);
    const char *metadata = get(reading, node->metadata_size);
    if (metadata == NULL || !are_metadata(metadata, node->metadata_size))
        return false;
    node->metadata = memcpy(reading->strings, metadata, node->metadata_size);
    reading->strings += node->metadata_size;
    return true;
}

static bool read_node(struct reading *reading, struct dora_node *node)
{
    const uint8_t *head = (const uint8_t *)get(reading, 3);
    if (head == NULL || head[0] & ~(ARROW_FLAGS | DESCRIBED_DICTIONARY | DESCRIBED_METADATA))
        return false;
    *node = (struct dora_node){.flags = head[0] & ARROW_FLAGS,
                               .dictionary = (head[0] & DESCRIBED_DICTIONARY) != 0};
    node->format = get_string(reading, head[1]);
    if (node->format == NULL)
        return false;
    if (node->format[0] == '+') {
        uint16_t children;
        const char *number = get(reading, sizeof children);
        if (number == NULL)
            return false;
        memcpy(&children, number, sizeof children);
        node->children = children;
    }
    node->name = get_string(reading, head[2]);
    return node->name != NULL &&
           (!(head[0] & DESCRIBED_METADATA) || read_metadata(reading, node)) &&
           read_format(node->format, head[1], node) && (!node->dictionary || has_indices(node));
}

static bool read_nodes(struct reading *reading, int depth)
{
    if (depth >= MAX_TYPE_DEPTH || reading->count == MAX_TYPE_NODES)
        return false;
    struct dora_node *node = &reading->nodes[reading->count];
    if (!read_node(reading, node))
        return false;
    reading->count++;
    for (uint32_t each = 0; each < node->children; each++)
        if (!read_nodes(reading, depth + 1))
            return false;
    if (node->map && !may_be_entries(node + 1))
        return false;
    return !node->dictionary || read_nodes(reading, depth + 1);
}

struct dora_type *dora_type_new(const char *text, size_t size)
{
    /* A node takes four bytes at least, and its strings with their zeros no more than it does. */
    const size_t room = size / 4 < MAX_TYPE_NODES ? size / 4 + 1 : MAX_TYPE_NODES;
    const uint32_t number = (uint32_t)size;
    struct dora_type *type = size > MAX_TYPE_SIZE
                                 ? NULL
                                 : malloc(sizeof *type + room * sizeof *type->nodes +
                                          sizeof number + 2 * size);
    if (type == NULL)
        return NULL;
    struct dora_node *nodes = (struct dora_node *)(type + 1);
    char *head = (char *)(nodes + room), *copy = head + sizeof number;
    memcpy(head, &number, sizeof number);
    memcpy(copy, text, size);
    /* The copy is read: another process may write to the text meanwhile. */
    struct reading reading = {.text = copy, .size = size, .nodes = nodes, .strings = copy + size};
    if (!read_nodes(&reading, 0) || reading.at != size) {
        free(type);
        return NULL;
    }
    *type = (struct dora_type){.count = reading.count, .size = size, .text = copy, .nodes = nodes};
    atomic_init(&type->users, 1);
    return type;
}

struct dora_type *dora_type_use(struct dora_type *type)
{
    atomic_fetch_add_explicit(&type->users, 1, memory_order_relaxed);
    return type;
}

void dora_type_drop(struct dora_type *type)
{
    /* Each end of a use comes after what was read before it. */
    if (type != NULL && atomic_fetch_sub_explicit(&type->users, 1, memory_order_acq_rel) == 1)
        free(type);
}
