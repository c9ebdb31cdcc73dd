"""One dataflow over two robots, and everything that may fail under it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from dorad.dataflow.model import LINK
from hwtests.fleet.enrolled import CLUSTER
from hwtests.robots.effort import times
from hwtests.robots.shell import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwtests.fleet.enrolled import EnrolledFleet

AWAY_S = times(10, 300)
"""How long the coordinator stays away."""

CUT_S = times(10, 60)
HZ = 50


@contextmanager
def flow(robots: EnrolledFleet, name: str, **options: object) -> Iterator[None]:
    """Run a dataflow over both robots."""
    robots.start(name, **options)  # type: ignore[arg-type]
    try:
        yield
    finally:
        robots.stop(name)


def test_one_command_starts_a_dataflow_over_two_robots_and_one_stops_it(
    robots: EnrolledFleet,
) -> None:
    robots.start("first")
    listed = robots.dora("node", "list")
    assert "arm1" in listed
    assert "arm2" in listed
    assert {machine: set(nodes) for machine, nodes in robots.pids("first").items()} == {
        "arm1": {"count", LINK},
        "arm2": {"check", LINK},
    }
    robots.flows_on("first")
    robots.stop("first")
    for robot in (robots.arm1, robots.arm2):
        assert robot.sh("systemctl list-units --no-legend 'dorad-*-count*' 'dorad-*-check*'") == ""


def test_the_coordinator_may_be_killed_for_long_and_no_robot_notices(
    robots: EnrolledFleet,
) -> None:
    with flow(robots, "alone", policy="backpressure"):
        before = robots.pids("alone")
        robots.kill_coordinator()
        time.sleep(AWAY_S)
        robots.flows_on("alone")
        robots.start_coordinator()
        back = robots.wait_connected(timeout=10)
        assert robots.pids("alone") == before
        report = robots.report("alone")
        print(f"away for {AWAY_S} s; connected {back:.1f} s after its start; {report}")
        assert report.missing == 0
        assert "alone" in robots.dora("list")


def test_an_agent_may_be_killed_and_nodes_notice_nothing(robots: EnrolledFleet) -> None:
    with flow(robots, "agents", policy="backpressure"):
        before = robots.pids("agents")
        for robot in (robots.arm1, robots.arm2):
            robot.exec("systemctl", "kill", "--signal=KILL", "dorad-agent")
        robots.flows_on("agents")
        robots.wait_connected()
        assert robots.pids("agents") == before
        assert robots.report("agents").missing == 0


def test_a_link_that_is_killed_comes_back_and_nodes_keep_running(robots: EnrolledFleet) -> None:
    with flow(robots, "links"):
        for machine, robot in (("arm1", robots.arm1), ("arm2", robots.arm2)):
            before = robots.pids("links")
            robot.exec("kill", "-KILL", str(before[machine][LINK]))
            took = robots.flows_on("links", within=15)
            print(f"data flowed {took:.1f} s after the link of {machine} was killed")
            after = robots.pids("links")
            assert after[machine].pop(LINK) != before[machine].pop(LINK)
            assert after == before


@pytest.mark.parametrize("kind", ["cut", "silent"])
def test_a_cut_cable_stops_no_node_and_the_loss_is_the_gap(
    robots: EnrolledFleet, kind: str
) -> None:
    name = f"cable-{kind}"
    with flow(robots, name, queue=10):
        before = robots.pids(name)
        getattr(robots.bed.network, kind)(2)
        time.sleep(CUT_S)
        still = robots.report(name).received
        robots.bed.network.repair(2)
        began = time.monotonic()
        wait_until(lambda: robots.report(name).received > still, "data flows", timeout=15)
        healed = time.monotonic() - began
        robots.flows_on(name)
        report = robots.report(name)
        print(f"{kind} for {CUT_S} s; a report came {healed:.1f} s after it was healed; {report}")
        assert robots.pids(name) == before
        assert 0 < report.missing <= (CUT_S + 8) * HZ
        robots.wait_connected()


def test_a_robot_that_boots_without_a_network_starts_its_share(robots: EnrolledFleet) -> None:
    with flow(robots, "boot"):
        robots.bed.network.cut(1)
        try:
            robots.arm1.reboot()
            wait_until(lambda: "count" in robots.pids("boot")["arm1"], "its share runs", timeout=60)
        finally:
            robots.bed.network.repair(1)
        robots.flows_on("boot", within=30)
        robots.wait_connected()


def test_a_receiver_that_stands_still_slows_down_nobody_else(robots: EnrolledFleet) -> None:
    with flow(robots, "quick", policy="backpressure"), flow(robots, "stopped"):
        pid = robots.pids("stopped")["arm2"]["check"]
        before = robots.report("quick").received
        robots.arm2.exec("kill", "-STOP", str(pid))
        try:
            time.sleep(5)
            assert robots.flows_on("quick") < 5
        finally:
            robots.arm2.exec("kill", "-CONT", str(pid))
        assert robots.report("quick").received > before


def test_a_revoked_robot_is_refused_and_both_sides_say_why(robots: EnrolledFleet) -> None:
    robots.operator.exec("dorafleet", "revoke", "arm2")
    wait_until(lambda: robots.states()["arm2"] == "refused", "arm2 is refused", timeout=30)
    said = robots.arm2.attempt("dorad-agent", "status").stdout
    assert "revoked" in said
    robots.operator.exec("dorafleet", "enrol", CLUSTER, "arm2", "--again", timeout=120)
    robots.wait_connected()
