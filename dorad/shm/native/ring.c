/* The two ends of an edge: `Outlet` of dorad/shm/outlet.py and `Inlet` of dorad/shm/inlet.py,
   without a lane; the protocol itself lies in dorad/shm/core/ring.c.

   A field of an entry that fails a check is "not mine": Python reads the entry again, and reports
   it. */

#include "native.h"

#include <errno.h>

int ring_bell(int descriptor)
{
    int code;
    do {
        /* A peer can make writes to a bell block: other threads, and signals, must not wait. */
        Py_BEGIN_ALLOW_THREADS
        code = dora_bell_ring(descriptor);
        Py_END_ALLOW_THREADS
        if (code == 0)
            return 0;
        /* Of several bells, the first error is reported. */
        if (PyErr_Occurred())
            return -1;
    } while (code == EINTR && PyErr_CheckSignals() == 0);
    if (code != EINTR) {
        errno = code;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return -1;
}

/* Return whether only the ring's own protocol is asked for. */
bool is_usable(const struct outlet *outlet)
{
    return outlet->plain && dora_ring_lies_in(outlet->words.span, outlet->ring.base,
                                              outlet->ring.entries, outlet->ring.mask);
}

/* Return the mapping that the payload of an entry lies in, or NULL: it is not mapped, or the payload
   does not lie in it. */
static PyObject *find_mapping(const struct state *state, const struct inlet *inlet,
                              const struct dora_entry *entry)
{
    if (inlet->segments == NULL || !PyDict_Check(inlet->segments))
        return NULL;
    PyObject *number = PyLong_FromUnsignedLong(entry->segment);
    PyObject *found = number == NULL ? NULL : PyDict_GetItem(inlet->segments, number);
    Py_XDECREF(number);
    if (!is(state, found, MAPPING)) {
        PyErr_Clear();
        return NULL;
    }
    uint64_t length = ((struct mapping *)found)->words.span.count * WORD;
    return dora_lies_at(entry->offset, entry->size, length) ? Py_NewRef(found) : NULL;
}

/* Borrow what the entry says. The caller checks afterwards that the entry still stood. */
static enum outcome borrow(const struct state *state, struct inlet *inlet, struct taken *taken)
{
    const struct dora_entry *entry = &taken->entry;
    PyObject *mapping = find_mapping(state, inlet, entry);
    /* Without a free slot it would be copied out, and slots of others looked through. */
    Py_ssize_t free = inlet->free == NULL ? 0 : PyList_Size(inlet->free);
    if (mapping == NULL || free <= 0) {
        PyErr_Clear();
        Py_XDECREF(mapping);
        return NOT_MINE;
    }
    PyObject *slot = Py_NewRef(PyList_GetItem(inlet->free, free - 1));
    taken->borrow = new_borrow(state, &inlet->words, slot, inlet->free, mapping);
    size_t at = PyLong_AsSize_t(slot);
    Py_DECREF(slot);
    taken->address = (const char *)((struct mapping *)mapping)->words.span.at + entry->offset;
    /* Only now: the garbage collector may have run code that dropped the segment. */
    Py_DECREF(mapping);
    if (taken->borrow == NULL || PyList_SetSlice(inlet->free, free - 1, free, NULL) < 0)
        return FAILED;
    dora_ring_borrow(inlet->words.span, at, entry);
    return DONE;
}

/* Wake a producer that waits for room. */
static enum outcome make_room_known(struct inlet *inlet)
{
    if (!dora_ring_has_waiter(inlet->words.span, &inlet->ring))
        return DONE;
    long bell = PyLong_AsLong(inlet->space_bell);
    if (bell == -1 && PyErr_Occurred())
        return FAILED;
    return ring_bell((int)bell) < 0 ? FAILED : DONE;
}

/* Take the next message; see `Inlet.take`. */
enum outcome take(const struct state *state, struct inlet *inlet, struct taken *taken)
{
    const struct dora_words words = inlet->words.span;
    struct dora_inlet *ring = &inlet->ring;
    taken->borrow = NULL;
    if (!inlet->plain || !dora_ring_lies_in(words, ring->base, ring->entries, ring->mask))
        return NOT_MINE;
    for (int lap = 0; lap < MAX_LAPS; lap++) {
        enum dora_outcome read = dora_ring_read(words, ring, &taken->entry);
        if (read != DORA_DONE)
            return read == DORA_NOTHING ? NOTHING : NOT_MINE;
        if (taken->entry.meta_segment)
            return NOT_MINE;
        uint64_t tail = ring->tail;
        enum outcome outcome = taken->entry.segment ? borrow(state, inlet, taken) : DONE;
        if (outcome == DONE && dora_ring_keep(words, ring, &taken->entry, tail)) {
            if (inlet->space_bell != Py_None && make_room_known(inlet) == FAILED) {
                Py_CLEAR(taken->borrow);
                return FAILED;
            }
            return DONE;
        }
        Py_CLEAR(taken->borrow);
        if (outcome != DONE)
            return outcome;
        /* The producer lapped us while we read. */
    }
    return NOTHING;
}

/* Take the next message; see `Inlet.take`. */
PyObject *step_take_entry(METHOD_ARGUMENTS)
{
    const struct state *state = PyType_GetModuleState(class);
    struct taken taken;
    enum outcome outcome = NOT_MINE;
    if (count == 0 && keywords == NULL)
        outcome = take(state, (struct inlet *)object, &taken);
    if (outcome == NOT_MINE)
        return fall_back(state, TAKE_ENTRY, object, arguments, count, keywords);
    if (outcome == NOTHING)
        Py_RETURN_NONE;
    return outcome == FAILED ? NULL : object_of(&taken);
}

PyObject *object_of(struct taken *taken)
{
    const struct dora_entry *entry = &taken->entry;
    const bool borrowed = taken->borrow != NULL;
    /* No bytes from no address: None. "N" takes over the borrow. */
    return Py_BuildValue("(KiKKKy#NKy#)", (unsigned long long)entry->stamp, (int)entry->code,
                         (unsigned long long)entry->length, (unsigned long long)entry->nulls,
                         (unsigned long long)entry->size,
                         borrowed ? NULL : entry->rest + entry->meta_size,
                         borrowed ? (Py_ssize_t)0 : (Py_ssize_t)entry->size,
                         borrowed ? taken->borrow : Py_NewRef(Py_None),
                         borrowed ? (unsigned long long)entry->offset : 0ULL, entry->rest,
                         (Py_ssize_t)entry->meta_size);
}

/* Return what `Inlet.take_copies` does of a message that was taken. */
static PyObject *copy_of(const struct inlet *inlet, const struct taken *taken)
{
    const struct dora_entry *entry = &taken->entry;
    const char *payload =
        taken->borrow == NULL ? entry->rest + entry->meta_size : taken->address;
    return Py_BuildValue("(KK(iKKy#y#))", (unsigned long long)entry->stamp,
                         inlet->ring.tail + inlet->ring.lane_tail - 1, (int)entry->code,
                         (unsigned long long)entry->length, (unsigned long long)entry->nulls,
                         payload, (Py_ssize_t)entry->size, entry->rest,
                         (Py_ssize_t)entry->meta_size);
}

/* Take copies of the next messages; see `Inlet.take_copies`. */
PyObject *step_take_copies(METHOD_ARGUMENTS)
{
    const struct state *state = PyType_GetModuleState(class);
    struct inlet *inlet = (struct inlet *)object;
    if (count != 1 || keywords != NULL || !PyLong_Check(arguments[0]))
        return fall_back(state, TAKE_COPIES, object, arguments, count, keywords);
    Py_ssize_t limit = PyLong_AsSsize_t(arguments[0]);
    PyObject *found = PyErr_Occurred() ? NULL : PyList_New(0);
    enum outcome outcome = DONE;
    while (found != NULL && outcome == DONE && PyList_Size(found) < limit) {
        struct taken taken;
        outcome = take(state, inlet, &taken);
        if (outcome != DONE)
            break;
        PyObject *copy = copy_of(inlet, &taken);
        Py_XDECREF(taken.borrow);
        if (copy == NULL || PyList_Append(found, copy) < 0)
            outcome = FAILED;
        Py_XDECREF(copy);
    }
    if (found == NULL || outcome == FAILED) {
        Py_XDECREF(found);
        return NULL;
    }
    if (outcome != NOT_MINE || PyList_Size(found) > 0)
        return found; /* The caller asks again for a message that is not mine. */
    Py_DECREF(found);
    return fall_back(state, TAKE_COPIES, object, arguments, count, keywords);
}
