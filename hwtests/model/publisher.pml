/* The publishing node: take a sample back, fill it, push it on every edge, ring the doorbells.
 *
 * One step is at most one access to shared memory. Steps inside a d_step cannot be seen or
 * interrupted separately: there they are a load or store with the private bookkeeping after it.
 */

#define ME           p
#define INDEX(n, e)  index[(n) * EDGES + (e)]
#define NEVER        255

#ifdef MUTANT_RECLAIM_LOOKS_AT_ONE_EDGE
#define LAST_EDGE_TO_LOOK_AT  FIRST_OUT(p)
#else
#define LAST_EDGE_TO_LOOK_AT  LAST_OUT(p)
#endif

/* ok := sample n may be rewritten, for on no edge is it queued or in a hazard slot.
 * C11: TAIL and the slots are loaded with acquire; a seq_cst fence between them (`is_done_with`)
 * keeps the store of HEAD before the loads of the slots, as the one after the push does here. */
inline reclaim(n)
{
    ok = true;
    e = FIRST_OUT(p);
    do
    :: ok && e <= LAST_EDGE_TO_LOOK_AT && INDEX(n, e) != NEVER ->
#if defined(MUTANT_RECLAIM_SKIPS_QUEUE)
#elif defined(MUTANT_RECLAIM_FORGETS_DETACHED_QUEUE)
        d_step { ok = (mem[STATE(e)] == DETACHED || mem[TAIL(e)] > INDEX(n, e)
                       || head[e] - INDEX(n, e) > QUEUE) };
#else
        d_step { ok = (mem[TAIL(e)] > INDEX(n, e) || head[e] - INDEX(n, e) > QUEUE) };
#endif
#ifndef MUTANT_RECLAIM_SKIPS_HAZARDS
        slot = FIRST_SLOT(e);
        do
        :: ok && slot <= LAST_SLOT(e) ->
            d_step { ok = (mem[HAZARD(slot)] != KEY(SAMPLE(p, start, n))); slot++ }
        :: else -> break
        od;
        slot = 0;
#endif
        e++
    :: ok && e <= LAST_EDGE_TO_LOOK_AT && INDEX(n, e) == NEVER -> e++
    :: else -> break
    od;
    e = 0
}

/* Backpressure: returns once edge e has room or its consumer is gone. */
inline wait_for_room()
{
    d_step { no_room = (head[e] - mem[TAIL(e)] >= QUEUE) };     /* acquire */
    if
    :: no_room ->
        STORE(ME, WAITING(e), 1);                               /* relaxed */
#ifndef MUTANT_NO_FENCE_AFTER_WAITING
        FENCE(ME);                                              /* seq_cst */
#endif
#ifdef MUTANT_NO_LOOK_AFTER_WAITING
        space[p];
        space[p] = false;
#endif
        do
        :: true -> d_step { no_room = (head[e] - mem[TAIL(e)] >= QUEUE) };     /* acquire */
#ifndef MUTANT_BACKPRESSURE_IGNORES_STATE
           if
           :: no_room -> d_step { no_room = (mem[STATE(e)] == ATTACHED) }
           :: else
           fi;
#endif
           if
           :: no_room -> space[p]; space[p] = false        /* blocked: ppoll, then read the eventfd */
           :: else -> break
           fi
        od;
        STORE(ME, WAITING(e), 0)                                /* relaxed */
    :: else
    fi
}

/* C11: not atomic (`memcpy` in `push`); ordered by the release of HEAD that follows, and by the
 * fence after the last push, which keeps the earlier HEAD before it. */
inline write_entry()
{
    STORE(ME, ENTRY_MESSAGE(e, head[e]), message);
    STORE(ME, ENTRY_KEY(e, head[e]), key)
}

inline push()
{
    if
    :: BACKPRESSURE(e) -> wait_for_room()
    :: else
    fi;
#ifndef MUTANT_HEAD_BEFORE_ENTRY
    write_entry();
#endif
    /* release */
    d_step { STORE(ME, HEAD(e), head[e] + 1); pushed[e]++; newest[e] = message };
#ifdef MUTANT_HEAD_BEFORE_ENTRY
    write_entry();
#endif
    if
    :: key != 0 -> INDEX(n, e) = head[e]
    :: else
    fi;
    head[e]++
}

/* For the doorbell, for every reclaim that follows, and for the next entry. C11: seq_cst
 * (`wake_all`). */
inline fence_after_head()
{
#ifdef MUTANT_NO_FENCE_AFTER_HEAD
    skip
#else
    FENCE(ME)
#endif
}

inline ring()
{
#if POLL
    skip
#else
    if
    /* relaxed */
    :: mem[ASLEEP(CONSUMER_OF(e))] == 1 -> bell[CONSUMER_OF(e)] = true
    :: mem[ASLEEP(CONSUMER_OF(e))] == 0
    fi
#endif
}

inline publish_all()
{
    d_step {
        e = FIRST_OUT(p);
        do
        :: e <= LAST_OUT(p) -> head[e] = mem[HEAD(e)]; e++
        :: else -> e = 0; break
        od;
        do
        :: n < SAMPLES * EDGES -> index[n] = NEVER; n++
        :: else -> n = 0; break
        od
    };
    do
    :: begun[p] < MESSAGES ->
        d_step { begun[p]++; message = begun[p] };
#if SAMPLES > 0
        if
        :: n = 0
#if SAMPLES > 1
        :: n = 1
#endif
#if MIXED
        :: n = SAMPLES                          /* a small message: goes inline */
#endif
        fi;
        if
        :: n < SAMPLES ->
            reclaim(n);
            if
            :: ok ->
                STORE(ME, PAYLOAD(SAMPLE(p, start, n)), message);   /* not atomic */
                key = KEY(SAMPLE(p, start, n))
            :: else                             /* in use: go inline rather than wait for it */
            fi
        :: else
        fi;
#endif
        e = FIRST_OUT(p);
        do
        :: e <= LAST_OUT(p) ->
            push();
#if !ONE_FENCE
            fence_after_head();
            ring();
#endif
            e++
        :: else -> break
        od;
#if ONE_FENCE
        fence_after_head();
        e = FIRST_OUT(p);
        do
        :: e <= LAST_OUT(p) -> ring(); e++
        :: else -> break
        od;
#endif
        e = 0;
        d_step { n = 0; key = 0; message = 0; ok = false; no_room = false }
    :: else -> break
    od
}

proctype Publisher(byte p; byte start)
{
    byte head[EDGES];
    byte index[SAMPLES * EDGES + 1];            /* where a sample was last pushed on an edge */
    byte message, key, n, e, slot;
    bool ok, no_room;

#if KILL_PUBLISHER
    { publish_all() } unless { killed[ME] -> crashed[ME] = true };
#else
    publish_all();
#endif
    exited[ME] = true
}

#undef ME
