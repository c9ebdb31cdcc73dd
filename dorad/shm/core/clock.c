/* A node's clock: wall time that never runs backwards or behind a received timestamp. */

#include "core.h"

#include <time.h>

bool dora_may_be_stepped;

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * DORA_NANOS + now.tv_nsec;
}

int64_t dora_realtime_ns(void)
{
    return now_ns(CLOCK_REALTIME);
}

int64_t dora_monotonic_ns(void)
{
    return now_ns(CLOCK_MONOTONIC);
}

uint64_t dora_clock_now(struct dora_words box, int64_t *last)
{
    int64_t now = dora_time_ns(box);
    *last = now > *last ? now : *last + 1;
    return (uint64_t)*last;
}

bool dora_clock_saw(struct dora_words box, int64_t *last, uint64_t stamp)
{
    if (stamp > INT64_MAX)
        return false;
    if ((int64_t)stamp <= *last)
        return true;
    if ((int64_t)stamp - dora_time_ns(box) > MAX_AHEAD_NS)
        return false;
    *last = (int64_t)stamp;
    return true;
}
