"""The circuit breaker of an input: silence breaks it, the next message repairs it."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace


class Breaker(Struct, frozen=True):
    """State of one input with an `input_timeout`; times in monotonic seconds."""

    timeout: float
    sent: int = 0
    """Messages that its source had sent at the last check."""
    last_at: float | None = None
    """When a new message was last seen; None before the first one, which may take any time."""
    broken: bool = False

    def check(self, sent: int, now: float) -> Breaker:
        """Return the breaker after a check at `now`, when its source has sent `sent` messages.

        It breaks after `timeout` of silence and recovers with the next message. Messages from
        before the first check count as new, so an adopting daemon grants the full timeout.
        """
        if sent != self.sent:
            return replace(self, sent=sent, last_at=now, broken=False)
        if self.last_at is not None and now - self.last_at >= self.timeout:
            return replace(self, broken=True)
        return self

    @property
    def due(self) -> float | None:
        """When it breaks unless a message arrives; None if it is broken or waits for its first."""
        return None if self.broken or self.last_at is None else self.last_at + self.timeout
