/* Holding the words of shared memory, and the attributes of Python that are kept as C numbers. */

#include "words.h"

void release_words(struct words *words)
{
    if (words->span.at != NULL)
        PyBuffer_Release(&words->held);
    words->span.at = NULL;
    words->span.count = 0;
    Py_CLEAR(words->view);
}

/* Take hold of the memory that a view of words begins with. Of any other object there are no words
   here: all is left to Python. */
int hold_words(struct words *words, PyObject *view, bool writable)
{
    release_words(words);
    words->view = Py_XNewRef(view);
    if (view == NULL || !PyMemoryView_Check(view))
        return 0;
    /* The exporter is held: the garbage collector may clear a view, but not a buffer of the memory. */
    PyObject *memory = PyObject_GetAttrString(view, "obj");
    Py_buffer seen;
    int failed = memory == NULL ? -1 : PyObject_GetBuffer(view, &seen, PyBUF_SIMPLE);
    if (!failed) {
        failed = PyObject_GetBuffer(memory, &words->held, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE);
        if (!failed && (seen.buf != words->held.buf || seen.len > words->held.len ||
                        (uintptr_t)seen.buf % sizeof(dora_word) != 0)) {
            PyErr_SetString(PyExc_ValueError, "the words do not begin where the memory does");
            PyBuffer_Release(&words->held);
            failed = -1;
        }
        if (!failed) {
            words->span.at = words->held.buf;
            words->span.count = (size_t)seen.len / sizeof(dora_word);
        }
        PyBuffer_Release(&seen);
    }
    Py_XDECREF(memory);
    if (failed)
        Py_CLEAR(words->view);
    return failed;
}

PyObject *get_words(PyObject *self, void *offset)
{
    struct words *words = (struct words *)((char *)self + (uintptr_t)offset);
    if (words->view == NULL) {
        PyErr_SetString(PyExc_AttributeError, "words");
        return NULL;
    }
    return Py_NewRef(words->view);
}

int set_words(PyObject *self, PyObject *view, void *offset)
{
    return hold_words((struct words *)((char *)self + (uintptr_t)offset), view, true);
}

int set_readable_words(PyObject *self, PyObject *view, void *offset)
{
    return hold_words((struct words *)((char *)self + (uintptr_t)offset), view, false);
}

PyObject *get_optional(PyObject *self, void *offset)
{
    struct dora_optional *found = (struct dora_optional *)((char *)self + (uintptr_t)offset);
    return found->given ? PyLong_FromUnsignedLongLong(found->value) : Py_NewRef(Py_None);
}

int set_optional(PyObject *self, PyObject *value, void *offset)
{
    struct dora_optional *into = (struct dora_optional *)((char *)self + (uintptr_t)offset);
    if (value == NULL || value == Py_None) {
        into->given = false;
        return 0;
    }
    unsigned long long number = PyLong_AsUnsignedLongLong(value);
    if (number == (unsigned long long)-1 && PyErr_Occurred())
        return -1;
    *into = (struct dora_optional){true, number};
    return 0;
}

PyObject *get_mail(PyObject *self, void *offset)
{
    struct dora_optional *found = (struct dora_optional *)((char *)self + (uintptr_t)offset);
    return found->given ? PyLong_FromUnsignedLongLong(found->value) : PyLong_FromLong(-1);
}

/* The word may have any value: all senders can write to it. */
int set_mail(PyObject *self, PyObject *value, void *offset)
{
    int overflow;
    if (value != NULL && PyLong_Check(value) &&
        PyLong_AsLongLongAndOverflow(value, &overflow) == -1 && !overflow)
        value = Py_None;
    return set_optional(self, value, offset);
}
