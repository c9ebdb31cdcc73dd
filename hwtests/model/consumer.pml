/* The receiving node: take or borrow messages, hold them, give them back, sleep. */

#define ME  CONSUMER_ID(c)

/* The last reference to a borrowed array dies; until then the user may read it.
 * C11: the slot is stored with release (`borrow_dealloc`), after the last read. */
inline give_back(s)
{
#ifdef MUTANT_SLOT_CLEARED_BEFORE_LAST_READ
    STORE(ME, HAZARD(s), 0);
    d_step { MUST(mem[PAYLOAD(held_key[s] - 1)] == held[s], borrowed_sample_rewritten);
             held[s] = 0; held_key[s] = 0 }
#else
    d_step { MUST(mem[PAYLOAD(held_key[s] - 1)] == held[s], borrowed_sample_rewritten) };
    d_step { STORE(ME, HAZARD(s), 0); held[s] = 0; held_key[s] = 0 }
#endif
}

/* Skip what is older than the newest QUEUE messages. */
inline skip_to_newest()
{
    MUST(mem[HEAD(e)] - (h - QUEUE) >= QUEUE, dropped_one_of_the_newest);
#ifdef MUTANT_DROPPED_IN_ONE_WORD
    d_step { STORE(ME, DROPPED(e), count[e] + h - QUEUE - tail[e]);
             count[e] = count[e] + h - QUEUE - tail[e] };
#endif
    /* release */
    d_step { STORE(ME, TAIL(e), h - QUEUE);
             gone[e] = gone[e] + h - QUEUE - tail[e]; tail[e] = h - QUEUE }
}

/* The message is out of the queue; until it is handed out, a kill loses it.
 * C11: release, so that the entry was copied, and the slot stored, before. */
inline store_tail()
{
    STORE(ME, TAIL(e), tail[e] + 1);
    tail[e]++;
    gone[e]++;
    MUST(message > last[e], out_of_order_or_twice);
    last[e] = message
}

/* C11: release; a reader of the counters loads RECEIVED, TAIL and HEAD with acquire. */
inline store_received()
{
    STORE(ME, RECEIVED(e), count[e] + 1);
    count[e]++
}

/* Part of the last step of a take: from here on the node has the message. */
inline hand_out()
{
    gone[e]--;
    handed_out[e]++;
    found = true;
    if
    :: key != 0 && slot <= LAST_SLOT(e) -> held_key[slot] = key; held[slot] = message
    :: else
    fi
}

/* Take the next message of edge e, if there is one; found := there was something. */
inline take()
{
    d_step { oldest = (mem[HEAD(e)] > QUEUE -> mem[HEAD(e)] - QUEUE : 0) };
    do
    :: true ->
#if CLOSES && !defined(MUTANT_STATE_READ_AFTER_RING)
        d_step { closing = (mem[STATE(e)] == CLOSED) };
#endif
        d_step { h = mem[HEAD(e)] };                        /* acquire */
        if
        :: h == tail[e] ->
#if CLOSES && defined(MUTANT_STATE_READ_AFTER_RING)
            d_step { closing = (mem[STATE(e)] == CLOSED) };
#endif
            if
            :: closing && !closed[e] -> d_step {
                MUST(tail[e] == mem[HEAD(e)], end_before_a_message);
                closed[e] = true; end_seen[e] = true; found = true }
            :: else
            fi;
            break
        :: else
        fi;
        if
        :: h - tail[e] > QUEUE -> skip_to_newest()
        :: else
        fi;
        /* relaxed, word by word (`copy_out`) */
        d_step { message = mem[ENTRY_MESSAGE(e, tail[e])] };
        d_step { key = mem[ENTRY_KEY(e, tail[e])] };
        slot = FIRST_SLOT(e);
        do
        :: slot <= LAST_SLOT(e) && held_key[slot] != 0 -> slot++
        :: else -> break
        od;
        if
        :: key == 0                                         /* inline: already copied */
        :: key != 0 && slot <= LAST_SLOT(e) ->              /* borrow */
#ifdef MUTANT_TAIL_BEFORE_HAZARD
            STORE(ME, TAIL(e), tail[e] + 1);                /* taken back if lapped */
#endif
            STORE(ME, HAZARD(slot), key);                   /* relaxed */
#ifndef MUTANT_NO_FENCE_AFTER_HAZARD
            FENCE(ME)                                       /* seq_cst (`borrow`) */
#endif
        :: key != 0 && slot > LAST_SLOT(e) ->               /* all slots in use: copy */
            d_step { copy = mem[PAYLOAD(key - 1)] }
        fi;
#ifdef MUTANT_NO_LOOK_AFTER_HAZARD
        if
        :: key != 0 && slot <= LAST_SLOT(e)
        :: else -> d_step { h = mem[HEAD(e)] }
        fi;
#elif defined(MUTANT_NO_LOOK_AFTER_COPY)
        if
        :: key != 0 && slot > LAST_SLOT(e)
        :: else -> d_step { h = mem[HEAD(e)] }
        fi;
#elif defined(MUTANT_NO_LOOK_AFTER_INLINE)
        if
        :: key == 0
        :: else -> d_step { h = mem[HEAD(e)] }
        fi;
#else
        /* relaxed, after the fence above; after an acquire fence if nothing was borrowed */
        d_step { h = mem[HEAD(e)] };
#endif
        if
        :: h - tail[e] > QUEUE ->                           /* lapped: it may be torn */
            if
            :: key != 0 && slot <= LAST_SLOT(e) -> STORE(ME, HAZARD(slot), 0);     /* release */
#ifdef MUTANT_TAIL_BEFORE_HAZARD
                STORE(ME, TAIL(e), tail[e])
#endif
            :: else
            fi
        :: else ->
            MUST(tail[e] >= oldest, older_than_the_newest);
            MUST(key == 0 || slot <= LAST_SLOT(e) || copy == message, copied_sample_rewritten);
#if defined(MUTANT_DROPPED_IN_ONE_WORD)
            d_step { store_tail(); hand_out() };
#elif defined(MUTANT_RECEIVED_BEFORE_TAIL)
            d_step { store_received() };
            d_step { store_tail(); hand_out() };
#else
            d_step { store_tail() };
            d_step { store_received(); hand_out() };
#endif
            if
            :: BACKPRESSURE(e) ->
#ifndef MUTANT_NO_FENCE_AFTER_TAIL
                FENCE(ME);                                  /* seq_cst (`make_room_known`) */
#endif
                if                                          /* relaxed */
                :: mem[WAITING(e)] == 1 -> space[PUBLISHER_OF(e)] = true
                :: mem[WAITING(e)] == 0
                fi
            :: else
            fi;
            break
        fi
    od;
    h = 0;
    d_step { message = 0; key = 0; slot = 0; copy = 0; oldest = 0; closing = false }
}

