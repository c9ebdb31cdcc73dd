/* The state types: bases of Python classes whose fields C reads and writes directly.

   Each mirrors the class of the same name in Python, which is used without the extension; see
   `twin` in dorad/shm/steps.py. */

#include "native.h"

/* -- creation and end -------------------------------------------------------------------------- */

#define WORDS_OF(name) release_words(&((struct name *)self)->words)

LIFE(mapping, memory, memory, WORDS_OF(mapping))
LIFE(peer, mapping, mapping, WORDS_OF(peer))
LIFE(outlet, peer, hazards, WORDS_OF(outlet))
LIFE(inlet, memory, latency_words, WORDS_OF(inlet))
LIFE(segment, mapping, samples, (void)0)
LIFE(sample, segment, marks, (void)0)
LIFE(pool, free, returned, (void)0)
LIFE(clock, on_refused, on_refused, (void)0)
LIFE(connection, outlets, outlets, (void)0)
LIFE(shared_arrays, known, known, (void)0)
LIFE(sender, connection, encode, WORDS_OF(sender))
LIFE(ring_input, id, build, (void)0)
LIFE(timer_input, id, id, WORDS_OF(timer_input))
LIFE(inputs, connection, spin, WORDS_OF(inputs))
LIFE(receiver, inputs, tasks, (void)0)
LIFE(incoming, arrived, numbering, (void)0)
LIFE(in, channel, output, (void)0)
LIFE(direct_in, sleep, queue, (void)0)
LIFE(direct_out, inlet, error, (void)0)
LIFE(loop_sleep, working, prepared, WORDS_OF(loop_sleep))

static void spin_dealloc(PyObject *self)
{
    free_object(self);
}

/* -- members ----------------------------------------------------------------------------------- */

#define OBJECT(type, field, name) {name, T_OBJECT_EX, offsetof(struct type, field), 0, NULL}
#define BOOL(type, field, name) {name, T_BOOL, offsetof(struct type, field), 0, NULL}
#define INT(type, field, name) {name, T_INT, offsetof(struct type, field), 0, NULL}
#define SIGNED(type, field, name) {name, T_LONGLONG, offsetof(struct type, field), 0, NULL}
#define COUNT(type, field, name) {name, T_ULONGLONG, offsetof(struct type, field), 0, NULL}
#define END {NULL, 0, 0, 0, NULL}

#define WORDS(type, name) \
    {name, get_words, set_words, NULL, (void *)offsetof(struct type, words)}
#define READABLE_WORDS(type, name) \
    {name, get_words, set_readable_words, NULL, (void *)offsetof(struct type, words)}
#define OPTIONAL(type, field, name) \
    {name, get_optional, set_optional, NULL, (void *)offsetof(struct type, field)}
#define MAIL(type, field, name) \
    {name, get_mail, set_mail, NULL, (void *)offsetof(struct type, field)}
#define NO_MORE {NULL, NULL, NULL, NULL, NULL}

#define METHODS(type, ...) \
    static PyMethodDef type##_methods[] = {__VA_ARGS__, {NULL, NULL, 0, NULL}}

static PyMemberDef mapping_members[] = {
    OBJECT(mapping, memory, "memory"),
    {"size", T_PYSSIZET, offsetof(struct mapping, size), 0, NULL},
    COUNT(mapping, address, "_address"),
    END,
};
static PyGetSetDef mapping_getset[] = {READABLE_WORDS(mapping, "words"), NO_MORE};

static PyMemberDef peer_members[] = {
    OBJECT(peer, mapping, "mapping"),
    INT(peer, bell, "bell"),
    END,
};
static PyGetSetDef peer_getset[] = {WORDS(peer, "words"), NO_MORE};

