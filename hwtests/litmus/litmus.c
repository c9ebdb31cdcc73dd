/* Litmus tests of the fences in dorad/shm/native: two threads, one step of the protocol each, on
   the words of a mailbox where dorad/shm/layout.py puts them.

       litmus PAIR ROUNDS

   prints in how many rounds both threads missed each other, which the fences forbid. Compiled with
   -DWITHOUT_FENCES, only the compiler keeps the order of the steps, and the processor need not. */

#define _GNU_SOURCE /* pthread_setaffinity_np */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout_constants.h"

#ifdef WITHOUT_FENCES
#define FENCE() atomic_signal_fence(memory_order_seq_cst)
#define ACQUIRE memory_order_relaxed
#define RELEASE memory_order_relaxed
#else
#define FENCE() atomic_thread_fence(memory_order_seq_cst)
#define ACQUIRE memory_order_acquire
#define RELEASE memory_order_release
#endif

#define CACHE_LINE 64
#define CAPACITY 16
#define ENTRY_WORDS (ENTRY_SIZE / WORD)
#define ENTRIES (BOX_WORDS + RING_WORDS)
#define MAX_SPINS 2000 /* before a thread lets another one have its processor */

typedef _Atomic uint64_t word;

static _Alignas(4096) word mailbox[ENTRIES + CAPACITY * ENTRY_WORDS];
static word *const ring = mailbox + BOX_WORDS;

static void store(word *at, uint64_t value, memory_order order)
{
    atomic_store_explicit(at, value, order);
}

static uint64_t load(word *at, memory_order order)
{
    return atomic_load_explicit(at, order);
}

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static void await(word *at, uint64_t value, memory_order order)
{
    for (int spins = 0; load(at, order) < value; spins++)
        if (spins < MAX_SPINS)
            pause_briefly();
        else
            sched_yield();
}

/* -- the steps ---------------------------------------------------------------------------------

   Each stores the number of the round in its own word, and returns true if it misses that of the
   other. The orders and fences are those of the function that is named. */

/* `push` and `wake_all`: no bell is rung ... */
static bool push_and_look_at_asleep(uint64_t round)
{
    store(&ring[RING_HEAD], round, RELEASE);
    FENCE();
    return load(&mailbox[BOX_ASLEEP], memory_order_relaxed) < round;
}

/* ... and `may_sleep`: the receiver sleeps beside a message. */
static bool fall_asleep_and_look_at_head(uint64_t round)
{
    store(&mailbox[BOX_ASLEEP], round, memory_order_relaxed);
    FENCE();
    return load(&ring[RING_HEAD], memory_order_relaxed) < round;
}

/* `push` and `is_done_with`: the sample is written again ... */
static bool push_and_look_at_slot(uint64_t round)
{
    store(&ring[RING_HEAD], round, RELEASE);
    FENCE();
    return load(&ring[RING_HAZARDS], ACQUIRE) < round;
}

/* ... and `borrow` with the second look in `take`: it is read meanwhile. */
static bool borrow_and_look_at_head(uint64_t round)
{
    store(&ring[RING_HAZARDS], round, memory_order_relaxed);
    FENCE();
    return load(&ring[RING_HEAD], memory_order_relaxed) < round;
}

/* `Outlet.announce_waiting` and `is_full`: the sender waits for room ... */
static bool wait_and_look_at_tail(uint64_t round)
{
    store(&ring[RING_WAITING], round, memory_order_relaxed);
    FENCE();
    return load(&ring[RING_TAIL], ACQUIRE) < round;
}

/* ... and `make_room_known`: the receiver does not tell it that there is some. */
static bool take_and_look_at_waiting(uint64_t round)
{
    store(&ring[RING_TAIL], round, RELEASE);
    FENCE();
    return load(&ring[RING_WAITING], memory_order_relaxed) < round;
}

static word *entry_of(uint64_t round)
{
    return &mailbox[ENTRIES + round % CAPACITY * ENTRY_WORDS];
}

