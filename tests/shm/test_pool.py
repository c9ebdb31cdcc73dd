"""The pool of samples: allocation, reuse, return of memory."""

import gc
import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest

from dorad.shm import create, layout
from dorad.shm.layout import TRIM_EVERY_NS
from dorad.shm.mapping import Mapping
from dorad.shm.pool import Pool
from tests.harness import leaks
from tests.shm.edge import Edge, content, edge

NUMBERS = itertools.count(1)


def test_a_received_and_released_sample_is_reused() -> None:
    with edge() as e:
        first = e.push_sample(b"a" * 1000)
        assert e.take() is not None
        segments = len(e.segments)
        for _ in range(1000):
            e.push_sample(b"b" * 1000)
            e.take()
        assert len(e.segments) == segments
        assert first.segment.number == 1


def test_a_queued_sample_is_not_reused() -> None:
    with edge(5) as e:
        waiting = [e.push_sample(b"%d" % n * 1000) for n in range(5)]
        assert e.pool.take(1000) not in waiting
        assert [e.take() for _ in range(5)] == [b"%d" % n * 1000 for n in range(5)]


def test_a_sample_displaced_by_newer_ones_is_reused() -> None:
    with edge(1) as e:
        for _ in range(1000):
            e.push_sample(b"x" * 300_000)
        assert len(e.segments) <= 3


def test_a_held_array_stays_unchanged_while_others_are_sent() -> None:
    with edge(2) as e:
        e.push_sample(b"precious" * 1000)
        taken = e.inlet.take()
        assert taken is not None
        for n in range(200):
            e.push_sample(b"%8d" % n * 1000)
            e.take()
        assert content(taken) == b"precious" * 1000


def test_the_sample_that_was_sent_last_is_used_again_first() -> None:
    with edge(10) as e:
        for number in range(6):
            e.push_sample(b"%8d" % number * 100_000)
        while e.take() is not None:
            pass
        places = set()
        for _ in range(50):
            places.add(e.push_sample(b"x" * 800_000).key)
            e.take()
        assert len(places) == 1


def test_memory_of_a_burst_is_given_back_while_messages_continue() -> None:
    with edge(10) as e:
        for _ in range(10):
            e.push_sample(b"x" * (1 << 20))
        while e.take() is not None:
            pass
        grown = e.pool.size
        for turn in range(1, 4):
            e.push_sample(b"x" * (1 << 20))
            e.take()
            e.pool.trim(turn * TRIM_EVERY_NS)
        assert grown >= 10 << 20
        assert e.pool.size <= 4 << 20


def test_a_removed_subscriber_keeps_no_sample() -> None:
    with edge(10) as e:
        sample = e.push_sample(b"x" * 1000)
        assert sample.reachable()
        # Taken away from its sender, the edge still gives its receiver what is queued.
        e.outlet.closed = True
        assert sample.reachable()
        e.box.words[e.ring.base + layout.RING_STATE] = layout.STATE_CLOSED
        assert not sample.reachable()


def test_a_sample_held_by_its_own_node_is_reused_only_after_release() -> None:
    with edge() as e:
        sample = e.pool.take(1000)
        sample.held = True
        e.pool.sent(sample, [])
        assert all(e.pool.take(1000) is not sample for _ in range(100))
        e.pool.give_back(sample)
        assert any(e.pool.take(1000) is sample for _ in range(1000))


def test_a_message_that_finds_no_memory_for_its_metadata_keeps_no_sample() -> None:
    def refuse(_size: int) -> tuple[int, Mapping]:
        raise OSError("no room")

    with edge() as e:
        sample = e.pool.take(100_000)
        e.pool._grow = refuse
        encoded = (1, 5, 100_000, 0, 100_000, 0)
        with pytest.raises(OSError, match="no room"):
            e.pool.push((e.outlet,), encoded, b"m" * 1000, b"", sample)
        assert e.take() is None
        assert e.pool.take(100_000) is sample


def test_idle_segments_are_returned_at_the_second_trim() -> None:
    with edge(4) as e:
        held = [e.push_sample(b"x" * (1 << 20)) for _ in range(4)]
        while e.take() is not None:
            pass
        assert len(held) == 4
        e.pool.trim(TRIM_EVERY_NS)
        assert e.retired == []
        e.pool.trim(2 * TRIM_EVERY_NS)
        assert sorted(e.retired) == [1, 2]
        assert e.pool.size == 0


def test_segments_in_use_are_not_returned() -> None:
    with edge(4) as e:
        e.push_sample(b"x" * (1 << 20))
        taken = e.inlet.take()
        for turn in range(1, 5):
            e.pool.trim(turn * TRIM_EVERY_NS)
        assert e.retired == []
        assert taken is not None


