"""Whether an input loses messages steadily: from one sample to the next.

One that never lost any is told from one that does so from the start: that takes longer to be sure,
because a start, and a task of some minutes, may overflow an input. One that overflows now and then
is no trouble.
"""

from msgspec import Struct
from msgspec.structs import replace

from dorad.daemon.rules.samples import GAP_S, Sample, rate_of, with_sample

NOTHING = 0.01
"""Share of dropped messages that is as good as none."""
MUCH = 0.1
"""Share of dropped messages from which an input loses them."""
MIN_RATE = 0.5
"""Dropped messages per second below which it does not."""
CLEAN_S = 600.0
"""Time without drops after which they are news: a task that takes some minutes, and overflows an
input each time, is the usual state."""
LITTLE_S = 60.0
"""Time with a few drops after which the input was not without them."""
STEADY_S = 600.0
"""Time of drops after which an input loses messages that was never without drops."""
LOSING_S = 15.0
"""Time of drops after which they are news: a hiccup of five seconds is in the rates for twice as
long."""


class Loss(Struct, frozen=True):
    """What is known of the drops of one input."""

    samples: tuple[Sample, ...] = ()
    """The last ones: the time, and the numbers of messages and of drops since the start."""
    clean_since: float | None = None
    """When the present time without drops began."""
    dirty_since: float | None = None
    """When the present time with drops began."""
    clean: bool = False
    """Whether it had no drops for long enough, up to those of now."""
    since: float | None = None
    """When it began to drop much."""
    losing: bool = False
    """Whether it drops much for long enough."""

    @property
    def rate(self) -> float:
        """Messages per second."""
        return rate_of(self.samples, 1)

    @property
    def dropped(self) -> float:
        """Dropped messages per second."""
        return rate_of(self.samples, 2)


def loss_after(before: Loss, at: float, sent: int, dropped: int) -> Loss:
    """Return what is known after a sample at the time `at`; take one about once a second."""
    new = (at, sent, dropped)
    if not before.samples or not 0 < at - before.samples[-1][0] <= GAP_S:
        return Loss((new,))
    if dropped == before.samples[-1][2] and before.dirty_since is None:
        # Most inputs, most of the time: this costs little.
        since = at if before.clean_since is None else before.clean_since
        return Loss((new,), since, None, before.clean or at - since >= CLEAN_S)
    now = replace(before, samples=with_sample(before.samples, new))
    if now.dropped <= NOTHING * now.rate:
        if now.losing:
            return Loss(now.samples)
        since = at if now.clean_since is None else now.clean_since
        clean = now.clean or at - since >= CLEAN_S
        return replace(now, clean_since=since, clean=clean, dirty_since=None, since=None)
    since = at if now.dirty_since is None else now.dirty_since
    now = replace(now, clean_since=None, dirty_since=since)
    if now.losing:
        return now
    if now.dropped < MUCH * now.rate or now.dropped < MIN_RATE:
        return replace(now, since=None, clean=now.clean and at - since < LITTLE_S)
    since = at if now.since is None else now.since
    return replace(now, since=since, losing=at - since >= (LOSING_S if now.clean else STEADY_S))
