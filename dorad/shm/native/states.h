/* The state types: what C knows of the objects of Python's classes; see states.c. */

#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "words.h"

struct mapping {
    PyObject_HEAD
    struct words words;
    Py_ssize_t size;
    unsigned long long address;
    PyObject *memory;
};

struct peer {
    PyObject_HEAD
    struct words words;
    int bell;
    PyObject *mapping;
};

struct outlet {
    PyObject_HEAD
    struct words words;
    PyObject *peer, *lane, *memory, *hazards;
    char plain;
    struct dora_outlet ring;
    unsigned long long head_at, tail_at, bytes_at, last_at, waiting_at, state_at, output;
};

struct inlet {
    PyObject_HEAD
    struct words words;
    PyObject *memory, *segments, *space_bell, *free, *foreign, *latency_words;
    char plain;
    struct dora_inlet ring;
    unsigned long long head_at, lane_head_at, tail_at, received_at, unreadable_at, waiting_at;
};

struct segment {
    PyObject_HEAD
    PyObject *mapping, *samples;
    char idle;
    unsigned long long number;
};

struct sample {
    PyObject_HEAD
    PyObject *segment, *marks;
    unsigned long long offset, key;
    int order;
    long long held;
};

struct pool {
    PyObject_HEAD
    PyObject *free, *flying, *arrived, *returned;
};

struct clock {
    PyObject_HEAD
    PyObject *on_refused;
    int64_t last;
};

struct spin {
    PyObject_HEAD
    struct dora_spin own;
};

struct connection {
    PyObject_HEAD
    PyObject *outlets;
    int bell;
    char lost;
    struct dora_optional mail;
    long long packets_handled;
};

struct shared_arrays {
    PyObject_HEAD
    PyObject *known;
};

struct shared_array {
    PyObject_HEAD
    PyObject *array, *sample, *known, *returned;
    const void *identity;
    unsigned long long address, length, size;
    unsigned char code;
};

struct sender {
    PyObject_HEAD
    struct words words;
    PyObject *connection, *clock, *pool, *shared_arrays, *lock, *deferred, *encode;
    char busy;
    long long trim_due_ns;
};

struct ring_input {
    PyObject_HEAD
    PyObject *id, *inlet, *clock, *build;
    char removed;
    unsigned long long ring;
};

struct timer_input {
    PyObject_HEAD
    struct words words;
    PyObject *id;
    char stopped;
    struct dora_optional late_ns;
    long long due_ns, interval_ns, deadline_ns;
    unsigned long long ring, queue_size, tail, received;
    unsigned long long latency_sum_ns, latency_diff_ns, late_max_ns, missed;
};

struct inputs {
    PyObject_HEAD
    struct words words;
    PyObject *connection, *daemon_events, *order, *rings, *choosy, *timers, *spin;
    char ended, stopped, has_removed;
    int epoll;
    struct dora_optional mail;
    long long packets;
};

struct receiver {
    PyObject_HEAD
    PyObject *inputs, *turn, *poll, *tasks;
    unsigned long long holder;
};

/* Of links; see dorad/link/direct.py. */

struct incoming {
    PyObject_HEAD
    PyObject *arrived, *assembly, *prefix, *numbering;
    unsigned long long next, received, bytes, bytes_handled, max_size;
    unsigned long long acked_next, acked_bytes, ack_messages, ack_bytes;
};

struct in {
    PyObject_HEAD
    PyObject *channel, *origin, *output;
    unsigned long long latency_ns, latencies;
};

struct direct_in {
    PyObject_HEAD
    PyObject *sleep, *ins, *outlets, *pool, *reached, *machine, *queue;
};

struct direct_out {
    PyObject_HEAD
    PyObject *inlet, *put, *opening, *frame, *unsent, *error;
    unsigned long long sequence, room;
    long long offset, lowest;
};

struct loop_sleep {
    PyObject_HEAD
    struct words words;
    PyObject *working, *prepared;
    int bell, epoll;
    char had_data, wakes_soon;
};

enum kind {
    MAPPING,
    PEER,
    OUTLET,
    INLET,
    SEGMENT,
    SAMPLE,
    POOL,
    CLOCK,
    SPIN,
    CONNECTION,
    SHARED_ARRAYS,
    SENDER,
    RING_INPUT,
    TIMER_INPUT,
    INPUTS,
    RECEIVER,
    INCOMING,
    IN,
    DIRECT_IN,
    DIRECT_OUT,
    LOOP_SLEEP,
    BORROW,
    SHARED_ARRAY,
    KINDS,
};
