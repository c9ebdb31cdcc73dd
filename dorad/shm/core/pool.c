/* Which sample a message gets, and when a pool grows: the numbers of `Pool` of dorad/shm/pool.py. */

#include "core.h"

int dora_pool_order(uint64_t size)
{
    int order = SMALLEST;
    while (order < ORDERS - 1 && UINT64_C(1) << order < size)
        order++;
    return order;
}

bool dora_pool_is_low(size_t free, size_t flying)
{
    size_t few = flying / 8 > MIN_FREE ? flying / 8 : MIN_FREE;
    return flying > 0 && free <= few;
}

uint64_t dora_pool_next_size(int order, size_t count)
{
    uint64_t size = UINT64_C(1) << order;
    uint64_t least = size > SLAB ? size : SLAB;
    if (count == 0)
        return least;
    uint64_t more = count / 4 > MIN_GROWTH ? count / 4 : MIN_GROWTH;
    uint64_t wanted = more > MAX_GROWTH / size ? MAX_GROWTH : more * size;
    return wanted > least ? wanted : least;
}
