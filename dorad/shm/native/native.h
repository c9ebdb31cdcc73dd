/* What the parts of the extension share: the objects that Python and C both see, and their words.

   Python owns the semantics. A native step does what the Python method of the same name does, in the
   same order, for the common case. For any other case it returns to that method before it has
   changed anything ("not mine"). The state types here are the bases of the Python classes, so both
   work on the same fields. All of it runs with the interpreter lock held, except for the waiting in
   wait.c. */

#pragma once

#define _GNU_SOURCE /* ppoll */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>

#include "layout_constants.h"
#include "states.h"

/* -- the module's state ------------------------------------------------------------------------ */

/* The steps: methods of which the fallback is the Python method of the same name. */
enum step {
    SEND,
    EMPTY,
    TAKE,
    TAKE_TICK,
    TAKE_ENTRY,
    TAKE_COPIES,
    TAKE_SAMPLE,
    PUSH,
    POLL,
    WAIT,
    NEXT,
    STEPS,
};

/* Strings that are used all the time. */
#define NAMES(X)                                                                                   \
    X(acquire) X(release) X(sent) X(setflags) X(wake_tasks)                                                      \
    X(saw) X(urgent) X(endings) X(take) X(wait) X(blocked) X(found) X(read_mail)                   \
    X(kind) X(dora) X(type) X(INPUT) X(id) X(value) X(metadata) X(timestamp) X(timed_out)          \
    X(_unreadable) X(_flush_deferred) X(_trim) X(_look_ahead) X(_export_to_c)

#define MAX_CODE 32     /* above all type codes of arrays of one buffer */
#define MAX_TYPE_ID 64  /* above all ids of their Arrow types */

struct state {
    /* Objects, up to `bits`. */
    PyTypeObject *types[KINDS];
    PyObject *fallbacks[STEPS];
    PyObject *utc, *datetime, *decode_metadata;
    /* Of Arrow and numpy, NULL before they are imported. */
    PyObject *array, *import_array, *no_value, *ndarray, *kinds;
    PyObject *bare[MAX_CODE]; /* the Arrow type of a code, or NULL */
#define NAME(name) PyObject *name;
    struct { NAMES(NAME) } names;
#undef NAME
    uint8_t bits[MAX_CODE];       /* of one item of a code */
    uint8_t code_of[MAX_TYPE_ID]; /* the code of an Arrow type's id, or 0 */
    uint8_t uint8_code;
};

/* Put a new reference in the place of an old one. */
static inline void put_in_place(PyObject **place, PyObject *object)
{
    PyObject *before = *place;
    *place = object;
    Py_XDECREF(before);
}

/* The functions of a type whose objects are the fields from `first` to `last`. */
#define LIFE(name, first, last, at_end)                                                            \
    static int name##_traverse(PyObject *self, visitproc visit, void *arg)                         \
    {                                                                                              \
        struct name *own = (struct name *)self;                                                    \
        Py_VISIT(Py_TYPE(self));                                                                   \
        for (PyObject **each = &own->first; each <= &own->last; each++)                            \
            Py_VISIT(*each);                                                                       \
        return 0;                                                                                  \
    }                                                                                              \
    static int name##_clear(PyObject *self)                                                        \
    {                                                                                              \
        struct name *own = (struct name *)self;                                                    \
        for (PyObject **each = &own->first; each <= &own->last; each++)                            \
            Py_CLEAR(*each);                                                                       \
        return 0;                                                                                  \
    }                                                                                              \
    static void name##_dealloc(PyObject *self)                                                     \
    {                                                                                              \
        PyObject_GC_UnTrack(self);                                                                 \
        name##_clear(self);                                                                        \
        at_end;                                                                                    \
        free_object(self);                                                                         \
    }

/* Free the memory of an object whose fields are released. */
static inline void free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* Return whether an object has the fields of a kind. */
static inline bool is(const struct state *state, PyObject *object, enum kind kind)
{
    return object != NULL && PyObject_TypeCheck(object, state->types[kind]);
}

/* Return whether an object belongs to the parent of this process: forking.py then gives it a class
   that refuses all attributes, which a method that was bound before must do too. */
static inline bool is_abandoned(const struct state *state, PyObject *object, enum kind kind)
{
    return PyType_GetSlot(Py_TYPE(object), Py_tp_getattro) !=
           PyType_GetSlot(state->types[kind], Py_tp_getattro);
}

/* Arguments of a method that knows the module it belongs to. */
#define METHOD_ARGUMENTS                                                                           \
    PyObject *object, PyTypeObject *class, PyObject *const *arguments, Py_ssize_t count,           \
        PyObject *keywords
