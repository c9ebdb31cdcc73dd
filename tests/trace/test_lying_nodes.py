"""What a node writes into its own ring spoils no trace but those that pass it."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dorad.control import messages as m
from dorad.record.export.perfetto import perfetto
from dorad.shm.hoplog import Hop, is_possible
from dorad.shm.layout import HOP_DROP, HOP_RECEIVE, HOP_SEND
from dorad.trace.join import Joiner
from dorad.trace.store import TraceStore, choose
from dorad.trace.waterfall import waterfall
from tests.trace.recorded import LATER, Recorded, chain, fed, ns, run_chain

COUNT = 4
NOW = ns(1000)
times = st.one_of(st.integers(0, 2**64 - 1), st.integers(ns(-50), ns(400)))
stamps = st.one_of(times, st.sampled_from([ns(100 * n + 5) for n in range(COUNT)]))
places = st.sampled_from([9000, 70, 0, 5])


def liar() -> Recorded:
    """Return a node that receives what the detector does, too."""
    return Recorded("liar", fed(image="camera/image"), ("lie",))


hops = st.lists(
    st.builds(
        Hop, st.integers(HOP_RECEIVE, HOP_DROP), st.integers(0, 3), times, places, stamps, places,
        stamps, st.integers(0, 2**64 - 1),
    ),
    max_size=40,
)  # fmt: skip


def shown(lies: list[Hop], order: str) -> tuple[list[m.Trace], m.TracePath]:
    nodes = chain()
    for number in range(COUNT):
        run_chain(nodes, number * 100, work=10 + number)
    joiner = Joiner()
    by_name = {"c": nodes.camera, "d": nodes.detector, "p": nodes.planner}
    for letter in order:
        if letter == "l":
            possible = [lie for lie in lies if is_possible(lie, NOW)]
            joiner.add("liar", liar().places, possible, 0)
        else:
            node = by_name[letter]
            joiner.add(node.name, node.places, node.hops, 0)
    store = TraceStore(steady_s=0.0)
    for tree in joiner.settle(LATER):
        store.add("flow", tree)
    traces, _ = choose(store.kept("flow"), m.TraceQuery(limit=10**6, spans=True))
    (path,) = (each for each in store.paths("flow") if each.path.endswith("planner"))
    return traces, path


def honest(trace: m.Trace) -> list[tuple[object, ...]]:
    return [
        (span.topic, span.node, span.sent, span.received, span.done, span.wait, span.outcome)
        for span in trace.spans
        if span.node not in ("liar", "") and not span.topic.startswith("liar/")
    ]


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(hops, st.permutations("cdpl").map("".join))
@example([Hop(HOP_RECEIVE, 1, 0, 9000, ns(5), 0, 0, 0)], "cdpl")
@example([Hop(HOP_RECEIVE, 1, 0, 9000, ns(5), 0, 0, 0)], "lcdp")
@example([Hop(HOP_RECEIVE, 1, 2**63 - 1, 9000, ns(5), 0, 0, 0)], "cdpl")
@example([Hop(HOP_SEND, 1, ns(6), 70, ns(6), 9000, ns(5), 8)], "cdpl")
def test_traces_that_do_not_pass_a_lying_node_stay_as_they_are(lies: list[Hop], order: str) -> None:
    clean, path = shown([], order.replace("l", ""))
    traces, with_lies = shown(lies, order)
    assert with_lies == path
    whole = {trace.id: honest(trace) for trace in clean}
    assert {trace.id: honest(trace) for trace in traces if trace.id in whole} == whole
    # All of them can be shown and exported.
    for trace in traces:
        assert waterfall(trace, 80)
        assert all(span.received is None or span.sent <= span.received for span in trace.spans)
    assert b"".join(perfetto(traces))


@pytest.mark.parametrize("count", [1, 2**63])
def test_many_records_of_drops_cost_no_more_than_messages(count: int) -> None:
    camera, detector = chain()[:2]
    for number in range(5000):
        camera.send("image", number)
    for number in range(1000):
        detector.drop("image", number, count)
    joiner = Joiner()
    for node in (camera, detector):
        joiner.add(node.name, node.places, node.hops, 0)
    trees = joiner.settle(LATER)
    dropped = sum(tree.troubled for tree in trees)
    assert dropped == 1000  # those that were sent until the last record
    assert joiner.drops == 1000 * count - dropped
