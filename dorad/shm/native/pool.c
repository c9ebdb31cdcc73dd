/* Samples for payloads too large for an entry; see dorad/shm/pool.py.

   Only what needs no other segment and no search is done here. */

#include "native.h"

/* Return whether some subscriber may still read a sample: 1, 0, or -1 where Python has to decide. */
static int is_reachable(const struct state *state, const struct sample *sample)
{
    if (sample->marks == NULL || !PyList_Check(sample->marks))
        return -1;
    Py_ssize_t count = PyList_Size(sample->marks);
    for (Py_ssize_t at = 0; at < count; at++) {
        PyObject *mark = PyList_GetItem(sample->marks, at);
        if (!PyTuple_Check(mark) || PyTuple_Size(mark) != 2)
            return -1;
        PyObject *end = PyTuple_GetItem(mark, 0);
        unsigned long long index = PyLong_AsUnsignedLongLong(PyTuple_GetItem(mark, 1));
        if (index == (unsigned long long)-1 && PyErr_Occurred()) {
            PyErr_Clear();
            return -1;
        }
        if (!is(state, end, OUTLET) || !is_usable((struct outlet *)end))
            return -1;
        struct outlet *outlet = (struct outlet *)end;
        if (!dora_ring_is_done_with(outlet->words.span, &outlet->ring, index, sample->key))
            return 1;
    }
    return 0;
}

/* Return the mapping that a sample can be written in, or NULL. Its segment holds it. */
static struct mapping *mapping_of(const struct state *state, const struct sample *sample)
{
    if (!is(state, sample->segment, SEGMENT))
        return NULL;
    struct mapping *mapping = (struct mapping *)((struct segment *)sample->segment)->mapping;
    if (!is(state, (PyObject *)mapping, MAPPING))
        return NULL;
    const struct words *words = &mapping->words;
    uint64_t length = words->span.count * WORD, size = UINT64_C(1) << sample->order;
    bool lies_there = words->span.at != NULL && !words->held.readonly && size <= length &&
                      sample->offset <= length - size;
    return lies_there ? mapping : NULL;
}

static PyObject *list_of(PyObject *by_order, int order)
{
    if (by_order == NULL || !PyList_Check(by_order) || order < 0 || order >= PyList_Size(by_order))
        return NULL;
    PyObject *found = PyList_GetItem(by_order, order);
    return PyList_Check(found) ? found : NULL;
}

/* Take an item out of a list, where it is at a place. */
static PyObject *take_out(PyObject *list, Py_ssize_t at)
{
    PyObject *item = Py_NewRef(PyList_GetItem(list, at));
    if (PyList_SetSlice(list, at, at + 1, NULL) < 0)
        Py_CLEAR(item);
    return item;
}

/* See `Pool._collect_returned`. */
static enum outcome collect_returned(const struct state *state, struct pool *pool)
{
    if (pool->returned == NULL || !PyList_Check(pool->returned))
        return NOT_MINE;
    for (Py_ssize_t count; (count = PyList_Size(pool->returned)) > 0;) {
        struct sample *sample = (struct sample *)PyList_GetItem(pool->returned, count - 1);
        if (!is(state, (PyObject *)sample, SAMPLE) || sample->marks == NULL ||
            !PyList_Check(sample->marks))
            return NOT_MINE;
        PyObject *marks = PyList_New(0);
        if (marks == NULL || take_out(pool->returned, count - 1) == NULL) {
            Py_XDECREF(marks);
            return FAILED;
        }
        int failed = 0;
        if (--sample->held == 0) {
            PyObject *pushed = sample->marks;
            sample->marks = Py_NewRef(marks);
            failed = sample_sent(state, pool, sample, pushed);
            Py_DECREF(pushed);
        }
        Py_DECREF(marks);
        Py_DECREF(sample);
        if (failed)
            return FAILED;
    }
    return DONE;
}

/* Return whether Python has to look ahead: few samples are free, and the oldest is in use. */
static bool is_scarce(const struct state *state, PyObject *free, PyObject *flying)
{
    Py_ssize_t count = PyList_Size(flying);
    if (!dora_pool_is_low((size_t)PyList_Size(free), (size_t)count))
        return false;
    PyObject *oldest = PyList_GetItem(flying, 0);
    return is(state, oldest, SAMPLE) && is_reachable(state, (struct sample *)oldest) != 0;
}

/* Return whether the sample at a place of a list can be written to: DONE, NOTHING if a subscriber may
   reach it. */
