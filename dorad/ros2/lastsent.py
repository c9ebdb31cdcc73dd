"""What a process has sent last, which its end must not take with it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_log = logging.getLogger(__name__)

SETTLE_S = 1.0
"""How long an end waits at most until the peers have what was sent to them."""
SENT_S = 0.5
"""How long a response may take to its client; ROS 2 does not say when it is there."""
PAUSE_S = 0.01


class Settling(Protocol):
    """A topic, service or action."""

    @property
    def title(self) -> str:
        """Its name in ROS 2."""

    def settled(self) -> bool:
        """Return True if the peers have got everything."""


class LastAnswer:
    """When the last answer of a service was sent."""

    def __init__(self) -> None:
        self._sent_s = 0.0

    def sent(self) -> None:
        """Record that one is sent now."""
        self._sent_s = time.monotonic()

    def settled(self) -> bool:
        """Return True if its client has had the time to get it."""
        return time.monotonic() - self._sent_s > SENT_S


def settle(endpoints: Collection[Settling], wait: Callable[[float], object]) -> None:
    """Wait until the peers have got everything, at most SETTLE_S, and name those that have not.

    `wait` lets some seconds pass.
    """
    deadline = time.monotonic() + SETTLE_S
    while missing := [each for each in endpoints if not each.settled()]:
        if time.monotonic() >= deadline:
            for each in missing:
                _log.warning("%s: peers may lack what was sent last", each.title)
            return
        wait(PAUSE_S)
