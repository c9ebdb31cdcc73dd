/* Arrays of one buffer without nulls, from and to Arrow; see dorad/shm/arrow.py.

   Other arrays have parts, see nested.c; those without a form are "not mine" to send, and built by
   Python on arrival. */

#include "native.h"

/* Take the type of text or bytes whose code is the first one and `at`. */
static bool add_variable(struct state *state, PyObject *type, Py_ssize_t at)
{
    PyObject *id = PyObject_GetAttr(type, state->names.id);
    long number = id == NULL ? -1 : PyLong_AsLong(id);
    Py_XDECREF(id);
    if (number < 0 || number >= MAX_TYPE_ID) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "a type id is beyond the table");
        return false;
    }
    put_in_place(&state->variable[at], Py_NewRef(type));
    state->code_of[number] = (uint8_t)(CODE_STRING + at);
    return true;
}

/* Take what Arrow has: the class of arrays, and the types by code with their bits. Called by
   dorad/shm/arrow.py when that is imported. */
PyObject *use_arrow(PyObject *module, PyObject *arguments)
{
    struct state *state = PyModule_GetState(module);
    PyObject *array, *bare, *no_value, *variable, *read_type;
    int uint8_code;
    if (!PyArg_ParseTuple(arguments, "OO!iOO!O", &array, &PyDict_Type, &bare, &uint8_code,
                          &no_value, &PyTuple_Type, &variable, &read_type))
        return NULL;
    Py_ssize_t at = 0;
    PyObject *key, *value;
    while (PyDict_Next(bare, &at, &key, &value)) {
        PyObject *type;
        int bits;
        long code = PyLong_AsLong(key);
        if (!PyArg_ParseTuple(value, "Oi", &type, &bits))
            return NULL;
        PyObject *id = PyObject_GetAttr(type, state->names.id);
        long number = id == NULL ? -1 : PyLong_AsLong(id);
        Py_XDECREF(id);
        if (code <= 0 || code >= MAX_CODE || number < 0 || number >= MAX_TYPE_ID) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "a type code or id is beyond the table");
            return NULL;
        }
        put_in_place(&state->bare[code], Py_NewRef(type));
        state->bits[code] = (uint8_t)bits;
        state->code_of[number] = (uint8_t)code;
    }
    for (at = 0; at < PyTuple_Size(variable) && at < VARIABLE_CODES; at++)
        if (!add_variable(state, PyTuple_GetItem(variable, at), at))
            return NULL;
    put_in_place(&state->read_type, Py_NewRef(read_type));
    put_in_place(&state->with_metadata, Py_BuildValue("{sO}", "check_metadata", Py_True));
    if (state->with_metadata == NULL)
        return NULL;
    state->uint8_code = (uint8_t)uint8_code;
    put_in_place(&state->array, Py_NewRef(array));
    put_in_place(&state->no_value, Py_NewRef(no_value));
    put_in_place(&state->import_array, PyObject_GetAttrString(array, "_import_from_c"));
    if (state->import_array == NULL)
        return NULL;
    Py_RETURN_NONE;
}

/* -- to send ----------------------------------------------------------------------------------- */

static void release_encoded(struct encoded *encoded)
{
    Py_CLEAR(encoded->shared);
    dora_written_free(&encoded->written);
    if (encoded->exported.release != NULL)
        encoded->exported.release(&encoded->exported);
}

/* Return the SharedArray at a place, or NULL; a new reference. */
static struct shared_array *shared_at(const struct state *state, const struct shared_arrays *arrays,
                                      const void *place)
{
    PyObject *known = arrays->known;
    if (known == NULL || !PyDict_Check(known) || PyDict_Size(known) == 0)
        return NULL;
    PyObject *key = PyLong_FromVoidPtr((void *)place);
    PyObject *found = key == NULL ? NULL : PyDict_GetItem(known, key);
    Py_XDECREF(key);
    return is(state, found, SHARED_ARRAY) ? (struct shared_array *)Py_NewRef(found) : NULL;
}

