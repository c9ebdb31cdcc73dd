"""The latency of messages, as the consumer of an edge counts it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dorad.shm import inlet
from tests.shm.edge import Edge, edge

MS = 1_000_000


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time, in a list of one, for the test to set."""
    moment = [time.time_ns()]
    monkeypatch.setattr(inlet, "_time_ns", lambda: moment[0])
    return moment


@contextmanager
def _edge(queue_size: int = 10) -> Iterator[Edge]:
    """Yield an edge whose consumer asks Python for the time: `test_native` compares the two."""
    with edge(queue_size) as e:
        e.inlet.plain = False
        yield e


def _sums(e: Edge) -> tuple[int, int]:
    return e.counters.latency_sum, e.counters.latency_diff


def test_latencies_and_their_differences_are_summed(now: list[int]) -> None:
    with _edge() as e:
        for late in (3, 5, 1):
            e.push(b"x", stamp=now[0] - late * MS)
            e.take()
        assert _sums(e) == (9 * MS, (2 + 4) * MS)


def test_a_clock_change_counts_as_zero_latency(now: list[int]) -> None:
    with _edge() as e:
        for stamp in (now[0] - 2 * MS, now[0] + 3600 * 10**9, 1, now[0] - 2 * MS):
            e.push(b"x", stamp=stamp)
            e.take()
        assert _sums(e) == (4 * MS, 4 * MS)


def test_a_restarted_consumer_adds_to_the_sums_without_comparing_itself_to_the_last(
    now: list[int],
) -> None:
    with _edge() as e:
        e.push(b"x", stamp=now[0] - MS)
        e.take()
        e.inlet = e.new_inlet()
        e.inlet.plain = False
        e.push(b"x", stamp=now[0] - 500 * MS)
        e.take()
        e.push(b"x", stamp=now[0] - 501 * MS)
        e.take()
        assert _sums(e) == (1002 * MS, MS)


def test_dropped_messages_do_not_count_in_the_latency(now: list[int]) -> None:
    with _edge(1) as e:
        for late in (100, 2):
            e.push(b"x", stamp=now[0] - late * MS)
        e.take()
        assert e.take() is None
        assert _sums(e) == (2 * MS, 0)
