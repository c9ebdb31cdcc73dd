"""The checked cases: configurations that must hold, and mutants in which spin must find a fault."""

from dataclasses import dataclass

Macros = dict[str, int]


@dataclass(frozen=True)
class Case:
    """One run of the checker over a `model` with `macros`.

    The protocol itself has a `prop`, what the run shows. A mutant has a `fault` instead: the
    property (a name in the model, or spin's "invalid end state") that must be found violated.
    """

    name: str
    macros: Macros
    prop: str = ""
    fault: str = ""
    model: str = "ring.pml"

    @property
    def defines(self) -> list[str]:
        """The macros as arguments for spin."""
        return [f"-D{key}={value}" for key, value in self.macros.items()]


INLINE: Macros = {"SAMPLES": 0}
BORROW: Macros = {"SAMPLES": 2, "POLL": 1}
FAN_OUT: Macros = {"SAMPLES": 1, "POLL": 1, "CONSUMERS": 2, "BUFFER_DEPTH": 1, "ONE_FENCE": 1}
BLOCK: Macros = {"SAMPLES": 0, "BACKPRESSURE_EDGES": 1}
LONGER: Macros = {"QUEUE": 2, "CAPACITY": 4, "MESSAGES": 4}
KILL_C: Macros = {"KILL_CONSUMER": 1}
KILL_P: Macros = {"KILL_PUBLISHER": 1}
RESTART_C: Macros = {"KILL_CONSUMER": 1, "RESTARTS": 1}
RESTART_P: Macros = {"KILL_PUBLISHER": 1, "RESTARTS": 1}
ONE_SAMPLE: Macros = {"SAMPLES": 1}
SHALLOW: Macros = {"BUFFER_DEPTH": 1}
END: Macros = {"CLOSES": 1}
READ: Macros = {"READER": 1}

HOLDS = [
    # rings and doorbells
    Case("ring", INLINE | {"MESSAGES": 4}, "in order, newest kept, drops counted, always woken"),
    Case("ring, q=2 C=4", INLINE | LONGER, "the same with a longer queue"),
    Case(
        "two publishers, one consumer",
        INLINE | SHALLOW | {"PUBLISHERS": 2, "MESSAGES": 2},
        "always woken, whichever ring fills",
    ),
    Case(
        "two consumers, one fence",
        INLINE | SHALLOW | {"CONSUMERS": 2, "MESSAGES": 2, "ONE_FENCE": 1},
        "always woken, one fence for both edges",
    ),
    Case("publisher ends", INLINE | END | {"MESSAGES": 4}, "the end follows the last message"),
    Case(
        "two publishers end",
        INLINE | END | {"PUBLISHERS": 2, "MESSAGES": 1},
        "the end follows the last message of each",
    ),
    Case("counters read meanwhile", INLINE | READ, "no counter is ever below zero"),
    # samples
    Case("borrow", BORROW | {"MESSAGES": 4}, "no sample rewritten while borrowed or read"),
    Case("borrow, inline between", BORROW | {"MIXED": 1}, "the same, both kinds of payload"),
    Case("borrow, two slots", BORROW | {"SLOTS": 2, "MESSAGES": 4}, "the same, two borrowed"),
    Case("borrow, q=2 C=4", BORROW | LONGER, "the same with a longer queue"),
    Case("borrow and sleep", {}, "borrowing and the doorbell together"),
    Case("two consumers borrow", FAN_OUT, "reclaim minds both edges"),
    # backpressure
    Case("backpressure", BLOCK | {"MESSAGES": 4}, "blocks, drops nothing, never deadlocks"),
    Case("backpressure, q=2 C=4", BLOCK | LONGER, "the same with a longer queue"),
    Case("backpressure, borrow", {"BACKPRESSURE_EDGES": 1}, "the same, payloads in samples"),
    Case(
        "backpressure beside drop_oldest",
        BLOCK | SHALLOW | {"CONSUMERS": 2, "MESSAGES": 2},
        "the same with two consumers, one of each policy",
    ),
    # one SIGKILL, at any step
    Case(
        "publisher killed",
        ONE_SAMPLE | KILL_P | END,
        "what is queued arrives, what is borrowed stays",
    ),
    Case(
        "publisher killed and restarted",
        ONE_SAMPLE | SHALLOW | RESTART_P,
        "continues at HEAD, old samples untouched",
    ),
    Case("consumer killed", ONE_SAMPLE | KILL_C, "publisher continues, hazards are cleared"),
    Case(
        "consumer killed and restarted",
        INLINE | RESTART_C,
        "continues at TAIL, none twice, counters exact",
    ),
    Case(
        "borrower killed and restarted",
        ONE_SAMPLE | SHALLOW | RESTART_C,
        "the same, queued samples untouched",
    ),
    Case(
        "consumer restarted, counters read meanwhile",
        INLINE | SHALLOW | RESTART_C | READ | {"POLL": 1},
        "no counter is ever below zero",
    ),
    Case("backpressure, consumer killed", BLOCK | KILL_C, "publisher does not stay blocked"),
    Case("backpressure, consumer restarted", BLOCK | RESTART_C, "no process stays blocked"),
    Case("backpressure, publisher killed", BLOCK | KILL_P | END, "consumer does not stay asleep"),
    Case(
        "backpressure, publisher restarted", BLOCK | RESTART_P, "no process stays blocked, no drop"
    ),
    # a ring and its lane
    Case(
        "lane",
        {"MESSAGES": 5},
        "both rings in the order of sending, the newest of the lane kept",
        model="lane.pml",
    ),
    Case(
        "lane, q=2 C=4",
        {"MESSAGES": 5, "QUEUE": 2, "CAPACITY": 4},
        "the same with a longer queue",
        model="lane.pml",
    ),
    Case(
        "lane, consumer killed and restarted",
        {"MESSAGES": 4, "KILL": 1},
        "the same, none twice, counters exact",
        model="lane.pml",
    ),
]


