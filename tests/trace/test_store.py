"""Which traces are kept in bounded memory, and the figures of all."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dorad.control import messages as m
from dorad.trace import store as kept
from dorad.trace.build import id_of
from dorad.trace.model import Place, Tree
from dorad.trace.store import TraceStore, bucket_of, choose, end_of
from tests.trace.recorded import Linked, Recorded, chain, fed, joined, ns, run_chain, tick


def stored(store: TraceStore, **query: object) -> list[m.Trace]:
    return choose(store.kept("flow"), m.TraceQuery(**{"limit": 10**6, **query}))[0]


def fill(store: TraceStore, works: list[float], *, every: float = 200.0) -> None:
    for number, work in enumerate(works):
        nodes = chain()
        run_chain(nodes, number * every, work=work)
        for tree in joined(*nodes):
            store.add("flow", tree)


def test_the_slowest_of_many_is_kept_and_found():
    works = [10 + number % 7 for number in range(3000)]
    works[1234] = 80.0
    store = TraceStore()
    fill(store, works, every=1.0)
    slowest, second = stored(store, slow=True, limit=2, spans=True)
    assert slowest.duration == pytest.approx(0.092)
    assert second.duration == pytest.approx(0.028)
    assert [span.node for span in slowest.spans] == ["camera", "detector", "planner"]
    (path,) = store.paths("flow")
    assert (path.count, path.worst_id) == (3000, slowest.id)
    assert path.worst == pytest.approx(0.092)
    assert path.p50 == pytest.approx(0.025, rel=0.13)
    assert path.p99 == pytest.approx(0.028, rel=0.13)
    assert path.wait + path.work + path.transport == pytest.approx(1.0)
    # One a second of 3 s, 16 slowest, the worst so far of their time.
    assert len(stored(store)) < 40


def test_every_drop_is_kept():
    store = TraceStore()
    camera = Recorded("camera", tick("camera"), ("image",))
    detector = Recorded("detector", fed(image="camera/image"))
    for at in range(0, 1000, 10):
        camera.receive("tick", at, at)
        camera.send("image", at + 1, ("tick", at))
        camera.done("tick", at, at + 2)
        if at % 100:
            detector.receive("image", at + 1, at + 3)
            detector.done("image", at + 1, at + 4)
        else:
            detector.drop("image", at + 2, 1)
    for tree in joined(camera, detector):
        store.add("flow", tree)
    assert len(stored(store, troubled=True)) == 10
    assert not stored(store, troubled=True, through=["planner"])
    assert len(stored(store, troubled=True, through=["detector", "camera/image"])) == 10


def test_memory_is_bounded_and_the_worst_stays():
    store = TraceStore(max_bytes=200_000)
    chance = random.Random(1)
    tracemalloc.start()
    try:
        fill(store, [chance.uniform(1, 50) for _ in range(400)], every=2000.0)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert store.bytes <= 200_000
    assert used < 2 * 200_000
    traces = stored(store, slow=True)
    assert sum(store._held.values()) >= store.bytes > 150_000
    (path,) = store.paths("flow")
    assert traces[0].id == path.worst_id
    assert path.count == 400


def test_too_many_paths_are_counted(monkeypatch):
    monkeypatch.setattr(kept, "MAX_PATHS", 3)
    store = TraceStore()
    source = Recorded("source", {}, tuple(f"out{number}" for number in range(5)))
    sink = Recorded("sink", fed(**{f"in{n}": f"source/out{n}" for n in range(5)}))
    for number in range(5):
        source.send(f"out{number}", number)
        sink.receive(f"in{number}", number, number + 1)
        sink.done(f"in{number}", number, number + 2)
    for tree in joined(source, sink):
        store.add("flow", tree)
    assert len(store.paths("flow")) == 3
    assert store.left_out == 2


def test_paths_that_differ_in_an_input_only_name_it():
    store = TraceStore()
    source = Recorded("source", {}, ("out",))
    sink = Recorded("sink", fed(left="source/out", right="source/out"))
    source.send("out", 0)
    for name in ("left", "right"):
        sink.receive(name, 0, 1)
        sink.done(name, 0, 2)
    for tree in joined(source, sink):
        store.add("flow", tree)
    paths = [path.path for path in store.paths("flow", ["sink"])]
    assert sorted(paths) == ["source/out → sink/left", "source/out → sink/right"]
    assert store.paths("flow", ["elsewhere"]) == []


@given(st.integers(0, 2**63))
def test_a_bucket_is_an_eighth_wide_at_most(ns):
    bucket = bucket_of(ns)
    assert ns < end_of(bucket)
    assert end_of(bucket) - 1 <= ns + ns / 8
    assert bucket_of(end_of(bucket)) > bucket


class Sent(NamedTuple):
    """An image of a camera that two nodes receive, or one if the other's queue was full."""

    after_ms: int
    detector_ms: int
    logger_ms: int
    dropped: bool = False


