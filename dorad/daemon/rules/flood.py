"""Whether a node logs more than anybody reads: from one sample to the next."""

from msgspec import Struct
from msgspec.structs import replace

from dorad.daemon.rules.samples import Sample, rate_of, with_sample

ERRORS = 5.0
"""Errors per second that are a flood: something fails again and again."""
LINES = 1000.0
"""Lines per second of any level that are one: they push out what was logged before."""
OVER = 0.5
"""Share of these below which a flood is over."""
FLOOD_S = 10.0
"""Time after which it is one: a start, and one failure, may log much."""


class Flood(Struct, frozen=True):
    """What is known of the lines of a node."""

    samples: tuple[Sample, ...] = ()
    """The last ones: the time, and the numbers of lines and of errors since the start."""
    since: float | None = None
    """When it began to log too much."""
    flooding: bool = False

    @property
    def lines(self) -> float:
        """Lines per second."""
        return rate_of(self.samples, 1)

    @property
    def errors(self) -> float:
        """Errors per second."""
        return rate_of(self.samples, 2)


def flood_after(before: Flood, at: float, lines: int, errors: int) -> Flood:
    """Return what is known after a sample at the time `at`; take one about once a second."""
    new = (at, lines, errors)
    if before.samples and (lines < before.samples[-1][1] or at <= before.samples[-1][0]):
        return Flood((new,))
    now = replace(before, samples=with_sample(before.samples, new))
    share = OVER if before.flooding else 1.0
    if now.errors < share * ERRORS and now.lines < share * LINES:
        return replace(now, since=None, flooding=False)
    since = at if now.since is None else now.since
    return replace(now, since=since, flooding=at - since >= FLOOD_S)
