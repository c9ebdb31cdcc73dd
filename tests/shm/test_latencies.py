"""Latencies in buckets, and the percentiles that follow from them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.shm import latencies, layout, native
from tests.shm.edge import edge

WORD = (1 << 64) - 1
BASE = 5


def _words() -> memoryview:
    return memoryview(bytearray((BASE + layout.RING_WORDS) * layout.WORD)).cast("Q")


@given(st.lists(st.integers(0, WORD), min_size=1))
def test_percentiles_are_within_a_factor_of_two_of_the_truth(values: list[int]) -> None:
    words = _words()
    for value in values:
        latencies.count(words, BASE, value)
    found = latencies.percentiles(latencies.buckets(words, BASE))
    assert found is not None
    values.sort()
    for value, truth in (
        (found.p50, values[-(-len(values) // 2) - 1]),
        (found.p99, values[-(-len(values) * 99 // 100) - 1]),
        (found.worst, values[-1]),
    ):
        truth = min(truth, (1 << 63) - 1)
        assert truth // 2 <= value <= 2 * truth
    assert found.p50 <= found.p99 <= found.worst


@given(st.lists(st.integers(0, WORD), min_size=layout.BUCKETS, max_size=layout.BUCKETS))
def test_overwritten_buckets_do_no_harm(content: list[int]) -> None:
    words = _words()
    for at, value in enumerate(content):
        words[BASE + layout.RING_BUCKETS + at] = value
    read = latencies.buckets(words, BASE)
    assert all(0 <= count < layout.COUNT_LIMIT for count in read)
    found = latencies.percentiles(read)
    assert found is None or found.p50 <= found.p99 <= found.worst
    assert latencies.between((1,) * layout.BUCKETS, read) == () or 0 not in read
    for latency in (0, 1, 1 << 20, WORD):
        latencies.count(words, BASE, latency)
        latencies.uncount(words, BASE, latency)


def test_nothing_counted_has_no_percentiles() -> None:
    assert latencies.percentiles(latencies.buckets(_words(), BASE)) is None
    assert latencies.percentiles(()) is None


def test_what_was_counted_between_two_reads_is_their_difference() -> None:
    words = _words()
    latencies.count(words, BASE, 10**9)
    before = latencies.buckets(words, BASE)
    for _ in range(100):
        latencies.count(words, BASE, 1000)
    assert latencies.percentiles(
        latencies.between(before, latencies.buckets(words, BASE))
    ) == latencies.Percentiles(767, 1017, 1023)


@pytest.mark.parametrize("plain", [True, False])
def test_each_message_that_is_taken_is_in_one_bucket(plain: bool) -> None:
    if plain and native.module is None:
        pytest.skip("there is no C part")
    with edge(8) as e:
        e.inlet.plain = plain
        first = e.ring.base + layout.RING_BUCKETS
        for late in (0, 10**6, 10**6, 10**9):
            e.push(b"x", stamp=time.time_ns() - late)
            e.take()
        e.push(b"x", stamp=1)  # before a clock was set
        e.take()
        counts = latencies.buckets(e.box.words, e.ring.base)
        assert sum(counts) == e.counters.received == 5
        assert counts[0] >= 1
        assert counts[30] == 1
        assert sum(counts[20:30]) == 2
        # A peer has overwritten them.
        for at in range(layout.BUCKETS):
            e.box.words[first + at] = WORD
        e.push(b"x", stamp=time.time_ns() - 10**9)
        e.take()
        assert sum(latencies.buckets(e.box.words, e.ring.base)) == 1
