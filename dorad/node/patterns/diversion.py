"""An input on which somebody waits for answers: those go to the waiter, the rest stays in line.

A `RingInput` becomes one by changing its class, so that inputs nobody waits on pay nothing.
"""

from __future__ import annotations

import functools
from collections import deque
from typing import TYPE_CHECKING, Any

from dorad.node.correlation import CORRELATING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.node.events import Event
    from dorad.node.inputs import RingInput

    Base = RingInput
else:
    Base = object

MAX_ASIDE = 1000
"""Messages of one input that are put aside while somebody waits for an answer on it."""


class Diversion:
    """What belongs to a claimed input: events put aside, and who looks at each new one first."""

    __slots__ = ("complain", "deferred", "divert")

    def __init__(self, divert: Callable[[Event], bool], complain: Callable[[str], None]) -> None:
        """`divert` takes an event that is an answer, and says so; `complain` tells the user."""
        self.deferred: deque[Event] = deque()
        self.divert = divert
        self.complain = complain

    def defer(self, event: Event) -> None:
        """Keep an event for whoever receives next; of too many, the oldest ordinary one goes."""
        deferred = self.deferred
        deferred.append(event)
        if len(deferred) > MAX_ASIDE:
            for at, old in enumerate(deferred):
                if CORRELATING.isdisjoint(old.get("metadata", ())):
                    del deferred[at]
                    break
            else:
                deferred.popleft()
            self.complain(
                f"more than {MAX_ASIDE} messages came on an input while the node waited for an "
                "answer there; the oldest is dropped"
            )


class DivertedInput(Base):
    """What a `RingInput`, of whatever kind, does differently while answers are waited for on it."""

    __slots__ = ()

    diversion: Diversion

    def pump(self) -> None:
        """Hand out the answers among all that is queued, and put the rest aside."""
        diversion = self.diversion
        while (event := super().take()) is not None:
            if not diversion.divert(event):
                diversion.defer(event)

    def ready(self) -> bool:
        """Tell whether an event waits that is no answer."""
        if not self.diversion.deferred and (event := self._fresh()) is not None:
            self.diversion.deferred.append(event)
        return bool(self.diversion.deferred)

    def moved(self) -> bool:
        """Tell whether an event seems to wait; any thread may ask."""
        return bool(self.diversion.deferred) or super().moved()

    def take(self) -> Event | None:
        """Return the next event that is no answer, or None."""
        deferred = self.diversion.deferred
        return deferred.popleft() if deferred else self._fresh()

    def _fresh(self) -> Event | None:
        divert = self.diversion.divert
        while (event := super().take()) is not None:
            if not divert(event):
                return event
        return None


def divert_input(item: RingInput, diversion: Diversion) -> None:
    """Let answers that come on an input be claimed from now on."""
    item.diversion = diversion
    kind: Any = type(item)
    item.__class__ = _diverted(kind)


@functools.cache
def _diverted(kind: Any) -> type:
    return type(f"DivertedInput{kind.__name__}", (DivertedInput, kind), {"__slots__": ()})