/* `push`: the entry, then HEAD ... */
static bool push_entry(uint64_t round)
{
    word *entry = entry_of(round);
    for (int at = 0; at < ENTRY_WORDS; at++)
        store(&entry[at], round, memory_order_relaxed);
    store(&ring[RING_HEAD], round, RELEASE);
    return true;
}

/* ... and `take`: HEAD, then the entry, of which a part is old. */
static bool take_entry(uint64_t round)
{
    word *entry = entry_of(round);
    await(&ring[RING_HEAD], round, ACQUIRE);
    bool old = false;
    for (int at = ENTRY_WORDS - 1; at >= 0; at--)
        old |= load(&entry[at], memory_order_relaxed) != round;
    return old;
}

typedef bool step(uint64_t round);

static const struct pair {
    const char *name;
    step *steps[2];
} pairs[] = {
    {"asleep", {push_and_look_at_asleep, fall_asleep_and_look_at_head}},
    {"borrow", {push_and_look_at_slot, borrow_and_look_at_head}},
    {"waiting", {wait_and_look_at_tail, take_and_look_at_waiting}},
    {"entry", {push_entry, take_entry}},
};

/* -- two threads ------------------------------------------------------------------------------- */

static struct side {
    _Alignas(CACHE_LINE) word round;
    step *step;
    int processor;
    uint64_t seed;
    bool *missed;
} sides[2];

static uint64_t rounds;

static void *run(void *argument)
{
    struct side *own = argument, *other = &sides[own == sides];
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(own->processor, &only);
    if (pthread_setaffinity_np(pthread_self(), sizeof only, &only) != 0)
        return "a thread cannot be bound to a processor";
    for (uint64_t round = 1; round <= rounds; round++) {
        store(&own->round, round, memory_order_release);
        await(&other->round, round, memory_order_acquire);
        /* Neither shall always come first. */
        own->seed = own->seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        for (uint64_t left = own->seed >> 60; left; left--)
            pause_briefly();
        own->missed[round - 1] = own->step(round);
    }
    return NULL;
}

static int find_processors(void)
{
    cpu_set_t all;
    if (sched_getaffinity(0, sizeof all, &all) < 0)
        return 0;
    int found = 0;
    for (int at = 0; at < CPU_SETSIZE && found < 2; at++)
        if (CPU_ISSET(at, &all))
            sides[found++].processor = at;
    return found;
}

static int fail(const char *text)
{
    fprintf(stderr, "litmus: %s\n", text);
    return 2;
}

int main(int count, char **arguments)
{
    if (count != 3)
        return fail("usage: litmus PAIR ROUNDS");
    const struct pair *pair = NULL;
    for (size_t at = 0; at < sizeof pairs / sizeof *pairs; at++)
        if (strcmp(pairs[at].name, arguments[1]) == 0)
            pair = &pairs[at];
    rounds = strtoull(arguments[2], NULL, 10);
    if (pair == NULL || rounds == 0)
        return fail("there is no such pair, or no rounds");
    if (find_processors() < 2)
        return fail("two processors are needed");
    pthread_t threads[2];
    for (int at = 0; at < 2; at++) {
        sides[at].step = pair->steps[at];
        sides[at].seed = (uint64_t)at + 1;
        if ((sides[at].missed = calloc(rounds, sizeof(bool))) == NULL)
            return fail("there is not enough memory for so many rounds");
    }
    for (int at = 0; at < 2; at++)
        if (pthread_create(&threads[at], NULL, run, &sides[at]) != 0)
            return fail("no thread can be started");
    for (int at = 0; at < 2; at++) {
        void *failure;
        if (pthread_join(threads[at], &failure) != 0 || failure != NULL)
            return fail(failure != NULL ? failure : "a thread cannot be awaited");
    }
    uint64_t both = 0;
    for (uint64_t at = 0; at < rounds; at++)
        both += sides[0].missed[at] && sides[1].missed[at];
    printf("%llu\n", (unsigned long long)both);
    return 0;
}
