/* Arrays from `node.empty`: `SharedArray` of dorad/node/sharedarrays.py, and `Sender.empty`. */

#include "native.h"

/* -- one array --------------------------------------------------------------------------------- */

static bool learn(PyObject *known, const void *place, PyObject *shared)
{
    PyObject *key = PyLong_FromVoidPtr((void *)place);
    bool done = key != NULL && PyDict_SetItem(known, key, shared) == 0;
    Py_XDECREF(key);
    return done;
}

static bool forget(PyObject *known, const void *place)
{
    PyObject *key = PyLong_FromVoidPtr((void *)place);
    bool done = key != NULL && PyDict_DelItem(known, key) == 0;
    Py_XDECREF(key);
    return done;
}

static PyObject *new_shared_array(PyTypeObject *type, PyObject *array, PyObject *sample,
                                  const struct shared_array *of, PyObject *known,
                                  PyObject *returned)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct shared_array *self = (struct shared_array *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    self->identity = array;
    self->address = of->address;
    self->length = of->length;
    self->size = of->size;
    self->code = of->code;
    self->sample = Py_NewRef(sample);
    self->known = Py_NewRef(known);
    self->returned = Py_NewRef(returned);
    self->array = PyWeakref_NewRef(array, (PyObject *)self);
    if (self->array == NULL || !learn(known, array, (PyObject *)self) ||
        !learn(known, (void *)(uintptr_t)of->address, (PyObject *)self)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *shared_array_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    struct shared_array of = {0};
    PyObject *array, *sample, *known, *returned;
    if (keywords != NULL && PyDict_Size(keywords) > 0) {
        PyErr_SetString(PyExc_TypeError, "SharedArray takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "OOK(bKK)O!O!", &array, &sample, &of.address, &of.code,
                          &of.length, &of.size, &PyDict_Type, &known, &PyList_Type, &returned))
        return NULL;
    return new_shared_array(type, array, sample, &of, known, returned);
}

/* Give the sample back, because the array has died. */
static PyObject *shared_array_call(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    (void)arguments, (void)keywords;
    struct shared_array *self = (struct shared_array *)object;
    if (self->known == NULL) /* The garbage collector has ended it. */
        Py_RETURN_NONE;
    if (!forget(self->known, self->identity) ||
        !forget(self->known, (void *)(uintptr_t)self->address) ||
        PyList_Append(self->returned, self->sample) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Return the array, None if it has died; a new reference. */
static PyObject *array_of(const struct shared_array *shared)
{
    return shared->array == NULL ? Py_NewRef(Py_None) : PyObject_CallNoArgs(shared->array);
}

bool refers_to(const struct shared_array *shared, PyObject *array)
{
    PyObject *found = array_of(shared);
    Py_XDECREF(found);
    return found == array;
}

/* Make the array read-only, because receivers read it from now on. The first argument of `setflags`
   is `write`. To set `flags.writeable` does the same, with three times the instructions. */
bool freeze(const struct state *state, const struct shared_array *shared)
{
    PyObject *array = array_of(shared);
    bool done = array == Py_None ||
                (array != NULL && call(array, state->names.setflags, Py_False));
    Py_XDECREF(array);
    return done;
}

static PyObject *shared_array_freeze(METHOD_ARGUMENTS)
{
    (void)arguments, (void)count, (void)keywords;
    if (!freeze(PyType_GetModuleState(class), (struct shared_array *)object))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *get_encoded(PyObject *object, void *closure)
{
    (void)closure;
    const struct shared_array *self = (struct shared_array *)object;
    return Py_BuildValue("iKiK()", (int)self->code, self->length, 0, self->size);
}

LIFE(shared_array, array, returned, (void)0)

static PyMemberDef members[] = {
    {"array", T_OBJECT_EX, offsetof(struct shared_array, array), READONLY, NULL},
    {"sample", T_OBJECT_EX, offsetof(struct shared_array, sample), READONLY, NULL},
    {"address", T_ULONGLONG, offsetof(struct shared_array, address), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyGetSetDef getset[] = {
    {"encoded", get_encoded, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyMethodDef methods[] = {
    {"freeze", METHOD(shared_array_freeze), "Make the array read-only."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, shared_array_new},
    {Py_tp_call, shared_array_call},
    {Py_tp_traverse, shared_array_traverse},
    {Py_tp_clear, shared_array_clear},
    {Py_tp_dealloc, shared_array_dealloc},
    {Py_tp_members, members},
    {Py_tp_getset, getset},
    {Py_tp_methods, methods},
    {0, NULL},
};

PyType_Spec shared_array_spec = {
    .name = "dorad.shm.native._native.SharedArray",
    .basicsize = sizeof(struct shared_array),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

/* -- to make one ------------------------------------------------------------------------------- */

/* Take the class of numpy's arrays and, by their names, the dtypes, each with its type code and the
   bytes of one item. Called by dorad/node/sharedarrays.py when numpy is imported. */
PyObject *use_numpy(PyObject *module, PyObject *arguments)
{
    struct state *state = PyModule_GetState(module);
    PyObject *ndarray, *kinds;
    if (!PyArg_ParseTuple(arguments, "OO!", &ndarray, &PyDict_Type, &kinds))
        return NULL;
    put_in_place(&state->ndarray, Py_NewRef(ndarray));
    put_in_place(&state->kinds, Py_NewRef(kinds));
    Py_RETURN_NONE;
}

static bool multiply(PyObject *number, unsigned long long *product)
{
    int overflow = 0;
    long long value = PyLong_CheckExact(number) ? PyLong_AsLongLongAndOverflow(number, &overflow) : -1;
    if (value < 0 || overflow || (value > 0 && *product > INT64_MAX / 8 / (uint64_t)value))
        return false;
    *product *= (uint64_t)value;
    return true;
}

/* Find what an array of a shape and dtype consists of; false where Python has to decide. */
static bool understand(const struct state *state, PyObject *shape, PyObject *dtype,
                       struct shared_array *wanted, PyObject **kind)
{
    PyObject *found = state->kinds == NULL ? NULL : PyDict_GetItem(state->kinds, dtype);
    if (found == NULL || !PyTuple_Check(found) || PyTuple_Size(found) != 3) {
        PyErr_Clear();
        return false;
    }
    *kind = PyTuple_GetItem(found, 0);
    wanted->code = (unsigned char)PyLong_AsLong(PyTuple_GetItem(found, 1));
    wanted->length = 1;
    if (!PyTuple_CheckExact(shape)) {
        if (!multiply(shape, &wanted->length))
            return false;
    } else {
        for (Py_ssize_t at = 0; at < PyTuple_Size(shape); at++)
            if (!multiply(PyTuple_GetItem(shape, at), &wanted->length))
                return false;
    }
    wanted->size = wanted->length * PyLong_AsUnsignedLong(PyTuple_GetItem(found, 2));
    return true;
}

/* Give a sample back that no array lies in. Keeps the exception. */
static void give_back(const struct state *state, struct pool *pool, struct sample *sample)
{
    PyObject *type, *failure, *trace;
    PyErr_Fetch(&type, &failure, &trace);
    PyObject *marks = PyList_New(0);
    if (marks == NULL || sample_sent(state, pool, sample, marks) < 0)
        PyErr_WriteUnraisable((PyObject *)pool);
    Py_XDECREF(marks);
    PyErr_Restore(type, failure, trace);
}

/* See `SharedArrays.empty`. The caller has marked the sender as busy. */
static enum outcome empty(const struct state *state, struct sender *sender, PyObject *shape,
                          PyObject *kind, struct shared_array *wanted, PyObject **made)
{
    const struct shared_arrays *arrays = (struct shared_arrays *)sender->shared_arrays;
    struct pool *pool = (struct pool *)sender->pool;
    struct sample *sample;
    struct mapping *mapping;
    enum outcome outcome = take_sample(state, sender->pool, wanted->size + !wanted->size, &sample,
                                       &mapping);
    if (outcome != DONE)
        return outcome;
    PyObject *offset = PyLong_FromUnsignedLongLong(sample->offset), *shared = NULL;
    PyObject *array = NULL;
    if (offset != NULL && mapping->memory != NULL)
        array = PyObject_CallFunctionObjArgs(state->ndarray, shape, kind, mapping->memory, offset,
                                             NULL);
    if (array == NULL) {
        give_back(state, pool, sample);
    } else {
        sample->held = 1;
        wanted->address = (uintptr_t)((char *)mapping->words.span.at + sample->offset);
        shared = new_shared_array(state->types[SHARED_ARRAY], array, (PyObject *)sample, wanted,
                                  arrays->known, pool->returned);
    }
    if (shared == NULL)
        Py_CLEAR(array);
    Py_XDECREF(shared);
    Py_XDECREF(offset);
    Py_DECREF(sample);
    *made = array;
    return array == NULL ? FAILED : DONE;
}

/* Return an uninitialised numpy array in shared memory. */
PyObject *step_empty(METHOD_ARGUMENTS)
{
    const struct state *state = PyType_GetModuleState(class);
    struct sender *sender = (struct sender *)object;
    const struct shared_arrays *arrays = (struct shared_arrays *)sender->shared_arrays;
    struct shared_array wanted = {0};
    PyObject *kind, *array = NULL;
    enum outcome outcome = NOT_MINE;
    if (count == 2 && keywords == NULL && sender->lock != NULL &&
        is(state, sender->shared_arrays, SHARED_ARRAYS) && !is_abandoned(state, object, SENDER) &&
        arrays->known != NULL && PyDict_Check(arrays->known) &&
        understand(state, arguments[0], arguments[1], &wanted, &kind))
        outcome = enter(state, sender);
    if (outcome == DONE) {
        outcome = empty(state, sender, arguments[0], kind, &wanted, &array);
        if (!leave(state, sender)) {
            Py_XDECREF(array);
            return NULL;
        }
    }
    return outcome == NOT_MINE ? fall_back(state, EMPTY, object, arguments, count, keywords)
                               : array;
}
