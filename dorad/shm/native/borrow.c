/* A sample in use by this process; see dorad/shm/borrow.py. */

#include "native.h"

struct borrow {
    PyObject_HEAD
    Py_buffer memory; /* of the mailbox: holds it while the slot is set */
    dora_word *slot;
    PyObject *number; /* of the slot, to give back to `free` */
    PyObject *free;
    PyObject *mapping;
};

static PyObject *borrow_of(PyTypeObject *type, PyObject *memory, size_t count, PyObject *number,
                           PyObject *free, PyObject *mapping)
{
    size_t at = PyLong_AsSize_t(number);
    if (at == (size_t)-1 && PyErr_Occurred())
        return NULL;
    if (at >= count || !PyList_Check(free)) {
        PyErr_SetString(PyExc_ValueError, "the slot does not lie in the mailbox");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct borrow *self = (struct borrow *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    if (PyObject_GetBuffer(memory, &self->memory, PyBUF_WRITABLE) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->slot = (dora_word *)self->memory.buf + at;
    self->number = Py_NewRef(number);
    self->free = Py_NewRef(free);
    self->mapping = Py_NewRef(mapping);
    return (PyObject *)self;
}

PyObject *new_borrow(const struct state *state, struct words *words, PyObject *slot, PyObject *free,
                     PyObject *mapping)
{
    return borrow_of(state->types[BORROW], words->held.obj, words->span.count, slot, free, mapping);
}

static PyObject *borrow_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *view, *slot, *free, *mapping;
    if (keywords != NULL && PyDict_Size(keywords) > 0) {
        PyErr_SetString(PyExc_TypeError, "Borrow takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "OOOO", &view, &slot, &free, &mapping))
        return NULL;
    struct words words = {0};
    if (hold_words(&words, view, true) < 0)
        return NULL;
    PyObject *self = NULL;
    if (words.span.at != NULL)
        self = borrow_of(type, words.held.obj, words.span.count, slot, free, mapping);
    else
        PyErr_SetString(PyExc_TypeError, "the words must be a memoryview");
    release_words(&words);
    return self;
}

static void borrow_dealloc(PyObject *object)
{
    struct borrow *self = (struct borrow *)object;
    if (self->free != NULL) {
        dora_ring_give_back(self->slot);
        /* An error here (no memory) only loses a slot; the caller must not see it. */
        if (PyList_Append(self->free, self->number) < 0)
            PyErr_WriteUnraisable(self->free);
        PyBuffer_Release(&self->memory);
    }
    Py_XDECREF(self->number);
    Py_XDECREF(self->free);
    Py_XDECREF(self->mapping);
    free_object(object);
}

static PyMemberDef members[] = {
    {"mapping", T_OBJECT_EX, offsetof(struct borrow, mapping), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, borrow_new},
    {Py_tp_dealloc, borrow_dealloc},
    {Py_tp_members, members},
    {0, NULL},
};

PyType_Spec borrow_spec = {
    .name = "dorad.shm.native._native.Borrow",
    .basicsize = sizeof(struct borrow),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};