def test_samples_of_a_segment_do_not_overlap() -> None:
    with edge() as e:
        samples = [e.pool.take(700) for _ in range(300)]
        places = sorted((s.segment.number, s.offset, 1 << s.order) for s in samples)
        for (segment, start, size), (other, following, _) in itertools.pairwise(places):
            assert segment != other or start + size <= following


def test_a_full_dev_shm_is_reported_with_requested_and_free_bytes() -> None:
    with pytest.raises(create.ShmFullError) as caught:
        create.create_pool(1 << 45)
    assert caught.value.asked == 1 << 45
    assert 0 < caught.value.free < 1 << 45
    assert f"{1 << 45} bytes requested, {caught.value.free} free" in str(caught.value)


def test_a_reused_sample_forgets_its_earlier_edges() -> None:
    with edge() as e:
        for _ in range(200):
            sample = e.pool.take(300_000)
            sample.held = True
            e.pool.sent(sample, [(e.outlet, 0)])
            e.pool.give_back(sample)
        assert len(sample.marks) <= 1


def _growing_ahead(e: Edge) -> tuple[Pool, list[int], list[tuple[int, Any]]]:
    """Return a pool, the sizes it waited for, and its requests ahead (size, callback)."""
    waited: list[int] = []
    requests: list[tuple[int, Any]] = []

    def grow(size: int) -> tuple[int, Mapping]:
        waited.append(size)
        return e.pool._grow(size)

    def ahead(size: int, arrived: Any) -> bool:
        requests.append((size, arrived))
        return True

    return Pool(grow, e.retired.append, 0, ahead), waited, requests


def _send(e: Edge, pool: Pool) -> None:
    sample = pool.take(LARGE)
    entry = layout.ENTRY.pack(
        1, LARGE, 0, LARGE, sample.offset, 0, sample.segment.number, 0, 0, 5, 0, 0
    )
    pool.sent(sample, [(e.outlet, e.outlet.push(entry, LARGE, 1))])


LARGE = 1 << 20


def test_a_burst_waits_only_for_its_first_segments() -> None:
    with edge(60) as e:
        pool, waited, requests = _growing_ahead(e)
        for _ in range(60):
            _send(e, pool)
            while requests:
                size, arrived = requests.pop()
                arrived(e.pool._grow(size))
        assert waited == [LARGE, 3 * LARGE]
        assert pool.size <= 80 * LARGE


def test_a_stream_that_is_received_does_not_grow() -> None:
    with edge() as e:
        pool, waited, requests = _growing_ahead(e)
        for _ in range(100):
            _send(e, pool)
            e.take()
        assert waited == [LARGE]
        assert requests == []


def test_some_samples_that_are_held_for_long_do_not_let_a_pool_grow_for_ever() -> None:
    with edge() as e:
        pool, _, requests = _growing_ahead(e)
        held = []
        for number in range(400):
            _send(e, pool)
            taken = e.inlet.take()
            if number < 5:
                held.append(taken)
            while requests:
                size, arrived = requests.pop()
                arrived(e.pool._grow(size))
        assert pool.size <= 10 * LARGE
        assert all(content(taken) is not None for taken in held if taken is not None)


def test_a_refused_request_ahead_is_repeated_only_after_a_trim() -> None:
    with edge(60) as e:
        pool, waited, requests = _growing_ahead(e)
        while not requests:
            _send(e, pool)
        requests.pop()[1](None)
        before = len(waited)
        for _ in range(20):
            _send(e, pool)
        assert requests == []
        assert len(waited) > before
        pool.trim(TRIM_EVERY_NS + 1)
        _send(e, pool)
        assert len(requests) == 1


def mapped() -> int:
    """Return how many pieces of the daemon's memory this process maps."""
    return leaks.mappings(os.getpid()).total()


def grow(size: int) -> tuple[int, Mapping]:
    descriptor, mapping = create.create_texts(size)
    os.close(descriptor)
    return next(NUMBERS), mapping


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_memory_that_is_given_back_is_unmapped_without_the_garbage_collector() -> None:
    """A node in real time may have none."""
    before, retired = mapped(), []
    pool = Pool(grow, retired.append, keep=0)
    sample = pool.take(100_000)
    assert mapped() == before + 1
    pool.sent(sample, [])
    del sample
    for times in range(1, 5):
        pool.trim(times * TRIM_EVERY_NS)
    assert len(retired) == 1
    assert mapped() == before


@pytest.mark.usefixtures("no_collector")
def test_a_pool_that_is_closed_maps_nothing() -> None:
    before = mapped()
    pool = Pool(grow, lambda _: None)
    pool.take(100)
    pool.take(1_000_000)
    assert mapped() == before + 2
    pool.close()
    assert mapped() == before
