"""What each machine runs of a dataflow: together exactly the dataflow, and no edge twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.dataflow.load import from_descriptor
from dorad.dataflow.model import (
    LINK,
    Dataflow,
    Input,
    NodeKind,
    NodeOutput,
    NodeSpec,
    QueuePolicy,
    Timer,
)
from dorad.dataflow.share import share
from tests.dataflow.reading import FILE, problem, read, unhurried

_FLOW = """\
nodes:
- {id: camera, path: c.py, outputs: [image, info], output_types: {info: std/core/v1/String}}
- id: detect
  path: d.py
  inputs:
    image: {source: camera/image, queue_size: 2}
    tick: dora/timer/hz/10
  outputs: [boxes]
- id: store
  path: s.py
  inputs:
    image: {source: camera/image, queue_size: 50, queue_policy: backpressure, max_rate_hz: 5}
    info: {source: camera/info, latched: true, input_timeout: 3}
    log: dora/logs/info/camera
- id: plan
  operators:
  - {id: near, python: n.py, inputs: {boxes: detect/boxes}, outputs: [path]}
  - {id: far, python: f.py, inputs: {path: plan/near/path}, outputs: [route]}
- {id: drive, path: m.py, inputs: {route: plan/far/route, boxes: detect/boxes}}
"""
_PLACEMENT = {"camera": "alpha", "detect": "beta", "store": "beta", "plan": "gamma"}


@pytest.fixture
def flow() -> Dataflow:
    return read(_FLOW)


def the_input(dataflow: Dataflow, node_id: str, input_id: str) -> Input:
    return next(each for each in dataflow.node(node_id).all_inputs if each.id == input_id)


def link_of(dataflow: Dataflow) -> NodeSpec:
    return dataflow.node(LINK)


def test_a_machine_runs_its_nodes_and_a_link(flow: Dataflow) -> None:
    found = share(flow, "beta", _PLACEMENT)
    assert [node.id for node in found.nodes] == ["detect", "store", LINK]
    assert link_of(found).kind is NodeKind.LINK
    assert found.descriptor == flow.descriptor


def test_an_input_from_elsewhere_receives_from_the_link_under_its_old_name(flow: Dataflow) -> None:
    found = the_input(share(flow, "beta", _PLACEMENT), "detect", "image")
    assert found.source == NodeOutput(LINK, "camera/image")
    assert found.source.text == "camera/image"
    assert found.queue_size == 2


def test_a_timer_ticks_where_its_node_runs(flow: Dataflow) -> None:
    found = the_input(share(flow, "beta", _PLACEMENT), "detect", "tick")
    assert isinstance(found.source, Timer)


def test_one_channel_carries_an_output_to_a_machine_that_drops_no_more_than_any_input_there(
    flow: Dataflow,
) -> None:
    link = link_of(share(flow, "alpha", _PLACEMENT))
    assert link.link is not None
    image, info = link.link.outgoing
    assert (image.name, image.machine, image.reliable) == ("camera/image", "beta", True)
    assert image.receivers == ("detect", "store")
    taken = link.inputs[0]
    assert (taken.id, taken.source) == ("beta/camera/image", NodeOutput("camera", "image"))
    assert (taken.queue_size, taken.queue_policy) == (50, QueuePolicy.BACKPRESSURE)
    assert (info.reliable, link.inputs[1].latched, link.inputs[1].input_timeout) == (
        False,
        True,
        None,
    )
    assert taken.max_rate_hz is None


def test_limits_of_an_input_work_where_it_is(flow: Dataflow) -> None:
    found = share(flow, "beta", _PLACEMENT)
    assert the_input(found, "store", "image").max_rate_hz == 5
    assert the_input(found, "store", "info").input_timeout == 3


def test_a_latest_input_is_fed_by_a_latest_input() -> None:
    flow = read("""\
        nodes:
        - {id: a, path: a.py, outputs: [x]}
        - {id: b, path: b.py, inputs: {x: {source: a/x, queue_policy: latest}}}
        """)
    (taken,) = link_of(share(flow, "m", {"a": "m", "b": "n"})).inputs
    assert (taken.queue_policy, taken.queue_size) == (QueuePolicy.LATEST, 1)


def test_operators_receive_from_elsewhere_and_send_there(flow: Dataflow) -> None:
    found = share(flow, "gamma", _PLACEMENT)
    assert the_input(found, "plan", "near/boxes").source == NodeOutput(LINK, "detect/boxes")
    assert the_input(found, "plan", "far/path").source == NodeOutput("plan", "near/path")
    placed = share(flow, "gamma", {**_PLACEMENT, "drive": "delta"})
    link = link_of(placed).link
    assert link is not None
    assert [each.name for each in link.outgoing] == ["plan/far/route"]


def test_an_input_from_a_node_that_runs_nowhere_yet_is_an_output_of_the_link(
    flow: Dataflow,
) -> None:
    found = share(flow, "beta", {"detect": "beta"})
    link = link_of(found)
    assert link.outputs == ("camera/image",)
    assert link.link is not None
    assert (link.link.incoming, link.link.outgoing, link.link.machines) == ((), (), ())


def test_a_machine_that_exchanges_nothing_has_no_link(flow: Dataflow) -> None:
    everything = {node.id: "alpha" for node in flow.nodes}
    assert share(flow, "alpha", everything) == flow


def test_the_type_of_a_foreign_output_is_known_here(flow: Dataflow) -> None:
    link = link_of(share(flow, "beta", _PLACEMENT))
    assert dict(link.types.outputs) == {"camera/info": "std/core/v1/String"}


def test_no_user_can_take_the_id_of_the_link() -> None:
    found = problem(f"nodes: [{{id: {LINK}, path: a.py}}]")
    assert "reserved" in found.message


MACHINES = ("alpha", "beta", "gamma", None)


@st.composite
def placed_flows(draw: st.DrawFn) -> tuple[Dataflow, dict[str, str]]:
    ids = [f"n{number}" for number in range(draw(st.integers(1, 6)))]
    nodes: list[dict[str, Any]] = []
    for name in ids:
        sources = st.sampled_from([f"{other}/{out}" for other in ids for out in ("x", "y")])
        options = st.fixed_dictionaries(
            {
                "source": sources,
                "queue_size": st.integers(1, 20),
                "queue_policy": st.sampled_from(["drop_oldest", "backpressure"]),
                "latched": st.booleans(),
            }
        )
        inputs = draw(st.lists(options, max_size=4))
        for each in inputs:
            if each["source"].partition("/")[0] >= name:  # a cycle must not block
                each["queue_policy"] = "drop_oldest"
        named = {f"i{number}": each for number, each in enumerate(inputs)}
        nodes.append({"id": name, "path": "x.py", "inputs": named, "outputs": ["x", "y"]})
    placement = {name: machine for name in ids if (machine := draw(st.sampled_from(MACHINES)))}
    return from_descriptor({"nodes": nodes}, path=FILE), placement


def local_edges(found: Dataflow) -> Iterator[tuple[str, str, str]]:
    for node in found.nodes:
        for entry in node.all_inputs:
            if isinstance(entry.source, NodeOutput):
                yield str(entry.source), node.id, entry.id


def joined(shares: Mapping[str, Dataflow]) -> list[tuple[str, str, str]]:
    """Return the edges that the shares have together; links are followed to the other machine."""
    edges = []
    for machine, found in shares.items():
        for source, consumer, input_id in local_edges(found):
            if consumer == LINK:
                continue
            if not source.startswith(f"{LINK}/"):
                edges.append((source, consumer, input_id))
                continue
            name = source.removeprefix(f"{LINK}/")
            link = found.node(LINK).link
            assert link is not None
            for channel in link.incoming:
                if channel.name == name:
                    edges += [
                        (name, consumer, input_id)
                        for fed, other, other_input in local_edges(shares[channel.machine])
                        if (fed, other, other_input) == (name, LINK, f"{machine}/{name}")
                    ]
    return sorted(edges)


@unhurried
@given(placed_flows())
def test_the_shares_have_together_exactly_the_edges_of_the_whole(
    found: tuple[Dataflow, dict[str, str]],
) -> None:
    flow, placement = found
    shares = {machine: share(flow, machine, placement) for machine in set(placement.values())}
    whole = sorted(
        (source, node, entry)
        for source, node, entry in local_edges(flow)
        if node in placement and source.partition("/")[0] in placement
    )
    assert joined(shares) == whole
    names = sorted(node.id for each in shares.values() for node in each.nodes if node.id != LINK)
    assert names == sorted(placement)


@unhurried
@given(placed_flows())
def test_both_ends_of_a_channel_agree(found: tuple[Dataflow, dict[str, str]]) -> None:
    flow, placement = found
    shares = {machine: share(flow, machine, placement) for machine in set(placement.values())}
    links = {
        machine: node.link
        for machine, each in shares.items()
        for node in each.nodes
        if node.link is not None
    }
    sent = {(m, c.machine, c.name) for m, link in links.items() for c in link.outgoing}
    received = {(c.machine, m, c.name) for m, link in links.items() for c in link.incoming}
    assert sent == received
    assert len(sent) == sum(len(link.outgoing) for link in links.values())
