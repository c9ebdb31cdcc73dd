/* Plain metadata, flat and of strings, numbers and truth values; see dorad/node/metadata.py.

   What is not plain ASCII, or anything but canonical, is encoded and decoded by Python. */

#include "native.h"

/* -- encode ------------------------------------------------------------------------------------ */

struct text {
    char *at, *end;
};

static bool put(struct text *into, const char *from, size_t size)
{
    if ((size_t)(into->end - into->at) < size)
        return false;
    memcpy(into->at, from, size);
    into->at += size;
    return true;
}

/* Return whether JSON shows a character as it is. */
static bool is_literal(char c)
{
    return c >= ' ' && c <= '~' && c != '"' && c != '\\';
}

static bool put_string(struct text *into, PyObject *string)
{
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(string, &size);
    if (text == NULL) {
        PyErr_Clear();
        return false;
    }
    for (Py_ssize_t at = 0; at < size; at++)
        if (!is_literal(text[at]))
            return false;
    return put(into, "\"", 1) && put(into, text, (size_t)size) && put(into, "\"", 1);
}

static bool put_int(struct text *into, PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow || (number == -1 && PyErr_Occurred())) {
        PyErr_Clear();
        return false;
    }
    char digits[24];
    int size = snprintf(digits, sizeof digits, "%lld", number);
    return put(into, digits, (size_t)size);
}

static bool put_float(struct text *into, PyObject *value)
{
    double number = PyFloat_AsDouble(value);
    if (!(number - number == 0.0))
        return false;
    char *digits = PyOS_double_to_string(number, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (digits == NULL) {
        PyErr_Clear();
        return false;
    }
    bool done = put(into, digits, strlen(digits));
    PyMem_Free(digits);
    return done;
}

static bool put_value(struct text *into, PyObject *value)
{
    if (PyUnicode_CheckExact(value))
        return put_string(into, value);
    if (PyLong_CheckExact(value))
        return put_int(into, value);
    if (PyFloat_CheckExact(value))
        return put_float(into, value);
    if (value == Py_True)
        return put(into, "true", 4);
    return value == Py_False && put(into, "false", 5);
}

/* Return whether a key marks a message as part of an exchange, or as a flush; see `MARKING`. */
static bool is_marking(PyObject *key)
{
    static const char *const marking[] = {"request_id", "goal_id", "goal_status", "flush"};
    for (size_t at = 0; at < sizeof marking / sizeof *marking; at++)
        if (PyUnicode_CompareWithASCIIString(key, marking[at]) == 0)
            return true;
    return false;
}

int encode_metadata(PyObject *metadata, char *into, size_t room)
{
    struct text text = {into, into + room};
    if (metadata == Py_None)
        return 0;
    if (!PyDict_CheckExact(metadata))
        return -1;
    Py_ssize_t at = 0;
    PyObject *key, *value;
    bool first = true;
    while (PyDict_Next(metadata, &at, &key, &value)) {
        if (!PyUnicode_CheckExact(key) || is_marking(key) || !put(&text, first ? "{" : ",", 1) ||
            !put_string(&text, key) || !put(&text, ":", 1) || !put_value(&text, value))
            return -1;
        first = false;
    }
    if (!first && !put(&text, "}", 1))
        return -1;
    return (int)(text.at - into);
}

/* -- decode ------------------------------------------------------------------------------------ */

static bool skip(struct text *from, const char *expected)
{
    size_t size = strlen(expected);
    if ((size_t)(from->end - from->at) < size || memcmp(from->at, expected, size) != 0)
        return false;
    from->at += size;
    return true;
}

static PyObject *get_string(struct text *from)
{
    if (!skip(from, "\""))
        return NULL;
    const char *start = from->at;
    while (from->at < from->end && is_literal(*from->at))
        from->at++;
    Py_ssize_t size = from->at - start;
    return skip(from, "\"") ? PyUnicode_FromStringAndSize(start, size) : NULL;
}

static size_t skip_digits(struct text *from)
{
    const char *start = from->at;
    while (from->at < from->end && *from->at >= '0' && *from->at <= '9')
        from->at++;
    return (size_t)(from->at - start);
}

static PyObject *get_number(struct text *from)
{
    char digits[32];
    const char *start = from->at;
    skip(from, "-");
    bool zero = from->at < from->end && *from->at == '0';
    size_t whole = skip_digits(from);
    if (whole == 0 || (zero && whole > 1))
        return NULL;
    bool real = false;
    if (skip(from, ".")) {
        real = true;
        if (skip_digits(from) == 0)
            return NULL;
    }
    if (skip(from, "e")) {
        real = true;
        if (!skip(from, "-"))
            skip(from, "+");
        if (skip_digits(from) == 0)
            return NULL;
    }
    size_t size = (size_t)(from->at - start);
    if (size >= sizeof digits || (!real && whole > 18))
        return NULL;
    memcpy(digits, start, size);
    digits[size] = 0;
    if (!real) /* strtoll, compiled here, would need the newest glibc wherever it runs */
        return PyLong_FromString(digits, NULL, 10);
    double number = PyOS_string_to_double(digits, NULL, NULL);
    return number == -1.0 && PyErr_Occurred() ? NULL : PyFloat_FromDouble(number);
}

static PyObject *get_value(struct text *from)
{
    if (from->at >= from->end)
        return NULL;
    if (*from->at == '"')
        return get_string(from);
    if (skip(from, "true"))
        return Py_NewRef(Py_True);
    if (skip(from, "false"))
        return Py_NewRef(Py_False);
    return get_number(from);
}

/* Return plain metadata as a dictionary; NULL, perhaps with an exception, if they are not. */
static PyObject *get_plain(struct text *from)
{
    PyObject *found = PyDict_New();
    const char *before = "{";
    while (found != NULL && skip(from, before)) {
        PyObject *key = get_string(from);
        PyObject *value = key == NULL || !skip(from, ":") ? NULL : get_value(from);
        int failed = value == NULL || PyDict_SetItem(found, key, value) < 0;
        Py_XDECREF(key);
        Py_XDECREF(value);
        if (failed)
            break;
        before = ",";
        if (skip(from, "}") && from->at == from->end)
            return found;
    }
    Py_XDECREF(found);
    return NULL;
}

PyObject *decode_metadata(const struct state *state, const char *data, size_t size)
{
    if (size == 0)
        return PyDict_New();
    char *start = (char *)data;
    PyObject *found = get_plain(&(struct text){start, start + size});
    if (found != NULL)
        return found;
    PyErr_Clear();
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    if (bytes != NULL)
        found = PyObject_CallFunctionObjArgs(state->decode_metadata, bytes, NULL);
    Py_XDECREF(bytes);
    return found;
}
