/* Arrays as the parts of a payload, and back: `encode` and `decode` of dorad/shm/nested.py.

       size of the description, description, one byte a node: whether it has a bitmap
       of each node:  bitmap | offsets | values or bytes | length of the dictionary

   Each part begins at a multiple of 8 bytes. Without a description (a type of one node) the entry
   says whether there is a bitmap. Lengths are not sent: a child of a struct is as long as that, one
   of a list as its last offset says.

   Bitmaps, offsets, and the indices of a dictionary determine where a reader looks, and the sender
   can still write to them: they are copied first, and the copy is checked. Other values may be
   anything. */

#pragma once

#include "arrays.h"

#include <stdlib.h>
#include <string.h>

#define NO_MEMORY "there is no memory for it"

static inline void free_chunks(struct dora_chunk *chunk)
{
    while (chunk != NULL) {
        struct dora_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
}

static inline char *new_chunk(struct dora_chunk **chunks, uint64_t size)
{
    struct dora_chunk *chunk = size < SIZE_MAX / 2 ? malloc(sizeof *chunk + size) : NULL;
    if (chunk == NULL)
        return NULL;
    chunk->next = *chunks;
    *chunks = chunk;
    return chunk->data;
}

static inline bool bit_at(const uint8_t *bits, uint64_t at)
{
    return bits[at / 8] >> (at % 8) & 1;
}

static inline uint64_t count_nulls(const uint8_t *bits, uint64_t offset, uint64_t length)
{
    uint64_t at = offset, end = offset + length, valid = 0, word;
    for (; at < end && at % 8 != 0; at++)
        valid += bit_at(bits, at);
    for (; at + 64 <= end; at += 64) {
        memcpy(&word, bits + at / 8, sizeof word);
        valid += (uint64_t)__builtin_popcountll(word);
    }
    for (; at < end; at++)
        valid += bit_at(bits, at);
    return length - valid;
}

static inline int64_t offset_at(const char *offsets, uint64_t at, bool wide)
{
    int64_t value;
    int32_t narrow;
    if (wide) {
        memcpy(&value, offsets + at * sizeof value, sizeof value);
        return value;
    }
    memcpy(&narrow, offsets + at * sizeof narrow, sizeof narrow);
    return narrow;
}

/* Return whether each of `length` + 1 offsets is as large as the one before, or larger. */
static inline bool are_ascending(const char *offsets, uint64_t length, bool wide)
{
    enum { BLOCK = 32 }; /* compilers make vectors of a loop of this length */
    uint64_t at = 0;
    int falls = 0; /* without a branch for each */
    for (int32_t block[BLOCK + 1]; !wide && length - at >= BLOCK; at += BLOCK) {
        memcpy(block, offsets + at * sizeof *block, sizeof block);
        for (int each = 0; each < BLOCK; each++)
            falls |= block[each + 1] < block[each];
    }
    for (; at < length; at++)
        falls |= offset_at(offsets, at + 1, wide) < offset_at(offsets, at, wide);
    return falls == 0;
}

static inline bool bytes_of(uint64_t length, uint64_t bits, uint64_t *size)
{
    if (__builtin_mul_overflow(length, bits, size) || *size > UINT64_MAX - 7)
        return false;
    *size = (*size + 7) / 8;
    return true;
}

/* The buffers of a node in an ArrowArray. */
static const int64_t buffers_of[] = {
    [DORA_NULLS] = 0, [DORA_FIXED] = 2,      [DORA_BYTES] = 3,
    [DORA_LIST] = 2,  [DORA_FIXED_LIST] = 1, [DORA_STRUCT] = 1,
};
