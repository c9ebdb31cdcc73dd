/* The functions of dorad/shm/hops.py, for the steps that Python takes. */

#include "native.h"

static struct dora_words words_of(const Py_buffer *held)
{
    bool aligned = (uintptr_t)held->buf % sizeof(dora_word) == 0;
    return (struct dora_words){held->buf, aligned ? (size_t)held->len / sizeof(dora_word) : 0};
}

/* Read the words of a memoryview and up to four numbers. */
static bool read_arguments(PyObject *arguments, const char *format, Py_buffer *held,
                           struct dora_words *box, unsigned long long *numbers)
{
    if (!PyArg_ParseTuple(arguments, format, held, &numbers[0], &numbers[1], &numbers[2],
                          &numbers[3]))
        return false;
    *box = words_of(held);
    return true;
}

/* A function that reads `format` and makes one call with `box` and `numbers`. */
#define RECORD(name, format, record)                                                               \
    PyObject *name(PyObject *module, PyObject *arguments)                                          \
    {                                                                                              \
        (void)module;                                                                              \
        Py_buffer held;                                                                            \
        struct dora_words box;                                                                     \
        unsigned long long numbers[4];                                                             \
        if (!read_arguments(arguments, format, &held, &box, numbers))                              \
            return NULL;                                                                           \
        record;                                                                                    \
        PyBuffer_Release(&held);                                                                   \
        Py_RETURN_NONE;                                                                            \
    }

RECORD(hop_received, "w*KKKK",
       dora_hop_received(box, numbers[0], numbers[1], numbers[2], numbers[3]))
RECORD(hop_sent, "w*KKKK", dora_hop_sent(box, numbers[0], numbers[1], numbers[2], numbers[3]))

PyObject *hop_context(PyObject *module, PyObject *arguments)
{
    (void)module;
    Py_buffer held;
    unsigned long long output, stamp;
    const char *metadata;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "w*KKy#", &held, &output, &stamp, &metadata, &size))
        return NULL;
    dora_hop_context(words_of(&held), output, stamp, metadata, (size_t)size);
    PyBuffer_Release(&held);
    Py_RETURN_NONE;
}

RECORD(hop_dropped, "w*KKK", dora_hop_dropped(box, numbers[0], numbers[1], numbers[2]))
RECORD(hop_done, "w*", dora_hop_done(box))
RECORD(hop_resume, "w*KKK", dora_hop_resume(box, numbers[0], numbers[1], numbers[2] != 0))

PyObject *hop_taken(PyObject *module, PyObject *arguments)
{
    (void)module;
    Py_buffer held;
    struct dora_words box;
    unsigned long long numbers[4];
    uint64_t base, stamp;
    if (!read_arguments(arguments, "w*", &held, &box, numbers))
        return NULL;
    bool open = dora_hop_taken(box, &base, &stamp);
    PyBuffer_Release(&held);
    return Py_BuildValue("(KKO)", (unsigned long long)base, (unsigned long long)stamp,
                         open ? Py_True : Py_False);
}

/* Return the fields of a record. */
static PyObject *make_hop(const unsigned long long *words)
{
    const unsigned long long fields[] = {
        words[HOP_KIND] & 0xFF,  words[HOP_KIND] >> HOP_THREAD, words[HOP_AT],
        words[HOP_PLACE],        words[HOP_STAMP],              words[HOP_PARENT_PLACE],
        words[HOP_PARENT_STAMP], words[HOP_VALUE],
    };
    const Py_ssize_t count = sizeof fields / sizeof *fields;
    PyObject *hop = PyTuple_New(count);
    for (Py_ssize_t at = 0; hop != NULL && at < count; at++) {
        PyObject *number = PyLong_FromUnsignedLongLong(fields[at]);
        if (number == NULL || PyTuple_SetItem(hop, at, number) < 0)
            Py_CLEAR(hop);
    }
    return hop;
}

/* The loop of dorad/shm/hoplog.py: read. Return the records, where the next one is, and how many were
   overwritten and damaged. */
PyObject *hop_read(PyObject *module, PyObject *arguments)
{
    (void)module;
    Py_buffer held;
    unsigned long long at, head, seen, max_ahead, latest;
    if (!PyArg_ParseTuple(arguments, "w*KKKKK", &held, &at, &head, &seen, &max_ahead, &latest))
        return NULL;
    struct dora_words box = words_of(&held);
    uint64_t overwritten = 0, damaged = 0;
    PyObject *hops = PyList_New(0);
    while (hops != NULL && at != head && box.count >= BOX_WORDS) {
        unsigned long long words[HOP_WORDS];
        for (size_t word = 0; word < HOP_WORDS; word++)
            words[word] = dora_load(box, BOX_HOP_RECORDS + (at & (HOPS - 1)) * HOP_WORDS + word,
                                    memory_order_relaxed);
        uint64_t check = at + 1;
        for (size_t word = HOP_KIND; word < HOP_WORDS; word++)
            check = (check << HOP_TURN | check >> (64 - HOP_TURN)) ^ words[word];
        uint64_t kind = words[HOP_KIND] & 0xFF;
        bool possible = words[HOP_STAMP] <= INT64_MAX &&
                        (words[HOP_AT] <= latest || kind == HOP_CONTEXT);
        if (check == words[HOP_CHECK] && HOP_RECEIVE <= kind && kind <= HOP_CONTEXT && possible) {
            PyObject *hop = make_hop(words);
            if (hop == NULL || PyList_Append(hops, hop) < 0)
                Py_CLEAR(hops);
            Py_XDECREF(hop);
        } else if (check == words[HOP_CHECK]) {
            damaged++;
        } else if (dora_load(box, BOX_HOPS, memory_order_relaxed) - at > HOPS) {
            overwritten++;
        } else if (seen - at - 1 < max_ahead) {
            damaged++;
        } else {
            break;
        }
        at++;
    }
    PyBuffer_Release(&held);
    if (hops == NULL)
        return NULL;
    return Py_BuildValue("(NKKK)", hops, at, (unsigned long long)overwritten,
                         (unsigned long long)damaged);
}

/* Take the function that makes a thread go on with the message of its task. */
PyObject *use_tasks(PyObject *module, PyObject *enter)
{
    struct state *state = PyModule_GetState(module);
    put_in_place(&state->enter_task, Py_NewRef(enter));
    Py_RETURN_NONE;
}

/* Set whether the daemon steps this process; see dorad/shm/stepping.py. */
PyObject *allow_steps(PyObject *module, PyObject *allowed)
{
    (void)module;
    dora_may_be_stepped = allowed == Py_True;
    Py_RETURN_NONE;
}
