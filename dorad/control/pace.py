"""How fast a client reads from a server that may be hostile: a token bucket of weighed bytes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

FRAME = 1024
"""What a frame costs beside its bytes."""

WINDOW_S = 10.0
"""Over so many seconds it is judged whether a server exceeds its rate."""

WARN_S = 60.0
"""Minimum seconds between two warnings, and for how long a server counts as one that exceeds it."""

_log = logging.getLogger(__name__)


class Pace:
    """Says when the next frame of one server may be read.

    What exceeds the rate waits in the server's own socket. One frame may exceed what is left;
    then the pause is longer, so that no size of a frame is refused.
    """

    def __init__(
        self,
        server: str,
        rate: float,
        burst: float,
        weights: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rate` is in bytes a second, `burst` in bytes.

        `weights` are what a byte of an answer costs, by the method of the request; 1 for others.
        """
        self._server = server
        self._rate = rate
        self._burst = burst
        self._weights = weights
        self._clock = clock
        self._left = burst
        self._at = clock()
        self._window = self._at
        self._paused = 0.0
        """Seconds of pauses in the window."""
        self._exceeded_at = float("-inf")
        self._warned_at = float("-inf")

    @property
    def exceeded(self) -> bool:
        """Whether the server has sent more than the rate for most of a window, not long ago."""
        return self._clock() - self._exceeded_at < WARN_S

    def took(self, method: str, size: int) -> None:
        """Record that a frame with an answer to a method was read."""
        self._refill()
        self._left -= self._weights.get(method, 1.0) * size + FRAME

    def pause(self) -> float:
        """Return the seconds until the next frame may be read."""
        self._refill()
        seconds = max(0.0, -self._left / self._rate)
        now = self._clock()
        if now - self._window >= WINDOW_S:
            self._window, self._paused = now, 0.0
        self._paused += seconds
        if self._paused > WINDOW_S / 2:
            self._exceeded_at = now
            if now - self._warned_at >= WARN_S:
                self._warned_at = now
                _log.warning("%s sends faster than it may: the rest waits", self._server)
        return seconds

    def _refill(self) -> None:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
