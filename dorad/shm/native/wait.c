/* The loop of a receiver: `NodeInputs.poll` and `wait` of dorad/node/nodeinputs.py, and
   `Receiver.next` of dorad/node/receiver.py; how to wait lies in dorad/shm/core/wait.c.

   While it looks and while it sleeps, it lets go of the interpreter lock. */

#include "native.h"

#include <errno.h>
#include <sys/epoll.h>

#define MAX_SECONDS 1e9 /* of a timeout; its nanoseconds fit into 64 bits */

/* -- poll -------------------------------------------------------------------------------------- */

static bool is_empty(PyObject *events, PyObject *name)
{
    PyObject *line = PyObject_GetAttr(events, name);
    bool empty = line != NULL && PyObject_Size(line) == 0;
    Py_XDECREF(line);
    PyErr_Clear();
    return empty;
}

static bool is_stepped(const struct inputs *inputs)
{
    return dora_may_be_stepped &&
           (dora_load(inputs->words.span, BOX_STEP, memory_order_relaxed) != 0 ||
            dora_is_held(inputs->words.span));
}

/* Return whether there is nothing to do but to look at the inputs. */
static bool is_calm(const struct state *state, const struct inputs *inputs)
{
    if (!is(state, inputs->connection, CONNECTION) || inputs->daemon_events == NULL ||
        inputs->order == NULL || !PyList_Check(inputs->order) || inputs->words.span.count < BOX_WORDS)
        return false;
    const struct connection *connection = (struct connection *)inputs->connection;
    return !dora_has_mail(inputs->words.span, connection->mail) && !is_stepped(inputs) &&
           connection->packets_handled == inputs->packets && !inputs->stopped &&
           !inputs->has_removed && !connection->lost &&
           is_empty(inputs->daemon_events, state->names.urgent) &&
           is_empty(inputs->daemon_events, state->names.endings);
}

/* Serve an input last from now on. */
static int move_to_end(PyObject *order, Py_ssize_t at, PyObject *item)
{
    if (at + 1 >= PyList_Size(order) || PyList_GetItem(order, at) != item)
        return 0;
    if (PyList_Append(order, item) < 0)
        return -1;
    return PyList_SetSlice(order, at, at + 1, NULL);
}

/* Return the next event if there is one. */
PyObject *step_poll(METHOD_ARGUMENTS)
{
    const struct state *state = PyType_GetModuleState(class);
    struct inputs *inputs = (struct inputs *)object;
    if (count != 0 || keywords != NULL || !is_calm(state, inputs))
        return fall_back(state, POLL, object, arguments, count, keywords);
    dora_hop_done(inputs->words.span);
    inputs->mail = ((struct connection *)inputs->connection)->mail;
    PyObject *order = Py_NewRef(inputs->order), *event = Py_NewRef(Py_None);
    for (Py_ssize_t at = 0; event == Py_None && at < PyList_Size(order); at++) {
        PyObject *item = Py_NewRef(PyList_GetItem(order, at));
        Py_DECREF(event);
        event = PyObject_CallMethodObjArgs(item, state->names.take, NULL);
        if (event != NULL && event != Py_None && move_to_end(order, at, item) < 0)
            Py_CLEAR(event);
        Py_DECREF(item);
    }
    Py_DECREF(order);
    if (event == Py_None && ((struct connection *)inputs->connection)->lost) {
        /* The end, which Python detects again. */
        Py_DECREF(event);
        return fall_back(state, POLL, object, arguments, count, keywords);
    }
    return event;
}

/* -- wait -------------------------------------------------------------------------------------- */

static bool watch(const struct state *state, const struct inputs *inputs,
                  struct dora_watched *watched)
{
    const struct dora_words words = inputs->words.span;
    watched->count = watched->lanes = 0;
    if (words.count < BOX_WORDS || is_stepped(inputs))
        return false;
    for (Py_ssize_t at = 0; at < PyList_Size(inputs->rings); at++) {
        struct inlet *inlet = (struct inlet *)PyList_GetItem(inputs->rings, at);
        if (!is(state, (PyObject *)inlet, INLET) || words.count < RING_WORDS ||
            inlet->ring.base > words.count - RING_WORDS ||
            !dora_watch_ring(watched, words, &inlet->ring))
            return false;
    }
    dora_watch_mail(watched, words, inputs->mail.value);
    return inputs->mail.given;
}

