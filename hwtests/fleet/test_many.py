"""Ten robots whose coordinator is killed and stays away."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwtests.fleet.enrolled import EnrolledFleet, enrolled
from hwtests.fleet.flows import Flow
from hwtests.robots.effort import times
from hwtests.robots.shell import wait_until

ROBOTS = 10
AWAY_S = times(20, 300)
"""How long the coordinator stays away."""
CONVERGED_S = 10.0
"""Agents try again after at most 5 s; the rest is for a machine that is busy with ten robots."""


@pytest.fixture(scope="module")
def ten(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[EnrolledFleet]:
    """Ten robots of a fleet."""
    with enrolled(deb, fleet_deb, ROBOTS) as found:
        yield found


@pytest.mark.timeout(AWAY_S + 900)
def test_ten_robots_do_not_notice_that_the_coordinator_is_killed(ten: EnrolledFleet) -> None:
    others = tuple(name for name in ten.robots if name != "arm1")
    flow = Flow("alone", sinks=others, hz=20, policy="backpressure")
    with ten.running(flow):
        before = ten.pids(flow)
        ten.kill_coordinator()
        time.sleep(AWAY_S)
        # A robot needs no coordinator to look after its nodes.
        ten.arm2.exec("kill", "-KILL", str(before["arm2"]["dora.link"]))
        ten.flows_on(flow)
        assert "connected" not in ten.states().values()
        began = time.monotonic()
        ten.start_coordinator()
        ready = time.monotonic() - began
        wait_until(
            lambda: all(each["well"] for each in ten.machines().values()),
            "all robots are well",
            timeout=60,
        )
        converged = time.monotonic() - began - ready
        after = ten.pids(flow)
        reports = ten.reports(flow)
        print(
            f"away for {AWAY_S} s; ready {ready:.1f} s after its start, all robots well "
            f"{converged:.1f} s later; {reports}"
        )
        assert converged < CONVERGED_S
        assert after["arm2"].pop("dora.link") != before["arm2"].pop("dora.link")
        assert after == before
        for report in reports.values():
            assert (report.missing, report.restarts) == (0, 0)
        assert "alone" in ten.dora("list")
