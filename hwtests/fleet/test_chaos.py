"""Everything fails at random moments, and afterwards nothing is missing and nothing is left.

TEST_SEED repeats the faults of an earlier run, HWTEST_CHAOS_MINUTES sets how long they last, and
HWTEST_CHAOS_ROBOTS how many robots there are.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from typing import Any

import pytest

from dorad.dataflow.model import LINK
from hwtests.fleet.chaos import Chaos
from hwtests.fleet.enrolled import EnrolledFleet, enrolled
from hwtests.fleet.flows import Flow
from hwtests.robots import Robot, RobotError, clock
from hwtests.robots.shell import wait_until

MINUTES = float(os.environ.get("HWTEST_CHAOS_MINUTES", "2"))
USUAL = 3
"""Robots of the fleet that all tests share."""
ROBOTS = int(os.environ.get("HWTEST_CHAOS_ROBOTS", USUAL))
ARMS = tuple(f"arm{number}" for number in range(1, ROBOTS + 1))
CONVERGED_S = 90.0

LEFT = """\
pgrep -af '[o]pt/flow|dorad[.]link' || true
systemctl list-units --no-legend --all 'dorad-*-*' || true
systemctl --failed --no-legend
"""
"""Prints what a robot without dataflows should not have."""
SHARED = """\
ls /dev/shm
pid=$(systemctl show -P MainPID dorad)
ls -l /proc/$pid/fd | grep -c memfd || true
systemctl show -P NFileDescriptorStore dorad
"""
"""Prints the shared memory that is known on a robot."""


@pytest.fixture(scope="module")
def robots(request: pytest.FixtureRequest) -> Iterator[EnrolledFleet]:
    """The fleet that all tests share, or a larger one."""
    if ROBOTS == USUAL:
        yield request.getfixturevalue("robots")
        return
    deb, fleet_deb, wall_clock = map(request.getfixturevalue, ("deb", "fleet_deb", "wall_clock"))
    with enrolled(deb, fleet_deb, ROBOTS, wall_clock) as found:
        yield found


def across(name: str, source: str, hz: int, **options: Any) -> Flow:
    """Return a dataflow from one robot to all others; its rate falls with their number."""
    others = tuple(robot for robot in ARMS if robot != source)
    return Flow(name, source, others, max(1, hz * USUAL // ROBOTS), **options)


def nodes_of(robots: EnrolledFleet, flow: Flow) -> dict[str, dict[str, int]]:
    """Return the processes of a dataflow without its links."""
    return {
        machine: {node: pid for node, pid in nodes.items() if node != LINK}
        for machine, nodes in robots.pids(flow).items()
    }


def links_of(robots: EnrolledFleet, flow: Flow) -> set[tuple[str, int]]:
    """Return the link processes of a dataflow, by robot and pid."""
    return {(machine, nodes[LINK]) for machine, nodes in robots.pids(flow).items() if LINK in nodes}


def wait_until_gone(robot: Robot) -> None:
    """Wait until a robot has nothing of a dataflow left. Raises RobotError with what it has."""
    try:
        wait_until(lambda: not robot.sh(LEFT).strip(), "nothing is left", timeout=30)
    except RobotError as error:
        raise RobotError(f"{error}:\n{robot.sh(LEFT)}") from None


def wait_until_shared(robot: Robot, before: str) -> None:
    """Wait until a robot has the shared memory that it had before."""
    wait_until(
        lambda: robot.sh(SHARED) == before,
        f"{robot.name} has the shared memory that it had: {before}, {robot.sh(SHARED)}",
    )


def wait_until_well(robots: EnrolledFleet) -> None:
    """Wait until the coordinator finds every robot well. Raises RobotError with what it finds."""
    try:
        wait_until(
            lambda: robots.attempt("status").returncode == 0,
            "every robot is well",
            timeout=CONVERGED_S,
            every=0.5,
        )
    except RobotError as error:
        raise RobotError(f"{error}:\n{robots.attempt('status').stdout}") from None


@pytest.mark.timeout(MINUTES * 60 + 900)
def test_after_faults_at_random_moments_nothing_is_missing_and_nothing_is_left(
    robots: EnrolledFleet, chance: Random
) -> None:
    print(f"{MINUTES:g} minutes")
    # Only links of the last one are killed.
    drops = across("drops", "arm1", 50, queue=20)
    keeps = across("keeps", "arm2", 20, policy="backpressure")
    killed = across("killed", "arm3", 20, policy="backpressure")
    flows = (drops, keeps, killed)
    shared = {name: robot.sh(SHARED) for name, robot in robots.robots.items()}
    with ExitStack() as running:
        for robot in robots.robots.values():
            running.callback(clock.shift, robot, 0)
        for flow in flows:
            running.enter_context(robots.running(flow))
        nodes = {flow.name: nodes_of(robots, flow) for flow in flows}
        links = {flow.name: links_of(robots, flow) for flow in flows}
        chaos = Chaos(robots, chance, [killed])
        chaos.run(MINUTES * 60)
        print(chaos.counts)
        wait_until_well(robots)
        for flow in flows:
            robots.flows_on(flow, within=30)
        # Nothing was restarted that was not killed.
        assert {flow.name: nodes_of(robots, flow) for flow in flows} == nodes
        for flow in (drops, keeps):
            assert links_of(robots, flow) == links[flow.name]
        assert not links_of(robots, killed) & chaos.killed
        # Counters are exact, by edge, whatever was killed.
        for flow in flows:
            for check in flow.checks:
                report = robots.wait_until_counted(flow, check)
                print(flow.name, check, report, robots.counted(flow, check))
                assert report.restarts == 0
        for report in robots.reports(keeps).values():
            assert (report.missing, report.repeated) == (0, 0)
        assert robots.dorafleet("audit", "verify").startswith("ok")
    for robot in robots.robots.values():
        wait_until_gone(robot)
    for name, robot in robots.robots.items():
        wait_until_shared(robot, shared[name])
