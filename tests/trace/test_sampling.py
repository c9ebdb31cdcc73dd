"""Which traces exporters get, and what waits for them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control import messages as m
from dorad.trace import sampling
from dorad.trace.sampling import Sampler, TraceExport, TraceQueue
from dorad.trace.store import TraceStore
from tests.trace.recorded import chain, joined, run_chain


def trace(name: str = "a", spans: int = 1) -> m.Trace:
    span = m.Span(topic="a/out", node="b", input="in", sent=0.0)
    return m.Trace(
        id=name, dataflow="u", start=0.0, duration=0.0, path="", span_count=spans,
        spans=[span] * spans,
    )  # fmt: skip


@given(st.floats(0, 50), st.lists(st.floats(0, 2), min_size=1, max_size=200))
def test_no_source_exceeds_its_rate_and_a_steady_one_reaches_it(
    rate: float, pauses: list[float]
) -> None:
    sampler = Sampler()
    sampler.set("", rate)
    now = 100.0
    taken = 0
    for pause in pauses:
        now += pause
        taken += sampler.wants("camera/tick", now, special=False)
    elapsed = sum(pauses)
    assert taken <= elapsed * rate + max(rate, 1.0) + 1e-6
    if rate == 0:
        assert taken == 0
    elif all(pause * rate >= 1 for pause in pauses):
        assert taken == len(pauses)


def test_by_default_a_source_has_one_trace_a_second_and_all_special_ones() -> None:
    sampler = Sampler()
    times = [number / 100 for number in range(1001)]
    taken = [sampler.wants("camera/tick", at, special=False) for at in times]
    assert 10 <= sum(taken) <= 11
    assert all(sampler.wants("camera/tick", at, special=True) for at in times)


def test_a_source_is_a_topic_or_a_node_and_stopping_all_forgets_them() -> None:
    sampler = Sampler()
    assert sampler.set("", None)
    assert sampler.set("camera", 1000.0)
    assert sampler.set("camera/slow", None)
    wanted = {
        topic: sampler.wants(topic, 5.0, special=True)
        for topic in ("camera/tick", "camera/slow", "lidar/tick")
    }
    assert wanted == {"camera/tick": True, "camera/slow": False, "lidar/tick": False}
    assert sampler.set("", 1.0)
    assert dict(sampler.rates) == {"": 1.0}
    assert sampler.wants("camera/slow", 6.0, special=False)


def test_sources_with_a_rate_are_bounded() -> None:
    sampler = Sampler()
    known = [sampler.set(f"node{number}", 1.0) for number in range(sampling.MAX_SOURCES + 5)]
    assert known.count(False) == 5
    assert sampler.set("node0", 2.0)


def test_traces_that_an_exporter_does_not_take_are_dropped_and_counted() -> None:
    queue = TraceQueue()
    for number in range(30):
        queue.put(trace(str(number), spans=1000))
    taken = []
    left_out = 0
    while (batch := queue.take()) is not None:
        assert sum(len(each.spans) for each in batch.traces) <= sampling.BATCH_SPANS
        taken += [each.id for each in batch.traces]
        left_out += batch.left_out
    assert taken == [str(number) for number in range(20)]
    assert left_out == 10
    queue.put(trace("again"))
    assert asyncio.run(queue.wait()).traces[0].id == "again"


def test_without_an_exporter_nothing_is_chosen() -> None:
    export = TraceExport()
    assert not export.wants("a/tick", special=True)
    with export.follow() as queue:
        assert export.sampling.exporters == 1
        assert export.wants("a/tick", special=True)
        export.put(trace())
        batch = queue.take()
        assert batch is not None and len(batch.traces) == 1
    assert export.sampling.exporters == 0


@pytest.mark.parametrize(("rate", "least", "most"), [(None, 0, 0), (0.0, 16, 40), (1e6, 300, 300)])
def test_exporters_get_the_slow_ones_of_a_store_at_any_rate(
    rate: float | None, least: int, most: int
) -> None:
    store = TraceStore()
    store.export.set("", rate)
    with store.export.follow() as queue:
        for number in range(300):
            nodes = chain()
            run_chain(nodes, number, work=80.0 if number == 250 else 10.0)
            for tree in joined(*nodes):
                store.add("flow", tree)
        taken: list[m.Trace] = []
        while (batch := queue.take()) is not None:
            taken += batch.traces
    assert least <= len(taken) <= most
    if rate is not None:
        assert max(each.duration for each in taken) == pytest.approx(0.092)
        assert all(len(each.spans) == 3 for each in taken)
