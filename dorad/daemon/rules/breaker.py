"""The circuit breaker of an input: silence breaks it, the next message mends it."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace


class Breaker(Struct, frozen=True):
    """What is known of one input with an `input_timeout`; times in monotonic seconds."""

    timeout: float
    sent: int = 0
    """Messages that its source had sent at the last look."""
    heard_at: float | None = None
    """When a new one was last seen; None before the first, until which nothing can be missed."""
    broken: bool = False

    def look(self, sent: int, now: float) -> Breaker:
        """Return the breaker after a look: broken after `timeout` of silence, mended by a message.

        What was sent before the first look counts as heard now, so a daemon that takes over gives
        every input its full time.
        """
        if sent != self.sent:
            return replace(self, sent=sent, heard_at=now, broken=False)
        if self.heard_at is not None and now - self.heard_at >= self.timeout:
            return replace(self, broken=True)
        return self

    @property
    def due(self) -> float | None:
        """When it breaks unless a message comes; None if it cannot, or has."""
        return None if self.broken or self.heard_at is None else self.heard_at + self.timeout