inline look_at_all()
{
    e = FIRST_IN(c);
    do
    :: e <= LAST_IN(c) ->
#if CLOSES
        d_step { found = found || (mem[STATE(e)] == CLOSED && !closed[e]) };
#endif
        d_step { found = found || mem[HEAD(e)] != tail[e]; e++ }
    :: else -> e = 0; break
    od
}

#if EDGES * SLOTS > 1
#define OR_GIVE_BACK  :: held_key[0] != 0 -> give_back(0) :: held_key[1] != 0 -> give_back(1)
#else
#define OR_GIVE_BACK  :: held_key[0] != 0 -> give_back(0)
#endif

#if POLL
/* Where sleeping is not the subject (one input each): wait for something to take. */
inline sleep()
{
    slot = 0;                                   /* spin loses an end label that opens an inline */
end_idle:
    do
    :: mem[HEAD(FIRST_IN(c))] != tail[FIRST_IN(c)] -> break
    OR_GIVE_BACK
    od
}
#else
inline sleep()
{
    STORE(ME, ASLEEP(c), 1);                                /* relaxed */
#ifndef MUTANT_NO_FENCE_AFTER_ASLEEP
    FENCE(ME);                                              /* seq_cst (`may_sleep`) */
#endif
#ifndef MUTANT_NO_LOOK_AFTER_ASLEEP
    look_at_all();                                          /* relaxed: a take loads HEAD anew */
#endif
#ifdef MUTANT_BELL_DRAINED_AFTER_LOOK
    bell[c] = false;
#endif
    if
    :: found
    :: else ->
end_asleep:
        do
        :: bell[c] -> break
        OR_GIVE_BACK
        od
    fi;
    STORE(ME, ASLEEP(c), 0);                                /* relaxed */
    bell[c] = false
}
#endif

inline receive_all()
{
    d_step {
        e = FIRST_IN(c);
        do
        :: e <= LAST_IN(c) -> tail[e] = mem[TAIL(e)]; count[e] = mem[RECEIVED(e)]; e++
        :: else -> e = 0; break
        od
    };
    do
    :: true ->
        e = FIRST_IN(c);
        do
        :: e <= LAST_IN(c) -> take(); e++
        :: else -> e = 0; break
        od;
        if
        :: !found -> sleep()
        :: else
        fi;
        found = false
    OR_GIVE_BACK
    od
}

proctype Consumer(byte c)
{
    byte tail[EDGES], count[EDGES];             /* count: what it last stored to RECEIVED */
    byte held[EDGES * SLOTS], held_key[EDGES * SLOTS];
    bool closed[EDGES];
    byte e, h, message, key, slot, copy, oldest;
    bool found, closing;

#if KILL_CONSUMER
    { receive_all() } unless { killed[ME] -> crashed[ME] = true };
    exited[ME] = true
#else
    receive_all()
#endif
}

#undef ME
