/* The module `dorad.shm.native._native`: what it was compiled from, its types, and its steps. */

#include "native.h"

bool call(PyObject *object, PyObject *name, PyObject *argument)
{
    PyObject *done = PyObject_CallMethodObjArgs(object, name, argument, NULL);
    Py_XDECREF(done);
    return done != NULL;
}

/* -- steps ------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    enum kind kind;
    const char *method;
} steps[STEPS] = {
    [SEND] = {"Sender.send", SENDER, "send"},
    [EMPTY] = {"Sender.empty", SENDER, "empty"},
    [TAKE] = {"RingInput.take", RING_INPUT, "take"},
    [TAKE_TICK] = {"TimerInput.take", TIMER_INPUT, "take"},
    [TAKE_ENTRY] = {"Inlet.take", INLET, "take"},
    [TAKE_COPIES] = {"Inlet.take_copies", INLET, "take_copies"},
    [TAKE_SAMPLE] = {"Pool.take", POOL, "take"},
    [PUSH] = {"Pool.push", POOL, "push"},
    [POLL] = {"NodeInputs.poll", INPUTS, "poll"},
    [WAIT] = {"NodeInputs.wait", INPUTS, "wait"},
    [NEXT] = {"Receiver.next", RECEIVER, "next"},
    [SLEEP] = {"LoopSleep.sleep", LOOP_SLEEP, "sleep"},
    [TAKE_DIRECT] = {"DirectIn.take", DIRECT_IN, "take"},
};

/* Take the Python method of a step; return the native one, which calls it for other cases. */
static PyObject *step(PyObject *module, PyObject *function)
{
    struct state *state = PyModule_GetState(module);
    PyObject *name = PyObject_GetAttrString(function, "__qualname__");
    if (name == NULL)
        return NULL;
    for (int at = 0; at < STEPS; at++) {
        if (!PyUnicode_Check(name) || PyUnicode_CompareWithASCIIString(name, steps[at].name) != 0)
            continue;
        Py_DECREF(name);
        put_in_place(&state->fallbacks[at], Py_NewRef(function));
        return PyObject_GetAttrString((PyObject *)state->types[steps[at].kind], steps[at].method);
    }
    PyErr_Format(PyExc_LookupError, "there is no native step %R", name);
    Py_DECREF(name);
    return NULL;
}

PyObject *fall_back(const struct state *state, enum step step, PyObject *object,
                    PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    PyObject *function = state->fallbacks[step];
    if (function == NULL) {
        PyErr_Format(PyExc_RuntimeError, "%s was not defined", steps[step].name);
        return NULL;
    }
    PyObject *positional = PyTuple_New(count + 1);
    PyObject *named = keywords == NULL ? NULL : PyDict_New();
    if (positional == NULL || (keywords != NULL && named == NULL)) {
        Py_XDECREF(positional);
        Py_XDECREF(named);
        return NULL;
    }
    PyTuple_SetItem(positional, 0, Py_NewRef(object));
    for (Py_ssize_t at = 0; at < count; at++)
        PyTuple_SetItem(positional, at + 1, Py_NewRef(arguments[at]));
    PyObject *result = NULL;
    Py_ssize_t more = keywords == NULL ? 0 : PyTuple_Size(keywords), at = 0;
    while (at < more &&
           PyDict_SetItem(named, PyTuple_GetItem(keywords, at), arguments[count + at]) == 0)
        at++;
    if (at == more)
        result = PyObject_Call(function, positional, named);
    Py_DECREF(positional);
    Py_XDECREF(named);
    return result;
}

/* Take what metadata need of Python. Called by dorad/node/inputs.py. */
static PyObject *use_metadata(PyObject *module, PyObject *arguments)
{
    struct state *state = PyModule_GetState(module);
    PyObject *decode, *datetime, *utc;
    if (!PyArg_ParseTuple(arguments, "OOO", &decode, &datetime, &utc))
        return NULL;
    put_in_place(&state->decode_metadata, Py_NewRef(decode));
    put_in_place(&state->datetime, Py_NewRef(datetime));
    put_in_place(&state->utc, Py_NewRef(utc));
    Py_RETURN_NONE;
}

