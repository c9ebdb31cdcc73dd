/* The data plane as a model for the spin checker: rings, borrowing, reclaiming, doorbells,
 * backpressure, and one process killed at any step, over x86-TSO memory.
 *
 * run.py gives the sizes and switches below with -D, and one MUTANT_... at a time to show that
 * each step of the protocol is needed. README.md says what is modelled and what is not.
 */

#ifndef PUBLISHERS
#define PUBLISHERS 1
#endif
#ifndef CONSUMERS
#define CONSUMERS 1
#endif
#ifndef MESSAGES                    /* sent by each publisher */
#define MESSAGES 3
#endif
#ifndef QUEUE                       /* queue_size of every edge */
#define QUEUE 1
#endif
#ifndef CAPACITY                    /* entries of a ring: more than QUEUE */
#define CAPACITY 2
#endif
#ifndef SAMPLES                     /* pool of each publisher; 0: every payload inline */
#define SAMPLES 2
#endif
#ifndef SLOTS                       /* hazard slots of an edge */
#define SLOTS 1
#endif
#ifndef BUFFER_DEPTH                /* stores a processor holds back */
#define BUFFER_DEPTH 2
#endif
#ifndef BACKPRESSURE_EDGES          /* bit e: edge e has queue_policy backpressure */
#define BACKPRESSURE_EDGES 0
#endif
#ifndef ONE_FENCE                   /* after pushing on all edges, instead of after each */
#define ONE_FENCE 0
#endif
#ifndef MIXED                       /* inline messages between samples */
#define MIXED 0
#endif
#ifndef CLOSES                      /* the end of a publisher is told to its consumers */
#define CLOSES 0
#endif
#ifndef POLL                        /* consumers never sleep on their doorbell */
#define POLL 0
#endif
#ifndef KILL_PUBLISHER
#define KILL_PUBLISHER 0
#endif
#ifndef KILL_CONSUMER
#define KILL_CONSUMER 0
#endif
#ifndef RESTARTS                    /* the daemon starts a killed node again */
#define RESTARTS 0
#endif
#ifndef READER                      /* someone reads the counters while all runs */
#define READER 0
#endif

#include "layout.pml"

bool bell[CONSUMERS];               /* eventfds: readable or not */
bool space[PUBLISHERS];

bool killed[PROCESSES], crashed[PROCESSES], exited[PROCESSES], handled[PROCESSES];

/* What really happened; read by assertions only. */
byte begun[PUBLISHERS];
byte pushed[EDGES], newest[EDGES], last[EDGES];
byte handed_out[EDGES], gone[EDGES];    /* gone: skipped, or lost with a killed consumer */
bool end_seen[EDGES], consumer_killed;

/* Never set: each names the property that a failed assertion is about. */
bool borrowed_sample_rewritten, copied_sample_rewritten, out_of_order_or_twice;
bool dropped_one_of_the_newest, older_than_the_newest, newest_lost, end_before_a_message;
bool asleep_beside_a_message, asleep_beside_the_end, sent_miscounted;
bool received_or_dropped_miscounted, counter_below_zero, backpressure_dropped;
bool hazard_left_behind;
#define MUST(condition, fault)  assert((condition) || fault)

#include "memory.pml"
#include "publisher.pml"
#include "consumer.pml"
#include "daemon.pml"

init
{
    atomic {
        mem[STATE(0)] = ATTACHED;
#if EDGES > 1
        mem[STATE(1)] = ATTACHED;
#endif
        run Memory();
        run Publisher(0, 0);
#if PUBLISHERS > 1
        run Publisher(1, 0);
#endif
        run Consumer(0);
#if CONSUMERS > 1
        run Consumer(1);
#endif
#if CLOSES || KILL_PUBLISHER || KILL_CONSUMER
        run Daemon();
#endif
#if KILL_PUBLISHER || KILL_CONSUMER
        run Killer();
#endif
#if READER
        run Reader();
#endif
        run Judge()
    }
}
