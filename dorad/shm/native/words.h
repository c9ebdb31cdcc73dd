/* Words of shared memory, and the attributes of Python that are kept as C numbers; see words.c. */

#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "layout_constants.h"

typedef _Atomic uint64_t word;

/* The words of a mapping. The memory stays mapped while `held` holds it, even after the memoryview
   `view` is released. */
struct words {
    word *at;
    size_t count;
    PyObject *view;
    Py_buffer held;
};

static inline uint64_t read_word(const struct words *words, size_t at, memory_order order)
{
    return atomic_load_explicit(&words->at[at], order);
}

static inline void write_word(struct words *words, size_t at, uint64_t value, memory_order order)
{
    atomic_store_explicit(&words->at[at], value, order);
}

/* An int or None of Python; of the counts of packets, -1 instead of None. */
struct optional {
    bool given;
    uint64_t value;
};

/* Return whether packets came since their count was as given. */
static inline bool has_mail(const struct words *words, struct optional mail)
{
    /* Acquire: as for every word that says to look elsewhere. */
    return !mail.given || read_word(words, BOX_MAIL, memory_order_acquire) != mail.value;
}

int hold_words(struct words *words, PyObject *view, bool writable);
void release_words(struct words *words);

/* Getters and setters of attributes; `offset` is that of the field. */
PyObject *get_words(PyObject *self, void *offset);
PyObject *get_optional(PyObject *self, void *offset);
PyObject *get_mail(PyObject *self, void *offset);
int set_words(PyObject *self, PyObject *view, void *offset);
int set_readable_words(PyObject *self, PyObject *view, void *offset);
int set_optional(PyObject *self, PyObject *value, void *offset);
int set_mail(PyObject *self, PyObject *value, void *offset);