/* Encode an array from `node.empty`, known by its identity; see `SharedArrays.find`. */
static enum outcome encode_shared(const struct state *state, const struct shared_arrays *arrays,
                                  PyObject *data, struct encoded *encoded)
{
    struct shared_array *shared = shared_at(state, arrays, data);
    if (shared == NULL || !refers_to(shared, data)) {
        PyErr_Clear();
        Py_XDECREF((PyObject *)shared);
        return NOT_MINE;
    }
    *encoded = (struct encoded){.code = shared->code,
                                .length = shared->length,
                                .size = shared->size,
                                .shared = shared,
                                .release = release_encoded};
    return DONE;
}

static long id_of(const struct state *state, PyObject *array)
{
    PyObject *type = PyObject_GetAttr(array, state->names.type);
    PyObject *id = type == NULL ? NULL : PyObject_GetAttr(type, state->names.id);
    long number = id == NULL ? -1 : PyLong_AsLong(id);
    Py_XDECREF(type);
    Py_XDECREF(id);
    PyErr_Clear();
    return number;
}

bool export_array(const struct state *state, PyObject *array, struct encoded *encoded)
{
    PyObject *address = PyLong_FromVoidPtr(&encoded->exported);
    PyObject *done = address == NULL ? NULL
                                     : PyObject_CallMethodObjArgs(array, state->names._export_to_c,
                                                                  address, NULL);
    Py_XDECREF(address);
    Py_XDECREF(done);
    if (done == NULL)
        PyErr_Clear();
    return done != NULL;
}

/* Find the bytes of an array; see `encode`. They stay there until the caller calls `release`. */
enum outcome encode_array(const struct state *state, const struct sender *sender, PyObject *data,
                          struct encoded *encoded)
{
    *encoded = (struct encoded){.release = release_encoded};
    if (state->array == NULL || !is(state, sender->shared_arrays, SHARED_ARRAYS))
        return NOT_MINE;
    const struct shared_arrays *arrays = (struct shared_arrays *)sender->shared_arrays;
    if (PyBytes_CheckExact(data)) {
        encoded->code = state->uint8_code;
        encoded->length = encoded->size = (uint64_t)PyBytes_Size(data);
        encoded->values = PyBytes_AsString(data);
        return DONE;
    }
    if (!PyObject_TypeCheck(data, (PyTypeObject *)state->array))
        return encode_shared(state, arrays, data, encoded);
    long id = id_of(state, data);
    uint8_t code = id < 0 || id >= MAX_TYPE_ID ? 0 : state->code_of[id];
    if (id <= 0) /* 0 is that of nulls alone, which are rare. */
        return NOT_MINE;
    if (code == 0 || code >= MAX_CODE)
        return encode_parts(state, data, code, encoded);
    if (!export_array(state, data, encoded))
        return NOT_MINE;
    const struct ArrowArray *array = &encoded->exported;
    encoded->code = code;
    uint64_t bits = state->bits[encoded->code];
    uint64_t offset = (uint64_t)array->offset;
    if (array->n_buffers != 2 || array->dictionary != NULL || array->length < 0 ||
        array->offset < 0 || array->length > INT64_MAX / 64 || array->offset > INT64_MAX / 64)
        return NOT_MINE;
    if ((array->null_count != 0 && array->buffers[0] != NULL) || (bits == 1 && offset % 8 != 0))
        return encode_parts(state, data, code, encoded);
    encoded->length = (uint64_t)array->length;
    encoded->size = (encoded->length * bits + 7) / 8;
    encoded->values = (const char *)array->buffers[1] + offset * bits / 8;
    if (array->buffers[1] == NULL) {
        if (encoded->size != 0)
            return NOT_MINE;
        encoded->values = "";
    } else if (array->offset == 0) {
        /* A view from the start of an array from `node.empty` is sent as that. */
        encoded->shared = shared_at(state, arrays, array->buffers[1]);
        if (encoded->shared != NULL && encoded->size == 0)
            return NOT_MINE;
    }
    return DONE;
}

/* -- on arrival -------------------------------------------------------------------------------- */

