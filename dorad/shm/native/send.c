/* `Sender.send` of dorad/node/sender.py, for arrays with a form and plain metadata, and
   `Pool.push` of dorad/shm/pool.py, for metadata that fit into an entry. */

#include "native.h"

static PyObject *outlet_at(PyObject *outlets, Py_ssize_t at)
{
    return PyTuple_GetItem(outlets, at);
}

bool all_take(const struct state *state, PyObject *outlets)
{
    if (outlets == NULL || !PyTuple_Check(outlets) || PyTuple_Size(outlets) == 0)
        return false;
    for (Py_ssize_t at = 0; at < PyTuple_Size(outlets); at++) {
        struct outlet *outlet = (struct outlet *)outlet_at(outlets, at);
        if (!is(state, (PyObject *)outlet, OUTLET) || !is_usable(outlet) ||
            !is(state, outlet->peer, PEER) || ((struct peer *)outlet->peer)->words.span.count < BOX_WORDS ||
            (outlet->ring.blocking && dora_ring_is_full(outlet->words.span, &outlet->ring)))
            return false;
    }
    return true;
}

static size_t begin_entry(const struct message *message, struct dora_entry *entry)
{
    const struct encoded *encoded = &message->encoded;
    entry->stamp = message->stamp;
    entry->length = encoded->length;
    entry->nulls = encoded->nulls;
    entry->size = encoded->size;
    entry->offset = entry->meta_offset = 0;
    entry->segment = entry->meta_segment = 0;
    entry->meta_size = (uint32_t)message->metadata_size;
    entry->code = encoded->code;
    entry->spare = 0;
    entry->flags = message->flags;
    memcpy(entry->rest, message->metadata, message->metadata_size);
    return offsetof(struct dora_entry, rest) + message->metadata_size;
}

static void push_to_all(const struct message *message, const struct dora_entry *entry, size_t length)
{
    for (Py_ssize_t at = 0; at < PyTuple_Size(message->outlets); at++) {
        struct outlet *outlet = (struct outlet *)outlet_at(message->outlets, at);
        dora_ring_push(outlet->words.span, &outlet->ring, entry, length, entry->size,
                       message->stamp);
    }
}

static void push_inline(const struct message *message)
{
    struct dora_entry entry;
    size_t length = begin_entry(message, &entry);
    if (message->encoded.written.parts != NULL)
        memset((char *)&entry + length, 0, message->encoded.size); /* between its parts */
    place(&message->encoded, (char *)&entry + length);
    push_to_all(message, &entry, length + message->encoded.size);
}

static void push_place(const struct message *message, const struct sample *sample)
{
    struct dora_entry entry;
    size_t length = begin_entry(message, &entry);
    entry.offset = sample->offset;
    entry.segment = (uint32_t)(sample->key >> KEY_SEGMENT);
    push_to_all(message, &entry, length);
}

/* Find the sample of a SharedArray, or a free one to copy the bytes to `address`. */
static enum outcome find_sample(const struct state *state, const struct sender *sender,
                                const struct encoded *encoded, struct sample **sample,
                                char **address)
{
    *address = NULL;
    if (encoded->shared == NULL) {
        struct mapping *mapping;
        enum outcome outcome = take_sample(state, sender->pool, encoded->size, sample, &mapping);
        if (outcome == DONE)
            *address = (char *)mapping->words.span.at + (*sample)->offset;
        return outcome;
    }
    if (!is(state, encoded->shared->sample, SAMPLE) || !is(state, sender->pool, POOL))
        return NOT_MINE;
    *sample = (struct sample *)Py_NewRef(encoded->shared->sample);
    return DONE;
}

/* Return what the sample is pushed as: a list of (outlet, index). */
static PyObject *marks_of(PyObject *outlets)
{
    PyObject *marks = PyList_New(PyTuple_Size(outlets));
    for (Py_ssize_t at = 0; marks != NULL && at < PyTuple_Size(outlets); at++) {
        PyObject *outlet = outlet_at(outlets, at);
        PyObject *index = PyLong_FromUnsignedLongLong(((struct outlet *)outlet)->ring.head);
        PyObject *mark = index == NULL ? NULL : PyTuple_Pack(2, outlet, index);
        Py_XDECREF(index);
        if (mark == NULL || PyList_SetItem(marks, at, mark) < 0)
            Py_CLEAR(marks);
    }
    return marks;
}

static enum outcome push_sample(const struct state *state, const struct sender *sender,
                                struct message *message)
{
    const struct encoded *encoded = &message->encoded;
    PyObject *marks = marks_of(message->outlets);
    if (marks == NULL)
        return FAILED;
    struct sample *sample = NULL;
    char *address;
    enum outcome outcome = find_sample(state, sender, encoded, &sample, &address);
    if (outcome == DONE) {
        message->stamp = dora_clock_now(sender->words.span, &((struct clock *)sender->clock)->last);
        if (address != NULL)
            place(encoded, address);
        push_place(message, sample);
        if (sample_sent(state, (struct pool *)sender->pool, sample, marks) < 0)
            outcome = FAILED;
        Py_DECREF(sample);
    }
    Py_DECREF(marks);
    return outcome;
}

