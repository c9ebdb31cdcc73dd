"""Whether the memory of a node grows without end: from one sample to the next.

Nodes fill pools and caches for a while, and then keep what they have. One that goes on until it has
twice as much is a leak, or a map without limits: both end in a machine without memory.
"""

from msgspec import Struct
from msgspec.structs import replace

FAST_S = 10.0
"""Length of the blocks that find a leak of megabytes a second."""
SLOW_S = 300.0
"""Length of those that find one of megabytes an hour: it hides in the noise of seconds."""
BLOCKS = 7
"""Number of blocks that are compared."""
RISES = 3
"""How often, among them, memory is more than in the block before."""
MIN_RISE = 0.01
"""By which share: allocators take and return a few pages all the time."""
FALL = 0.02
"""Share by which memory may fall while it grows."""
FACTOR = 2.0
"""How many times as much as before it is too much."""
MIN_BYTES = 100e6
"""How much more it is at least."""
USUAL_S = 600.0
"""Time without growth after which what a node has is the usual state."""


class Growth(Struct, frozen=True):
    """What is known of the memory of one process. Times are those of a clock that never steps."""

    block_s: float
    began: float | None = None
    """When the present block began; None before the first sample."""
    low: int = 0
    """Least memory in the present block: garbage collectors make it rise and fall."""
    lows: tuple[int, ...] = ()
    """The same for the blocks before."""
    base: int = 0
    """Memory before it began to grow; 0 while that is learned."""
    grown_at: float = 0.0
    """When it grew last."""
    growing: bool = False
    """Whether it has grown too much."""

    @property
    def rises(self) -> bool:
        """Whether it rises steadily. A node that grows too much does so with any rise."""
        share = 0.0 if self.growing else MIN_RISE
        steps = [*zip(self.lows, self.lows[1:], strict=False)]
        rises = sum(b > a * (1 + share) for a, b in steps)
        return rises >= RISES and all(b >= a * (1 - FALL) for a, b in steps)


def growth_after(before: Growth, at: float, memory: int) -> Growth:
    """Return what is known after a sample at the time `at`; take one about once a second."""
    if before.began is None:
        return replace(before, began=at, low=memory)
    if at - before.began < before.block_s:
        return replace(before, low=min(before.low, memory))
    lows = (*before.lows[-BLOCKS + 1 :], before.low)
    now = replace(before, began=at, low=memory, lows=lows)
    if len(lows) < BLOCKS:
        return now
    level = lows[-1]
    if now.rises:
        now = replace(now, grown_at=at)
    elif not now.growing or at - now.grown_at >= USUAL_S:
        return replace(now, base=lows[0], growing=False)
    if not now.base:
        return replace(now, base=level)  # what is loaded after the start is no growth
    much = level >= max(FACTOR * now.base, now.base + MIN_BYTES)
    return replace(now, growing=much or (now.growing and level > (now.base * (1 + FACTOR) / 2)))
