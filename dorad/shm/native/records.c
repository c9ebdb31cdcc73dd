/* The records of small messages in a chunk of a recording: `pack_small` of dorad/record/mcap/chunk.py.

   Numbers in a recording are little-endian. */

#include "native.h"

#define OP_MESSAGE 5
#define SMALL (16 << 10)
#define HEAD 31       /* opcode, length, channel, sequence, log time, publish time */
#define HEAD_BEFORE 9 /* opcode and length, which the length does not count */
#define MAX_PREFIX 8  /* tag and length of a part */
#define PAYLOAD_TAG "\x0a"
#define METADATA_TAG "\xa2\x06"

/* A part of a message: bytes behind an optional tag and their length. */
struct part {
    const char *data;
    Py_ssize_t size;
    char prefix[MAX_PREFIX];
    size_t prefix_size;
};

static char *put(char *to, uint64_t value, size_t size)
{
    for (size_t at = 0; at < size; at++, value >>= 8)
        *to++ = (char)(value & 0xff);
    return to;
}

static bool get_part(PyObject *object, struct part *part)
{
    char *data;
    part->prefix_size = 0;
    if (object == NULL || !PyBytes_Check(object) ||
        PyBytes_AsStringAndSize(object, &data, &part->size) < 0)
        return false;
    part->data = data;
    return part->size <= SMALL;
}

static void add_prefix(struct part *part, const char *tag)
{
    size_t length = strlen(tag);
    memcpy(part->prefix, tag, length);
    uint64_t left = (uint64_t)part->size;
    for (; left >= 0x80; left >>= 7)
        part->prefix[length++] = (char)(left | 0x80);
    part->prefix[length++] = (char)left;
    part->prefix_size = length;
}

static size_t size_of(const struct part *parts)
{
    size_t size = 0;
    for (int at = 0; at < 3; at++)
        size += parts[at].prefix_size + (size_t)parts[at].size;
    return size;
}

/* Find the parts of a message as it was in a ring; return false if it is not plain. */
static bool split_raw(PyObject *content, PyObject *channel, struct part *parts)
{
    long code = PyLong_AsLong(PyTuple_GetItem(content, 0));
    uint64_t length = PyLong_AsUnsignedLongLong(PyTuple_GetItem(content, 1));
    uint64_t nulls = PyLong_AsUnsignedLongLong(PyTuple_GetItem(content, 2));
    if (PyErr_Occurred() || !PyLong_Check(PyTuple_GetItem(channel, 0)))
        return false;
    long expected = PyLong_AsLong(PyTuple_GetItem(channel, 0));
    uint64_t width = PyLong_AsUnsignedLongLong(PyTuple_GetItem(channel, 1));
    if (PyErr_Occurred() || code != expected || nulls != 0 || length > SMALL || width > SMALL ||
        !get_part(PyTuple_GetItem(content, 3), &parts[0]) ||
        !get_part(PyTuple_GetItem(content, 4), &parts[1]) ||
        length * width != (uint64_t)parts[0].size)
        return false;
    if (parts[1].size > 0) {
        if (memmem(parts[1].data, (size_t)parts[1].size, "\"encoding\"", 10) != NULL)
            return false; /* It may be a picture. */
        add_prefix(&parts[1], METADATA_TAG);
    }
    add_prefix(&parts[0], PAYLOAD_TAG);
    parts[2] = (struct part){0};
    return true;
}

/* Find the parts of a message that is encoded; return false if it is not small. */
static bool split_encoded(PyObject *content, PyObject *channel, struct part *parts)
{
    if (PyTuple_GetItem(content, 0) != PyTuple_GetItem(channel, 0))
        return false;
    for (int at = 0; at < 3; at++)
        if (!get_part(PyTuple_GetItem(content, at + 1), &parts[at]))
            return false;
    return size_of(parts) <= SMALL;
}

/* Append one message; return DONE, or NOT_MINE before anything has changed. */
static enum outcome pack(PyObject *into, Py_ssize_t before, PyObject *item, PyObject *known)
{
    if (!PyTuple_Check(item) || PyTuple_Size(item) != 4)
        return NOT_MINE;
    PyObject *channel = PyDict_GetItemWithError(known, PyTuple_GetItem(item, 1));
    PyObject *content = PyTuple_GetItem(item, 3);
    if (channel == NULL || !PyTuple_Check(channel) || PyTuple_Size(channel) != 4 ||
        !PyTuple_Check(content))
        return NOT_MINE;
    struct part parts[3];
    bool plain = PyTuple_Size(content) == 5   ? split_raw(content, channel, parts)
                 : PyTuple_Size(content) == 4 ? split_encoded(content, channel, parts)
                                              : false;
    uint64_t stamp = PyLong_AsUnsignedLongLong(PyTuple_GetItem(item, 0));
    uint64_t sequence = PyLong_AsUnsignedLongLongMask(PyTuple_GetItem(item, 2));
    uint64_t id = PyLong_AsUnsignedLongLong(PyTuple_GetItem(channel, 2));
    PyObject *index = PyTuple_GetItem(channel, 3);
    if (!plain || PyErr_Occurred() || !PyByteArray_Check(index))
        return NOT_MINE;
    Py_ssize_t begin = PyByteArray_Size(into), entries = PyByteArray_Size(index);
    size_t size = size_of(parts);
    if (PyByteArray_Resize(index, entries + 16) < 0)
        return FAILED;
    if (PyByteArray_Resize(into, begin + HEAD + (Py_ssize_t)size) < 0)
        return FAILED;
    char *to = PyByteArray_AsString(index) + entries;
    put(put(to, stamp, 8), (uint64_t)(before + begin), 8);
    to = PyByteArray_AsString(into) + begin;
    *to++ = OP_MESSAGE;
    to = put(to, HEAD - HEAD_BEFORE + size, 8);
    to = put(to, id, 2);
    to = put(to, sequence, 4);
    to = put(put(to, stamp, 8), stamp, 8);
    for (int at = 0; at < 3; at++) {
        memcpy(to, parts[at].prefix, parts[at].prefix_size);
        to += parts[at].prefix_size;
        if (parts[at].size > 0)
            memcpy(to, parts[at].data, (size_t)parts[at].size);
        to += parts[at].size;
    }
    return DONE;
}

PyObject *pack_small(PyObject *module, PyObject *arguments)
{
    (void)module;
    PyObject *into, *items, *known;
    Py_ssize_t before, at, room;
    if (!PyArg_ParseTuple(arguments, "O!nO!nO!n", &PyByteArray_Type, &into, &before, &PyList_Type,
                          &items, &at, &PyDict_Type, &known, &room))
        return NULL;
    enum outcome outcome = DONE;
    while (outcome == DONE && at < PyList_Size(items) && PyByteArray_Size(into) < room) {
        outcome = pack(into, before, PyList_GetItem(items, at), known);
        if (outcome == NOT_MINE)
            PyErr_Clear(); /* Python meets it again, and reports it. */
        at += outcome == DONE;
    }
    return outcome == FAILED ? NULL : PyLong_FromSsize_t(at);
}
