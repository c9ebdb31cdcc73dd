"""Doorbells: ring, wait, clear."""

import os
import threading
import time
from collections.abc import Iterator

import pytest

from dorad.shm import doorbell
from dorad.shm.fence import acquire, fence, release


@pytest.fixture
def bell() -> Iterator[int]:
    descriptor = doorbell.create()
    yield descriptor
    os.close(descriptor)


def test_a_ring_before_the_wait_is_not_lost(bell: int) -> None:
    waiter = doorbell.Waiter(bell)
    doorbell.ring(bell)
    assert waiter.wait(None) == [bell]


def test_a_ring_before_the_waiter_exists_is_not_lost(bell: int) -> None:
    doorbell.ring(bell)
    assert doorbell.Waiter(bell).wait(None) == [bell]


@pytest.mark.parametrize("fine", [False, True])
def test_a_timeout_may_exceed_what_the_kernel_accepts(bell: int, fine: bool) -> None:
    waiter = doorbell.Waiter(bell)
    doorbell.ring(bell)
    assert waiter.wait(10**30, fine=fine) == [bell]


def test_every_ring_ends_a_wait_although_the_bell_is_never_read(bell: int) -> None:
    waiter = doorbell.Waiter(bell)
    for _ in range(3):
        doorbell.ring(bell)
        doorbell.ring(bell)
        assert waiter.wait(None) == [bell]
        assert waiter.wait(0) == []


def test_a_ring_ends_a_wait(bell: int) -> None:
    ringer = threading.Timer(0.02, doorbell.ring, [bell])
    ringer.start()
    assert doorbell.Waiter(bell).wait(5_000_000_000) == [bell]
    ringer.join()


def test_a_cleared_bell_does_not_end_a_wait(bell: int) -> None:
    doorbell.ring(bell)
    doorbell.clear(bell)
    doorbell.clear(bell)
    assert doorbell.Waiter(bell).wait(0) == []


def test_a_wait_is_finer_than_a_millisecond(bell: int) -> None:
    waiter = doorbell.Waiter(bell)
    best = min(_timed(waiter, 200_000) for _ in range(50))
    assert 200_000 <= best < 900_000


def _timed(waiter: doorbell.Waiter, nanos: int) -> int:
    started = time.monotonic_ns()
    waiter.wait(nanos, fine=True)
    return time.monotonic_ns() - started


def test_another_descriptor_ends_waits_while_it_is_ready(bell: int) -> None:
    other = doorbell.create()
    doorbell.ring(other)
    waiter = doorbell.Waiter(bell, [other])
    assert waiter.wait(5_000_000_000) == [other]
    assert waiter.wait(5_000_000_000, fine=True) == [other]
    os.close(other)


def test_fences_work_while_other_threads_fence() -> None:
    def many() -> None:
        for _ in range(10_000):
            fence()
            acquire()
            release()

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
