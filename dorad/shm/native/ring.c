/* The two ends of an edge: `Outlet` of dorad/shm/outlet.py and `Inlet` of dorad/shm/inlet.py,
   without a lane.

   A consumer trusts nothing that it reads from the mailbox: it copies an entry once, and checks each
   field of the copy before it uses it. A field that fails a check is "not mine": Python reads the
   entry again, and reports it. */

#include "native.h"

#include <errno.h>
#include <sys/eventfd.h>

int ring_bell(int descriptor)
{
    int failed, code;
    do {
        /* A peer can make writes to a bell block: other threads, and signals, must not wait. */
        Py_BEGIN_ALLOW_THREADS
        failed = eventfd_write(descriptor, 1);
        code = errno;
        Py_END_ALLOW_THREADS
        /* EAGAIN: it has been rung 2^64 times and will wake its owner anyway. */
        if (!failed || code == EAGAIN)
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

/* -- the producer's end ------------------------------------------------------------------------ */

/* Return whether a ring lies in its mapping. */
static bool lies_in(const struct words *words, uint64_t base, uint64_t entries, uint64_t mask)
{
    size_t count = words->count;
    return words->at != NULL && count >= RING_WORDS && base <= count - RING_WORDS &&
           entries % sizeof(word) == 0 && mask < count && entries <= count * WORD &&
           (mask + 1) * ENTRY_SIZE <= count * WORD - entries;
}

/* Return whether only the ring's own protocol is asked for. */
bool is_usable(const struct outlet *outlet)
{
    return outlet->plain && lies_in(&outlet->words, outlet->base, outlet->entries, outlet->mask);
}

/* Return whether a consumer that reads has no room for one more. */
bool is_full(const struct outlet *outlet)
{
    const struct words *words = &outlet->words;
    uint64_t base = outlet->base;
    uint64_t head = read_word(words, base + RING_HEAD, memory_order_relaxed);
    /* Acquire: the consumer has copied out what it took. Pairs with the stores of TAIL in `take`. */
    uint64_t tail = read_word(words, base + RING_TAIL, memory_order_acquire);
    uint64_t lane_head = read_word(words, base + RING_LANE_HEAD, memory_order_relaxed);
    uint64_t lane_tail = read_word(words, base + RING_LANE_TAIL, memory_order_acquire);
    int64_t waiting = (int64_t)(head - tail + lane_head - lane_tail);
    return waiting >= (int64_t)outlet->queue_size &&
           read_word(words, base + RING_STATE, memory_order_relaxed) == STATE_ATTACHED;
}

/* Append an entry of `length` bytes. The caller fences after its last push of a message; that fence
   also keeps HEAD before the next entry, for a consumer that is being lapped. */
void push(struct outlet *outlet, const void *entry, size_t length, uint64_t size, uint64_t stamp)
{
    struct words *words = &outlet->words;
    uint64_t head = outlet->head;
    char *entries = (char *)words->at + outlet->entries;
    memcpy(entries + (head & outlet->mask) * ENTRY_SIZE, entry, length);
    outlet->bytes += size;
    write_word(words, outlet->base + RING_BYTES, outlet->bytes, memory_order_relaxed);
    write_word(words, outlet->base + RING_LAST, stamp, memory_order_relaxed);
    outlet->head = head + 1;
    /* Release: the entry, and the sample it names, come before. Pairs with the load in `take`. */
    write_word(words, outlet->base + RING_HEAD, head + 1, memory_order_release);
}

/* Return whether the consumer can no longer reach sample `key`, pushed as entry `index`. */
bool is_done_with(const struct outlet *outlet, uint64_t index, uint64_t key)
{
    const struct words *words = &outlet->words;
    /* Acquire: pairs with the store of TAIL in `take`, which comes after that of the slot. */
    if (read_word(words, outlet->base + RING_TAIL, memory_order_acquire) <= index &&
        outlet->head - index <= outlet->queue_size)
        return outlet->closed &&
               read_word(words, outlet->base + RING_STATE, memory_order_relaxed) == STATE_CLOSED;
    /* We stored HEAD and look for a slot; pairs with the fence of a borrow in `take`, which stores a
       slot and looks at HEAD. One of the two sees the other's. */
    atomic_thread_fence(memory_order_seq_cst);
    const word *slots = words->at + outlet->base + RING_HAZARDS;
    for (size_t slot = 0; slot < HAZARDS; slot++)
        /* Acquire: pairs with the store that ends a borrow. */
        if (atomic_load_explicit(&slots[slot], memory_order_acquire) == key)
            return false;
    return true;
}

/* -- the consumer's end ------------------------------------------------------------------------ */

/* Copy words of the ring out. A producer that laps us may be writing them: `take` finds that out. */
static void copy_out(void *into, const word *from, size_t words)
{
    for (size_t at = 0; at < words; at++) {
        uint64_t value = atomic_load_explicit(&from[at], memory_order_relaxed);
        /* Not by a pointer to words: the fields that are copied have other types. */
        memcpy((char *)into + at * sizeof value, &value, sizeof value);
    }
}

/* Return the mapping that the payload of an entry lies in, or NULL: it is not mapped, or the payload
   does not lie in it. */
static PyObject *find_mapping(const struct state *state, const struct inlet *inlet,
                              const struct entry *entry)
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
    uint64_t length = ((struct mapping *)found)->words.count * WORD;
    bool lies_there = entry->offset % ALIGNMENT == 0 && entry->offset <= length &&
                      entry->size <= length - entry->offset;
    return lies_there ? Py_NewRef(found) : NULL;
}

/* Borrow what the entry says. The caller checks afterwards that the entry still stood. */
static enum outcome borrow(const struct state *state, struct inlet *inlet, struct taken *taken)
{
    const struct entry *entry = &taken->entry;
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
    taken->address = (const char *)((struct mapping *)mapping)->words.at + entry->offset;
    /* Only now: the garbage collector may have run code that dropped the segment. */
    Py_DECREF(mapping);
    if (taken->borrow == NULL || PyList_SetSlice(inlet->free, free - 1, free, NULL) < 0)
        return FAILED;
    uint64_t key = (uint64_t)entry->segment << KEY_SEGMENT | entry->offset >> KEY_OFFSET;
    write_word(&inlet->words, at, key, memory_order_relaxed);
    /* We stored a slot and look at HEAD; pairs with the fence in is_done_with, and that after the
       last push, which store HEAD and look at the slots. */
    atomic_thread_fence(memory_order_seq_cst);
    return DONE;
}

/* Copy out or borrow the message whose entry begins at `from`. */
static enum outcome read_entry(const struct state *state, struct inlet *inlet, const word *from,
                               struct taken *taken)
{
    struct entry *entry = &taken->entry;
    const size_t header = offsetof(struct entry, rest) / sizeof(word);
    copy_out(entry, from, header);
    size_t rest = entry->meta_size;
    if (entry->meta_segment || rest > INLINE)
        return NOT_MINE;
    if (!entry->segment) {
        if (entry->size > INLINE - rest)
            return NOT_MINE;
        rest += entry->size;
    }
    copy_out(entry->rest, from + header, (rest + sizeof(word) - 1) / sizeof(word));
    taken->borrow = NULL;
    if (entry->segment)
        return borrow(state, inlet, taken);
    /* Acquire: the entry comes before the second look at HEAD. Pairs with the fence after a push,
       which keeps HEAD before the entry that laps this one. */
    atomic_thread_fence(memory_order_acquire);
    return DONE;
}

static void count_taken(struct inlet *inlet, uint64_t stamp)
{
    struct words *words = &inlet->words;
    /* Release: TAIL comes before. Pairs with the acquire in `counters`. */
    write_word(words, inlet->base + RING_RECEIVED, ++inlet->received, memory_order_release);
    int64_t latency = stamp > INT64_MAX ? -1 : realtime_ns() - (int64_t)stamp;
    if (latency < 0 || latency >= BEYOND_NS)
        /* A clock was set, or the sender's is ahead by having seen another's. */
        latency = 0;
    bool first = !inlet->latency.given;
    int64_t last = (int64_t)inlet->latency.value;
    inlet->latency = (struct optional){true, (uint64_t)latency};
    uint64_t change = (uint64_t)(latency > last ? latency - last : last - latency);
    if (inlet->latency_sum > UINT64_MAX - (uint64_t)latency ||
        (!first && inlet->latency_diff > UINT64_MAX - change)) {
        /* Only a sender whose timestamps are wrong on purpose gets past 64 bits. */
        inlet->latency_sum = inlet->latency_diff = 0;
        return;
    }
    inlet->latency_sum += (uint64_t)latency;
    write_word(words, inlet->base + RING_LATENCY_SUM, inlet->latency_sum, memory_order_relaxed);
    if (!first) {
        inlet->latency_diff += change;
        write_word(words, inlet->base + RING_LATENCY_DIFF, inlet->latency_diff,
                   memory_order_relaxed);
    }
}

/* Wake a producer that waits for room. */
static enum outcome make_room_known(struct inlet *inlet)
{
    /* We stored TAIL and look at WAITING; pairs with the fence of `announce_waiting`, which stores
       WAITING and looks at TAIL. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!read_word(&inlet->words, inlet->base + RING_WAITING, memory_order_relaxed))
        return DONE;
    long bell = PyLong_AsLong(inlet->space_bell);
    if (bell == -1 && PyErr_Occurred())
        return FAILED;
    return ring_bell((int)bell) < 0 ? FAILED : DONE;
}

/* Take the next message; see `Inlet.take`. */
enum outcome take(const struct state *state, struct inlet *inlet, struct taken *taken)
{
    struct words *words = &inlet->words;
    taken->borrow = NULL;
    if (!inlet->plain || !lies_in(words, inlet->base, inlet->entries, inlet->mask))
        return NOT_MINE;
    for (int lap = 0; lap < MAX_LAPS; lap++) {
        /* Acquire: the entry comes after. Pairs with the release in `push`. */
        uint64_t head = read_word(words, inlet->base + RING_HEAD, memory_order_acquire);
        if (read_word(words, inlet->base + RING_LANE_HEAD, memory_order_acquire) !=
            inlet->lane_tail)
            return NOT_MINE;
        uint64_t tail = inlet->tail;
        if (head == tail || (inlet->limit.given && tail >= inlet->limit.value))
            return NOTHING;
        if (head < tail)
            return NOT_MINE; /* HEAD was overwritten. */
        if (head - tail > inlet->queue_size) {
            inlet->tail = head - inlet->queue_size;
            write_word(words, inlet->base + RING_TAIL, inlet->tail, memory_order_release);
            continue;
        }
        const word *entries = words->at + inlet->entries / sizeof(word);
        size_t slot = (size_t)(tail & inlet->mask);
        enum outcome outcome =
            read_entry(state, inlet, entries + slot * (ENTRY_SIZE / sizeof(word)), taken);
        if (outcome == DONE && inlet->tail == tail &&
            read_word(words, inlet->base + RING_HEAD, memory_order_relaxed) - tail <=
                inlet->queue_size) {
            inlet->tail = tail + 1;
            /* Release: the entry was copied out before. Pairs with the load in is_full. */
            write_word(words, inlet->base + RING_TAIL, inlet->tail, memory_order_release);
            count_taken(inlet, taken->entry.stamp);
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
    if (outcome == FAILED)
        return NULL;
    const struct entry *entry = &taken.entry;
    const bool borrowed = taken.borrow != NULL;
    /* No bytes from no address: None. "N" takes over the borrow. */
    return Py_BuildValue("(KiKKKy#NKy#)", (unsigned long long)entry->stamp, (int)entry->code,
                         (unsigned long long)entry->length, (unsigned long long)entry->nulls,
                         (unsigned long long)entry->size,
                         borrowed ? NULL : entry->rest + entry->meta_size,
                         borrowed ? (Py_ssize_t)0 : (Py_ssize_t)entry->size,
                         borrowed ? taken.borrow : Py_NewRef(Py_None),
                         borrowed ? (unsigned long long)entry->offset : 0ULL, entry->rest,
                         (Py_ssize_t)entry->meta_size);
}

/* Return what `Inlet.take_copies` does of a message that was taken. */
static PyObject *copy_of(const struct inlet *inlet, const struct taken *taken)
{
    const struct entry *entry = &taken->entry;
    const char *payload =
        taken->borrow == NULL ? entry->rest + entry->meta_size : taken->address;
    return Py_BuildValue("(KK(iKKy#y#))", (unsigned long long)entry->stamp,
                         inlet->tail + inlet->lane_tail - 1, (int)entry->code,
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