static enum outcome wake_all(PyObject *outlets)
{
    dora_ring_pushed();
    enum outcome outcome = DONE;
    for (Py_ssize_t at = 0; at < PyTuple_Size(outlets); at++) {
        struct peer *peer = (struct peer *)((struct outlet *)outlet_at(outlets, at))->peer;
        if (dora_is_asleep(peer->words.span) && ring_bell(peer->bell) < 0)
            outcome = FAILED;
    }
    return outcome;
}

/* The caller has marked the sender as busy. */
static enum outcome send(const struct state *state, struct sender *sender, PyObject *output,
                         PyObject *data, struct message *message)
{
    const struct connection *connection = (struct connection *)sender->connection;
    if (sender->words.span.count < BOX_WORDS ||
        dora_has_mail(sender->words.span, connection->mail))
        return NOT_MINE;
    PyObject *outlets = connection->outlets != NULL && PyDict_Check(connection->outlets)
                            ? PyDict_GetItem(connection->outlets, output)
                            : NULL;
    /* Held: what runs while memory is found (a finalizer, another thread) may connect others. */
    message->outlets = Py_XNewRef(outlets);
    if (!all_take(state, outlets))
        return NOT_MINE;
    enum outcome outcome = encode_array(state, sender, data, &message->encoded);
    if (outcome != DONE)
        return outcome;
    const struct encoded *encoded = &message->encoded;
    if (encoded->shared == NULL && encoded->size + message->metadata_size <= INLINE) {
        message->stamp = dora_clock_now(sender->words.span, &((struct clock *)sender->clock)->last);
        push_inline(message);
    } else
        outcome = push_sample(state, sender, message);
    if (outcome != NOT_MINE && wake_all(outlets) == FAILED)
        outcome = FAILED;
    if (outcome == DONE) {
        uint64_t key = ((struct outlet *)outlet_at(outlets, 0))->output;
        dora_hop_sent(sender->words.span, key, message->stamp, message->stamp, encoded->size);
        dora_hop_context(sender->words.span, key, message->stamp, message->metadata,
                         message->metadata_size);
    }
    return outcome;
}

static bool finish(const struct state *state, struct sender *sender, const struct message *message)
{
    if ((int64_t)message->stamp > sender->trim_due_ns) {
        PyObject *stamp = PyLong_FromUnsignedLongLong(message->stamp);
        bool done = stamp != NULL && call((PyObject *)sender, state->names._trim, stamp);
        Py_XDECREF(stamp);
        if (!done)
            return false;
    }
    return message->encoded.shared == NULL || freeze(state, message->encoded.shared);
}

/* Take the lock, and mark the sender as busy. If another thread has it, or the call that is
   interrupted here: not mine. */
enum outcome enter(const struct state *state, struct sender *sender)
{
    PyObject *locked = PyObject_CallMethodObjArgs(sender->lock, state->names.acquire, Py_False,
                                                  NULL);
    Py_XDECREF(locked);
    if (locked != Py_True)
        return locked == NULL ? FAILED : NOT_MINE;
    if (sender->busy)
        return call(sender->lock, state->names.release, NULL) ? NOT_MINE : FAILED;
    sender->busy = true;
    return DONE;
}

/* Give the lock back; send what signal handlers wanted to send meanwhile. Keeps an exception. */
bool leave(const struct state *state, struct sender *sender)
{
    sender->busy = false;
    PyObject *type, *failure, *trace;
    PyErr_Fetch(&type, &failure, &trace);
    bool done = call(sender->lock, state->names.release, NULL);
    if (done && sender->deferred != NULL && PyObject_IsTrue(sender->deferred) == 1)
        done = call((PyObject *)sender, state->names._flush_deferred, NULL);
    if (type != NULL)
        PyErr_Restore(type, failure, trace);
    return done && type == NULL;
}