sent = st.builds(
    Sent,
    st.sampled_from([1, 50, 900, 1500, 400_000]),
    st.integers(0, 40),
    st.integers(0, 40),
    st.sampled_from([False] * 9 + [True]),
)


def trees(messages: list[Sent]) -> Iterator[tuple[Sent, float, Tree]]:
    """Yield what became of each image, with the time when it was due in ms."""
    at = 0.0
    for each in messages:
        at += each.after_ms
        camera = Recorded("camera", tick("camera"), ("image",))
        detector = Recorded("detector", fed(image="camera/image"))
        logger = Recorded("logger", fed(image="camera/image"))
        camera.receive("tick", at, at)
        image = at + 0.1
        camera.send("image", image, ("tick", at))
        camera.done("tick", at, image)
        detector.receive("image", image, image)
        detector.done("image", image, image + each.detector_ms + 0.1)
        if each.dropped:
            logger.drop("image", image, 1)
        else:
            logger.receive("image", image, image)
            logger.done("image", image, image + each.logger_ms + 0.1)
        (tree,) = joined(camera, detector, logger)
        yield each, at, tree


@given(st.lists(sent, max_size=120))
@settings(max_examples=40, deadline=None)
@example([Sent(1, number, 40) for number in range(40)])  # another path is always slower
def test_with_room_the_slowest_of_each_path_all_troubled_ones_and_one_a_second_are_kept(
    messages: list[Sent],
) -> None:
    store = TraceStore()
    expected: set[str] = set()
    slow: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
    last: dict[str, float] = {}
    for number, (each, _, tree) in enumerate(trees(messages)):
        store.add("flow", tree)
        name, start = id_of(tree, "flow"), tree.messages[0].sent / 1e9
        if each.dropped:
            expected.add(name)
        took = {"detector": each.detector_ms} | ({} if each.dropped else {"logger": each.logger_ms})
        for path, total in took.items():
            slow.setdefault((path, int(start // kept.WINDOW_S)), []).append((-total, number, name))
            if start >= last.get(path, float("-inf")) + kept.STEADY_S:
                last[path] = start
                expected.add(name)
    for of_path in slow.values():
        expected |= {name for *_, name in sorted(of_path)[: kept.SLOWEST]}
    assert expected <= {trace.id for trace in stored(store)}


@given(st.lists(sent, max_size=120), st.integers(20_000, 60_000))
@settings(max_examples=40, deadline=None)
def test_under_its_bound_the_store_keeps_the_worst_of_each_path_and_its_books(
    messages: list[Sent], bound: int
) -> None:
    store = TraceStore(max_bytes=bound)
    for _, _, tree in trees(messages):
        store.add("flow", tree)
        entries = store._entries.values()
        assert store.bytes == sum(entry.size for entry in entries) <= bound
        assert sum(entry.size * entry.owners for entry in entries) == sum(store._held.values())
        assert all(entry.owners > 0 for entry in entries)
    ids = {trace.id for trace in stored(store)}
    # The worst of two paths need less than a quarter of the room, so nothing displaces them.
    assert {path.worst_id for path in store.paths("flow")} <= ids


def test_both_machines_of_a_link_keep_the_first_message_of_each_second():
    camera = Recorded("camera", tick("camera"), ("image",))
    link = Linked(fed(**{"beta/camera/image": "camera/image"}))
    detector = Recorded("detector", {"image": Place("image", "camera/image", local=False)})
    for at in range(0, 5000, 90):
        camera.receive("tick", at, at)
        camera.send("image", at + 1, ("tick", at))
        camera.done("tick", at, at + 2)
        link.receive("beta/camera/image", at + 1, at + 1.5)
        if at != 90 * 12:  # lost, the first one of a second
            # A clock that is half a second ahead.
            detector.receive("image", at + 1, at + 503)
            detector.done("image", at + 1, at + 504)
    stamps = []
    for nodes in ((camera, link), (detector,)):
        store = TraceStore(steady_s=1e9)
        for tree in joined(*nodes):
            store.add("flow", tree)
        kept = [whole() for _, whole in store.kept("flow")]
        stamps.append({s.stamp for trace in kept for s in trace.spans if s.topic == "camera/image"})
    firsts = [
        next(ns(at + 1) for at in range(0, 5000, 90) if (at + 1) // 1000 == second)
        for second in range(5)
    ]
    assert ns(90 * 12 + 1) in firsts
    assert set(firsts) <= stamps[0]
    assert {*firsts} - {ns(90 * 12 + 1)} <= stamps[1]
