"""How detailed pictures are: as much as the terminal and the processor keep up with."""

SLOW_S = 0.3
"""A terminal that takes longer for a frame gets smaller pictures with fewer colours."""
MIN_SCALE = 0.2
LEVELS = (256, 64, 16, 8)
"""Steps of each colour; the more there are, the more time and bytes a picture takes. Fewer give
longer runs of one colour, and so fewer bytes: the last one is for slow lines."""
BUSY, IDLE = 0.6, 0.25
"""Parts of a processor: above the first, pictures get fewer colours, below the second more."""
FIRST_PIXELS, MIN_PIXELS = 0.3, 0.2
"""Part of its width and height that the first picture in pixels has, and the least that one has."""
REST_S, MAX_REST_S = 30.0, 480.0
"""Seconds in which a terminal that is too slow for pixels is sent none; longer each time."""


class Detail:
    """Decides by the time that the last pictures took; times are in seconds of one clock each."""

    def __init__(self) -> None:
        self.scale = 1.0
        """Of the columns and rows of a picture in half blocks."""
        self.pixels = FIRST_PIXELS
        """Of the width and height of a picture in pixels."""
        self._colours = 0
        """The place in LEVELS."""
        self._used = (0.0, 0.0)
        """The time of the last picture, and the processor time until then."""
        self._sharp_from = float("-inf")
        self._rest = REST_S

    @property
    def levels(self) -> int:
        """Steps of each colour of a picture in half blocks."""
        return LEVELS[self._colours] if self.scale == 1.0 else LEVELS[-1]

    def sharp(self, now: float) -> bool:
        """Return True if the terminal may be sent pixels now."""
        return now >= self._sharp_from

    def _busy(self, now: float, used: float) -> float:
        """Return the part of a processor that was used since the last call."""
        (before, used_before), self._used = self._used, (now, used)
        return (used - used_before) / max(now - before, 1e-3)

    def measure_blocks(self, took: float, now: float, used: float) -> None:
        """Take how long the last frame took, the time, and the processor time until now."""
        # Over a slow line a small picture of now is worth more than a large old one.
        if took > SLOW_S:
            self.scale = max(MIN_SCALE, self.scale * 0.7)
        elif took < SLOW_S / 4:
            self.scale = min(1.0, self.scale * 1.1)
        busy = self._busy(now, used)
        if busy > BUSY:
            self._colours = min(self._colours + 1, len(LEVELS) - 1)
        elif busy < IDLE:
            self._colours = max(self._colours - 1, 0)

    def measure_pixels(self, took: float | None, now: float, used: float) -> None:
        """Do so for pictures in pixels; `took` is None while none was shown since the last call."""
        busy = self._busy(now, used)
        if took is None:
            return
        if took > SLOW_S or busy > BUSY:
            self.pixels *= 0.7
        elif took < SLOW_S / 2:
            self.pixels = min(1.0, self.pixels * 1.25)
        if self.pixels < MIN_PIXELS:
            self.pixels, self._sharp_from = FIRST_PIXELS, now + self._rest
            self._rest = min(MAX_REST_S, 2 * self._rest)
        elif self.pixels == 1.0:
            self._rest = REST_S
