"""The straggler rule: a dataflow ends even if a node hangs after all sources have ended."""

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

DEFAULT_GRACE_S = 120.0
VARIABLE = "DORA_FINISH_DRAIN_GRACE_SECS"


class Remaining(Struct, frozen=True):
    """State of a node that still runs."""

    node: str
    grace: float | None
    """Seconds that it may be idle; None if the rule is off for it."""
    has_own_work: bool
    """It has work that does not come from other nodes that run here: it is a source, has a timer or
    a log input, is fed by a dynamic node or another machine, or is still starting."""
    idle_since: float
    """Monotonic seconds. With closed inputs: when they closed, or when it took a message since.
    With open inputs: when it last sent or received a message."""
    drained: bool
    """All its inputs have closed, and it got STOP for that."""


class Straggler(Struct, frozen=True):
    """A node that delays the end of the dataflow, and why."""

    node: str
    reason: str


def stragglers(remaining: Sequence[Remaining], now: float) -> tuple[Straggler, ...]:
    """Return the nodes to stop: all of them once the last one is overdue, none before.

    A node with its own work, or without the rule, keeps all others running: it may feed them.
    """
    if not all(_overdue(node, now) for node in remaining):
        return ()
    return tuple(
        Straggler(
            node.node,
            f"still runs {now - node.idle_since:.0f} s after all its inputs closed"
            if node.drained
            else f"has neither sent nor received anything for {now - node.idle_since:.0f} s: "
            "the nodes that are left wait for each other (an input with a timer would start one)",
        )
        for node in remaining
    )


def next_check(remaining: Sequence[Remaining], now: float) -> float | None:
    """Return the seconds until the nodes are overdue; None if more than time is needed."""
    if not remaining or any(node.has_own_work or node.grace is None for node in remaining):
        return None
    due = max(node.idle_since + (node.grace or 0.0) for node in remaining)
    return max(due - now, 0.0)


def _overdue(node: Remaining, now: float) -> bool:
    return not node.has_own_work and node.grace is not None and now - node.idle_since >= node.grace


def default_grace(environ: Mapping[str, str]) -> float | None:
    """Return the grace in seconds that the environment sets; None for `off`.

    Raises:
        ValueError: the variable is neither a number of seconds nor `off`.
    """
    text = environ.get(VARIABLE, "").strip()
    if not text:
        return DEFAULT_GRACE_S
    if text.lower() == "off":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{VARIABLE} is {text!r}; it must be a number of seconds, or off")
    return seconds
