/* What the parts of the extension share: the objects that Python and C both see, and their words.

   Python owns the semantics. A native step does what the Python method of the same name does, in the
   same order, for the common case; what of that needs no Python lies in dorad/shm/core. For any other case it returns to that method before it has
   changed anything ("not mine"). The state types here are the bases of the Python classes, so both
   work on the same fields. All of it runs with the interpreter lock held, except for the waiting in
   wait.c. */

#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>

#include "../core/arrays.h"
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
    SLEEP,
    TAKE_DIRECT,
    STEPS,
};

/* Strings that are used all the time. */
#define NAMES(X)                                                                                   \
    X(acquire) X(release) X(sent) X(setflags) X(wake_tasks)                                                      \
    X(saw) X(urgent) X(endings) X(take) X(wait) X(read_mail)                   \
    X(kind) X(dora) X(type) X(INPUT) X(id) X(value) X(metadata) X(timestamp) X(timed_out)          \
    X(payload) X(to_bytes) X(wake) X(fail)                                                         \
    X(_unreadable) X(_flush_deferred) X(_trim) X(_look_ahead) X(_export_to_c) X(equals)

#define MAX_CODE 32     /* above all type codes of arrays of one buffer */
#define MAX_TYPE_ID 64  /* above all ids of their Arrow types */
#define VARIABLE_CODES (CODE_LARGE_BINARY - CODE_STRING + 1)
#define KNOWN_TYPES 16 /* that were sent last, and that arrived last */

/* Described types, the newest first; see nested.c. */
struct known_types {
    PyObject *kinds_sent[KNOWN_TYPES], *kinds_arrived[KNOWN_TYPES];
    struct dora_type *sent[KNOWN_TYPES], *arrived[KNOWN_TYPES];
};

struct state {
    /* Objects, up to `bits`. */
    PyTypeObject *types[KINDS];
    PyObject *fallbacks[STEPS];
    PyObject *utc, *datetime, *decode_metadata;
    PyObject *enter_task; /* NULL before a task receives */
    /* Of Arrow and numpy, NULL before they are imported. */
    PyObject *array, *import_array, *no_value, *ndarray, *kinds, *read_type, *with_metadata;
    PyObject *bare[MAX_CODE]; /* the Arrow type of a code, or NULL */
    PyObject *variable[VARIABLE_CODES];
#define NAME(name) PyObject *name;
    struct { NAMES(NAME) } names;
#undef NAME
    uint8_t bits[MAX_CODE];       /* of one item of a code */
    uint8_t code_of[MAX_TYPE_ID]; /* the code of an Arrow type's id, or 0 */
    uint8_t uint8_code;
    struct known_types *known;
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
    step_take_sample, step_push, step_poll, step_wait, step_next, step_loop_sleep,
    step_take_direct;

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

/* A message as its receiver has it: `borrow` if its payload lies in a sample, else in the entry. */
struct taken {
    struct dora_entry entry;
    PyObject *borrow;
    const char *address; /* of the borrowed payload */
};

enum outcome take(const struct state *state, struct inlet *inlet, struct taken *taken);
/* Return what `Inlet.take` does; it takes over the borrow. */
PyObject *object_of(struct taken *taken);
bool is_usable(const struct outlet *outlet);
int ring_bell(int descriptor);

/* -- event.c, timer.c -------------------------------------------------------------------------- */

PyObject *event_of(const struct state *state, PyObject *id, PyObject *value, PyObject *metadata);
bool next_tick(const struct state *state, const struct inputs *inputs, int64_t *due);

/* -- records.c -------------------------------------------------------------------------------- */

PyObject *pack_small(PyObject *module, PyObject *arguments);

/* -- wait.c ------------------------------------------------------------------------------------ */

/* Return what `dora_sleep` has found; with -1 and its errno, -1 with an exception, or what a signal
   that came meanwhile allows. */
int check_sleep(int found, int code);

/* -- hops.c ------------------------------------------------------------------------------------ */

PyObject *hop_received(PyObject *module, PyObject *arguments);
PyObject *hop_done(PyObject *module, PyObject *arguments);
PyObject *hop_sent(PyObject *module, PyObject *arguments);
PyObject *hop_context(PyObject *module, PyObject *arguments);
PyObject *hop_dropped(PyObject *module, PyObject *arguments);
PyObject *hop_resume(PyObject *module, PyObject *arguments);
PyObject *hop_taken(PyObject *module, PyObject *arguments);
PyObject *hop_read(PyObject *module, PyObject *arguments);
PyObject *use_tasks(PyObject *module, PyObject *enter);
PyObject *allow_steps(PyObject *module, PyObject *allowed);

/* -- pool.c, arrow.c, metadata.c, clock.c ------------------------------------------------------- */

enum outcome take_sample(const struct state *state, PyObject *pool, uint64_t size,
                         struct sample **found, struct mapping **mapping);
int sample_sent(const struct state *state, struct pool *pool, struct sample *sample,
                PyObject *marks);

/* An array, ready to be placed: `size` bytes at `values`, or the parts of `written`. */
struct encoded {
    uint8_t code;
    uint64_t length, nulls, size;
    const char *values;
    struct shared_array *shared; /* that the values lie in, or NULL */
    void (*release)(struct encoded *);
    struct ArrowArray exported;
    struct dora_written written;
};

/* A message to push, with all that it needs, found before anything is changed. */
struct message {
    struct encoded encoded;
    char metadata[INLINE];
    size_t metadata_size;
    PyObject *outlets;
    uint64_t stamp;
    uint16_t flags;
};

/* Return whether each end takes a message at once, in the ordinary way. */
bool all_take(const struct state *state, PyObject *outlets);
/* Push a message that came from elsewhere to ends that all take it, and wake its receivers; see
   `Pool.push`. Its payload is in `sample`, or, if that is None, at its address. */
enum outcome push_message(const struct state *state, PyObject *pool, PyObject *sample,
                          const struct message *message);

static inline void place(const struct encoded *encoded, char *into)
{
    if (encoded->written.parts != NULL)
        dora_written_place(&encoded->written, into);
    else
        memcpy(into, encoded->values, encoded->size);
}

PyObject *use_arrow(PyObject *module, PyObject *arguments);
enum outcome encode_array(const struct state *state, const struct sender *sender, PyObject *data,
                          struct encoded *encoded);
PyObject *build_array(const struct state *state, const struct ring_input *input,
                      struct taken *taken);
bool export_array(const struct state *state, PyObject *array, struct encoded *encoded);
PyObject *import_array(const struct state *state, struct ArrowArray *exported, PyObject *kind);

/* -- nested.c ---------------------------------------------------------------------------------- */

void forget_types(struct known_types *known);
enum outcome encode_parts(const struct state *state, PyObject *data, uint8_t code,
                          struct encoded *encoded);
PyObject *build_parts(const struct state *state, const struct taken *taken);

/* Encode plain metadata into `room` bytes; -1 if it is not plain or too long. */
int encode_metadata(PyObject *metadata, char *into, size_t room);
/* Decode metadata: plain ones here, others by Python. */
PyObject *decode_metadata(const struct state *state, const char *data, size_t size);

PyObject *datetime_of(const struct state *state, uint64_t stamp);
int clock_saw(const struct state *state, struct dora_words box, struct clock *clock, uint64_t stamp);