static PyMemberDef outlet_members[] = {
    OBJECT(outlet, peer, "peer"),
    OBJECT(outlet, lane, "lane"),
    OBJECT(outlet, memory, "_memory"),
    OBJECT(outlet, hazards, "_hazards"),
    BOOL(outlet, ring.blocking, "blocking"),
    BOOL(outlet, ring.closed, "closed"),
    BOOL(outlet, plain, "plain"),
    COUNT(outlet, ring.base, "base"),
    COUNT(outlet, ring.queue_size, "queue_size"),
    COUNT(outlet, ring.head, "head"),
    COUNT(outlet, ring.entries, "_entries"),
    COUNT(outlet, ring.mask, "_mask"),
    COUNT(outlet, ring.bytes, "_bytes"),
    COUNT(outlet, head_at, "_head_at"),
    COUNT(outlet, tail_at, "_tail_at"),
    COUNT(outlet, bytes_at, "_bytes_at"),
    COUNT(outlet, last_at, "_last_at"),
    COUNT(outlet, waiting_at, "_waiting_at"),
    COUNT(outlet, state_at, "_state_at"),
    COUNT(outlet, output, "output"),
    END,
};
static PyGetSetDef outlet_getset[] = {WORDS(outlet, "_words"), NO_MORE};

static PyMemberDef inlet_members[] = {
    OBJECT(inlet, memory, "_memory"),
    OBJECT(inlet, segments, "_segments"),
    OBJECT(inlet, space_bell, "_space_bell"),
    OBJECT(inlet, free, "_free"),
    OBJECT(inlet, foreign, "_foreign"),
    OBJECT(inlet, latency_words, "_latency_words"),
    BOOL(inlet, plain, "plain"),
    COUNT(inlet, ring.base, "base"),
    COUNT(inlet, ring.queue_size, "queue_size"),
    COUNT(inlet, ring.tail, "tail"),
    COUNT(inlet, ring.lane_tail, "lane_tail"),
    COUNT(inlet, ring.entries, "_entries"),
    COUNT(inlet, ring.mask, "_mask"),
    COUNT(inlet, ring.received, "_received"),
    COUNT(inlet, ring.unreadable, "_unreadable"),
    COUNT(inlet, ring.latency_sum, "_latency_sum"),
    COUNT(inlet, ring.latency_diff, "_latency_diff"),
    COUNT(inlet, head_at, "head_at"),
    COUNT(inlet, lane_head_at, "lane_head_at"),
    COUNT(inlet, tail_at, "_tail_at"),
    COUNT(inlet, received_at, "_received_at"),
    COUNT(inlet, unreadable_at, "_unreadable_at"),
    COUNT(inlet, waiting_at, "_waiting_at"),
    END,
};
static PyGetSetDef inlet_getset[] = {
    WORDS(inlet, "_words"),
    OPTIONAL(inlet, ring.limit, "limit"),
    OPTIONAL(inlet, ring.latency, "_latency"),
    NO_MORE,
};

METHODS(inlet,
        {"take", METHOD(step_take_entry), "Take the next message; see Inlet.take."},
        {"take_copies", METHOD(step_take_copies), "Take copies of messages; see Inlet.take_copies."});

static PyMemberDef segment_members[] = {
    OBJECT(segment, mapping, "mapping"),
    OBJECT(segment, samples, "samples"),
    BOOL(segment, idle, "idle"),
    COUNT(segment, number, "number"),
    END,
};

static PyMemberDef sample_members[] = {
    OBJECT(sample, segment, "segment"),
    OBJECT(sample, marks, "marks"),
    COUNT(sample, offset, "offset"),
    COUNT(sample, key, "key"),
    INT(sample, order, "order"),
    SIGNED(sample, held, "held"),
    END,
};

static PyMemberDef pool_members[] = {
    OBJECT(pool, free, "_free"),
    OBJECT(pool, flying, "_flying"),
    OBJECT(pool, returned, "returned"),
    OBJECT(pool, arrived, "_arrived"),
    END,
};
METHODS(pool,
        {"take", METHOD(step_take_sample), "Return a sample that nothing reads; see Pool.take."},
        {"push", METHOD(step_push), "Push a message of others; see Pool.push."});

