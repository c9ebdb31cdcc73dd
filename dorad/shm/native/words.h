/* Words of shared memory, and the attributes of Python that are kept as C numbers; see words.c. */

#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "../core/core.h"

/* The words of a mapping. The memory stays mapped while `held` holds it, even after the memoryview
   `view` is released. */
struct words {
    struct dora_words span;
    PyObject *view;
    Py_buffer held;
};

int hold_words(struct words *words, PyObject *view, bool writable);
void release_words(struct words *words);

/* Getters and setters of attributes; `offset` is that of the field. An optional number is None if it
   is not given; of the counts of packets, -1. */
PyObject *get_words(PyObject *self, void *offset);
PyObject *get_optional(PyObject *self, void *offset);
PyObject *get_mail(PyObject *self, void *offset);
int set_words(PyObject *self, PyObject *view, void *offset);
int set_readable_words(PyObject *self, PyObject *view, void *offset);
int set_optional(PyObject *self, PyObject *value, void *offset);
int set_mail(PyObject *self, PyObject *value, void *offset);
