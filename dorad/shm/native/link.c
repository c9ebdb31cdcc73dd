/* The short ways of a message through a link: `LoopSleep.sleep`, with `DirectOut.send`, and
   `DirectIn.take` of dorad/link/direct.py, for plain messages within an entry's metadata.

   A frame comes from another machine: each field is checked before it is used, as in Python, and
   what fails a check is "not mine". */

#include "native.h"

#include <errno.h>
#include <sys/epoll.h>

#define MAX_NUMBER (UINT64_MAX >> 1)
#define MAX_DIRECT (256 << 10)
#define OPENING 16 /* bytes that all messages of an opening begin with */

/* The header of a message; its metadata and payload follow. See dorad/link/frames.py. */
struct __attribute__((packed)) frame {
    uint8_t opening[OPENING]; /* kind, version, channel, opening, incarnation */
    uint64_t sequence, number, stamp, length, nulls, size;
    uint32_t meta_size;
    uint8_t code, flags;
};

/* Frames are little-endian. */
#define IS_USABLE (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)

static uint16_t channel_of(const struct frame *frame)
{
    return (uint16_t)(frame->opening[2] | frame->opening[3] << 8);
}

/* -- sending ----------------------------------------------------------------------------------- */

/* Return whether the entry may have flags; see `is_marked` of dorad/link/forward.py. */
static bool is_marked(const char *metadata, size_t size)
{
    static const char *const keys[] = {"\"request_id\"", "\"goal_id\"", "\"goal_status\"",
                                       "\"flush\""};
    for (size_t at = 0; size > 0 && at < sizeof keys / sizeof *keys; at++)
        if (memmem(metadata, size, keys[at], strlen(keys[at])) != NULL)
            return true;
    return false;
}

/* Return the frame of a message. */
static PyObject *frame_of(const struct direct_out *out, const struct taken *taken, uint64_t number)
{
    const struct dora_entry *entry = &taken->entry;
    size_t meta_size = entry->meta_size, size = entry->size;
    PyObject *made =
        PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(sizeof(struct frame) + meta_size + size));
    if (made == NULL)
        return NULL;
    struct frame head = {.sequence = out->sequence,
                         .number = number,
                         .stamp = entry->stamp,
                         .length = entry->length,
                         .nulls = entry->nulls,
                         .size = size,
                         .meta_size = (uint32_t)meta_size,
                         .code = entry->code};
    memcpy(head.opening, PyBytes_AsString(out->opening), OPENING);
    char *to = PyBytes_AsString(made);
    memcpy(to, &head, sizeof head);
    memcpy(to + sizeof head, entry->rest, meta_size);
    memcpy(to + sizeof head + meta_size,
           taken->borrow == NULL ? entry->rest + meta_size : taken->address, size);
    return made;
}

/* Send the next message of a queue; see `DirectOut.send`. Where Python has to take it, it stays. */
static bool send_next(const struct state *state, struct direct_out *out)
{
    struct inlet *inlet = (struct inlet *)out->inlet;
    if (!is(state, out->inlet, INLET) || !PyBytes_Check(out->opening) ||
        PyBytes_Size(out->opening) != OPENING)
        return true;
    struct taken taken;
    enum outcome outcome = take(state, inlet, &taken);
    if (outcome != DONE)
        return outcome != FAILED;
    const struct dora_entry *entry = &taken.entry;
    int64_t number = out->offset + (int64_t)inlet->ring.received - 1;
    if (number < out->lowest || entry->size > out->room ||
        entry->meta_size > out->room - entry->size || is_marked(entry->rest, entry->meta_size)) {
        put_in_place(&out->unsent, object_of(&taken));
        return out->unsent != NULL;
    }
    PyObject *frame = frame_of(out, &taken, (uint64_t)number);
    if (frame == NULL) {
        put_in_place(&out->unsent, object_of(&taken));
        return false;
    }
    put_in_place(&out->frame, frame);
    /* The copy is what is kept: the sender gets its sample back. */
    Py_CLEAR(taken.borrow);
    PyObject *done = PyObject_CallFunctionObjArgs(out->put, frame, NULL);
    if (done == NULL) {
        PyObject *type, *error, *trace;
        PyErr_Fetch(&type, &error, &trace);
        PyErr_NormalizeException(&type, &error, &trace);
        put_in_place(&out->error, error);
        Py_XDECREF(type);
        Py_XDECREF(trace);
    }
    Py_XDECREF(done);
    return true;
}