static enum outcome look_at(const struct state *state, PyObject *list, Py_ssize_t at, int order,
                            struct mapping **mapping)
{
    struct sample *sample = (struct sample *)PyList_GetItem(list, at);
    if (!is(state, (PyObject *)sample, SAMPLE) || sample->order != order)
        return NOT_MINE;
    int reachable = is_reachable(state, sample);
    if (reachable != 0)
        return reachable < 0 ? NOT_MINE : NOTHING;
    *mapping = mapping_of(state, sample);
    return *mapping == NULL ? NOT_MINE : DONE;
}

/* Find a sample that no subscriber can reach; see `Pool._reuse`. Of those that were not sent lately,
   only the oldest is looked at. */
static enum outcome reuse(const struct state *state, PyObject *free, PyObject *flying, int order,
                          PyObject **list, Py_ssize_t *place, struct mapping **mapping)
{
    Py_ssize_t count = PyList_Size(flying), left = PyList_Size(free);
    enum outcome outcome = NOTHING;
    *list = flying;
    for (*place = count - 1; *place >= 0 && *place >= count - RECENT; --*place)
        if ((outcome = look_at(state, flying, *place, order, mapping)) != NOTHING)
            return outcome;
    *list = left > 0 ? free : flying;
    *place = left > 0 ? left - 1 : 0;
    if (left > 0 || count > RECENT)
        outcome = look_at(state, *list, *place, order, mapping);
    return outcome == NOTHING ? NOT_MINE : outcome;
}

/* Take a sample of at least `size` bytes that no subscriber can reach, and the mapping it lies in,
   which its segment holds; see `Pool.take`. */
enum outcome take_sample(const struct state *state, PyObject *object, uint64_t size,
                         struct sample **found, struct mapping **mapping)
{
    if (!is(state, object, POOL) || size > INT64_MAX)
        return NOT_MINE;
    struct pool *pool = (struct pool *)object;
    enum outcome outcome = collect_returned(state, pool);
    if (outcome != DONE)
        return outcome;
    if (pool->arrived == NULL || PyObject_Size(pool->arrived) != 0) {
        PyErr_Clear();
        return NOT_MINE;
    }
    int order = dora_pool_order(size);
    PyObject *free = list_of(pool->free, order), *flying = list_of(pool->flying, order), *list;
    Py_ssize_t place;
    if (free == NULL || flying == NULL ||
        reuse(state, free, flying, order, &list, &place, mapping) == NOT_MINE)
        return NOT_MINE;
    PyObject *marks = PyList_New(0);
    struct sample *sample = marks == NULL ? NULL : (struct sample *)take_out(list, place);
    if (sample == NULL) {
        Py_XDECREF(marks);
        return FAILED;
    }
    ((struct segment *)sample->segment)->idle = false;
    put_in_place(&sample->marks, marks);
    if (is_scarce(state, free, flying)) {
        PyObject *number = PyLong_FromLong(order);
        if (number == NULL || !call(object, state->names._look_ahead, number))
            Py_CLEAR(sample);
        Py_XDECREF(number);
    }
    *found = sample;
    return sample == NULL ? FAILED : DONE;
}

/* Record that a sample was pushed; see `Pool.sent`. */
int sample_sent(const struct state *state, struct pool *pool, struct sample *sample,
                PyObject *marks)
{
    bool pushed = PyList_Size(marks) > 0;
    PyObject *list = list_of(pushed ? pool->flying : pool->free, sample->order);
    bool is_first = sample->marks != NULL && PyList_Check(sample->marks) &&
                    PyList_Size(sample->marks) == 0;
    if (list == NULL || (sample->held && !is_first)) {
        PyObject *done = PyObject_CallMethodObjArgs((PyObject *)pool, state->names.sent,
                                                    (PyObject *)sample, marks, NULL);
        Py_XDECREF(done);
        return done == NULL ? -1 : 0;
    }
    if (pushed)
        put_in_place(&sample->marks, Py_NewRef(marks));
    return sample->held ? 0 : PyList_Append(list, (PyObject *)sample);
}

/* Return a sample that no subscriber can reach; see `Pool.take`. */
PyObject *step_take_sample(METHOD_ARGUMENTS)
{
    const struct state *state = PyType_GetModuleState(class);
    struct sample *sample = NULL;
    struct mapping *mapping;
    enum outcome outcome = NOT_MINE;
    if (count == 1 && keywords == NULL && PyLong_Check(arguments[0])) {
        unsigned long long size = PyLong_AsUnsignedLongLong(arguments[0]);
        if (size != (unsigned long long)-1)
            outcome = take_sample(state, object, size, &sample, &mapping);
        else
            PyErr_Clear(); /* Python meets it again, and reports it. */
    }
    if (outcome == NOT_MINE)
        return fall_back(state, TAKE_SAMPLE, object, arguments, count, keywords);
    return (PyObject *)sample;
}
