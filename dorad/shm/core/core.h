/* The protocol of the data plane, without Python: words, rings, clock, waiting, spinning.

   The extension (dorad/shm/native) and libdora_node are built from these files. Nothing here
   allocates, takes a lock or calls back: what differs between the two (where mappings are found, who
   owns a free slot, what a sample is) stays with the caller, in the steps between these functions.

   Each word has one writer. Each fence says what it pairs with. The modules of dorad/shm do the same
   in Python, and are what this is tested against. */

#pragma once

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* clock_gettime, ppoll, syscall */
#endif

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout_constants.h"

#define DORA_NANOS INT64_C(1000000000)

/* -- words ------------------------------------------------------------------------------------- */

typedef _Atomic uint64_t dora_word;

/* The words of a mapping; `at` is NULL if there are none. */
struct dora_words {
    dora_word *at;
    size_t count;
};

/* A number that may be missing. */
struct dora_optional {
    bool given;
    uint64_t value;
};

static inline uint64_t dora_load(struct dora_words words, size_t at, memory_order order)
{
    return atomic_load_explicit(&words.at[at], order);
}

static inline void dora_store(struct dora_words words, size_t at, uint64_t value,
                              memory_order order)
{
    atomic_store_explicit(&words.at[at], value, order);
}

/* Return whether packets came since their count was as given. */
static inline bool dora_has_mail(struct dora_words words, struct dora_optional mail)
{
    /* Acquire: as for every word that says to look elsewhere. */
    return !mail.given || dora_load(words, BOX_MAIL, memory_order_acquire) != mail.value;
}

/* Return the count in a word, to continue from; 0 if a peer has overwritten it. */
static inline uint64_t dora_read_count(struct dora_words words, size_t at)
{
    uint64_t count = dora_load(words, at, memory_order_relaxed);
    return count < COUNT_LIMIT ? count : 0;
}

/* The bucket of a latency in ns, in the ring at `base`; see dorad/shm/latencies.py. */
static inline size_t dora_bucket(uint64_t base, uint64_t latency)
{
    int bits = latency == 0 ? 0 : 64 - __builtin_clzll(latency);
    return base + RING_BUCKETS + (size_t)(bits < BUCKETS ? bits : BUCKETS - 1);
}

static inline void dora_count_latency(struct dora_words words, uint64_t base, uint64_t latency)
{
    size_t bucket = dora_bucket(base, latency);
    uint64_t count = dora_read_count(words, bucket) + 1;
    dora_store(words, bucket, count < COUNT_LIMIT ? count : 1, memory_order_relaxed);
}

/* Undo that. */
static inline void dora_uncount_latency(struct dora_words words, uint64_t base, uint64_t latency)
{
    size_t bucket = dora_bucket(base, latency);
    uint64_t count = dora_read_count(words, bucket);
    dora_store(words, bucket, count > 0 ? count - 1 : 0, memory_order_relaxed);
}

/* -- hops.c: what a process of a node does with messages; see dorad/shm/hops.py. -------------------

   `box` is the node's own mailbox. All take 10 ns, and never wait. */

/* Record that this thread took a message at `at` ns from the ring at `base`, where `queued` stay. It
   becomes the parent of what the thread sends. */
void dora_hop_received(struct dora_words box, uint64_t base, uint64_t stamp, uint64_t at,
                       uint64_t queued);
/* Record that this thread is done with the message it took last, if it was not before. */
void dora_hop_done(struct dora_words box);
/* Record a message of `size` bytes that was sent on the output with a key; none with key 0. */
void dora_hop_sent(struct dora_words box, uint64_t output, uint64_t stamp, uint64_t at,
                   uint64_t size);
/* Record the trace context of OpenTelemetry that the metadata of a sent message carry: zeros if it is
   not valid, nothing if there is none. */
void dora_hop_context(struct dora_words box, uint64_t output, uint64_t stamp, const char *metadata,
                      size_t size);
/* Record that `count` messages of a ring, from that with a number on, were dropped. */
void dora_hop_dropped(struct dora_words box, uint64_t base, uint64_t number, uint64_t count);
/* Make this thread go on with a message that was taken before. */
void dora_hop_resume(struct dora_words box, uint64_t base, uint64_t stamp, bool open);
/* Find what this thread took last from a mailbox, 0 if nothing; return whether it is open. */
bool dora_hop_taken(struct dora_words box, uint64_t *base, uint64_t *stamp);
/* Return the key of an output. */
uint64_t dora_output_key(const char *id, size_t size);

/* -- ring.c ------------------------------------------------------------------------------------ */

/* What a step came to. NOT_MINE: the entry or the ring needs more than this protocol's common case,
   and nothing was changed. */
enum dora_outcome { DORA_DONE, DORA_NOTHING, DORA_NOT_MINE };

