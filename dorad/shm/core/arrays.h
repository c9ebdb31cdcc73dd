/* Arrow arrays as the parts of a payload, and back: see parts.h and dorad/shm/nested.py.

   Unlike the rest of the core this allocates: an array has as many parts as its type has nodes. */

#pragma once

#include "core.h"

#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE

#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE 2
#define ARROW_FLAG_MAP_KEYS_SORTED 4

struct ArrowSchema {
    const char *format;
    const char *name;
    const char *metadata;
    int64_t flags;
    int64_t n_children;
    struct ArrowSchema **children;
    struct ArrowSchema *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

#endif /* ARROW_C_DATA_INTERFACE */

static inline uint64_t dora_padded(uint64_t size)
{
    return (size + 7) & ~UINT64_C(7);
}

static inline uint64_t dora_bitmap_size(uint64_t length)
{
    return (length + 7) / 8;
}

#define ARROW_FLAGS                                                                                \
    (ARROW_FLAG_DICTIONARY_ORDERED | ARROW_FLAG_NULLABLE | ARROW_FLAG_MAP_KEYS_SORTED)

/* -- types.c ----------------------------------------------------------------------------------- */

/* What a node of a type consists of. */
enum dora_kind { DORA_NULLS, DORA_FIXED, DORA_BYTES, DORA_LIST, DORA_FIXED_LIST, DORA_STRUCT };

struct dora_node {
    uint64_t width; /* bits of an item; items of a list of fixed size */
    uint32_t children, metadata_size;
    uint8_t kind, flags;        /* flags: as in Arrow's C data interface */
    bool wide, map, dictionary; /* wide: offsets of 64 bits */
    const char *format, *name, *metadata;
};

/* A type: its nodes in the order in which a description has them, and the description, of `size` 0
   if it needs none. Any thread may use one. */
struct dora_type {
    atomic_size_t users;
    size_t count, size;
    const char *text; /* behind its size in 4 bytes, as a payload has it */
    struct dora_node *nodes;
};

/* Write the description of a type into MAX_TYPE_SIZE bytes. Return its size, 0 if it has none. */
size_t dora_type_write(const struct ArrowSchema *schema, char *into);
/* Return the type of a description, with one user. NULL if it is malformed or without memory, or its
   arrays travel as a stream. */
struct dora_type *dora_type_new(const char *text, size_t size);
struct dora_type *dora_type_use(struct dora_type *type);
void dora_type_drop(struct dora_type *type);
/* Return the bytes of metadata as Arrow's C data interface has them. */
size_t dora_metadata_size(const char *metadata);

/* -- schemas.c --------------------------------------------------------------------------------- */

/* Return whether a schema is that of a type. */
bool dora_type_is(const struct dora_type *type, const struct ArrowSchema *schema);
/* Export a type for the application; false without memory. */
bool dora_type_export(struct dora_type *type, struct ArrowSchema *schema);
/* Find a type whose arrays need no description: of a code, or of a format; false for others. */
bool dora_type_of_code(uint8_t code, struct dora_type *type);
bool dora_type_of_format(const char *format, struct dora_type *type, uint8_t *code);

/* -- arrays_write.c ---------------------------------------------------------------------------- */

/* Memory of its own that an array needed. */
struct dora_chunk {
    struct dora_chunk *next;
    _Alignas(16) char data[];
};

/* The payload of an array that is sent: parts of its memory, in order. */
struct dora_written {
    uint64_t length, nulls, size;
    size_t count;
    struct dora_part {
        uint64_t at, size;
        const void *data;
    } *parts;
    struct dora_chunk *chunks;
};

/* Find the parts of an array. The payload begins with the type's description, if it has one. Return
   NULL, or what is wrong with the array; the caller calls `dora_written_free` in both cases. */
const char *dora_array_write(const struct dora_type *type, const struct ArrowArray *array,
                             struct dora_written *written);
void dora_written_free(struct dora_written *written);
/* Copy all parts to where a payload lies. The bytes between them stay as they are. */
void dora_written_place(const struct dora_written *written, char *into);

/* -- arrays_read.c ----------------------------------------------------------------------------- */

/* A payload that has arrived. If `shared`, its sender can still write to it. */
struct dora_payload {
    const char *data;
    uint64_t size, length, nulls;
    bool shared;
    void *owner; /* holds the memory of `data`; NULL: it is copied */
    void (*drop)(void *owner);
};

/* Return the description that a payload begins with, and its size; NULL if there is none. */
const char *dora_payload_type(const struct dora_payload *payload, size_t *size);
/* Export the array of a payload, whose fixed-width values and bytes stay where they are. It takes
   over the owner. Return NULL, or what is wrong: then it takes over nothing. */
const char *dora_array_read(const struct dora_type *type, const struct dora_payload *payload,
                            struct ArrowArray *array);
