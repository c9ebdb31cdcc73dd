"""An input on which calls and goals wait for replies. Other messages stay queued."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from dorad.node.correlation import CORRELATING
from dorad.node.inputs import RingInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.node.events import Event

_log = logging.getLogger(__name__)

MAX_QUEUED = 1000
"""Maximum number of ordinary events that are queued here while a call waits for its reply."""


class ReplySplitter:
    """Separates the replies on one input from its ordinary events, which it queues.

    All rings of the input share it.
    """

    __slots__ = ("_warn", "dispatch", "queued")

    def __init__(self, dispatch: Callable[[Event], bool], warn: Callable[[str], None]) -> None:
        """`dispatch` passes on a reply, and returns False if the event is not one."""
        self.queued: deque[Event] = deque()
        self.dispatch = dispatch
        self._warn = warn

    def queue(self, event: Event) -> None:
        """Queue an event for the receiver; drop the oldest ordinary one if there are too many."""
        queued = self.queued
        queued.append(event)
        if len(queued) > MAX_QUEUED:
            for at, old in enumerate(queued):
                if CORRELATING.isdisjoint(old.get("metadata", ())):
                    del queued[at]
                    break
            else:
                queued.popleft()
            self._warn(
                f"more than {MAX_QUEUED} messages came on an input while the node waited for a "
                "reply there; the oldest is dropped"
            )


class ReplyInput(RingInput):
    """A ring whose replies go to the calls and goals that wait for them.

    `served` takes the messages and builds their events.
    """

    __slots__ = ("_served", "_splitter")

    def __init__(self, served: RingInput, splitter: ReplySplitter) -> None:
        super().__init__(served.id, served.inlet, served.clock)
        self.removed = served.removed
        self._served = served
        self._splitter = splitter
        _log.debug("input %s: replies go to their calls from now on", served.id)

    def pump(self) -> None:
        """Pass on all replies in the ring, and queue the other events."""
        splitter = self._splitter
        while (event := self._served.take()) is not None:
            if not splitter.dispatch(event):
                splitter.queue(event)

    def ready(self) -> bool:
        """Return True if an event other than a reply is queued."""
        queued = self._splitter.queued
        if not queued and (event := self._take_ordinary()) is not None:
            queued.append(event)
        return bool(queued)

    def moved(self) -> bool:
        """Return True if an event seems to be queued; safe in any thread."""
        return bool(self._splitter.queued) or self.inlet.moved()

    def next_stamp(self) -> int:
        """See `RingInput`; 0 if it was taken from the ring already."""
        return 0 if self._splitter.queued else self.inlet.next_stamp()

    def take(self) -> Event | None:
        """Return the next event other than a reply, or None."""
        queued = self._splitter.queued
        return queued.popleft() if queued else self._take_ordinary()

    def _take_ordinary(self) -> Event | None:
        dispatch = self._splitter.dispatch
        while (event := self._served.take()) is not None:
            if not dispatch(event):
                return event
        return None