/* Return a taken message as Python has it; see `Taken`. */
static PyObject *as_tuple(const struct taken *taken)
{
    const struct dora_entry *entry = &taken->entry;
    const char *payload = entry->rest + entry->meta_size;
    PyObject *copied = taken->borrow != NULL
                           ? Py_NewRef(Py_None)
                           : PyBytes_FromStringAndSize(payload, (Py_ssize_t)entry->size);
    if (copied == NULL)
        return NULL;
    PyObject *borrow = taken->borrow != NULL ? taken->borrow : Py_None;
    return Py_BuildValue("KiKKKNOKy#", (unsigned long long)entry->stamp, (int)entry->code,
                         (unsigned long long)entry->length, (unsigned long long)entry->nulls,
                         (unsigned long long)entry->size, copied, borrow,
                         taken->borrow != NULL ? (unsigned long long)entry->offset : 0ULL,
                         entry->rest, (Py_ssize_t)entry->meta_size);
}

/* What the values of an array lie in until Arrow releases it: a borrow, or `copy`. */
struct arrived {
    const void *buffers[2];
    PyObject *borrow;
    _Alignas(16) char copy[];
};

/* Called by any thread, with the interpreter lock or without. */
static void release_arrived(struct ArrowArray *array)
{
    struct arrived *arrived = array->private_data;
    /* Not initialized: some arrays outlive the interpreter. */
    if (arrived->borrow != NULL && Py_IsInitialized()) {
        PyGILState_STATE lock = PyGILState_Ensure();
        Py_DECREF(arrived->borrow);
        PyGILState_Release(lock);
    }
    free(arrived);
    array->release = NULL;
}

static bool export_taken(const struct taken *taken, struct ArrowArray *array)
{
    const struct dora_entry *entry = &taken->entry;
    size_t size = taken->borrow == NULL ? (size_t)entry->size : 0;
    struct arrived *arrived = malloc(sizeof *arrived + size);
    if (arrived == NULL) {
        PyErr_NoMemory();
        return false;
    }
    memcpy(arrived->copy, entry->rest + entry->meta_size, size);
    arrived->borrow = Py_XNewRef(taken->borrow);
    arrived->buffers[0] = NULL;
    arrived->buffers[1] = taken->borrow == NULL ? arrived->copy : taken->address;
    *array = (struct ArrowArray){.length = (int64_t)entry->length,
                                  .n_buffers = 2,
                                  .buffers = arrived->buffers,
                                  .release = release_arrived,
                                  .private_data = arrived};
    return true;
}

/* Import an array, which Arrow takes over. */
PyObject *import_array(const struct state *state, struct ArrowArray *exported, PyObject *kind)
{
    PyObject *address = PyLong_FromVoidPtr(exported), *array = NULL;
    if (address != NULL)
        array = PyObject_CallFunctionObjArgs(state->import_array, address, kind, NULL);
    Py_XDECREF(address);
    if (exported->release != NULL) /* Arrow has not taken it over. */
        exported->release(exported);
    return array;
}

/* Build the array of a message; see `load_decoder`. */
PyObject *build_array(const struct state *state, const struct ring_input *input,
                      struct taken *taken)
{
    const struct dora_entry *entry = &taken->entry;
    PyObject *kind = entry->code < MAX_CODE ? state->bare[entry->code] : NULL;
    if (kind == NULL || entry->nulls || entry->length > entry->size * 8 ||
        (entry->length * state->bits[entry->code] + 7) / 8 != entry->size) {
        PyObject *array = state->read_type == NULL ? NULL : build_parts(state, taken);
        if (array != NULL || PyErr_Occurred())
            return array;
        PyObject *whole = as_tuple(taken);
        if (whole != NULL && input->build != NULL)
            array = PyObject_CallFunctionObjArgs(input->build, whole, NULL);
        Py_XDECREF(whole);
        return array;
    }
    struct ArrowArray exported;
    return export_taken(taken, &exported) ? import_array(state, &exported, kind) : NULL;
}
