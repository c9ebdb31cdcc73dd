/* A ring and its lane: one publisher, one consumer, over x86-TSO memory; the consumer may be
 * killed at any step and started again.
 *
 * Messages 1 to MESSAGES are pushed in turn, each as ordinary or as one of an exchange, which
 * the checker chooses. Borrowing and sleeping are those of ring.pml, for each of the two rings.
 *
 * The lane is Python's alone (dorad/shm/lane.py). In C11 terms, LANE_HEAD is stored like HEAD, with
 * release, and both are loaded with acquire; an acquire fence stands between an entry or a mark and
 * the next look at LANE_HEAD.
 */

#ifndef MESSAGES
#define MESSAGES 4
#endif
#ifndef QUEUE                       /* queue_size */
#define QUEUE 1
#endif
#ifndef CAPACITY                    /* entries of the ring, and of the lane */
#define CAPACITY 2
#endif
#ifndef BUFFER_DEPTH
#define BUFFER_DEPTH 2
#endif
#ifndef KILL                        /* the consumer may be killed once */
#define KILL 0
#endif
#define PROCESSES 2
#define PUBLISHER 0
#define CONSUMER  1

/* written by the publisher */
#define HEAD        0
#define LANE_HEAD   1
#define ENTRY(i)    (5 + ((i) % CAPACITY))
#define LANE(i)     (5 + CAPACITY + ((i) % CAPACITY))
#define MARK(i)     (5 + 2 * CAPACITY + ((i) % CAPACITY))
/* written by the consumer */
#define TAIL        2
#define LANE_TAIL   3
#define RECEIVED    4
#define WORDS       (5 + 3 * CAPACITY)

#include "memory.pml"

/* What really happened; read by assertions only. */
byte ordinary[MESSAGES], kept[MESSAGES];    /* which message has which index */
byte pushed_ordinary, pushed_kept;
byte handed_out, last, taking, lost;        /* taking: its TAIL has moved; lost: with a kill then */
bool got[MESSAGES + 1];
bool published, killed, finished;

/* Never set: each names the property that a failed assertion is about. */
bool out_of_order_or_twice, not_what_was_pushed, one_of_the_newest_lost;
bool sent_miscounted, received_miscounted;
#define MUST(condition, fault)  assert((condition) || fault)

proctype Publisher()
{
    byte n, head, lane_head;

    for (n : 1 .. MESSAGES) {
        if
        :: atomic { ordinary[head] = n; pushed_ordinary++ }
           STORE(PUBLISHER, ENTRY(head), n);
           head++;
           STORE(PUBLISHER, HEAD, head)
        :: atomic { kept[lane_head] = n; pushed_kept++ }
           STORE(PUBLISHER, LANE(lane_head), n);
#ifdef MUTANT_MARK_AFTER_HEAD
           STORE(PUBLISHER, LANE_HEAD, lane_head + 1);
           STORE(PUBLISHER, MARK(lane_head), head);
           lane_head++
#else
           STORE(PUBLISHER, MARK(lane_head), head);
           lane_head++;
           STORE(PUBLISHER, LANE_HEAD, lane_head)
#endif
        fi
    }
    FENCE(PUBLISHER);
    published = true
}

inline hand_out()
{
    /* The last store of a take: after it the message belongs to the node. */
    atomic {
        nfull(buffer[CONSUMER]);
        MUST(message > last, out_of_order_or_twice);
        last = message;
        got[message] = true;
        handed_out++;
        received++;
        taking = 0;
        STORE(CONSUMER, RECEIVED, received)
    }
}

