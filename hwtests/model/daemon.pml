/* The daemon after a node ended, the killer, the reader of the counters while all runs, and the
 * judge of what holds once all is at rest.
 */

/* waitpid() has returned: whatever the process had stored is in memory. */
#ifdef MUTANT_DAEMON_DOES_NOT_WAIT
#define REAPED(id)  (killed[id] && !handled[id])
#else
#define REAPED(id)  (exited[id] && !handled[id] && empty(buffer[id]))
#endif

inline consumer_ended(c)
{
    handled[CONSUMER_ID(c)] = true;
    e = FIRST_IN(c);
    do
    :: e <= LAST_IN(c) ->
        slot = FIRST_SLOT(e);
        do
        :: slot <= LAST_SLOT(e) ->
#ifndef MUTANT_DAEMON_LEAVES_HAZARDS
            mem[HAZARD(slot)] = 0;
#endif
            slot++
        :: else -> slot = 0; break
        od;
#ifdef MUTANT_DAEMON_RINGS_BEFORE_STATE
        space[PUBLISHER_OF(e)] = true;
        mem[STATE(e)] = DETACHED;
#else
        mem[STATE(e)] = DETACHED;
#ifndef MUTANT_DAEMON_DOES_NOT_FREE_PUBLISHER
        space[PUBLISHER_OF(e)] = true;
#endif
#endif
        e++
    :: else -> e = 0; break
    od;
#if RESTARTS
    e = FIRST_IN(c);
    do
    :: e <= LAST_IN(c) -> mem[STATE(e)] = ATTACHED; e++
    :: else -> break
    od;
    e = 0;
    d_step { killed[CONSUMER_ID(c)] = false; crashed[CONSUMER_ID(c)] = false;
             exited[CONSUMER_ID(c)] = false; handled[CONSUMER_ID(c)] = false };
    run Consumer(c)
#endif
}

inline publisher_ended(p)
{
    handled[PUBLISHER_ID(p)] = true;
    e = FIRST_OUT(p);
    do
    :: e <= LAST_OUT(p) ->
#if CLOSES
        if
        :: mem[STATE(e)] == ATTACHED && !(RESTARTS && crashed[p]) -> mem[STATE(e)] = CLOSED
        :: else
        fi;
#endif
#ifndef MUTANT_DAEMON_DOES_NOT_RING
        bell[CONSUMER_OF(e)] = true;
#endif
        e++
    :: else -> e = 0; break
    od;
#if RESTARTS
    if
    :: crashed[PUBLISHER_ID(p)] ->
        d_step { killed[PUBLISHER_ID(p)] = false; crashed[PUBLISHER_ID(p)] = false;
                 exited[PUBLISHER_ID(p)] = false; handled[PUBLISHER_ID(p)] = false };
        run Publisher(p, 1)
    :: else
    fi
#endif
}

proctype Daemon()
{
    byte e, slot;

end_daemon:
    do
    :: REAPED(PUBLISHER_ID(0)) -> publisher_ended(0)
#if PUBLISHERS > 1
    :: REAPED(PUBLISHER_ID(1)) -> publisher_ended(1)
#endif
    :: REAPED(CONSUMER_ID(0)) -> consumer_ended(0)
#if CONSUMERS > 1
    :: REAPED(CONSUMER_ID(1)) -> consumer_ended(1)
#endif
    od
}

/* One SIGKILL, at any moment, to one process; or none. */
proctype Killer()
{
    if
    :: true
#if KILL_PUBLISHER
    :: killed[PUBLISHER_ID(0)] = true
#if PUBLISHERS > 1
    :: killed[PUBLISHER_ID(1)] = true
#endif
#endif
#if KILL_CONSUMER
    :: d_step { killed[CONSUMER_ID(0)] = true; consumer_killed = true }
#if CONSUMERS > 1
    :: d_step { killed[CONSUMER_ID(1)] = true; consumer_killed = true }
#endif
#endif
    fi
}

/* Reads the counters once, at any moment. Each word only grows, so what is read later may be too
 * new but never too small. C11: an acquire fence between any two of the loads (`counters`).
 */
proctype Reader()
{
    byte received, tail, head;

#if defined(MUTANT_TAIL_READ_BEFORE_RECEIVED)
    d_step { tail = mem[TAIL(0)] };
    d_step { received = mem[RECEIVED(0)] };
    d_step { head = mem[HEAD(0)] };
#elif defined(MUTANT_HEAD_READ_BEFORE_TAIL)
    d_step { received = mem[RECEIVED(0)] };
    d_step { head = mem[HEAD(0)] };
    d_step { tail = mem[TAIL(0)] };
#else
    d_step { received = mem[RECEIVED(0)] };
    d_step { tail = mem[TAIL(0)] };
    d_step { head = mem[HEAD(0)] };
#endif
    MUST(received <= tail && tail <= head, counter_below_zero)
}

/* Of what was sent and neither handed out nor gone, only the newest QUEUE can still arrive. */
#define LEFT(e)     (pushed[e] - handed_out[e] - gone[e])
#define TOO_OLD(e)  (LEFT(e) > QUEUE -> LEFT(e) - QUEUE : 0)

inline judge_edge(e)
{
    MUST(mem[HEAD(e)] == pushed[e], sent_miscounted);
    MUST(COUNTED_RECEIVED(e) == handed_out[e] && COUNTED_DROPPED(e) == gone[e] + TOO_OLD(e),
         received_or_dropped_miscounted);
    if
    :: !exited[CONSUMER_ID(CONSUMER_OF(e))] ->
        MUST(BEHIND(e) == 0, asleep_beside_a_message);
        MUST(last[e] == newest[e], newest_lost);
        MUST(!CLOSES || end_seen[e], asleep_beside_the_end)
    :: else ->
        MUST(mem[HAZARD(FIRST_SLOT(e))] == 0 && mem[HAZARD(LAST_SLOT(e))] == 0, hazard_left_behind)
    fi;
    MUST(!BACKPRESSURE(e) || consumer_killed || COUNTED_DROPPED(e) == 0, backpressure_dropped)
}

/* Runs when no other process can: then all stores are in memory and a sleeper sleeps for good.
 * A publisher still blocked there is reported by the checker itself (invalid end state). */
proctype Judge()
{
    timeout ->
    d_step {
        judge_edge(0);
#if EDGES > 1
        judge_edge(1);
#endif
        skip
    }
}
