/* Timers: `TimerInput.take` of dorad/node/inputs.py, and when the next tick is due. */

#include "native.h"

static void store(struct timer_input *timer, size_t word, uint64_t value)
{
    /* Release: a reader of the counters loads RECEIVED, TAIL and HEAD in this order, with acquire. */
    dora_store(timer->words.span, timer->ring + word, value, memory_order_release);
}

/* Count a tick that is taken `late` ns after it was due, after `skipped` that never were. */
static void count_delay(struct timer_input *timer, uint64_t late, uint64_t skipped)
{
    const struct dora_optional before = timer->late_ns;
    timer->late_ns = (struct dora_optional){true, late};
    if (!before.given)
        return;
    dora_count_latency(timer->words.span, timer->ring, late);
    timer->latency_sum_ns += late;
    store(timer, RING_LATENCY_SUM, timer->latency_sum_ns);
    timer->latency_diff_ns += late > before.value ? late - before.value : before.value - late;
    store(timer, RING_LATENCY_DIFF, timer->latency_diff_ns);
    if (late > timer->late_max_ns) {
        timer->late_max_ns = late;
        store(timer, RING_LATE_MAX, late);
    }
    const bool missed = late > (uint64_t)timer->deadline_ns;
    if (skipped || missed) {
        timer->missed += skipped + missed;
        store(timer, RING_MISSED, timer->missed);
    }
}

/* Take the next tick; return how late it is in ns. */
static int64_t take_tick(struct timer_input *timer, int64_t now)
{
    const uint64_t count = (uint64_t)((now - timer->due_ns) / timer->interval_ns) + 1;
    const uint64_t skipped = count > timer->queue_size ? count - timer->queue_size : 0;
    const uint64_t head = timer->tail + count;
    const int64_t due = timer->due_ns + (int64_t)skipped * timer->interval_ns;
    timer->due_ns = due + timer->interval_ns;
    store(timer, RING_HEAD, head);
    timer->tail += skipped + 1;
    store(timer, RING_TAIL, timer->tail);
    timer->received++;
    store(timer, RING_RECEIVED, timer->received);
    store(timer, RING_LAST, (uint64_t)due);
    count_delay(timer, (uint64_t)(now - due), skipped);
    return now - due;
}

/* The time when a tick was due, which dates it. */
static uint64_t stamp_of(const struct timer_input *timer, int64_t late)
{
    const int64_t now = dora_realtime_ns();
    dora_hop_received(timer->words.span, timer->ring, (uint64_t)(now - late), (uint64_t)now, 0);
    return (uint64_t)(now - late);
}

static PyObject *tick_of(const struct state *state, const struct timer_input *timer, int64_t late)
{
    PyObject *event = NULL;
    PyObject *metadata = PyDict_New();
    PyObject *time = datetime_of(state, stamp_of(timer, late));
    if (metadata != NULL && time != NULL &&
        PyDict_SetItem(metadata, state->names.timestamp, time) == 0)
        event = event_of(state, timer->id, state->no_value, metadata);
    Py_XDECREF(metadata);
    Py_XDECREF(time);
    return event;
}

/* Return the next tick's event, or None when none is due. */
PyObject *step_take_tick(METHOD_ARGUMENTS)
{
    const struct state *state = PyType_GetModuleState(class);
    struct timer_input *timer = (struct timer_input *)object;
    /* Python makes ticks without Arrow, if the node does not use it. */
    if (count != 0 || keywords != NULL || state->no_value == NULL || timer->id == NULL ||
        timer->words.span.count < RING_WORDS || timer->ring > timer->words.span.count - RING_WORDS ||
        timer->interval_ns <= 0 || timer->due_ns < 0 || timer->queue_size == 0)
        return fall_back(state, TAKE_TICK, object, arguments, count, keywords);
    const int64_t now = dora_monotonic_ns();
    if (now < timer->due_ns || timer->stopped)
        Py_RETURN_NONE;
    return tick_of(state, timer, take_tick(timer, now));
}

/* Find when the next tick of all timers is due, INT64_MAX if there is none; false where Python has
   to. */
bool next_tick(const struct state *state, const struct inputs *inputs, int64_t *due)
{
    *due = INT64_MAX;
    for (Py_ssize_t at = 0; at < PyList_Size(inputs->timers) && !inputs->stopped; at++) {
        PyObject *timer = PyList_GetItem(inputs->timers, at);
        if (!is(state, timer, TIMER_INPUT))
            return false;
        const int64_t next = ((struct timer_input *)timer)->due_ns;
        if (next < *due)
            *due = next;
    }
    return true;
}
