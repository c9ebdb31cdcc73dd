/* Samples for payloads too large for an entry; see dorad/shm/pool.py.

   Only what needs no other segment and no search is done here. */

#include "native.h"

/* Tell whether some subscriber may still read a sample: 1, 0, or -1 where Python has to say. */
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
        if (!is_done_with((struct outlet *)end, index, sample->key))
            return 1;
    }
    return 0;
}

/* Return where the memory of a sample lies, NULL if it does not lie in its segment. */
static char *address_of(const struct state *state, const struct sample *sample, PyObject *segment)
{
    PyObject *mapping = PyObject_GetAttr(segment, state->names.mapping);
    char *address = NULL;
    if (is(state, mapping, MAPPING)) {
        struct words *words = &((struct mapping *)mapping)->words;
        uint64_t length = words->count * WORD, size = UINT64_C(1) << sample->order;
        if (words->at != NULL && !words->held.readonly && size <= length &&
            sample->offset <= length - size)
            address = (char *)words->at + sample->offset;
    }
    if (mapping == NULL)
        PyErr_Clear();
    /* The segment still holds it. */
    Py_XDECREF(mapping);
    return address;
}

static PyObject *line_of(PyObject *by_order, PyObject *order)
{
    return by_order == NULL || !PyDict_Check(by_order) ? NULL : PyDict_GetItem(by_order, order);
}

/* Tell whether Python has to look ahead: few samples are free, and the oldest is in use. */
static bool is_scarce(const struct state *state, PyObject *free, PyObject *flying)
{
    Py_ssize_t count = PyObject_Size(flying);
    Py_ssize_t few = count / 8 > 2 ? count / 8 : 2;
    if (count <= 0 || PyList_Size(free) > few)
        return false;
    PyObject *oldest = PySequence_GetItem(flying, 0);
    bool scarce = is(state, oldest, SAMPLE) && is_reachable(state, (struct sample *)oldest) != 0;
    Py_XDECREF(oldest);
    return scarce;
}

/* Take a sample of at least `size` bytes that no subscriber can reach; see `Pool.take`. */
enum outcome take_sample(const struct state *state, PyObject *object, uint64_t size,
                         struct sample **found, char **address)
{
    if (!is(state, object, POOL))
        return NOT_MINE;
    struct pool *pool = (struct pool *)object;
    if (pool->returned == NULL || PyObject_Size(pool->returned) != 0 || pool->arrived == NULL ||
        PyObject_Size(pool->arrived) != 0 || size > INT64_MAX) {
        PyErr_Clear();
        return NOT_MINE;
    }
    int order = SMALLEST;
    while (order < 62 && UINT64_C(1) << order < size)
        order++;
    PyObject *number = PyLong_FromLong(order);
    if (number == NULL)
        return FAILED;
    PyObject *free = line_of(pool->free, number), *flying = line_of(pool->flying, number);
    if (free == NULL || flying == NULL || !PyList_Check(free)) {
        Py_DECREF(number);
        return NOT_MINE;
    }
    Py_ssize_t count = PyList_Size(free);
    /* Samples nearly always come back in the order in which they went. */
    PyObject *first = count > 0 ? Py_NewRef(PyList_GetItem(free, count - 1))
                                : PySequence_GetItem(flying, 0);
    if (first == NULL) {
        PyErr_Clear();
        Py_DECREF(number);
        return NOT_MINE;
    }
    struct sample *sample = (struct sample *)first;
    enum outcome outcome = NOT_MINE;
    if (is(state, first, SAMPLE) && sample->segment != NULL && sample->order == order &&
        (count > 0 || is_reachable(state, sample) == 0) &&
        (*address = address_of(state, sample, sample->segment)) != NULL) {
        outcome = FAILED;
        PyObject *marks = PyList_New(0), *gone = NULL;
        if (marks != NULL && count > 0)
            gone = PyList_SetSlice(free, count - 1, count, NULL) < 0 ? NULL : Py_NewRef(Py_None);
        else if (marks != NULL)
            gone = PyObject_CallMethodObjArgs(flying, state->names.popleft, NULL);
        if (gone != NULL) {
            put_in_place(&sample->marks, marks);
            marks = NULL;
            Py_DECREF(gone);
            if (PyObject_SetAttr(sample->segment, state->names.idle, Py_False) == 0 &&
                (!is_scarce(state, free, flying) ||
                 call(object, state->names._look_ahead, number)))
                outcome = DONE;
        }
        Py_XDECREF(marks);
    }
    Py_DECREF(number);
    if (outcome == DONE)
        *found = sample;
    else
        Py_DECREF(first);
    return outcome;
}

/* Record that a sample was pushed; see `Pool.sent`. */
int sample_sent(const struct state *state, struct pool *pool, struct sample *sample,
                PyObject *marks)
{
    PyObject *done = NULL;
    if (sample->held || PyList_Size(marks) == 0) {
        done = PyObject_CallMethodObjArgs((PyObject *)pool, state->names.sent, (PyObject *)sample,
                                          marks, NULL);
    } else {
        put_in_place(&sample->marks, Py_NewRef(marks));
        PyObject *order = PyLong_FromLong(sample->order);
        PyObject *flying = order == NULL ? NULL : line_of(pool->flying, order);
        Py_XDECREF(order);
        if (flying != NULL)
            done = PyObject_CallMethodObjArgs(flying, state->names.append, (PyObject *)sample, NULL);
        else if (!PyErr_Occurred())
            PyErr_SetString(PyExc_KeyError, "the pool has no samples of this size");
    }
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}
