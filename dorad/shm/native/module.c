/* The module `dorad.shm.native._native`: what it was compiled from. */

#include <Python.h>

#include "layout_constants.h"

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
    if (PyModule_AddStringConstant(module, "FINGERPRINT", DORAD_FINGERPRINT) < 0)
        return -1;
    return add_layout(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "dorad.shm.native._native",
    .m_doc = "The data plane's innermost steps.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void);

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
