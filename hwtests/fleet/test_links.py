"""Edges between robots: cut cables, receivers that stand still, link processes that are killed."""

import time

import pytest

from dorad.dataflow.model import LINK
from hwtests.fleet.enrolled import EnrolledFleet, Report
from hwtests.fleet.flows import Flow
from hwtests.robots.effort import times
from hwtests.robots.shell import wait_until

CUT_S = times(20, 60)
"""How long a cable is cut."""
STOPPED_S = 5.0
SOON_S = 5.0
"""Within which data flows after a repair: 0.2 to 1.1 s, and what a busy machine adds."""


def rate(before: Report, after: Report) -> float:
    """Return the messages a second that have come between two reports."""
    return (after.received - before.received) / (after.at - before.at)


def test_a_link_that_is_killed_comes_back_and_nodes_keep_running(robots: EnrolledFleet) -> None:
    flow = Flow("links")
    with robots.running(flow):
        for machine in ("arm1", "arm2"):
            before = robots.pids(flow)
            robots.robots[machine].exec("kill", "-KILL", str(before[machine][LINK]))
            took = robots.flows_on(flow)
            print(f"data flowed {took:.1f} s after the link of {machine} was killed")
            after = robots.pids(flow)
            assert after[machine].pop(LINK) != before[machine].pop(LINK)
            assert after == before


@pytest.mark.parametrize("kind", ["cut", "silent"])
def test_a_cut_cable_stops_no_node_and_the_loss_is_the_gap(
    robots: EnrolledFleet, kind: str
) -> None:
    flow = Flow(f"cable-{kind}", queue=10, input_options="input_timeout: 1.0")
    with robots.running(flow):
        before = robots.pids(flow)
        getattr(robots.bed.network, kind)(2)
        try:
            wait_until(
                lambda: "Degraded" in robots.arm2.exec("dora", "node", "list"),
                "the input is broken after its timeout",
            )
            time.sleep(CUT_S)
        finally:
            robots.bed.network.repair(2)
        healed = time.monotonic()
        wait_until(lambda: robots.gaps(flow), "data flows", timeout=15)
        gap = robots.gaps(flow)[-1]
        robots.flows_on(flow)
        robots.wait_connected()
        report = robots.wait_until_counted(flow)
        print(f"{kind} for {CUT_S} s; data flowed {gap.ended - healed:.1f} s after; {report}")
        assert gap.ended - healed < SOON_S
        assert report.missing >= (CUT_S - 5) * flow.hz
        assert robots.pids(flow) == before
        events = [line.partition("event ")[2] for line in robots.lines(flow) if "event " in line]
        assert events[:2] == ["INPUT_CLOSED number", "INPUT_RECOVERED number"]
        assert "Degraded" not in robots.arm2.exec("dora", "node", "list")


def test_a_reliable_edge_loses_nothing_by_a_cut(robots: EnrolledFleet) -> None:
    flow = Flow("reliable", policy="backpressure", queue=10)
    with robots.running(flow):
        robots.bed.network.silent(2)
        time.sleep(5)
        robots.bed.network.repair(2)
        robots.flows_on(flow)
        assert robots.report(flow).longest > 4
        assert (robots.report(flow).missing, robots.report(flow).repeated) == (0, 0)


def test_a_receiver_that_stands_still_slows_down_no_other_and_its_drops_are_counted(
    robots: EnrolledFleet,
) -> None:
    # One shares its machine, and its channel, with a receiver that works; one is alone.
    flow = Flow("still", sinks=("arm2", "arm2", "arm3"), hz=200, queue=20)
    with robots.running(flow):
        pids = robots.pids(flow)
        start = robots.report(flow)
        time.sleep(STOPPED_S)
        before = robots.report(flow)
        stopped = {"check2": "arm2", "check3": "arm3"}
        for check, machine in stopped.items():
            robots.robots[machine].exec("kill", "-STOP", str(pids[machine][check]))
        try:
            begin = robots.report(flow)
            time.sleep(STOPPED_S)
            after = robots.report(flow)
        finally:
            for check, machine in stopped.items():
                robots.robots[machine].exec("kill", "-CONT", str(pids[machine][check]))
        usual, meanwhile = rate(start, before), rate(begin, after)
        print(f"{usual:.1f} messages a second before, {meanwhile:.1f} while others stood still")
        assert meanwhile > usual * 0.95
        robots.flows_on(flow)
        for check in stopped:
            report = robots.wait_until_counted(flow, check)
            print(f"{check}: {report}, {robots.counted(flow, check)}")
            assert report.missing > (STOPPED_S - 1) * flow.hz
        robots.wait_until_counted(flow)
        assert robots.pids(flow) == pids
