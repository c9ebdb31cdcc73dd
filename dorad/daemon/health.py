"""Whether a node is well: it moves, or it waits for something and answers when it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dorad.daemon.ports import Vitals


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
    before: Health | None, vitals: Vitals, now: float, *, halted: bool = False
) -> Health | None:
    """Return what is known after a look at a node; None while it has no `Node`.

    A node is well if its pulse has moved since the last look, or if it is at rest: waiting for
    input with nothing queued, not halted by a signal, and having read all that the daemon has
    told it. Whoever looks sends it a packet now and then, since only an answer proves that a node
    at rest would wake.
    """
    if not vitals.connected:
        return None
    if before is None or vitals.pulse != before.pulse or (at_rest(vitals) and not halted):
        return Health(vitals.pulse, now)
    return before


def at_rest(vitals: Vitals) -> bool:
    """Whether a node waits for input, as far as its words tell."""
    return vitals.asleep and not vitals.queued and not vitals.unread