/* -- the module -------------------------------------------------------------------------------- */

/* Add LAYOUT, the constants of layout.py by name; the loader compares them with those it has. */
static int add_layout(PyObject *module)
{
    static const struct {
        const char *name;
        unsigned long long value;
    } constants[] = {
#define CONSTANT(name) {#name, name},
        LAYOUT(CONSTANT)
#undef CONSTANT
    };
    PyObject *layout = PyDict_New();
    if (layout == NULL)
        return -1;
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(constants[i].value);
        int failed = value == NULL || PyDict_SetItemString(layout, constants[i].name, value) < 0;
        Py_XDECREF(value);
        if (failed) {
            Py_DECREF(layout);
            return -1;
        }
    }
    int result = PyModule_AddObjectRef(module, "LAYOUT", layout);
    Py_DECREF(layout);
    return result;
}

static int execute(PyObject *module)
{
    struct state *state = PyModule_GetState(module);
#define NAME(name)                                                                                 \
    if ((state->names.name = PyUnicode_InternFromString(#name)) == NULL)                           \
        return -1;
    NAMES(NAME)
#undef NAME
    if (PyModule_AddStringConstant(module, "FINGERPRINT", DORAD_FINGERPRINT) < 0)
        return -1;
    if ((state->known = calloc(1, sizeof *state->known)) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (add_states(module, state) < 0)
        return -1;
    return add_layout(module);
}

#define OBJECTS (offsetof(struct state, bits) / sizeof(PyObject *))

static int traverse(PyObject *module, visitproc visit, void *arg)
{
    PyObject **objects = PyModule_GetState(module);
    for (size_t at = 0; at < OBJECTS; at++)
        Py_VISIT(objects[at]);
    return 0;
}

static int clear(PyObject *module)
{
    PyObject **objects = PyModule_GetState(module);
    for (size_t at = 0; at < OBJECTS; at++)
        Py_CLEAR(objects[at]);
    return 0;
}

static void release(void *module)
{
    clear(module);
    struct state *state = PyModule_GetState(module);
    if (state->known != NULL)
        forget_types(state->known);
    state->known = NULL;
}

static PyMethodDef methods[] = {
    {"step", step, METH_O, "Return the native step of a Python method, which it falls back to."},
    {"pack_small", pack_small, METH_VARARGS, "Append small messages to a chunk; see dorad.record.mcap.chunk."},
    {"hop_received", hop_received, METH_VARARGS, "Record a message taken; see dorad.shm.hops."},
    {"hop_done", hop_done, METH_VARARGS, "Record the end of its handling."},
    {"hop_sent", hop_sent, METH_VARARGS, "Record a message sent."},
    {"hop_context", hop_context, METH_VARARGS, "Record the trace context of a message sent."},
    {"hop_dropped", hop_dropped, METH_VARARGS, "Record messages dropped."},
    {"hop_resume", hop_resume, METH_VARARGS, "Go on with a message that was taken before."},
    {"hop_read", hop_read, METH_VARARGS, "Read the records of a mailbox."},
    {"hop_taken", hop_taken, METH_VARARGS, "Return what this thread took last."},
    {"allow_steps", allow_steps, METH_O, "Set whether the daemon steps this process."},
    {"use_tasks", use_tasks, METH_O, "Take the function that finds the message of a task."},
    {"use_arrow", use_arrow, METH_VARARGS, "Take the classes and functions of Arrow."},
    {"use_numpy", use_numpy, METH_VARARGS, "Take the class of numpy's arrays, and the dtypes."},
    {"use_metadata", use_metadata, METH_VARARGS, "Take the functions that metadata need."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "dorad.shm.native._native",
    .m_doc = "The data plane's innermost steps.",
    .m_size = sizeof(struct state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = release,
};

PyMODINIT_FUNC PyInit__native(void);

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