/* Look until something has come, at most until a time. */
static bool look(const struct dora_watched *watched, int64_t until)
{
    bool moved;
    Py_BEGIN_ALLOW_THREADS
    moved = dora_watch_look(watched, until);
    Py_END_ALLOW_THREADS
    return moved;
}

/* Have the doorbell rung, and return true if it is safe to sleep. */
static bool fall_asleep(const struct inputs *inputs, const struct dora_watched *watched)
{
    return dora_fall_asleep(inputs->words.span, watched) &&
           ((struct connection *)inputs->connection)->packets_handled == inputs->packets;
}

int check_sleep(int found, int code)
{
    if (found >= 0)
        return found;
    if (code == EINTR)
        return PyErr_CheckSignals();
    errno = code;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* Sleep until a descriptor is ready; return how many are, -1 with an exception. */
static int sleep_until(const struct inputs *inputs, const int64_t *due, bool fine,
                       struct epoll_event *ready)
{
    int found, code;
    /* A handler of a signal that came while we looked must run before we block. */
    if (PyErr_CheckSignals() < 0)
        return -1;
    Py_BEGIN_ALLOW_THREADS
    found = dora_sleep(inputs->epoll, due, fine, ready);
    code = errno;
    Py_END_ALLOW_THREADS
    return check_sleep(found, code);
}

/* Find when to wake up at the latest: at the deadline, or at the next tick if that is before it. */
static enum outcome due_at(PyObject *deadline, int64_t tick, int64_t *due, bool *fine)
{
    *due = INT64_MAX;
    if (deadline != Py_None) {
        int overflow;
        *due = PyLong_AsLongLongAndOverflow(deadline, &overflow);
        if (overflow)
            *due = overflow > 0 ? INT64_MAX : 0;
        if (*due == -1 && PyErr_Occurred())
            return FAILED;
    }
    *fine = tick < *due;
    if (*fine)
        *due = tick;
    return *due == INT64_MAX ? NOTHING : DONE;
}

static bool wait_for_events(const struct state *state, struct inputs *inputs, PyObject *deadline,
                            int64_t tick, const struct dora_watched *watched)
{
    int64_t started = dora_monotonic_ns(), due;
    struct dora_spin *spin = &((struct spin *)inputs->spin)->own;
    if (spin->budget_ns && look(watched, started + spin->budget_ns)) {
        dora_spin_found(spin);
        return true;
    }
    struct epoll_event ready[DORA_MAX_READY];
    int found = 0;
    bool fine = false;
    if (fall_asleep(inputs, watched)) {
        enum outcome outcome = due_at(deadline, tick, &due, &fine);
        found = outcome == FAILED
                    ? -1
                    : sleep_until(inputs, outcome == DONE ? &due : NULL, fine, ready);
    } else {
        /* A word that a peer keeps changing must not keep other threads from running. */
        Py_BEGIN_ALLOW_THREADS
        Py_END_ALLOW_THREADS
    }
    dora_wake_up(inputs->words.span);
    if (found < 0)
        return false;
    const struct connection *connection = (struct connection *)inputs->connection;
    bool mail = false;
    for (int at = 0; at < found; at++) {
        if (ready[at].data.fd == connection->bell)
            dora_spin_blocked(spin, dora_monotonic_ns() - started);
        else
            mail = true;
    }
    return !mail || call(inputs->connection, state->names.read_mail, NULL);
}

/* Sleep until an event may have come, or until the deadline. */
PyObject *step_wait(METHOD_ARGUMENTS)
{
    const struct state *state = PyType_GetModuleState(class);
    struct inputs *inputs = (struct inputs *)object;
    struct dora_watched watched;
    int64_t tick;
    if (count != 1 || keywords != NULL || inputs->rings == NULL || !PyList_Check(inputs->rings) ||
        inputs->choosy == NULL || PyObject_Size(inputs->choosy) != 0 || inputs->timers == NULL ||
        !PyList_Check(inputs->timers) || !is(state, inputs->spin, SPIN) ||
        !is(state, inputs->connection, CONNECTION) || inputs->words.span.count < BOX_WORDS ||
        !next_tick(state, inputs, &tick) || !watch(state, inputs, &watched)) {
        PyErr_Clear();
        return fall_back(state, WAIT, object, arguments, count, keywords);
    }
    if (!wait_for_events(state, inputs, arguments[0], tick, &watched))
        return NULL;
    Py_RETURN_NONE;
}

/* -- next -------------------------------------------------------------------------------------- */

static PyObject *timed_out(const struct state *state, PyObject *timeout)
{
    PyObject *events = PyImport_ImportModule("dorad.node.events");
    PyObject *event = events == NULL ? NULL
                                     : PyObject_CallMethodObjArgs(events, state->names.timed_out,
                                                                  timeout, NULL);
    Py_XDECREF(events);
    return event;
}

/* Poll and wait in turns. The caller has the turn. */
static PyObject *next(const struct state *state, struct receiver *receiver, PyObject *timeout,
                      PyObject *deadline)
{
    struct inputs *inputs = (struct inputs *)receiver->inputs;
    int64_t until = deadline == Py_None ? INT64_MAX : PyLong_AsLongLong(deadline);
    while (true) {
        /* Held: another thread may replace it meanwhile. */
        PyObject *poll = Py_NewRef(receiver->poll), *event = PyObject_CallNoArgs(poll);
        Py_DECREF(poll);
        if (event != Py_None || inputs->ended)
            return event;
        Py_DECREF(event);
        if (dora_monotonic_ns() >= until)
            return timed_out(state, timeout);
        /* Without a look at signals, a word that a peer keeps changing would keep us here. */
        if (!call((PyObject *)inputs, state->names.wait, deadline) || PyErr_CheckSignals() < 0)
            return NULL;
    }
}

/* Block for the next event. */
PyObject *step_next(METHOD_ARGUMENTS)
{
    const struct state *state = PyType_GetModuleState(class);
    struct receiver *receiver = (struct receiver *)object;
    double seconds = 0;
    if (count != 1 || keywords != NULL || dora_may_be_stepped ||
        !is(state, receiver->inputs, INPUTS) ||
        is_abandoned(state, object, RECEIVER) || receiver->turn == NULL || receiver->poll == NULL ||
        (arguments[0] != Py_None && (!PyFloat_CheckExact(arguments[0]) ||
                                     !((seconds = PyFloat_AsDouble(arguments[0])) >= 0) ||
                                     seconds > MAX_SECONDS)))
        return fall_back(state, NEXT, object, arguments, count, keywords);
    PyObject *timeout = arguments[0], *turn = Py_NewRef(receiver->turn);
    PyObject *deadline = timeout == Py_None
                             ? Py_NewRef(Py_None)
                             : PyLong_FromLongLong(dora_monotonic_ns() + (int64_t)(seconds * 1e9));
    PyObject *mine = deadline == NULL ? NULL
                                      : PyObject_CallMethodObjArgs(turn, state->names.acquire,
                                                                   Py_False, NULL);
    PyObject *event = NULL;
    if (mine == Py_False) {
        event = fall_back(state, NEXT, object, arguments, count, keywords);
    } else if (mine != NULL) {
        receiver->holder = PyThread_get_thread_ident();
        event = next(state, receiver, timeout, deadline);
        receiver->holder = 0;
        PyObject *type, *failure, *trace;
        PyErr_Fetch(&type, &failure, &trace);
        if (!call(turn, state->names.release, NULL))
            Py_CLEAR(event);
        if (receiver->tasks != NULL && PyObject_IsTrue(receiver->tasks) == 1 &&
            !call(object, state->names.wake_tasks, NULL))
            Py_CLEAR(event);
        if (type != NULL)
            PyErr_Restore(type, failure, trace);
    }
    Py_XDECREF(mine);
    Py_XDECREF(deadline);
    Py_DECREF(turn);
    return event;
}
