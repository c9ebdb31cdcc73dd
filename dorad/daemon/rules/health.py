"""Whether a node is well: it moves, or it waits for something and answers when it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Vitals(Protocol):
    """What a node's shared words and its connection tell of it."""

    @property
    def connected(self) -> bool:
        """Whether it has a `Node` and the barrier has let it go."""

    @property
    def asleep(self) -> bool:
        """Whether it blocks until something comes for it."""

    @property
    def pulse(self) -> int:
        """A number that changes whenever it enters or leaves the API, and ten times a second while
        it waits for room there, if it is watched.
        """

    @property
    def unread(self) -> bool:
        """Whether it has not yet read all that the daemon sent it."""

    @property
    def queued(self) -> int:
        """Messages that wait in its inputs."""


@dataclass(frozen=True, slots=True)
class Health:
    """What the last looks at a node have shown; times in monotonic seconds."""

    pulse: int
    well_at: float
    """When it was last seen to be well."""

    def silent_for(self, now: float) -> float:
        """Return the seconds since it was last seen to be well."""
        return now - self.well_at


def health_after(
    before: Health | None, vitals: Vitals, now: float, *, sigstopped: bool = False
) -> Health:
    """Return what is known after a look at a node that has called `Node()`.

    One that has dropped its `Node` is not well: nothing will be heard of it but its end. Any other
    is well if its pulse has moved since the last look, or if it is at rest: waiting for
    input with nothing queued, not halted by a signal, and having read all that the daemon has
    told it. Whoever looks sends it a packet now and then, since only an answer proves that a node
    at rest would wake.
    """
    if before is not None and not vitals.connected:
        return before
    if before is None or vitals.pulse != before.pulse or (at_rest(vitals) and not sigstopped):
        return Health(vitals.pulse, now)
    return before


def at_rest(vitals: Vitals) -> bool:
    """Whether a node waits for input, as far as its words tell."""
    return vitals.asleep and not vitals.queued and not vitals.unread