/* Sleep until a descriptor is ready or the time is over, without the lock of the loop. Return how
   many descriptors are ready, -1 with an exception. */
static int sleep_unlocked(const struct state *state, const struct loop_sleep *loop, int64_t due,
                          struct epoll_event *ready)
{
    int found, code;
    if (!call(loop->working, state->names.release, NULL))
        return -1;
    Py_BEGIN_ALLOW_THREADS
    found = dora_sleep(loop->epoll, &due, false, ready);
    code = errno;
    Py_END_ALLOW_THREADS
    bool locked = call(loop->working, state->names.acquire, NULL);
    dora_wake_up(loop->words.span);
    if (!locked)
        return -1;
    return check_sleep(found, code);
}

/* Sleep, then send the next message of each prepared channel; see `LoopSleep.sleep`. */
PyObject *step_loop_sleep(METHOD_ARGUMENTS)
{
    const struct state *state = PyType_GetModuleState(class);
    struct loop_sleep *loop = (struct loop_sleep *)object;
    if (count != 1 || keywords != NULL || !PyLong_Check(arguments[0]) || !IS_USABLE ||
        loop->working == NULL || loop->prepared == NULL || !PyList_Check(loop->prepared) ||
        loop->words.span.count < BOX_WORDS)
        return fall_back(state, SLEEP, object, arguments, count, keywords);
    int overflow;
    int64_t nanos = PyLong_AsLongLongAndOverflow(arguments[0], &overflow);
    int64_t now = dora_monotonic_ns();
    struct epoll_event ready[DORA_MAX_READY];
    int found = sleep_unlocked(state, loop,
                               overflow > 0 || nanos > INT64_MAX - now ? INT64_MAX : now + nanos,
                               ready);
    if (found < 0)
        return NULL;
    PyObject *prepared = Py_NewRef(loop->prepared);
    bool sent = true;
    for (Py_ssize_t at = 0; sent && at < PyList_Size(prepared); at++) {
        PyObject *each = PyList_GetItem(prepared, at);
        if (is(state, each, DIRECT_OUT))
            sent = send_next(state, (struct direct_out *)each);
    }
    Py_DECREF(prepared);
    PyObject *descriptors = sent ? PyList_New(0) : NULL;
    for (int at = 0; descriptors != NULL && at < found; at++) {
        PyObject *number = PyLong_FromLong(ready[at].data.fd);
        if (number == NULL || PyList_Append(descriptors, number) < 0)
            Py_CLEAR(descriptors);
        Py_XDECREF(number);
    }
    return descriptors;
}

/* -- receiving --------------------------------------------------------------------------------- */

/* A sample that is one whole message, with all that delivering it needs. */
struct whole {
    struct frame head;
    const char *rest;   /* metadata, then payload */
    struct in *in;
    struct incoming *channel;
    PyObject *outlets;  /* held */
    PyObject *numbering; /* its id, of `reached` */
};

static bool has_number(PyObject *object, uint64_t number)
{
    unsigned long long found =
        object != NULL && PyLong_Check(object) ? PyLong_AsUnsignedLongLong(object) : (uint64_t)-1;
    if (found == (unsigned long long)-1)
        PyErr_Clear();
    return found == number;
}

/* Return whether all receivers have everything before the message; see `Delivery.push`. */
static bool is_next(const struct direct_in *own, struct whole *whole)
{
    PyObject *reached = PyDict_GetItem(own->reached, whole->in->output);
    PyObject *numbering = whole->channel->numbering;
    if (reached == NULL || !PyTuple_Check(reached) || PyTuple_Size(reached) != 3 ||
        numbering == NULL || !PyTuple_Check(numbering) || PyTuple_Size(numbering) != 2)
        return false;
    whole->numbering = PyTuple_GetItem(reached, 1);
    unsigned long long id = PyLong_Check(whole->numbering)
                                ? PyLong_AsUnsignedLongLong(whole->numbering)
                                : (unsigned long long)-1;
    if (id == (unsigned long long)-1)
        PyErr_Clear();
    return PyTuple_GetItem(reached, 0) == whole->outlets && id != (unsigned long long)-1 &&
           has_number(PyTuple_GetItem(numbering, 0), id) &&
           has_number(PyTuple_GetItem(reached, 2), whole->head.number);
}

