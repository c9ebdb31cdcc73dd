/* Arrays of all other types with a form of their own: `encode` and `decode` of
   dorad/shm/nested.py, and arrays with nulls, texts and bytes; see dorad/shm/core/arrays.h.

   Types are compared with those seen last, because to export or to import one takes longer than a
   message. */

#include "native.h"

/* Called when the module ends. */
void forget_types(struct known_types *known)
{
    for (int at = 0; at < KNOWN_TYPES; at++) {
        dora_type_drop(known->sent[at]);
        dora_type_drop(known->arrived[at]);
        Py_XDECREF(known->kinds_sent[at]);
        Py_XDECREF(known->kinds_arrived[at]);
    }
    free(known);
}

/* Make room at the front of a row of types, and of their Arrow types. */
static void push_front(struct dora_type **types, PyObject **kinds, int from)
{
    struct dora_type *type = types[from];
    PyObject *kind = kinds[from];
    for (int at = from; at > 0; at--) {
        types[at] = types[at - 1];
        kinds[at] = kinds[at - 1];
    }
    types[0] = type;
    kinds[0] = kind;
}

/* Put a new type in front of a row; the oldest is forgotten. */
static void add_type(struct dora_type **types, PyObject **kinds, struct dora_type *type,
                     PyObject *kind)
{
    push_front(types, kinds, KNOWN_TYPES - 1);
    dora_type_drop(types[0]);
    types[0] = type;
    put_in_place(&kinds[0], Py_NewRef(kind));
}

/* -- to send ----------------------------------------------------------------------------------- */

static int is_same(const struct state *state, PyObject *kind, PyObject *other)
{
    if (kind == other)
        return 1;
    PyObject *equals = PyObject_GetAttr(kind, state->names.equals);
    PyObject *arguments = PyTuple_Pack(1, other);
    PyObject *found = equals == NULL || arguments == NULL
                          ? NULL
                          : PyObject_Call(equals, arguments, state->with_metadata);
    int same = found == NULL ? -1 : found == Py_True;
    Py_XDECREF(equals);
    Py_XDECREF(arguments);
    Py_XDECREF(found);
    return same;
}

/* Describe a type; NULL if its arrays travel as a stream. */
static struct dora_type *describe(const struct state *state, PyObject *kind)
{
    struct ArrowSchema schema = {0};
    PyObject *address = PyLong_FromVoidPtr(&schema);
    bool done = address != NULL && call(kind, state->names._export_to_c, address);
    Py_XDECREF(address);
    char *text = done ? malloc(MAX_TYPE_SIZE) : NULL;
    size_t size = text != NULL ? dora_type_write(&schema, text) : 0;
    struct dora_type *type = size > 0 ? dora_type_new(text, size) : NULL;
    free(text);
    if (schema.release != NULL)
        schema.release(&schema);
    return type;
}

static const struct dora_type *type_to_send(const struct state *state, PyObject *kind)
{
    struct known_types *known = state->known;
    PyObject **kinds = known->kinds_sent;
    for (int at = 0; at < KNOWN_TYPES && kinds[at] != NULL; at++) {
        PyObject *other = Py_NewRef(kinds[at]);
        int same = is_same(state, kind, other);
        /* Not if the comparison ran code that sent something else. */
        bool moved = kinds[at] != other;
        Py_DECREF(other);
        if (same < 0 || moved)
            return NULL;
        if (same) {
            push_front(known->sent, kinds, at);
            return known->sent[0];
        }
    }
    struct dora_type *type = describe(state, kind);
    if (type != NULL)
        add_type(known->sent, kinds, type, kind);
    return type;
}