typedef PyObject *method(METHOD_ARGUMENTS);
#define METHOD(function)                                                                           \
    (PyCFunction)(void (*)(void))(function), METH_METHOD | METH_FASTCALL | METH_KEYWORDS

method step_send, step_empty, step_take, step_take_tick, step_take_entry, step_take_copies,
    step_take_sample, step_push, step_poll, step_wait, step_next;

/* Call the Python method that does the whole step. */
PyObject *fall_back(const struct state *state, enum step step, PyObject *object,
                    PyObject *const *arguments, Py_ssize_t count, PyObject *keywords);
/* Call a method for its effect, with one argument or, if that is NULL, none. */
bool call(PyObject *object, PyObject *name, PyObject *argument);

/* What a part of a step came to. After FAILED an exception is set. */
enum outcome { DONE, NOTHING, NOT_MINE, FAILED };

/* -- states.c, borrow.c ------------------------------------------------------------------------ */

int add_states(PyObject *module, struct state *state);
extern PyType_Spec borrow_spec, shared_array_spec;
PyObject *new_borrow(const struct state *state, struct words *words, PyObject *slot, PyObject *free,
                     PyObject *mapping);

/* -- send.c, sharedarray.c --------------------------------------------------------------------- */

enum outcome enter(const struct state *state, struct sender *sender);
bool leave(const struct state *state, struct sender *sender);
PyObject *use_numpy(PyObject *module, PyObject *arguments);
bool refers_to(const struct shared_array *shared, PyObject *array);
bool freeze(const struct state *state, const struct shared_array *shared);

/* -- ring.c ------------------------------------------------------------------------------------ */

/* An entry, copied out of shared memory once. */
struct entry {
    uint64_t stamp, length, nulls, size, offset, meta_offset;
    uint32_t segment, meta_segment, meta_size;
    uint8_t code, spare;
    uint16_t flags;
    char rest[INLINE]; /* metadata, then payload */
};
_Static_assert(sizeof(struct entry) == ENTRY_SIZE, "an entry is as layout.py says");

/* A message as its receiver has it: `borrow` if its payload lies in a sample, else in the entry. */
struct taken {
    struct entry entry;
    PyObject *borrow;
    const char *address; /* of the borrowed payload */
};

enum outcome take(const struct state *state, struct inlet *inlet, struct taken *taken);
bool is_usable(const struct outlet *outlet);
bool is_full(const struct outlet *outlet);
void push(struct outlet *outlet, const void *entry, size_t length, uint64_t size, uint64_t stamp);
bool is_done_with(const struct outlet *outlet, uint64_t index, uint64_t key);
int ring_bell(int descriptor);

/* -- event.c, timer.c -------------------------------------------------------------------------- */

PyObject *event_of(const struct state *state, PyObject *id, PyObject *value, PyObject *metadata);
bool next_tick(const struct state *state, const struct inputs *inputs, int64_t *due);

/* -- records.c -------------------------------------------------------------------------------- */

PyObject *pack_small(PyObject *module, PyObject *arguments);

/* -- pool.c, arrow.c, metadata.c, clock.c ------------------------------------------------------- */

enum outcome take_sample(const struct state *state, PyObject *pool, uint64_t size,
                         struct sample **found, struct mapping **mapping);
int sample_sent(const struct state *state, struct pool *pool, struct sample *sample,
                PyObject *marks);

/* An array of one buffer, ready to be placed. */
struct encoded {
    uint8_t code;
    uint64_t length, size;
    const char *values;
    struct shared_array *shared; /* that the values lie in, or NULL */
    void (*release)(struct encoded *);
    struct arrow_array {
        int64_t length, null_count, offset, n_buffers, n_children;
        const void **buffers;
        struct arrow_array **children, *dictionary;
        void (*release)(struct arrow_array *);
        void *private_data;
    } exported;
};

PyObject *use_arrow(PyObject *module, PyObject *arguments);
enum outcome encode_array(const struct state *state, const struct sender *sender, PyObject *data,
                          struct encoded *encoded);
PyObject *build_array(const struct state *state, const struct ring_input *input,
                      struct taken *taken);

/* Encode plain metadata into `room` bytes; -1 if it is not plain or too long. */
int encode_metadata(PyObject *metadata, char *into, size_t room);
/* Decode metadata: plain ones here, others by Python. */
PyObject *decode_metadata(const struct state *state, const char *data, size_t size);

int64_t realtime_ns(void);
int64_t monotonic_ns(void);
uint64_t clock_now(struct clock *clock);
PyObject *datetime_of(const struct state *state, uint64_t stamp);
int clock_saw(const struct state *state, struct clock *clock, uint64_t stamp);