static PyMemberDef clock_members[] = {
    OBJECT(clock, on_refused, "on_refused"),
    SIGNED(clock, last, "last"),
    END,
};

static PyMemberDef spin_members[] = {
    SIGNED(spin, own.budget_ns, "budget_ns"),
    SIGNED(spin, own.limit_ns, "_limit_ns"),
    SIGNED(spin, own.cooldown, "_cooldown"),
    SIGNED(spin, own.penalty, "_penalty"),
    END,
};

static PyMemberDef connection_members[] = {
    OBJECT(connection, outlets, "outlets"),
    INT(connection, bell, "bell"),
    BOOL(connection, lost, "lost"),
    SIGNED(connection, packets_handled, "packets_handled"),
    END,
};
static PyGetSetDef connection_getset[] = {MAIL(connection, mail, "mail"), NO_MORE};

static PyMemberDef shared_arrays_members[] = {
    OBJECT(shared_arrays, known, "_known"),
    END,
};

static PyMemberDef sender_members[] = {
    OBJECT(sender, connection, "_connection"),
    OBJECT(sender, clock, "_clock"),
    OBJECT(sender, pool, "pool"),
    OBJECT(sender, shared_arrays, "shared_arrays"),
    OBJECT(sender, lock, "_lock"),
    OBJECT(sender, deferred, "_deferred"),
    OBJECT(sender, encode, "_encode"),
    BOOL(sender, busy, "_busy"),
    SIGNED(sender, trim_due_ns, "_trim_due_ns"),
    END,
};
static PyGetSetDef sender_getset[] = {WORDS(sender, "_words"), NO_MORE};
METHODS(sender,
        {"send", METHOD(step_send), "Send `data` on a declared output; see Sender.send."},
        {"empty", METHOD(step_empty), "Return an array in shared memory; see Sender.empty."});

static PyMemberDef ring_input_members[] = {
    OBJECT(ring_input, id, "id"),
    OBJECT(ring_input, inlet, "inlet"),
    OBJECT(ring_input, clock, "clock"),
    OBJECT(ring_input, build, "_build"),
    BOOL(ring_input, removed, "removed"),
    COUNT(ring_input, ring, "ring"),
    END,
};
METHODS(ring_input,
        {"take", METHOD(step_take), "Return the next event, or None; see RingInput.take."});

static PyMemberDef timer_input_members[] = {
    OBJECT(timer_input, id, "id"),
    BOOL(timer_input, stopped, "_stopped"),
    SIGNED(timer_input, due_ns, "_due_ns"),
    SIGNED(timer_input, interval_ns, "_interval_ns"),
    SIGNED(timer_input, deadline_ns, "_deadline_ns"),
    COUNT(timer_input, ring, "ring"),
    COUNT(timer_input, queue_size, "_queue_size"),
    COUNT(timer_input, tail, "_tail"),
    COUNT(timer_input, received, "_received"),
    COUNT(timer_input, latency_sum_ns, "_latency_sum_ns"),
    COUNT(timer_input, latency_diff_ns, "_latency_diff_ns"),
    COUNT(timer_input, late_max_ns, "_late_max_ns"),
    COUNT(timer_input, missed, "_missed"),
    END,
};
static PyGetSetDef timer_input_getset[] = {
    WORDS(timer_input, "_words"),
    OPTIONAL(timer_input, late_ns, "_late_ns"),
    NO_MORE,
};
METHODS(timer_input,
        {"take", METHOD(step_take_tick), "Return the next tick, or None; see TimerInput.take."});

