"""Whether an output sends as often as usual, or as it must: from one sample to the next."""

from msgspec import Struct
from msgspec.structs import replace

from dorad.daemon.rules.samples import GAP_S, SAMPLES

BLOCK_S = 10.0
"""Length of the blocks of a steady time."""
SPREAD = 0.2
"""How far the rates of blocks may be apart, as a share, to be steady."""
MIN_RATE = 2.0
"""Messages per second below which an output is idle: it is chance whether a second has one."""
LEARN_S = 60.0
"""Length of the first steady time that makes a rate the usual one."""
RELEARN_S = 600.0
"""The same for any other rate, and for an output that pauses: a task that takes some minutes must
not be taken for the usual state."""
SLOW = 0.5
"""Share of the usual rate below which an output is slow."""
BACK = 0.75
"""Share from which it no longer is."""
MIN_MISSING = 2.0
"""Messages that are missing at least when an output is below its limit."""
SLOW_S = 10.0
"""Time below the limit after which an output is slow: a hiccup is shorter."""


class Block(Struct, frozen=True):
    """The samples of a few seconds."""

    began: float
    samples: int = 0
    sum: float = 0.0
    squares: float = 0.0

    @property
    def mean(self) -> float:
        """Messages per second."""
        return self.sum / self.samples

    @property
    def is_even(self) -> bool:
        """Whether its seconds are more alike than those of events that happen by chance.

        The variance of a count of chance events is its mean. That of a regular output is at most a
        half, because a message may fall into the next second, and more on a busy machine.
        """
        mean = self.mean
        variance = self.squares / self.samples - mean**2
        return variance <= max(0.5, mean / 4, (mean * SPREAD / 2) ** 2)


class Steady(Struct, frozen=True):
    """A time at one rate."""

    began: float
    ended: float
    rate: float
    """Messages per second; 0 if it is idle."""

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.ended - self.began


class Pace(Struct, frozen=True):
    """What is known of an output. Times are those of the caller's clock, which never steps."""

    samples: tuple[tuple[float, int], ...] = ()
    """The last ones: the time, and the number of messages since the start."""
    began: float = 0.0
    """When the first sample was taken."""
    block: Block | None = None
    steady: Steady | None = None
    """The present steady time, up to its last complete block."""
    usual: float | None = None
    """The rate it had for a long time; None if it had none."""
    pauses: bool = False
    """Whether it has been idle, and went on by itself: a pause says nothing then."""
    below_since: float | None = None
    slow: bool = False
    """Whether it has been below a share of its usual rate for long enough."""
    silent: bool = False
    """Whether it has stopped meanwhile."""
    missing: float = 0.0
    """Messages that it lacks for its limit."""
    short: bool = False
    """Whether it has been below its limit for long enough."""

    @property
    def rate(self) -> float | None:
        """Messages per second over the last seconds; None if it is not known yet."""
        if len(self.samples) <= SAMPLES:
            return None
        (began, first), (ended, last) = self.samples[0], self.samples[-1]
        return (last - first) / (ended - began)


def pace_after(before: Pace, at: float, sent: int, limit: float | None = None) -> Pace:
    """Return what is known after a sample, `sent` messages since the start at the time `at`.

    Take a sample about once a second. With a `limit` in messages per second, only that counts, and
    not the usual rate; with a limit of 0 no rate is too low.
    """
    if not before.samples:
        return replace(before, samples=((at, sent),), began=at)
    seconds = at - before.samples[-1][0]
    if not 0 < seconds <= GAP_S:
        return replace(
            before, samples=((at, sent),), block=None, steady=None, below_since=None, missing=0.0
        )
    new = sent - before.samples[-1][1]
    now = replace(before, samples=(*before.samples[-SAMPLES:], (at, sent)))
    now = _learn(now, at, new / seconds)
    if limit is None:
        return _compare(replace(now, missing=0.0, short=False), at)
    # A node may take its time to begin.
    begun = sent > 0 or at - now.began > LEARN_S
    return _count_missing(now, limit, limit * seconds - new if begun else 0.0)


def _learn(now: Pace, at: float, rate: float) -> Pace:
    """Return the pace with another second in its block, and a complete block in its steady time."""
    last = now.block or Block(at)
    block = Block(last.began, last.samples + 1, last.sum + rate, last.squares + rate**2)
    if at - block.began < BLOCK_S:
        return replace(now, block=block)
    steady = _extended(now.steady, block, at)
    now = replace(now, block=Block(at), steady=steady)
    if steady is None:
        return now
    if steady.rate == 0:
        # One that has never had a usual rate and rests is one that works only now and then.
        if steady.seconds >= (LEARN_S if now.usual is None else RELEARN_S):
            return _idle(now)
    elif steady.seconds >= (LEARN_S if now.usual is None and not now.pauses else RELEARN_S):
        changed = now.usual is None or abs(steady.rate - now.usual) > SPREAD * now.usual
        if changed:
            return replace(now, usual=steady.rate, silent=False)
    return now


def _extended(steady: Steady | None, block: Block, at: float) -> Steady | None:
    """Return the steady time that ends with a block; None if the block itself is uneven."""
    rate = 0.0 if block.mean < MIN_RATE else block.mean
    if rate and not block.is_even:
        return None
    if steady is None or abs(rate - steady.rate) > SPREAD * steady.rate:
        return Steady(block.began, at, rate)
    weight = (at - block.began) / (at - steady.began)
    return Steady(steady.began, at, steady.rate + (rate - steady.rate) * weight)


def _compare(now: Pace, at: float) -> Pace:
    """Return the pace compared with its usual rate."""
    rate, usual = now.rate, now.usual
    if rate is None or usual is None:
        return now
    if now.slow:
        if rate < BACK * usual:
            return replace(now, silent=now.silent or rate == 0)
        # One that stops and goes on by itself may do so again, and nothing is wrong then.
        return _idle(now) if now.silent else replace(now, slow=False, below_since=None)
    if rate >= SLOW * usual:
        return replace(now, below_since=None, silent=False)
    since = at if now.below_since is None else now.below_since
    return replace(
        now, below_since=since, slow=at - since >= SLOW_S, silent=now.silent or rate == 0
    )


def _idle(now: Pace) -> Pace:
    """Return the pace of an output that has no usual rate, because it pauses."""
    return replace(now, usual=None, pauses=True, below_since=None, slow=False, silent=False)


def _count_missing(now: Pace, limit: float, missing: float) -> Pace:
    """Return the pace with the messages that it lacks: it is short without ten seconds' worth."""
    rate = now.rate
    now = replace(now, slow=False, below_since=None, silent=False)
    if limit <= 0 or (rate is not None and rate >= limit):
        return replace(now, missing=0.0, short=False)
    most = max(limit * SLOW_S, MIN_MISSING)
    total = min(max(now.missing + missing, 0.0), most + 1)
    return replace(now, missing=total, short=total >= most or (now.short and total > 0))
