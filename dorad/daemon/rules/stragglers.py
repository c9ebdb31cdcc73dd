"""The straggler rule: a dataflow whose sources have all ended must not hang on for ever."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_GRACE_S = 120.0
VARIABLE = "DORA_FINISH_DRAIN_GRACE_SECS"


class Remaining(Struct, frozen=True):
    """What is known of a node that still runs."""

    node: str
    grace: float | None
    """Seconds it may go on; None if the rule is off for it."""
    works: bool
    """It has work that does not come from other nodes that run here: a source, a node that a timer
    or the log stream keeps busy, one that a dynamic node may feed, or one still starting."""
    idle_since: float
    """Monotonic seconds. For a node that was told that all its inputs are closed: when it was, or
    when it took a message since. For the others: when it last sent or received anything."""
    drained: bool
    """It was told that all its inputs are closed."""


class Straggler(Struct, frozen=True):
    """A node that holds up the end, and why it is thought to."""

    node: str
    reason: str


def stragglers(remaining: Sequence[Remaining], now: float) -> tuple[Straggler, ...]:
    """Return the nodes to stop: all that remain, once the last of them is overdue; else none.

    One node with work of its own, or one for which the rule is off, keeps all others alive,
    because it may yet feed them.
    """
    if not all(_overdue(node, now) for node in remaining):
        return ()
    return tuple(
        Straggler(
            node.node,
            f"still runs {now - node.idle_since:.0f} s after all its inputs closed"
            if node.drained
            else f"has neither sent nor received anything for {now - node.idle_since:.0f} s",
        )
        for node in remaining
    )


def next_look(remaining: Sequence[Remaining], now: float) -> float | None:
    """Return in how many seconds looking again can give another answer; None: not by time alone."""
    if not remaining or any(node.works or node.grace is None for node in remaining):
        return None
    due = max(node.idle_since + (node.grace or 0.0) for node in remaining)
    return max(due - now, 0.0)


def _overdue(node: Remaining, now: float) -> bool:
    return not node.works and node.grace is not None and now - node.idle_since >= node.grace


def default_grace(environ: Mapping[str, str]) -> float | None:
    """Return the grace in seconds that the environment asks for; None for `off`.

    Raises ValueError if the variable is neither a number of seconds nor `off`.
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