static PyMemberDef inputs_members[] = {
    OBJECT(inputs, connection, "connection"),
    OBJECT(inputs, daemon_events, "_daemon_events"),
    OBJECT(inputs, order, "_order"),
    OBJECT(inputs, rings, "_rings"),
    OBJECT(inputs, choosy, "_choosy"),
    OBJECT(inputs, timers, "_timers"),
    OBJECT(inputs, spin, "_spin"),
    BOOL(inputs, ended, "ended"),
    BOOL(inputs, stopped, "_stopped"),
    BOOL(inputs, has_removed, "_has_removed"),
    INT(inputs, epoll, "_epoll"),
    SIGNED(inputs, packets, "_packets"),
    END,
};
static PyGetSetDef inputs_getset[] = {
    WORDS(inputs, "_words"),
    MAIL(inputs, mail, "_mail"),
    NO_MORE,
};
METHODS(inputs,
        {"poll", METHOD(step_poll), "Return the next event if there is one; see NodeInputs.poll."},
        {"wait", METHOD(step_wait), "Sleep until an event may have come; see NodeInputs.wait."});

static PyMemberDef receiver_members[] = {
    OBJECT(receiver, inputs, "inputs"),
    OBJECT(receiver, turn, "_turn"),
    OBJECT(receiver, poll, "_poll"),
    OBJECT(receiver, tasks, "_tasks"),
    COUNT(receiver, holder, "_holder"),
    END,
};
METHODS(receiver,
        {"next", METHOD(step_next), "Block for the next event; see Receiver.next."});

static PyMemberDef incoming_members[] = {
    OBJECT(incoming, arrived, "arrived"),
    OBJECT(incoming, assembly, "_assembly"),
    OBJECT(incoming, prefix, "_prefix"),
    OBJECT(incoming, numbering, "_numbering"),
    COUNT(incoming, next, "_next"),
    COUNT(incoming, received, "received"),
    COUNT(incoming, bytes, "_bytes"),
    COUNT(incoming, bytes_handled, "_bytes_handled"),
    COUNT(incoming, max_size, "max_size"),
    COUNT(incoming, acked_next, "_acked_next"),
    COUNT(incoming, acked_bytes, "_acked_bytes"),
    COUNT(incoming, ack_messages, "_ack_messages"),
    COUNT(incoming, ack_bytes, "_ack_bytes"),
    END,
};

static PyMemberDef in_members[] = {
    OBJECT(in, channel, "channel"),
    OBJECT(in, origin, "origin"),
    OBJECT(in, output, "output"),
    COUNT(in, latency_ns, "latency_ns"),
    COUNT(in, latencies, "latencies"),
    END,
};

static PyMemberDef direct_in_members[] = {
    OBJECT(direct_in, sleep, "_sleep"),
    OBJECT(direct_in, ins, "_ins"),
    OBJECT(direct_in, outlets, "_outlets"),
    OBJECT(direct_in, pool, "_pool"),
    OBJECT(direct_in, reached, "_reached"),
    OBJECT(direct_in, machine, "_machine"),
    OBJECT(direct_in, queue, "_queue"),
    END,
};
METHODS(direct_in,
        {"take", METHOD(step_take_direct), "Deliver a sample of Zenoh; see DirectIn.take."});

static PyMemberDef direct_out_members[] = {
    OBJECT(direct_out, inlet, "_inlet"),
    OBJECT(direct_out, put, "_put"),
    OBJECT(direct_out, opening, "_opening"),
    OBJECT(direct_out, frame, "frame"),
    OBJECT(direct_out, unsent, "unsent"),
    OBJECT(direct_out, error, "error"),
    COUNT(direct_out, sequence, "_sequence"),
    COUNT(direct_out, room, "_room"),
    SIGNED(direct_out, offset, "_offset"),
    SIGNED(direct_out, lowest, "_lowest"),
    END,
};

static PyMemberDef loop_sleep_members[] = {
    OBJECT(loop_sleep, working, "working"),
    OBJECT(loop_sleep, prepared, "prepared"),
    INT(loop_sleep, bell, "_bell"),
    INT(loop_sleep, epoll, "_epoll"),
    BOOL(loop_sleep, had_data, "had_data"),
    BOOL(loop_sleep, wakes_soon, "wakes_soon"),
    END,
};
static PyGetSetDef loop_sleep_getset[] = {WORDS(loop_sleep, "_words"), NO_MORE};
METHODS(loop_sleep,
        {"sleep", METHOD(step_loop_sleep), "Sleep, then send what came; see LoopSleep.sleep."});

