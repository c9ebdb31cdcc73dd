/* From a message to an event: `RingInput.take` of dorad/node/inputs.py. */

#include "native.h"

/* Return the metadata of a message, with its timestamp. */
static PyObject *metadata_of(const struct state *state, const struct taken *taken)
{
    PyObject *metadata = decode_metadata(state, taken->entry.rest, taken->entry.meta_size);
    if (metadata == NULL)
        return NULL;
    int present = PyDict_Contains(metadata, state->names.timestamp);
    if (present == 0) {
        PyObject *time = datetime_of(state, taken->entry.stamp);
        if (time == NULL || PyDict_SetItem(metadata, state->names.timestamp, time) < 0)
            present = -1;
        Py_XDECREF(time);
    }
    if (present < 0)
        Py_CLEAR(metadata);
    return metadata;
}

PyObject *event_of(const struct state *state, PyObject *id, PyObject *value, PyObject *metadata)
{
    PyObject *event = PyDict_New();
    if (event != NULL && (PyDict_SetItem(event, state->names.kind, state->names.dora) < 0 ||
                          PyDict_SetItem(event, state->names.type, state->names.INPUT) < 0 ||
                          PyDict_SetItem(event, state->names.id, id) < 0 ||
                          PyDict_SetItem(event, state->names.value, value) < 0 ||
                          PyDict_SetItem(event, state->names.metadata, metadata) < 0))
        Py_CLEAR(event);
    return event;
}

/* Turn the exception that is set into an ERROR event, unless it is of another kind. */
static PyObject *unreadable(const struct state *state, struct ring_input *input, PyObject *kind)
{
    if (!PyErr_ExceptionMatches(kind))
        return NULL;
    PyObject *type, *failure, *trace;
    PyErr_Fetch(&type, &failure, &trace);
    PyErr_NormalizeException(&type, &failure, &trace);
    if (trace != NULL && failure != NULL)
        PyException_SetTraceback(failure, trace);
    PyObject *event = PyObject_CallMethodObjArgs((PyObject *)input, state->names._unreadable,
                                                 failure, NULL);
    Py_XDECREF(type);
    Py_XDECREF(failure);
    Py_XDECREF(trace);
    return event;
}

/* Return the next event, or None. */
PyObject *step_take(METHOD_ARGUMENTS)
{
    const struct state *state = PyType_GetModuleState(class);
    struct ring_input *input = (struct ring_input *)object;
    struct taken taken;
    enum outcome outcome = NOT_MINE;
    if (count == 0 && keywords == NULL && input->id != NULL && is(state, input->inlet, INLET) &&
        is(state, input->clock, CLOCK))
        outcome = take(state, (struct inlet *)input->inlet, &taken);
    if (outcome == NOT_MINE)
        return fall_back(state, TAKE, object, arguments, count, keywords);
    if (outcome == NOTHING)
        Py_RETURN_NONE;
    if (outcome == FAILED) /* The handler of a signal may have raised any other kind. */
        return unreadable(state, input, PyExc_ValueError);
    PyObject *event = NULL;
    PyObject *metadata = metadata_of(state, &taken);
    PyObject *value = metadata == NULL ? NULL : build_array(state, input, &taken);
    if (value != NULL)
        event = event_of(state, input->id, value, metadata);
    Py_XDECREF(taken.borrow);
    Py_XDECREF(metadata);
    Py_XDECREF(value);
    if (event == NULL)
        return unreadable(state, input, PyExc_Exception);
    if (clock_saw(state, ((struct inlet *)input->inlet)->words.span,
                  (struct clock *)input->clock, taken.entry.stamp) < 0)
        Py_CLEAR(event);
    return event;
}