/* Find the parts of an array of any type; `code` is that of its type, or 0. */
enum outcome encode_parts(const struct state *state, PyObject *data, uint8_t code,
                          struct encoded *encoded)
{
    struct dora_type bare;
    const struct dora_type *type = &bare;
    bool exported = encoded->exported.release != NULL || export_array(state, data, encoded);
    if (code == 0 || !dora_type_of_code(code, &bare)) {
        /* Last: it runs code, which may make room for other types. */
        PyObject *kind = exported ? PyObject_GetAttr(data, state->names.type) : NULL;
        type = kind == NULL ? NULL : type_to_send(state, kind);
        Py_XDECREF(kind);
        code = CODE_NESTED;
    }
    if (!exported || type == NULL ||
        dora_array_write(type, &encoded->exported, &encoded->written) != NULL) {
        PyErr_Clear();
        return NOT_MINE;
    }
    encoded->code = code;
    encoded->length = encoded->written.length;
    encoded->nulls = encoded->written.nulls;
    encoded->size = encoded->written.size;
    return DONE;
}

/* -- on arrival -------------------------------------------------------------------------------- */

static void drop_borrow(void *borrow)
{
    /* Not initialized: some arrays outlive the interpreter. */
    if (!Py_IsInitialized())
        return;
    PyGILState_STATE lock = PyGILState_Ensure();
    Py_DECREF((PyObject *)borrow);
    PyGILState_Release(lock);
}

/* Find the type that a payload describes, and its Arrow type; NULL where Python has to report it. */
static const struct dora_type *type_of_payload(const struct state *state,
                                               const struct dora_payload *payload, PyObject **kind)
{
    struct known_types *known = state->known;
    size_t size;
    const char *text = dora_payload_type(payload, &size);
    if (text == NULL)
        return NULL;
    for (int at = 0; at < KNOWN_TYPES && known->arrived[at] != NULL; at++)
        if (known->arrived[at]->size == size && memcmp(known->arrived[at]->text, text, size) == 0) {
            push_front(known->arrived, known->kinds_arrived, at);
            *kind = known->kinds_arrived[0];
            return known->arrived[0];
        }
    struct dora_type *type = dora_type_new(text, size);
    if (type == NULL)
        return NULL;
    /* Of the copy: the sender can still write to the description. */
    PyObject *copy = PyBytes_FromStringAndSize(type->text, (Py_ssize_t)size);
    PyObject *found = copy == NULL ? NULL
                                   : PyObject_CallFunctionObjArgs(state->read_type, copy, NULL);
    Py_XDECREF(copy);
    if (found == NULL) {
        PyErr_Clear();
        dora_type_drop(type);
        return NULL;
    }
    add_type(known->arrived, known->kinds_arrived, type, found);
    Py_DECREF(found);
    *kind = known->kinds_arrived[0];
    return known->arrived[0];
}

/* Build the array of a payload with parts; NULL without an exception where Python has to. */
PyObject *build_parts(const struct state *state, const struct taken *taken)
{
    const struct dora_entry *entry = &taken->entry;
    struct dora_payload payload = {.data = taken->borrow != NULL ? taken->address
                                                                 : entry->rest + entry->meta_size,
                                   .size = entry->size,
                                   .length = entry->length,
                                   .nulls = entry->nulls,
                                   .shared = taken->borrow != NULL};
    struct dora_type bare;
    const struct dora_type *type = &bare;
    PyObject *kind = NULL;
    if (entry->code == CODE_NESTED)
        type = type_of_payload(state, &payload, &kind);
    else if (dora_type_of_code(entry->code, &bare))
        kind = entry->code < MAX_CODE ? state->bare[entry->code]
                                      : state->variable[entry->code - CODE_STRING];
    if (kind == NULL || type == NULL)
        return NULL;
    if (taken->borrow != NULL && payload.size > SMALL_PAYLOAD) {
        payload.owner = Py_NewRef(taken->borrow);
        payload.drop = drop_borrow;
    }
    struct ArrowArray exported;
    if (dora_array_read(type, &payload, &exported) != NULL) {
        Py_XDECREF((PyObject *)payload.owner);
        return NULL;
    }
    Py_INCREF(kind);
    PyObject *array = import_array(state, &exported, kind);
    Py_DECREF(kind);
    return array;
}
