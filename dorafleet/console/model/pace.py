"""When the next frame may be sent to a terminal: after it has shown the last one.

A frame ends with a question that terminals answer once they have read that far. So frames never
pile up in a slow line, where they would be old when they are shown.
"""

FASTEST_S = 0.1
"""Minimum time between two frames."""
FIRST_ANSWER_S = 2.0
"""Time that a terminal has for its first answer: until then it gets no other frame."""
SLOWEST_S = 0.5
"""Time between frames on a terminal that never answers."""
GIVE_UP_S = 5.0
"""Seconds after which a question without an answer counts as lost, and another frame is sent."""


class Pace:
    """Decides from the times of frames and answers; times are in seconds of one clock."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._sent_at = float("-inf")
        self._open = 0
        self._answers = False
        """Whether the terminal has ever answered."""

    def may_send(self, now: float) -> bool:
        """Return True if a frame may be sent now."""
        return now >= self.due()

    def due(self) -> float:
        """Return when the next frame may be sent, unless an answer comes before."""
        if not self._open:
            return self._sent_at + FASTEST_S
        if self._answers:
            return self._sent_at + GIVE_UP_S
        return max(self._sent_at + SLOWEST_S, (self._began or 0.0) + FIRST_ANSWER_S)

    def sent(self, now: float) -> None:
        """Record that a frame with a question was sent."""
        if self._began is None:
            self._began = now
        if self._answers and now >= self._sent_at + GIVE_UP_S:
            self._open = 0
        self._open += 1
        self._sent_at = now

    def answered(self) -> bool:
        """Take an answer; return False if no question was open, so that it is for another one."""
        self._answers = True
        if not self._open:
            return False
        self._open -= 1
        return True


MAX_PASTED = 256
"""Keys that are taken at once."""
KEYS_S = 100.0
"""Keys a second that are taken for ever; a key that is held down repeats up to 60 times."""


PAUSE_S = 0.25
"""Seconds without a key that end a paste."""


class TypingPace:
    """Leaves out what comes faster than anybody types: a paste from a terminal without brackets."""

    def __init__(self) -> None:
        self._room, self._at = float(MAX_PASTED), 0.0
        self.left_out = 0
        """Keys that were left out since the last one that was taken."""

    def takes(self, now: float) -> bool:
        """Return True if the next key is taken; `now` is in seconds, never falling."""
        pause, self._at = now - self._at, now
        room = min(float(MAX_PASTED), self._room + pause * KEYS_S)
        # After a key was left out, so is all that follows it: half of a paste means nothing.
        if room < 1.0 or (self.left_out and pause < PAUSE_S):
            self._room = room
            self.left_out += 1
            return False
        self._room, self.left_out = room - 1.0, 0
        return True