def mutant(name: str, macros: Macros, macro: str, fault: str, *, model: str = "ring.pml") -> Case:
    """Return the protocol with the step that MUTANT_<macro> breaks."""
    return Case(name, macros | {f"MUTANT_{macro}": 1}, fault=fault, model=model)


L = "lane.pml"
LANE: Macros = {"MESSAGES": 5}
LANE_2: Macros = {"MESSAGES": 6, "QUEUE": 2, "CAPACITY": 4, "BUFFER_DEPTH": 1}
DISORDER = "out of order or twice"
TORN = "not what was pushed"
ASLEEP = "asleep beside a message"
REWRITTEN = "borrowed sample rewritten"
BLOCKED = "invalid end state"
MISCOUNTED = "received or dropped miscounted"
BELOW_ZERO = "counter below zero"

MUTANTS = [
    # fences
    mutant("no fence after HEAD: doorbell", INLINE, "NO_FENCE_AFTER_HEAD", ASLEEP),
    mutant("no fence after HEAD: reclaim", BORROW, "NO_FENCE_AFTER_HEAD", REWRITTEN),
    mutant("no fence after the hazard slot", BORROW, "NO_FENCE_AFTER_HAZARD", REWRITTEN),
    mutant("no fence after ASLEEP", INLINE, "NO_FENCE_AFTER_ASLEEP", ASLEEP),
    mutant("no fence after WAITING", BLOCK, "NO_FENCE_AFTER_WAITING", BLOCKED),
    mutant("no fence after TAIL", BLOCK, "NO_FENCE_AFTER_TAIL", BLOCKED),
    # second looks
    mutant("no second look after the hazard", BORROW, "NO_LOOK_AFTER_HAZARD", REWRITTEN),
    mutant(
        "no second look after a copied sample",
        BORROW | {"MESSAGES": 4},
        "NO_LOOK_AFTER_COPY",
        "copied sample rewritten",
    ),
    mutant(
        "no second look after an inline payload",
        INLINE,
        "NO_LOOK_AFTER_INLINE",
        "out of order or twice",
    ),
    mutant("no second look after ASLEEP", INLINE, "NO_LOOK_AFTER_ASLEEP", ASLEEP),
    mutant("no second look after WAITING", BLOCK, "NO_LOOK_AFTER_WAITING", BLOCKED),
    # order
    mutant("HEAD before the entry", INLINE, "HEAD_BEFORE_ENTRY", "newest lost"),
    mutant("TAIL before the hazard slot", BORROW, "TAIL_BEFORE_HAZARD", REWRITTEN),
    mutant("slot cleared before the last read", BORROW, "SLOT_CLEARED_BEFORE_LAST_READ", REWRITTEN),
    mutant("doorbell drained after the look", INLINE, "BELL_DRAINED_AFTER_LOOK", ASLEEP),
    mutant(
        "STATE read after the ring",
        INLINE | END,
        "STATE_READ_AFTER_RING",
        "end before a message",
    ),
    mutant("RECEIVED stored before TAIL", INLINE | READ, "RECEIVED_BEFORE_TAIL", BELOW_ZERO),
    mutant(
        "TAIL read before RECEIVED",
        INLINE | READ,
        "TAIL_READ_BEFORE_RECEIVED",
        BELOW_ZERO,
    ),
    mutant("HEAD read before TAIL", INLINE | READ, "HEAD_READ_BEFORE_TAIL", BELOW_ZERO),
    # what reclaim looks at, and the size of the ring
    mutant("reclaim skips the hazard slots", BORROW, "RECLAIM_SKIPS_HAZARDS", REWRITTEN),
    mutant("reclaim skips the queue", BORROW, "RECLAIM_SKIPS_QUEUE", REWRITTEN),
    mutant("reclaim looks at one edge of two", FAN_OUT, "RECLAIM_LOOKS_AT_ONE_EDGE", REWRITTEN),
    mutant(
        "reclaim takes a detached queue for empty",
        ONE_SAMPLE | SHALLOW | RESTART_C,
        "RECLAIM_FORGETS_DETACHED_QUEUE",
        REWRITTEN,
    ),
    mutant(
        "restarted publisher reuses old samples",
        ONE_SAMPLE | RESTART_P,
        "RESTARTED_PUBLISHER_REUSES_SAMPLES",
        REWRITTEN,
    ),
    Case("C = q", INLINE | {"CAPACITY": 1}, fault="out of order or twice"),
    # one process killed
    mutant("drops counted in a word", INLINE | RESTART_C, "DROPPED_IN_ONE_WORD", MISCOUNTED),
    mutant(
        "killed consumer: RECEIVED stored before TAIL",
        INLINE | RESTART_C,
        "RECEIVED_BEFORE_TAIL",
        MISCOUNTED,
    ),
    mutant("killed publisher: no doorbell", INLINE | KILL_P, "DAEMON_DOES_NOT_RING", ASLEEP),
    mutant(
        "killed consumer: publisher not woken",
        BLOCK | KILL_C,
        "DAEMON_DOES_NOT_FREE_PUBLISHER",
        BLOCKED,
    ),
    mutant(
        "killed consumer: publisher woken before STATE",
        BLOCK | KILL_C,
        "DAEMON_RINGS_BEFORE_STATE",
        BLOCKED,
    ),
    mutant(
        "killed consumer: publisher ignores STATE",
        BLOCK | KILL_C,
        "BACKPRESSURE_IGNORES_STATE",
        BLOCKED,
    ),
    mutant(
        "killed consumer: hazards not cleared",
        ONE_SAMPLE | KILL_C,
        "DAEMON_LEAVES_HAZARDS",
        "hazard left behind",
    ),
    mutant(
        "killed consumer: hazards cleared too early",
        ONE_SAMPLE | KILL_C,
        "DAEMON_DOES_NOT_WAIT",
        "hazard left behind",
    ),
    # a ring and its lane
    mutant("lane: LANE_HEAD read before HEAD", LANE, "LANE_BEFORE_HEAD", DISORDER, model=L),
    mutant("lane: HEAD not read again", LANE, "HEAD_NOT_READ_AGAIN", DISORDER, model=L),
    mutant("lane: mark stored after LANE_HEAD", LANE_2, "MARK_AFTER_HEAD", DISORDER, model=L),
    mutant("lane: mark not checked", LANE_2, "MARK_NOT_CHECKED", DISORDER, model=L),
    mutant("lane: entry not checked", LANE, "LANE_ENTRY_NOT_CHECKED", TORN, model=L),
]