/* Find the channel of a message, and check that it is the next one there. */
static bool find_channel(const struct state *state, const struct direct_in *own,
                         struct whole *whole)
{
    const struct frame *head = &whole->head;
    PyObject *number = PyLong_FromLong(channel_of(head));
    whole->in = number == NULL ? NULL : (struct in *)PyDict_GetItem(own->ins, number);
    Py_XDECREF(number);
    if (!is(state, (PyObject *)whole->in, IN) || !is(state, whole->in->channel, INCOMING) ||
        whole->in->origin == NULL || whole->in->output == NULL ||
        PyUnicode_Compare(whole->in->origin, own->machine) != 0)
        return false;
    struct incoming *channel = whole->channel = (struct incoming *)whole->in->channel;
    return channel->prefix != NULL && PyBytes_Check(channel->prefix) &&
           PyBytes_Size(channel->prefix) == OPENING &&
           memcmp(PyBytes_AsString(channel->prefix), head->opening, OPENING) == 0 &&
           channel->assembly == Py_None && PyObject_Size(channel->arrived) == 0 &&
           head->sequence >= channel->next && head->sequence <= MAX_NUMBER &&
           head->size <= channel->max_size;
}

/* Return whether a message may carry a trace context, which Python records; see `push`. */
static bool has_context(const char *metadata, size_t size)
{
    static const char key[] = "traceparent";
    return size > 0 && memmem(metadata, size, key, sizeof key - 1) != NULL;
}

/* Find where a sample goes; false where Python has to. */
static bool find(const struct state *state, const struct direct_in *own, PyObject *data,
                 struct whole *whole)
{
    size_t length = (size_t)PyBytes_Size(data);
    struct frame *head = &whole->head;
    if (length < sizeof *head)
        return false;
    memcpy(head, PyBytes_AsString(data), sizeof *head);
    whole->rest = PyBytes_AsString(data) + sizeof *head;
    length -= sizeof *head;
    if (head->meta_size > INLINE || head->meta_size > length ||
        head->size != length - head->meta_size || head->flags ||
        has_context(whole->rest, head->meta_size) || !find_channel(state, own, whole))
        return false;
    whole->outlets = Py_XNewRef(PyDict_GetItem(own->outlets, whole->in->output));
    return whole->outlets != NULL && is_next(own, whole) && all_take(state, whole->outlets);
}

/* Count a message that was pushed; return whether an acknowledgement is due, -1 with an exception. */
static int count_passed(const struct direct_in *own, const struct whole *whole)
{
    const struct frame *head = &whole->head;
    struct incoming *channel = whole->channel;
    uint64_t size = head->size + head->meta_size;
    uint64_t latency = (uint64_t)dora_realtime_ns() - head->stamp;
    channel->next = head->sequence + 1;
    channel->received++;
    channel->bytes += size;
    channel->bytes_handled += size;
    whole->in->latencies++;
    /* A stamp that is ahead wraps around, beyond the limit. */
    whole->in->latency_ns += latency < BEYOND_NS ? latency : 0;
    PyObject *reached = Py_BuildValue("(OOK)", whole->outlets, whole->numbering,
                                      (unsigned long long)head->number + 1);
    int failed = reached == NULL ? -1 : PyDict_SetItem(own->reached, whole->in->output, reached);
    Py_XDECREF(reached);
    if (failed)
        return -1;
    int64_t messages = (int64_t)(channel->next - channel->acked_next);
    int64_t bytes = (int64_t)(channel->bytes - channel->acked_bytes);
    return messages >= (int64_t)channel->ack_messages || bytes >= (int64_t)channel->ack_bytes;
}

