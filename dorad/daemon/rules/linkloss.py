"""Whether messages are lost on the way from another machine: from one sample to the next.

A link that is interrupted once loses what was on the way, and is up again: that is no trouble. One
that does so again and again is.
"""

from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

WINDOW_S = 60.0
"""Time in which losses count."""
TIMES = 5
"""Number of seconds with losses in that time from which a link loses messages."""
SPAN_S = 10.0
"""Time from the first to the last of them: one interruption may be noticed in pieces."""
MUCH = 0.01
"""Share of lost messages from which it does."""
OVER_S = 30.0
"""Time without a loss after which it no longer does."""


class Lost(NamedTuple):
    """A sample with new losses."""

    at: float
    messages: int
    """Messages that were lost since the sample before."""
    arrived: int
    """Messages that had arrived before, since the start."""


class LinkLoss(Struct, frozen=True):
    """What is known of one output of another machine. Times are of a clock that never steps."""

    arrived: int | None = None
    """Messages that have arrived since the start; None before the first sample."""
    lost: int = 0
    recent: tuple[Lost, ...] = ()
    """The losses of the last minute, the oldest first."""
    losing: bool = False

    @property
    def missing(self) -> float:
        """Lost messages per second."""
        return sum(each.messages for each in self.recent) / WINDOW_S

    @property
    def share(self) -> float:
        """The part of the messages that was lost since the first of the losses."""
        if not self.recent or self.arrived is None:
            return 0.0
        lost = sum(each.messages for each in self.recent)
        return lost / (lost + self.arrived - self.recent[0].arrived)


def link_loss_after(before: LinkLoss, at: float, arrived: int, lost: int) -> LinkLoss:
    """Return what is known after a sample at the time `at`; take one about once a second.

    `arrived` and `lost` count messages since the start.
    """
    if before.arrived is None or arrived < before.arrived or lost < before.lost:
        return LinkLoss(arrived, lost)
    recent = before.recent
    if recent or lost > before.lost:
        if lost > before.lost:
            recent = (*recent, Lost(at, lost - before.lost, before.arrived))
        recent = tuple(each for each in recent if at - each.at < WINDOW_S)
    now = replace(before, arrived=arrived, lost=lost, recent=recent)
    if before.losing:
        return replace(now, losing=bool(recent) and at - recent[-1].at < OVER_S)
    often = len(recent) >= TIMES and recent[-1].at - recent[0].at >= SPAN_S
    return replace(now, losing=often and now.share >= MUCH)
