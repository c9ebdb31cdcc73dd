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

MOST_ASIDE = 1000
"""Messages of one input that are put aside while somebody waits for an answer on it."""


class Claims:
    """What belongs to a claimed input: events put aside, and who looks at each new one first."""

    __slots__ = ("aside", "claim", "complain")

    def __init__(self, claim: Callable[[Event], bool], complain: Callable[[str], None]) -> None:
        """`claim` takes an event that is an answer, and says so; `complain` tells the user."""
        self.aside: deque[Event] = deque()
        self.claim = claim
        self.complain = complain

    def put_aside(self, event: Event) -> None:
        """Keep an event for whoever receives next; of too many, the oldest ordinary one goes."""
        aside = self.aside
        aside.append(event)
        if len(aside) > MOST_ASIDE:
            for at, old in enumerate(aside):
                if CORRELATING.isdisjoint(old.get("metadata", ())):
                    del aside[at]
                    break
            else:
                aside.popleft()
            self.complain(
                f"more than {MOST_ASIDE} messages came on an input while the node waited for an "
                "answer there; the oldest is dropped"
            )


class Claimed(Base):
    """What a `RingInput`, of whatever kind, does differently while answers are waited for on it."""

    __slots__ = ()

    claims: Claims

    def pump(self) -> None:
        """Hand out the answers among all that is queued, and put the rest aside."""
        claims = self.claims
        while (event := super().take()) is not None:
            if not claims.claim(event):
                claims.put_aside(event)

    def ready(self) -> bool:
        """Tell whether an event waits that is no answer."""
        if not self.claims.aside and (event := self._fresh()) is not None:
            self.claims.aside.append(event)
        return bool(self.claims.aside)

    def moved(self) -> bool:
        """Tell whether an event seems to wait; any thread may ask."""
        return bool(self.claims.aside) or super().moved()

    def take(self) -> Event | None:
        """Return the next event that is no answer, or None."""
        aside = self.claims.aside
        return aside.popleft() if aside else self._fresh()

    def _fresh(self) -> Event | None:
        claim = self.claims.claim
        while (event := super().take()) is not None:
            if not claim(event):
                return event
        return None


def claim_input(item: RingInput, claims: Claims) -> None:
    """Let answers that come on an input be claimed from now on."""
    item.claims = claims
    kind: Any = type(item)
    item.__class__ = _claimed(kind)


@functools.cache
def _claimed(kind: Any) -> type:
    return type(f"Claimed{kind.__name__}", (Claimed, kind), {"__slots__": ()})