/* Send an array on an output. */
PyObject *step_send(METHOD_ARGUMENTS)
{
    const struct state *state = PyType_GetModuleState(class);
    struct sender *sender = (struct sender *)object;
    struct message message = {0};
    int size = -1;
    if (count == 3 && keywords == NULL && sender->lock != NULL && sender->encode != NULL &&
        sender->encode != Py_None && is(state, sender->connection, CONNECTION) &&
        is(state, sender->clock, CLOCK) && !is_abandoned(state, object, SENDER))
        size = encode_metadata(arguments[2], message.metadata, sizeof message.metadata);
    if (size < 0)
        return fall_back(state, SEND, object, arguments, count, keywords);
    message.metadata_size = (size_t)size;
    enum outcome outcome = enter(state, sender);
    if (outcome == FAILED)
        return NULL;
    if (outcome == NOT_MINE)
        return fall_back(state, SEND, object, arguments, count, keywords);
    if (state->enter_task != NULL) {
        PyObject *entered =
            PyObject_CallFunctionObjArgs(state->enter_task, sender->words.view, NULL);
        Py_XDECREF(entered);
        outcome = entered == NULL ? FAILED : DONE;
    }
    if (outcome == DONE)
        outcome = send(state, sender, arguments[0], arguments[1], &message);
    if (outcome == DONE && !finish(state, sender, &message))
        outcome = FAILED;
    if (message.encoded.release != NULL)
        message.encoded.release(&message.encoded);
    Py_XDECREF(message.outlets);
    if (!leave(state, sender))
        return NULL;
    if (outcome == NOT_MINE)
        return fall_back(state, SEND, object, arguments, count, keywords);
    Py_RETURN_NONE;
}

/* -- messages of others ------------------------------------------------------------------------ */

/* Read what `Pool.push` is called with; false where Python has to. */
static bool read_given(PyObject *const *arguments, struct message *message)
{
    struct encoded *encoded = &message->encoded;
    unsigned long long stamp, length, nulls, size;
    char *metadata;
    Py_ssize_t metadata_size;
    if (!PyTuple_Check(arguments[1]) || !PyBytes_Check(arguments[2]) ||
        !PyBytes_Check(arguments[3]) ||
        !PyArg_ParseTuple(arguments[1], "KbKKKH", &stamp, &encoded->code, &length, &nulls, &size,
                          &message->flags) ||
        PyBytes_AsStringAndSize(arguments[2], &metadata, &metadata_size) < 0) {
        PyErr_Clear();
        return false;
    }
    if (metadata_size > INLINE)
        return false;
    memcpy(message->metadata, metadata, (size_t)metadata_size);
    message->metadata_size = (size_t)metadata_size;
    message->outlets = arguments[0];
    message->stamp = stamp;
    encoded->nulls = nulls;
    encoded->length = length;
    encoded->size = size;
    encoded->values = PyBytes_AsString(arguments[3]);
    return true;
}

/* Push a message whose payload lies in a sample, or is copied into one. */
static enum outcome push_in_sample(const struct state *state, PyObject *pool, PyObject *given,
                                   const struct message *message)
{
    const struct encoded *encoded = &message->encoded;
    struct sample *sample = (struct sample *)given;
    struct mapping *mapping;
    PyObject *marks = marks_of(message->outlets);
    if (marks == NULL)
        return FAILED;
    enum outcome outcome = DONE;
    if (given == Py_None) {
        outcome = take_sample(state, pool, encoded->size, &sample, &mapping);
        if (outcome == DONE)
            memcpy((char *)mapping->words.span.at + sample->offset, encoded->values, encoded->size);
    } else if (is(state, given, SAMPLE) && encoded->size <= UINT64_C(1) << sample->order)
        Py_INCREF(given);
    else
        outcome = NOT_MINE;
    if (outcome == DONE) {
        push_place(message, sample);
        if (sample_sent(state, (struct pool *)pool, sample, marks) < 0)
            outcome = FAILED;
        Py_DECREF(sample);
    }
    Py_DECREF(marks);
    return outcome;
}

enum outcome push_message(const struct state *state, PyObject *pool, PyObject *sample,
                          const struct message *message)
{
    enum outcome outcome = DONE;
    if (sample == Py_None && message->encoded.size <= INLINE - message->metadata_size)
        push_inline(message);
    else
        outcome = push_in_sample(state, pool, sample, message);
    if (outcome != NOT_MINE && wake_all(message->outlets) == FAILED)
        outcome = FAILED;
    return outcome;
}

/* Push a message that came from elsewhere, and wake its receivers; see `Pool.push`. */
PyObject *step_push(METHOD_ARGUMENTS)
{
    const struct state *state = PyType_GetModuleState(class);
    struct message message = {0};
    if (count != 5 || keywords != NULL || !read_given(arguments, &message) ||
        !all_take(state, message.outlets))
        return fall_back(state, PUSH, object, arguments, count, keywords);
    const struct encoded *encoded = &message.encoded;
    PyObject *sample = arguments[4];
    if (sample == Py_None && (uint64_t)PyBytes_Size(arguments[3]) != encoded->size)
        return fall_back(state, PUSH, object, arguments, count, keywords);
    enum outcome outcome = push_message(state, object, sample, &message);
    if (outcome == NOT_MINE)
        return fall_back(state, PUSH, object, arguments, count, keywords);
    if (outcome == FAILED)
        return NULL;
    Py_RETURN_NONE;
}
