"""The latencies of an edge, counted by size in the buckets of its ring.

Bucket `n` counts latencies of `n` significant bits: 0 ns is in bucket 0, those from 2^(n-1) to
2^n - 1 ns are in bucket `n`. The buckets of a timer count how late its ticks were taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dorad.shm.layout import BUCKETS, COUNT_LIMIT, RING_BUCKETS, add_to, read_count

Buckets = tuple[int, ...]
"""`BUCKETS` counts, or none if they are not known."""


class Percentiles(NamedTuple):
    """Latencies in ns, each at most a factor of two from the true one.

    No message was slower than `worst`.
    """

    p50: int
    p99: int
    worst: int


def count(words: memoryview, base: int, latency: int) -> None:
    """Count a latency in ns (>= 0) in the ring whose header starts at word `base`."""
    add_to(words, _bucket(base, latency), 1)


def uncount(words: memoryview, base: int, latency: int) -> None:
    """Undo `count`."""
    bucket = _bucket(base, latency)
    words[bucket] = max(0, read_count(words, bucket) - 1)


def _bucket(base: int, latency: int) -> int:
    return base + RING_BUCKETS + min(latency.bit_length(), BUCKETS - 1)


def buckets(words: memoryview, base: int) -> Buckets:
    """Return the buckets of a ring. Those that a peer has overwritten have 0."""
    first = base + RING_BUCKETS
    counts = words[first : first + BUCKETS].tolist()
    return tuple([count if count < COUNT_LIMIT else 0 for count in counts])


def between(first: Buckets, last: Buckets) -> Buckets:
    """Return what was counted from `first` to `last`; none if a bucket has fallen meanwhile."""
    counts = tuple([after - before for before, after in zip(first, last, strict=False)])
    return counts if min(counts, default=0) >= 0 else ()


def percentiles(counts: Sequence[int]) -> Percentiles | None:
    """Return the percentiles of what buckets have counted, None if that is nothing.

    Within a bucket, latencies are taken to be spread evenly.
    """
    total = sum(counts)
    if total <= 0:
        return None
    worst = max(at for at, count in enumerate(counts) if count)
    return Percentiles(_percentile(counts, total, 50), _percentile(counts, total, 99), _end(worst))


def _percentile(counts: Sequence[int], total: int, percent: int) -> int:
    rank = -(-total * percent // 100)  # of so many messages, this is the slowest
    for at, count in enumerate(counts):
        if rank <= count:
            begin = 1 << at - 1 if at else 0
            return begin + (_end(at) - begin) * rank // count
        rank -= count
    raise AssertionError("the rank is at most the total")


def _end(bucket: int) -> int:
    """Return the largest latency in a bucket."""
    return (1 << bucket) - 1
