"""When a replayed message is due: one clock for all topics, with speed, pause and steps. Pure."""

from __future__ import annotations

import math


class ReplayClock:
    """Maps times of a recording to deadlines on the monotonic clock; all in ns.

    Deadlines are absolute, so that delays do not add up. A pause and a change of speed move the
    origin.
    """

    def __init__(self, first: int, now: int, speed: float) -> None:
        """The message of recorded time `first` is due `now`. A `speed` of 0 never waits."""
        self._origin_recorded = first
        self._origin = now
        self.speed = speed
        self.paused = False

    def due(self, recorded: int) -> int:
        """Return when a message is due."""
        if not self.speed:
            return 0
        return self._origin + int((recorded - self._origin_recorded) / self.speed)

    def position(self, now: int) -> int:
        """Return the recorded time that is reached now."""
        if self.paused or not self.speed:
            return self._origin_recorded
        return self._origin_recorded + int((now - self._origin) * self.speed)

    def at(self, recorded: int, now: int) -> None:
        """Record that the message of time `recorded` is sent now; only without a speed."""
        if not self.speed or self.paused:
            self._origin_recorded, self._origin = recorded, now

    def set_speed(self, speed: float, now: int) -> None:
        """Continue with another speed. Raises ValueError if it is negative or not finite."""
        if not math.isfinite(speed) or speed < 0:
            raise ValueError(f"{speed} is not a speed")
        self._origin_recorded, self._origin = self.position(now), now
        self.speed = speed

    def pause(self, now: int) -> None:
        """Stop the clock."""
        if not self.paused:
            self._origin_recorded, self._origin = self.position(now), now
            self.paused = True

    def resume(self, now: int) -> None:
        """Restart the clock."""
        if self.paused:
            self._origin = now
            self.paused = False
