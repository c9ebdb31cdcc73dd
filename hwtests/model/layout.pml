/* The words in shared memory: who writes each, and where it is.
 *
 * An edge e joins one publisher to one consumer. Either one publisher feeds all consumers
 * (PUBLISHERS == 1) or all publishers feed one consumer (CONSUMERS == 1).
 */

#define EDGES      (PUBLISHERS * CONSUMERS)
#define PROCESSES  (PUBLISHERS + CONSUMERS)

#if PUBLISHERS == 1
#define PUBLISHER_OF(e)  0
#define FIRST_OUT(p)     0
#define LAST_OUT(p)      (EDGES - 1)
#else
#define PUBLISHER_OF(e)  e
#define FIRST_OUT(p)     p
#define LAST_OUT(p)      p
#endif

#if CONSUMERS == 1
#define CONSUMER_OF(e)   0
#define FIRST_IN(c)      0
#define LAST_IN(c)       (EDGES - 1)
#else
#define CONSUMER_OF(e)   e
#define FIRST_IN(c)      c
#define LAST_IN(c)       c
#endif

#define PUBLISHER_ID(p)  (p)
#define CONSUMER_ID(c)   (PUBLISHERS + (c))

#define BACKPRESSURE(e)  ((BACKPRESSURE_EDGES >> (e)) & 1)

/* Every start of a publisher gets its own samples: a restarted one never rewrites old ones. */
#if RESTARTS && KILL_PUBLISHER
#define STARTS 2
#else
#define STARTS 1
#endif
#ifdef MUTANT_RESTARTED_PUBLISHER_REUSES_SAMPLES
#define SAMPLE(p, start, n)  ((p) * SAMPLES + (n))
#else
#define SAMPLE(p, start, n)  (((p) * STARTS + (start)) * SAMPLES + (n))
#endif
#define ALL_SAMPLES          (PUBLISHERS * STARTS * SAMPLES)
#define KEY(sample)          ((sample) + 1)              /* 0: no sample, payload inline */

/* written by the publisher */
#define HEAD(e)          (e)
#define WAITING(e)       (EDGES + (e))
#define ENTRY_MESSAGE(e, i)  (6 * EDGES + (e) * CAPACITY + ((i) % CAPACITY))
#define ENTRY_KEY(e, i)      ((6 + CAPACITY) * EDGES + (e) * CAPACITY + ((i) % CAPACITY))
#define PAYLOAD(sample)      ((6 + 2 * CAPACITY + SLOTS) * EDGES + (sample))
/* written by the consumer */
#define TAIL(e)          (2 * EDGES + (e))
#define RECEIVED(e)      (3 * EDGES + (e))
#define ASLEEP(c)        (4 * EDGES + (c))
#define HAZARD(slot)     ((6 + 2 * CAPACITY) * EDGES + (slot))
#define FIRST_SLOT(e)    ((e) * SLOTS)
#define LAST_SLOT(e)     ((e) * SLOTS + SLOTS - 1)
/* written by the daemon */
#define STATE(e)         (5 * EDGES + (e))
#define DETACHED 0
#define ATTACHED 1
#define CLOSED   2

#define WORDS            ((6 + 2 * CAPACITY + SLOTS) * EDGES + ALL_SAMPLES + 1)

/* The counters of an edge, as anyone reads them; they add up to HEAD whatever the words are. */
#ifdef MUTANT_DROPPED_IN_ONE_WORD                        /* the word counts drops instead */
#define DROPPED(e)           RECEIVED(e)
#define COUNTED_RECEIVED(e)  (mem[TAIL(e)] - mem[DROPPED(e)])
#else
#define COUNTED_RECEIVED(e)  mem[RECEIVED(e)]
#endif
#define BEHIND(e)            (mem[HEAD(e)] - mem[TAIL(e)])
#define COUNTED_QUEUED(e)    (BEHIND(e) < QUEUE -> BEHIND(e) : QUEUE)
#define COUNTED_DROPPED(e) \
    (mem[TAIL(e)] - COUNTED_RECEIVED(e) + BEHIND(e) - COUNTED_QUEUED(e))
