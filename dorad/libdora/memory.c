/* Mapped segments, hazard slots and samples in use. Counted atomically: any thread may end a use. */

#include "node.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

struct mapping *mapping_new(int descriptor, bool writable)
{
    struct stat status;
    if (fstat(descriptor, &status) < 0) {
        fail("a segment cannot be examined: %s", strerror(errno));
        return NULL;
    }
    size_t size = (size_t)status.st_size;
    void *at = mmap(NULL, size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, descriptor, 0);
    if (at == MAP_FAILED) {
        fail("a segment of %zu bytes cannot be mapped: %s", size, strerror(errno));
        return NULL;
    }
#ifdef MADV_POPULATE_WRITE
    size_t allocated = (size_t)status.st_blocks * 512;
    if (writable && allocated > 0)
        /* Older kernels fault each page in when it is first touched. */
        madvise(at, allocated < size ? allocated : size, MADV_POPULATE_WRITE);
#endif
    struct mapping *mapping = must(malloc(sizeof *mapping));
    *mapping = (struct mapping){
        .users = 1,
        .words = {at, size / WORD},
        .at = at,
        .size = size,
        .device = status.st_dev,
        .file = status.st_ino,
    };
    return mapping;
}

struct mapping *mapping_use(struct mapping *mapping)
{
    atomic_fetch_add_explicit(&mapping->users, 1, memory_order_relaxed);
    return mapping;
}

/* End a use; return true if it was the last one. Each comes after all earlier ones. */
static bool was_last(_Atomic int *users)
{
    return atomic_fetch_sub_explicit(users, 1, memory_order_acq_rel) == 1;
}

void mapping_drop(struct mapping *mapping)
{
    if (mapping == NULL || !was_last(&mapping->users))
        return;
    munmap(mapping->at, mapping->size);
    free(mapping);
}

struct slots *slots_new(struct mapping *box, uint64_t base)
{
    struct slots *slots = must(malloc(sizeof *slots));
    uint32_t free_ones = 0;
    /* One that is set belongs to the process that this one replaces. */
    for (int slot = 0; slot < HAZARDS; slot++)
        if (!dora_load(box->words, base + RING_HAZARDS + (uint64_t)slot, memory_order_relaxed))
            free_ones |= UINT32_C(1) << slot;
    *slots = (struct slots){1, mapping_use(box), base + RING_HAZARDS, free_ones, ~free_ones};
    return slots;
}

void slots_drop(struct slots *slots)
{
    if (slots == NULL || !was_last(&slots->users))
        return;
    mapping_drop(slots->box);
    free(slots);
}

/* Take over foreign slots that were cleared. */
static void inherit(struct slots *slots)
{
    uint32_t foreign = atomic_load_explicit(&slots->foreign, memory_order_relaxed), cleared = 0;
    for (int slot = 0; slot < HAZARDS; slot++)
        if (foreign >> slot & 1 &&
            !dora_load(slots->box->words, slots->first + (uint64_t)slot, memory_order_relaxed))
            cleared |= UINT32_C(1) << slot;
    atomic_store_explicit(&slots->foreign, foreign & ~cleared, memory_order_relaxed);
    atomic_fetch_or_explicit(&slots->free, cleared, memory_order_relaxed);
}

int slots_take(struct slots *slots)
{
    /* Acquire: the store that cleared the slot comes before ours. Pairs with `slots_return`. */
    uint32_t free_ones = atomic_load_explicit(&slots->free, memory_order_acquire);
    if (free_ones == 0 && atomic_load_explicit(&slots->foreign, memory_order_relaxed) != 0) {
        inherit(slots);
        free_ones = atomic_load_explicit(&slots->free, memory_order_acquire);
    }
    if (free_ones == 0)
        return -1;
    /* The lowest: a publisher looks through the slots from there. */
    int slot = __builtin_ctz(free_ones);
    atomic_fetch_and_explicit(&slots->free, ~(UINT32_C(1) << slot), memory_order_relaxed);
    return slot;
}

void slots_return(struct slots *slots, int slot)
{
    dora_ring_give_back(&slots->box->words.at[slots->first + (uint64_t)slot]);
    /* Release: pairs with the load in `slots_take`. */
    atomic_fetch_or_explicit(&slots->free, UINT32_C(1) << slot, memory_order_release);
}

struct borrow *borrow_use(struct borrow *borrow)
{
    atomic_fetch_add_explicit(&borrow->users, 1, memory_order_relaxed);
    return borrow;
}

void borrow_drop(struct borrow *borrow)
{
    if (borrow == NULL || !was_last(&borrow->users))
        return;
    slots_return(borrow->slots, borrow->slot);
    slots_drop(borrow->slots);
    mapping_drop(borrow->segment);
    free(borrow);
}
