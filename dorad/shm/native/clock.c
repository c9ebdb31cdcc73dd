/* The node's clock; see dorad/node/clock.py. */

#include "native.h"

#include <time.h>

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t realtime_ns(void)
{
    return now_ns(CLOCK_REALTIME);
}

int64_t monotonic_ns(void)
{
    return now_ns(CLOCK_MONOTONIC);
}

/* Return a timestamp later than all that were returned or seen before. */
uint64_t clock_now(struct clock *clock)
{
    int64_t now = realtime_ns();
    clock->last = now > clock->last ? now : clock->last + 1;
    return (uint64_t)clock->last;
}

/* Advance to another clock's timestamp; Python refuses one that is too far ahead. */
int clock_saw(const struct state *state, struct clock *clock, uint64_t stamp)
{
    if (stamp <= INT64_MAX && (int64_t)stamp <= clock->last)
        return 0;
    if (stamp <= INT64_MAX && (int64_t)stamp - realtime_ns() <= MAX_AHEAD_NS) {
        clock->last = (int64_t)stamp;
        return 0;
    }
    PyObject *seen = PyLong_FromUnsignedLongLong(stamp);
    PyObject *done = seen == NULL ? NULL
                                  : PyObject_CallMethodObjArgs((PyObject *)clock,
                                                               state->names.saw, seen, NULL);
    Py_XDECREF(seen);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}