proctype Consumer()
{
    byte head, lane_head, tail, lane_tail, received, message, mark, room;

again:
    {
        /* A process that is started after a kill finds what its predecessor has stored. */
        FENCE(CONSUMER);
        atomic {
            tail = mem[TAIL]; lane_tail = mem[LANE_TAIL]; received = mem[RECEIVED];
            head = 0; lane_head = 0; message = 0; mark = 0; room = 0
        }
        do
        :: true ->
look:
#ifdef MUTANT_LANE_BEFORE_HEAD
           lane_head = mem[LANE_HEAD];
           head = mem[HEAD];
#else
           head = mem[HEAD];
           lane_head = mem[LANE_HEAD];
#endif
           if
           :: lane_head == lane_tail && head == tail ->
              /* Nothing there. At the end of all, this is the end of the consumer. */
              if
              :: published && mem[HEAD] == tail && mem[LANE_HEAD] == lane_tail -> break
              :: else -> goto look
              fi
           :: lane_head == lane_tail && head != tail -> goto ring
           :: else -> skip
           fi;
           /* Beside the lane: all that is older than what it shows is in the ring by now. */
#ifndef MUTANT_HEAD_NOT_READ_AGAIN
           lane_head = mem[LANE_HEAD];
           head = mem[HEAD];
#endif
           if
           :: lane_head - lane_tail > QUEUE ->
              lane_tail = lane_head - QUEUE;
              STORE(CONSUMER, LANE_TAIL, lane_tail);
              goto look
           :: else -> room = QUEUE - (lane_head - lane_tail)
           fi;
           if
           :: head - tail > room ->
              tail = head - room;
              STORE(CONSUMER, TAIL, tail)
           :: else -> skip
           fi;
           mark = mem[MARK(lane_tail)];
#ifndef MUTANT_MARK_NOT_CHECKED
           if
           :: mem[LANE_HEAD] - lane_tail > QUEUE -> goto look
           :: else -> skip
           fi;
#endif
           if
           :: head != tail && mark > tail -> goto ring
           :: else -> skip
           fi;
           message = mem[LANE(lane_tail)];
#ifndef MUTANT_LANE_ENTRY_NOT_CHECKED
           if
           :: mem[LANE_HEAD] - lane_tail > QUEUE -> goto look
           :: else -> skip
           fi;
#endif
           MUST(message == kept[lane_tail], not_what_was_pushed);
           atomic { nfull(buffer[CONSUMER]) -> lane_tail++; taking = message; STORE(CONSUMER, LANE_TAIL, lane_tail) }
           hand_out();
           goto look;
ring:
           if
           :: head - tail > QUEUE ->
              tail = head - QUEUE;
              STORE(CONSUMER, TAIL, tail);
              goto look
           :: else -> skip
           fi;
           message = mem[ENTRY(tail)];
           if
           :: mem[HEAD] - tail > QUEUE -> goto look
           :: else -> skip
           fi;
           MUST(message == ordinary[tail], not_what_was_pushed);
           atomic { nfull(buffer[CONSUMER]) -> tail++; taking = message; STORE(CONSUMER, TAIL, tail) }
           hand_out()
        od;
        FENCE(CONSUMER);
        finished = true
    } unless { atomic { killed && !finished -> killed = false; lost = taking; taking = 0 } };
    if
    :: !finished -> goto again
    :: else -> skip
    fi
}

#if KILL
proctype Killer()
{
    if
    :: killed = true
    :: skip
    fi
}
#endif

proctype Judge()
{
    byte i;

    finished ->
    MUST(mem[HEAD] + mem[LANE_HEAD] == MESSAGES, sent_miscounted);
    MUST(mem[RECEIVED] == handed_out, received_miscounted);
    for (i : 1 .. QUEUE) {
        if
        :: pushed_kept >= i ->
           MUST(got[kept[pushed_kept - i]] || lost == kept[pushed_kept - i], one_of_the_newest_lost)
        :: pushed_kept == 0 && pushed_ordinary >= i ->
           MUST(got[ordinary[pushed_ordinary - i]] || lost == ordinary[pushed_ordinary - i],
                one_of_the_newest_lost)
        :: else -> skip
        fi
    }
}

init
{
    atomic {
        run Memory();
        run Publisher();
        run Consumer();
#if KILL
        run Killer();
#endif
        run Judge()
    }
}