/* -- the types --------------------------------------------------------------------------------- */

static PyMethodDef no_methods[] = {{NULL, NULL, 0, NULL}};
static PyGetSetDef no_getset[] = {NO_MORE};

#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE)
#define TYPE(type, class, getset, methods)                                                         \
    {                                                                                              \
        .name = "dorad.shm.native._native." class, .basicsize = sizeof(struct type),               \
        .flags = FLAGS | Py_TPFLAGS_HAVE_GC, .slots = (PyType_Slot[]){                             \
            {Py_tp_traverse, type##_traverse},                                                     \
            {Py_tp_clear, type##_clear},                                                           \
            {Py_tp_dealloc, type##_dealloc},                                                       \
            {Py_tp_members, type##_members},                                                       \
            {Py_tp_getset, getset},                                                                \
            {Py_tp_methods, methods},                                                              \
            {0, NULL},                                                                             \
        }                                                                                          \
    }

static PyType_Spec specs[KINDS] = {
    [MAPPING] = TYPE(mapping, "MappingState", mapping_getset, no_methods),
    [PEER] = TYPE(peer, "PeerState", peer_getset, no_methods),
    [OUTLET] = TYPE(outlet, "OutletState", outlet_getset, no_methods),
    [INLET] = TYPE(inlet, "InletState", inlet_getset, inlet_methods),
    [SEGMENT] = TYPE(segment, "SegmentState", no_getset, no_methods),
    [SAMPLE] = TYPE(sample, "SampleState", no_getset, no_methods),
    [POOL] = TYPE(pool, "PoolState", no_getset, pool_methods),
    [CLOCK] = TYPE(clock, "ClockState", no_getset, no_methods),
    [SPIN] = {
        .name = "dorad.shm.native._native.SpinState", .basicsize = sizeof(struct spin),
        .flags = FLAGS, .slots = (PyType_Slot[]){
            {Py_tp_dealloc, spin_dealloc},
            {Py_tp_members, spin_members},
            {0, NULL},
        },
    },
    [CONNECTION] = TYPE(connection, "ConnectionState", connection_getset, no_methods),
    [SHARED_ARRAYS] = TYPE(shared_arrays, "SharedArraysState", no_getset, no_methods),
    [SENDER] = TYPE(sender, "SenderState", sender_getset, sender_methods),
    [RING_INPUT] = TYPE(ring_input, "RingInputState", no_getset, ring_input_methods),
    [TIMER_INPUT] =
        TYPE(timer_input, "TimerInputState", timer_input_getset, timer_input_methods),
    [INPUTS] = TYPE(inputs, "NodeInputsState", inputs_getset, inputs_methods),
    [RECEIVER] = TYPE(receiver, "ReceiverState", no_getset, receiver_methods),
    [INCOMING] = TYPE(incoming, "IncomingState", no_getset, no_methods),
    [IN] = TYPE(in, "InState", no_getset, no_methods),
    [DIRECT_IN] = TYPE(direct_in, "DirectInState", no_getset, direct_in_methods),
    [DIRECT_OUT] = TYPE(direct_out, "DirectOutState", no_getset, no_methods),
    [LOOP_SLEEP] = TYPE(loop_sleep, "LoopSleepState", loop_sleep_getset, loop_sleep_methods),
};

int add_states(PyObject *module, struct state *state)
{
    for (int kind = 0; kind < KINDS; kind++) {
        PyType_Spec *spec = kind == BORROW         ? &borrow_spec
                            : kind == SHARED_ARRAY ? &shared_array_spec
                                                   : &specs[kind];
        PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
        state->types[kind] = (PyTypeObject *)type;
        if (type == NULL || PyModule_AddType(module, (PyTypeObject *)type) < 0)
            return -1;
    }
    return 0;
}
