/* The loop of a receiver: `NodeInputs.poll` and `wait` of dorad/node/nodeinputs.py, and
   `Receiver.next` of dorad/node/receiver.py.

   While it looks and while it sleeps, it lets go of the interpreter lock. */

#include "native.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <time.h>

#define NANOS INT64_C(1000000000)
#define MAX_SECONDS 1e9 /* of a timeout; its nanoseconds fit into 64 bits */
#define MAX_WATCHED 64
#define MAX_READY 4

/* -- poll -------------------------------------------------------------------------------------- */

static bool is_empty(PyObject *events, PyObject *name)
{
    PyObject *line = PyObject_GetAttr(events, name);
    bool empty = line != NULL && PyObject_Size(line) == 0;
    Py_XDECREF(line);
    PyErr_Clear();
    return empty;
}

/* Return whether there is nothing to do but to look at the inputs. */
static bool is_calm(const struct state *state, const struct inputs *inputs)
{
    if (!is(state, inputs->connection, CONNECTION) || inputs->daemon_events == NULL ||
        inputs->order == NULL || !PyList_Check(inputs->order) || inputs->words.count < BOX_WORDS)
        return false;
    const struct connection *connection = (struct connection *)inputs->connection;
    return !has_mail(&inputs->words, connection->mail) &&
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

/* The words that change when an event comes, with their values at the last poll. */
struct watched {
    int count;
    struct {
        const word *at;
        uint64_t seen;
    } words[MAX_WATCHED];
    int lanes;
    struct {
        const word *at;
        uint64_t seen;
    } lane_heads[MAX_WATCHED];
};

static bool watch(const struct state *state, const struct inputs *inputs, struct watched *watched)
{
    watched->count = watched->lanes = 0;
    Py_ssize_t rings = PyList_Size(inputs->rings);
    if (rings > MAX_WATCHED / 2 - 1)
        return false;
    for (Py_ssize_t at = 0; at < rings; at++) {
        struct inlet *ring = (struct inlet *)PyList_GetItem(inputs->rings, at);
        if (!is(state, (PyObject *)ring, INLET) || ring->head_at >= inputs->words.count ||
            ring->lane_head_at >= inputs->words.count)
            return false;
        watched->words[watched->count].at = &inputs->words.at[ring->head_at];
        watched->words[watched->count++].seen = ring->tail;
        watched->lane_heads[watched->lanes].at = &inputs->words.at[ring->lane_head_at];
        watched->lane_heads[watched->lanes++].seen = ring->lane_tail;
        if (ring->lane_tail) {
            watched->words[watched->count].at = &inputs->words.at[ring->lane_head_at];
            watched->words[watched->count++].seen = ring->lane_tail;
        }
    }
    watched->words[watched->count].at = &inputs->words.at[BOX_MAIL];
    watched->words[watched->count++].seen = inputs->mail.value;
    return inputs->mail.given;
}

/* Return true if one of the words has changed. */
static bool has_moved(const struct watched *watched)
{
    for (int at = 0; at < watched->count; at++)
        /* Relaxed: the thread that takes the message loads HEAD again, with acquire. */
        if (atomic_load_explicit(watched->words[at].at, memory_order_relaxed) !=
            watched->words[at].seen)
            return true;
    return false;
}

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Look until something has come, at most until a time. */
static bool look(const struct watched *watched, int64_t until)
{
    bool found = false;
    Py_BEGIN_ALLOW_THREADS
    while (monotonic_ns() < until && !(found = has_moved(watched)))
        pause_briefly();
    Py_END_ALLOW_THREADS
    return found;
}

/* Return true if it is safe to sleep. The caller has stored ASLEEP. */
static bool may_sleep(const struct inputs *inputs, const struct watched *watched)
{
    /* We stored ASLEEP and look at HEAD and MAIL; pairs with the fence after the last push of a
       message, which stores HEAD and looks at ASLEEP, and with that of the daemon. */
    atomic_thread_fence(memory_order_seq_cst);
    if (has_moved(watched))
        return false;
    for (int at = 0; at < watched->lanes; at++)
        if (atomic_load_explicit(watched->lane_heads[at].at, memory_order_relaxed) !=
            watched->lane_heads[at].seen)
            return false;
    return ((struct connection *)inputs->connection)->packets_handled == inputs->packets;
}

/* Sleep until a descriptor is ready; return how many are, -1 with an exception. */
static int sleep_until(const struct inputs *inputs, const int64_t *due, bool fine,
                       struct epoll_event *ready)
{
    int epoll = inputs->epoll, found, code;
    /* A handler of a signal that came while we looked must run before we block. */
    if (PyErr_CheckSignals() < 0)
        return -1;
    int64_t now = monotonic_ns(), left = due == NULL || *due < now ? 0 : *due - now;
    Py_BEGIN_ALLOW_THREADS
    if (due == NULL) {
        found = epoll_wait(epoll, ready, MAX_READY, -1);
    } else if (fine) {
        struct pollfd descriptor = {.fd = epoll, .events = POLLIN};
        struct timespec time = {.tv_sec = left / NANOS, .tv_nsec = left % NANOS};
        found = ppoll(&descriptor, 1, &time, NULL);
        if (found > 0)
            found = epoll_wait(epoll, ready, MAX_READY, 0);
    } else {
        int64_t millis = left / 1000000 + (left % 1000000 > 0);
        found = epoll_wait(epoll, ready, MAX_READY, millis > INT32_MAX ? INT32_MAX : (int)millis);
    }
    code = errno;
    Py_END_ALLOW_THREADS
    if (found >= 0)
        return found;
    if (code == EINTR)
        return PyErr_CheckSignals();
    errno = code;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
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

/* See `Spin.blocked`. After a long wait without a budget there is nothing to record, nor where
   spinning is turned off: when messages are rare, each such call loads code into cold caches. */
static bool record_blocked(const struct state *state, struct spin *spin, int64_t waited)
{
    if (!spin->budget_ns && (waited >= WOULD_HAVE_PAID_NS || !spin->limit_ns))
        return true;
    PyObject *number = PyLong_FromLongLong(waited);
    bool done = number != NULL && call((PyObject *)spin, state->names.blocked, number);
    Py_XDECREF(number);
    return done;
}

static bool wait_for_events(const struct state *state, struct inputs *inputs, PyObject *deadline,
                            int64_t tick, const struct watched *watched)
{
    int64_t started = monotonic_ns(), due;
    struct spin *spin = (struct spin *)inputs->spin;
    if (spin->budget_ns && look(watched, started + spin->budget_ns)) {
        /* After another success there is nothing to record. */
        return (spin->budget_ns == spin->limit_ns && spin->penalty == 1) ||
               call((PyObject *)spin, state->names.found, NULL);
    }
    struct epoll_event ready[MAX_READY];
    int found = 0;
    bool fine = false;
    write_word(&inputs->words, BOX_ASLEEP, 1, memory_order_relaxed);
    if (may_sleep(inputs, watched)) {
        enum outcome outcome = due_at(deadline, tick, &due, &fine);
        found = outcome == FAILED
                    ? -1
                    : sleep_until(inputs, outcome == DONE ? &due : NULL, fine, ready);
    } else {
        /* A word that a peer keeps changing must not keep other threads from running. */
        Py_BEGIN_ALLOW_THREADS
        Py_END_ALLOW_THREADS
    }
    write_word(&inputs->words, BOX_ASLEEP, 0, memory_order_relaxed);
    if (found < 0)
        return false;
    const struct connection *connection = (struct connection *)inputs->connection;
    bool mail = false;
    for (int at = 0; at < found; at++) {
        if (ready[at].data.fd != connection->bell) {
            mail = true;
            continue;
        }
        if (!record_blocked(state, spin, monotonic_ns() - started))
            return false;
    }
    return !mail || call(inputs->connection, state->names.read_mail, NULL);
}

/* Sleep until an event may have come, or until the deadline. */
PyObject *step_wait(METHOD_ARGUMENTS)
{
    const struct state *state = PyType_GetModuleState(class);
    struct inputs *inputs = (struct inputs *)object;
    struct watched watched;
    int64_t tick;
    if (count != 1 || keywords != NULL || inputs->rings == NULL || !PyList_Check(inputs->rings) ||
        inputs->choosy == NULL || PyObject_Size(inputs->choosy) != 0 || inputs->timers == NULL ||
        !PyList_Check(inputs->timers) || !is(state, inputs->spin, SPIN) ||
        !is(state, inputs->connection, CONNECTION) || inputs->words.count < BOX_WORDS ||
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
        if (monotonic_ns() >= until)
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
    if (count != 1 || keywords != NULL || !is(state, receiver->inputs, INPUTS) ||
        is_abandoned(state, object, RECEIVER) || receiver->turn == NULL || receiver->poll == NULL ||
        (arguments[0] != Py_None && (!PyFloat_CheckExact(arguments[0]) ||
                                     !((seconds = PyFloat_AsDouble(arguments[0])) >= 0) ||
                                     seconds > MAX_SECONDS)))
        return fall_back(state, NEXT, object, arguments, count, keywords);
    PyObject *timeout = arguments[0], *turn = Py_NewRef(receiver->turn);
    PyObject *deadline = timeout == Py_None
                             ? Py_NewRef(Py_None)
                             : PyLong_FromLongLong(monotonic_ns() + (int64_t)(seconds * 1e9));
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
