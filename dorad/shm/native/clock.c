/* Timestamps as Python has them; see dorad/node/clock.py. */

#include "native.h"

#include <time.h>

/* Advance to another clock's timestamp; Python refuses one that is too far ahead. */
int clock_saw(const struct state *state, struct dora_words box, struct clock *clock, uint64_t stamp)
{
    if (dora_clock_saw(box, &clock->last, stamp))
        return 0;
    PyObject *seen = PyLong_FromUnsignedLongLong(stamp);
    PyObject *done = seen == NULL ? NULL
                                  : PyObject_CallMethodObjArgs((PyObject *)clock,
                                                               state->names.saw, seen, NULL);
    Py_XDECREF(seen);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Return `datetime.fromtimestamp(stamp / 1e9, UTC)`, from the bytes that datetimes are pickled as:
   the function itself takes six times as long. */
PyObject *datetime_of(const struct state *state, uint64_t stamp)
{
    double seconds = (double)stamp / 1e9;
    time_t whole = (time_t)seconds;
    double fraction = (seconds - (double)whole) * 1e6;
    /* Rounds half to even: there is no room for less than 1 beside 2^52. */
    uint32_t micros = (uint32_t)(fraction + 0x1p52 - 0x1p52);
    if (micros == 1000000) {
        whole++;
        micros = 0;
    }
    struct tm at;
    gmtime_r(&whole, &at);
    int year = at.tm_year + 1900; /* 2554 at most */
    const char pickled[10] = {(char)(year >> 8),  (char)year,           (char)(at.tm_mon + 1),
                              (char)at.tm_mday,   (char)at.tm_hour,     (char)at.tm_min,
                              (char)at.tm_sec,    (char)(micros >> 16), (char)(micros >> 8),
                              (char)micros};
    PyObject *bytes = PyBytes_FromStringAndSize(pickled, sizeof pickled);
    PyObject *found = bytes == NULL ? NULL
                                    : PyObject_CallFunctionObjArgs(state->datetime, bytes,
                                                                   state->utc, NULL);
    Py_XDECREF(bytes);
    return found;
}