/* Deliver the data of a sample. The caller has the lock of the loop, and holds `data`. */
static enum outcome deliver(const struct state *state, const struct direct_in *own, PyObject *data)
{
    struct whole whole = {0};
    enum outcome outcome = NOT_MINE;
    struct loop_sleep *loop = (struct loop_sleep *)own->sleep;
    if (find(state, own, data, &whole)) {
        const struct frame *head = &whole.head;
        struct message message = {.outlets = whole.outlets, .stamp = head->stamp};
        message.metadata_size = head->meta_size;
        memcpy(message.metadata, whole.rest, head->meta_size);
        message.encoded.code = head->code;
        message.encoded.length = head->length;
        message.encoded.nulls = head->nulls;
        message.encoded.size = head->size;
        message.encoded.values = whole.rest + head->meta_size;
        Py_INCREF((PyObject *)whole.in);
        outcome = push_message(state, own->pool, Py_None, &message);
        if (outcome == DONE) {
            int due = count_passed(own, &whole);
            loop->had_data = true;
            if (due < 0 || ((due || !loop->wakes_soon) && !call(own->sleep, state->names.wake, NULL)))
                outcome = FAILED;
        }
        Py_DECREF((PyObject *)whole.in);
    }
    Py_XDECREF(whole.outlets);
    return outcome;
}

/* Return the bytes of a sample if it may be one whole message; NULL, with or without exception. */
static PyObject *data_of(const struct state *state, PyObject *sample)
{
    PyObject *payload = PyObject_GetAttr(sample, state->names.payload), *data = NULL;
    Py_ssize_t size = payload == NULL ? -1 : PyObject_Size(payload);
    if (size >= (Py_ssize_t)sizeof(struct frame) && size <= MAX_DIRECT)
        data = PyObject_CallMethodObjArgs(payload, state->names.to_bytes, NULL);
    Py_XDECREF(payload);
    if (data != NULL && !PyBytes_Check(data))
        Py_CLEAR(data);
    return data;
}

/* Let the loop raise the exception; see `LoopSleep.fail`. */
static void report(const struct state *state, PyObject *loop)
{
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    call(loop, state->names.fail, error);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
}

/* Deliver a sample while the loop sleeps. */
static enum outcome take_sample_of(const struct state *state, const struct direct_in *own,
                                   PyObject *sample)
{
    const struct loop_sleep *loop = (struct loop_sleep *)own->sleep;
    PyObject *locked =
        PyObject_CallMethodObjArgs(loop->working, state->names.acquire, Py_False, NULL);
    Py_XDECREF(locked);
    if (locked != Py_True)
        return locked == NULL ? FAILED : NOT_MINE;
    PyObject *data = data_of(state, sample);
    enum outcome outcome = data != NULL ? deliver(state, own, data) : NOT_MINE;
    Py_XDECREF(data);
    if (outcome == FAILED)
        report(state, own->sleep);
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    bool released = call(loop->working, state->names.release, NULL);
    if (released)
        PyErr_Restore(type, error, trace);
    return released ? outcome : FAILED;
}

/* Deliver a sample of Zenoh; see `DirectIn.take`. */
PyObject *step_take_direct(METHOD_ARGUMENTS)
{
    static _Thread_local bool is_known;
    const struct state *state = PyType_GetModuleState(class);
    const struct direct_in *own = (struct direct_in *)object;
    bool usable = is_known && count == 1 && keywords == NULL && IS_USABLE &&
                  is(state, own->sleep, LOOP_SLEEP) && own->queue != NULL && own->ins != NULL &&
                  PyDict_Check(own->ins) && own->outlets != NULL && PyDict_Check(own->outlets) &&
                  own->reached != NULL && PyDict_Check(own->reached) && own->machine != NULL &&
                  ((struct loop_sleep *)own->sleep)->working != NULL &&
                  PyObject_Size(own->queue) == 0;
    is_known = true; /* Python lets the interpreter keep its state of the thread. */
    enum outcome outcome = usable ? take_sample_of(state, own, arguments[0]) : NOT_MINE;
    if (outcome == NOT_MINE) {
        PyErr_Clear();
        return fall_back(state, TAKE_DIRECT, object, arguments, count, keywords);
    }
    if (outcome == FAILED && PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}
