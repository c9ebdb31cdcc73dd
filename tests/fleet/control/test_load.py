"""The load of robots, instances and cells: sums of what was measured, and nothing else."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control import messages as m
from dorafleet.coordinator.load import LARGEST, RobotState, loads
from dorafleet.coordinator.loadmessages import FleetLoadQuery
from dorafleet.inventory.model import Machine
from tests.fleet.control.agents import FakeAgent
from tests.fleet.control.serving import leading

NAMES = ("arm1", "arm2", "arm3")
MACHINES = tuple(
    Machine(name, name, labels={"cell": cell} if cell else {})
    for name, cell in zip(NAMES, ("left", "left", ""), strict=True)
)


def node(machine, uuid="u1", **more):
    values = {"dataflow": uuid, "dataflow_name": "talk", "node": "talker", "status": "running"}
    values |= {"pid": 1, "restarts": 2, "metrics": m.NodeMetrics(cpu=10.0, memory=1000)}
    return m.NodeInfo(**{**values, "machine": machine, **more})


def edge(machine, uuid="u1", rate=5.0, p99=0.01, **more):
    values = {"dataflow": uuid, "source": "talker/out", "target": "listener/in", "queue_size": 1}
    values |= dict.fromkeys(("sent", "received", "dropped", "queued", "payload"), 0)
    values |= {"rate": rate, "drop_rate": 1.0, "bandwidth": 100.0, "latency": p99, "jitter": 0.0}
    return m.EdgeStats(**{**values, "latency_p99": p99, "machine": machine, "lost": 3, **more})


def top_of(*parts, missing=None):
    nodes = [each for each in parts if isinstance(each, m.NodeInfo)]
    edges = [each for each in parts if isinstance(each, m.EdgeStats)]
    return m.Top(at=1.0, window=5.0, nodes=nodes, edges=edges, missing=missing or {})


def states(**away):
    return {
        each.id: RobotState(each.labels, number / 10, away.get(each.id, ""))
        for number, each in enumerate(MACHINES)
    }


def test_sums_are_by_robot_instance_or_label_and_the_slowest_edge_is_named():
    top = top_of(
        *(node("arm1"), edge("arm1")),
        *(node("arm2", status="failed"), edge("arm2", p99=0.2)),
        *(node("arm3", "u3", dataflow_name=None), edge("arm3", "u3", p99=None)),
    )
    placed = {"u1": ("talk", ("arm1", "arm2"))}
    by_robot = {each.name: each for each in loads(top, states(), placed, "robot")}
    assert list(by_robot) == list(NAMES)
    assert [by_robot[name].offset for name in NAMES] == [0.0, 0.1, 0.2]
    assert by_robot["arm3"].latency_p99 is None
    talk, alone = (each for each in reversed(loads(top, states(), placed, "instance")))
    assert (talk.name, talk.robots, talk.nodes, talk.failed) == ("talk", 2, 2, 1)
    assert (talk.cpu, talk.memory, talk.rate, talk.lost) == (20.0, 2000, 10.0, 6)
    assert (talk.latency_p99, talk.slowest) == (0.2, "arm2: talker/out -> listener/in")
    assert (alone.name, alone.nodes) == ("arm3/u3", 1)
    cells = {each.name: (each.robots, each.rate) for each in loads(top, states(), placed, "cell")}
    assert cells == {"": (1, 5.0), "left": (2, 10.0)}
    assert loads(top, states(), placed, "cell")[1].offset == pytest.approx(0.1)


@pytest.mark.parametrize("by", ["robot", "instance", "cell"])
def test_a_robot_that_was_not_measured_is_named_and_in_no_sum(by):
    top = top_of(node("arm1"), edge("arm1"), missing={"arm2": "it did not answer within 3 s"})
    placed = {"u1": ("talk", ("arm1", "arm2"))}
    rows = {each.name: each for each in loads(top, states(arm3="away"), placed, by)}
    whole = {"robot": "arm2", "instance": "talk", "cell": "left"}[by]
    assert rows[whole].missing == {"arm2": "it did not answer within 3 s"}
    assert rows[whole].rate == (None if by == "robot" else 5.0)
    lost = {"robot": "arm3", "cell": ""}.get(by)
    if lost is not None:
        row = rows[lost]
        figures = (
            row.cpu,
            row.memory,
            row.rate,
            row.bandwidth,
            row.drop_rate,
            row.lost,
            row.offset,
        )
        assert (set(figures), row.missing) == ({None}, {"arm3": "away"})


@given(st.lists(st.floats(allow_nan=False), max_size=20))
def test_no_figure_of_a_robot_makes_a_sum_that_is_no_number(values):
    top = top_of(*(edge("arm1", rate=value, p99=value) for value in values))
    row = loads(top, states(), {}, "robot")[0]
    assert 0 <= row.rate <= LARGEST
    assert row.latency_p99 is None or 0 <= row.latency_p99 <= LARGEST


async def test_connected_robots_are_measured_once_for_clients_that_ask_at_a_time(tmp_path):
    asked = []

    def answers(name):
        async def top(_call, _params):
            asked.append(name)
            return top_of(node(None, f"local-{name}"), edge(None, f"local-{name}"))

        return top

    async with leading(tmp_path, MACHINES) as fleet:
        for name in ("arm1", "arm2"):
            fleet.agents[name] = FakeAgent(name, fleet.port)
            fleet.agents[name].handlers = {"top": answers(name)}
            await fleet.connect(fleet.agents[name])
        began = time.monotonic()
        found = await fleet.call("fleet.load", FleetLoadQuery(by="robot"))
        again = await fleet.call("fleet.load", FleetLoadQuery(by="cell"))
        if time.monotonic() - began < 1.0:
            assert sorted(asked) == ["arm1", "arm2"]
        rows = {each.name: each for each in found.rows}
        assert (rows["arm1"].rate, rows["arm2"].nodes) == (5.0, 1)
        assert rows["arm3"].missing == {"arm3": "it is not connected"}
        assert rows["arm3"].rate is None
        cells = {each.name: (each.robots, each.rate) for each in again.rows}
        assert cells == {"": (1, None), "left": (2, 10.0)}