/* An entry, as it lies in a ring, or copied out of one once. */
struct dora_entry {
    uint64_t stamp, length, nulls, size, offset, meta_offset;
    uint32_t segment, meta_segment, meta_size;
    uint8_t code, spare;
    uint16_t flags;
    char rest[INLINE]; /* metadata, then payload */
};
_Static_assert(sizeof(struct dora_entry) == ENTRY_SIZE, "an entry is as layout.py says");
_Static_assert(offsetof(struct dora_entry, code) == ENTRY_CODE, "its fields are where they must be");
_Static_assert(offsetof(struct dora_entry, rest) == ENTRY_SIZE - INLINE, "and so is its payload");

/* The place of one ring in a mailbox; see `RingPlan` of layout.py. */
struct dora_plan {
    uint64_t base, entries, capacity, queue_size, lane;
};

/* Read the plan of the ring whose header starts at word `base`; false if there is no valid ring. */
bool dora_ring_plan(struct dora_words words, uint64_t base, struct dora_plan *plan);

/* A producer's end: its place in the receiver's mailbox, and what it has pushed. That of a lane has
   the entries and the head of the lane; see dorad/shm/lane.py. */
struct dora_outlet {
    uint64_t base, queue_size, head, entries, mask, bytes;
    bool blocking, closed, lane;
};

/* A consumer's end. `limit` is where it stops, `latency` that of the last message, in ns. */
struct dora_inlet {
    uint64_t base, queue_size, tail, lane_tail, entries, mask;
    uint64_t received, unreadable, latency_sum, latency_diff;
    struct dora_optional limit, latency;
};

/* Return whether a ring lies in its mapping. */
bool dora_ring_lies_in(struct dora_words words, uint64_t base, uint64_t entries, uint64_t mask);
/* Return whether a consumer that reads has no room for one more. */
bool dora_ring_is_full(struct dora_words words, const struct dora_outlet *outlet);
/* Append an entry of `length` bytes. The caller calls `dora_ring_pushed` after its last push of a
   message. */
void dora_ring_push(struct dora_words words, struct dora_outlet *outlet, const void *entry,
                    size_t length, uint64_t size, uint64_t stamp);
/* Append an entry to a lane, after all that its ring holds now; `marks` is the lane's first mark. */
void dora_lane_push(struct dora_words words, struct dora_outlet *lane, struct dora_outlet *ring,
                    uint64_t marks, const struct dora_entry *entry, size_t length);
/* Order the pushes of a message before the look at ASLEEP that follows. */
void dora_ring_pushed(void);
/* Start or stop asking the consumer to ring the space bell when it takes a message. */
void dora_ring_announce_waiting(struct dora_words words, const struct dora_outlet *outlet,
                                bool waiting);
/* Return whether the consumer can no longer reach sample `key`, pushed as entry `index`. */
bool dora_ring_is_done_with(struct dora_words words, const struct dora_outlet *outlet,
                            uint64_t index, uint64_t key);

/* A consumer takes a message in three steps: read, borrow if the payload lies in a sample, and keep.
   If `keep` returns false the producer has lapped it, and all begins again. */
enum dora_outcome dora_ring_read(struct dora_words words, struct dora_inlet *inlet,
                                 struct dora_entry *entry);
/* Write the sample of an entry into a hazard slot: it stays until the slot is cleared. */
void dora_ring_borrow(struct dora_words words, size_t slot, const struct dora_entry *entry);
/* End a borrow. */
void dora_ring_give_back(dora_word *slot);
bool dora_ring_keep(struct dora_words words, struct dora_inlet *inlet,
                    const struct dora_entry *entry, uint64_t tail);
/* The same for the lane of a ring, whose entries begin at byte `entries`. */
enum dora_outcome dora_lane_read(struct dora_words words, const struct dora_inlet *inlet,
                                 uint64_t entries, struct dora_entry *entry);
bool dora_lane_keep(struct dora_words words, struct dora_inlet *inlet,
                    const struct dora_entry *entry, uint64_t tail);
/* Copy out the entry whose bytes begin at `from`: its header, and what it holds. NOT_MINE: it says
   that it holds more than an entry has. */
enum dora_outcome dora_entry_read(struct dora_words words, uint64_t from, struct dora_entry *entry);
/* Return whether a producer waits for the room that was made. */
bool dora_ring_has_waiter(struct dora_words words, const struct dora_inlet *inlet);

/* The word that names a sample in a hazard slot. */
static inline uint64_t dora_sample_key(uint32_t segment, uint64_t offset)
{
    return (uint64_t)segment << KEY_SEGMENT | offset >> KEY_OFFSET;
}

/* Return whether the payload of an entry may lie in `length` bytes of its segment. */
static inline bool dora_lies_at(uint64_t offset, uint64_t size, uint64_t length)
{
    return offset % ALIGNMENT == 0 && offset <= length && size <= length - offset;
}

/* -- pool.c: the decisions about samples; the lists are the caller's ----------------------------- */

/* Return the order of the samples that hold `size` bytes; they have `1 << order`. */
int dora_pool_order(uint64_t size);
/* Return whether so few samples are free that another segment may be needed. */
bool dora_pool_is_low(size_t free, size_t flying);
/* Return the bytes of the next segment for samples of an order, of which there are `count`. */
uint64_t dora_pool_next_size(int order, size_t count);

/* -- clock.c ----------------------------------------------------------------------------------- */

int64_t dora_realtime_ns(void);
int64_t dora_monotonic_ns(void);
/* Whether the daemon has said that it steps this process. Else no peer may hold it, or set its time,
   by words that all senders can write to. */
extern bool dora_may_be_stepped;

/* Return the logical time of the node with a mailbox while it is stepped, else 0; see
   dorad/shm/stepping.py. */
static inline int64_t dora_step_ns(struct dora_words box)
{
    if (!dora_may_be_stepped || box.count < BOX_WORDS)
        return 0;
    uint64_t step = dora_load(box, BOX_STEP, memory_order_relaxed);
    return step < COUNT_LIMIT ? (int64_t)step : 0;
}

/* Return whether the node's inputs are served by the age of their messages, and the daemon ends its
   sleep. */
static inline bool dora_is_stepped(struct dora_words box)
{
    return dora_may_be_stepped && box.count >= BOX_WORDS &&
           dora_load(box, BOX_STEP, memory_order_relaxed) != 0;
}

/* The time of the node with a mailbox: logical while it is stepped. */
static inline int64_t dora_time_ns(struct dora_words box)
{
    int64_t step = dora_step_ns(box);
    return step != 0 ? step : dora_realtime_ns();
}

/* The time for its timeouts and rates: CLOCK_MONOTONIC, or logical while it is stepped. */
static inline int64_t dora_timeout_ns(struct dora_words box)
{
    int64_t step = dora_step_ns(box);
    return step != 0 ? step : dora_monotonic_ns();
}

/* Return whether a node that is stepped must take no message. */
static inline bool dora_is_held(struct dora_words box)
{
    /* Acquire: what was sent in the steps of other nodes is in the rings when this one may go on. */
    return dora_may_be_stepped && dora_load(box, BOX_HELD, memory_order_acquire) != 0;
}

/* Return a timestamp later than `*last`, and all that were returned or seen before. */
uint64_t dora_clock_now(struct dora_words box, int64_t *last);
/* Advance to another clock's timestamp; false if it is too far ahead, and was refused. */
bool dora_clock_saw(struct dora_words box, int64_t *last, uint64_t stamp);

/* -- spin.c ------------------------------------------------------------------------------------ */

/* The spinning budget of a receiver; see dorad/shm/spin.py. */
struct dora_spin {
    int64_t budget_ns, limit_ns, cooldown, penalty;
};

/* Record that a spin found a message within the budget. */
void dora_spin_found(struct dora_spin *spin);
/* Record that the receiver blocked, and that a message came `waited_ns` after its call. */
void dora_spin_blocked(struct dora_spin *spin, int64_t waited_ns);

/* -- wait.c ------------------------------------------------------------------------------------ */

#define DORA_MAX_WATCHED 64
#define DORA_MAX_READY 4

/* The words that change when an event comes, with their values at the last poll. The heads of lanes
   are looked at before sleeping only. */
struct dora_watched {
    int count, lanes;
    struct {
        const dora_word *at;
        uint64_t seen;
    } words[DORA_MAX_WATCHED], lane_heads[DORA_MAX_WATCHED / 2];
};

/* Watch the ring of an inlet; false if there are too many. */
bool dora_watch_ring(struct dora_watched *watched, struct dora_words words,
                     const struct dora_inlet *inlet);
/* Watch for packets; `mail` is their count at the last poll. */
void dora_watch_mail(struct dora_watched *watched, struct dora_words words, uint64_t mail);
/* Watch for the end of being held. */
void dora_watch_held(struct dora_watched *watched, struct dora_words words);
/* Look until something has come, at most until a time. */
bool dora_watch_look(const struct dora_watched *watched, int64_t until_ns);
/* Have the doorbell rung from now on; return true if it is safe to sleep. */
bool dora_fall_asleep(struct dora_words words, const struct dora_watched *watched);
void dora_wake_up(struct dora_words words);

struct epoll_event;
/* Sleep until a descriptor is ready or until `*due_ns`, if it is given; return how many are ready,
   or -1 with `errno`. The time is exact to a millisecond; if `fine`, as exact as the machine can. */
int dora_sleep(int epoll, const int64_t *due_ns, bool fine, struct epoll_event *ready);
/* Return whether a node sleeps; its doorbell must be rung then. Call `dora_ring_pushed` before. */
static inline bool dora_is_asleep(struct dora_words words)
{
    return dora_load(words, BOX_ASLEEP, memory_order_relaxed) != 0;
}
/* Ring a doorbell: 0, or an error number; EINTR if a signal came first. A peer can make it block. */
int dora_bell_ring(int descriptor);
/* Discard the rings so far. Never blocks. */
void dora_bell_clear(int descriptor);
