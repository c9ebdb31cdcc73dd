"""Robots whose wall clocks are wrong: by decades, and by sudden steps."""

import time
from collections.abc import Iterator
from random import Random

import pytest

from hwtests.fleet.enrolled import EnrolledFleet
from hwtests.fleet.flows import Flow
from hwtests.robots import clock
from hwtests.robots.effort import times

STEPS = times(6, 40)
MAX_ERROR_S = 2.0
"""By which a skew may be measured wrong on a busy machine."""


@pytest.fixture(autouse=True)
def right_again(robots: EnrolledFleet) -> Iterator[None]:
    """Set all clocks right at the end, and let everything start with them."""
    if not robots.clocks:
        pytest.skip("to set clocks wrong needs a compiler: apt-get install gcc libc6-dev")
    yield
    for robot in robots.robots.values():
        clock.shift(robot, 0)
    robots.wait_connected()


def wait_for_skew(robots: EnrolledFleet, machine: str, seconds: float) -> None:
    """Wait until the coordinator knows by how much the clock of a robot is wrong."""
    robots.wait_for_machine(
        machine,
        lambda found: found["state"] == "connected" and abs(found["skew"] - seconds) < MAX_ERROR_S,
        f"the clock of {machine} is known to be off by {seconds:.0f} s",
        timeout=60,
    )


def test_robots_in_1970_and_in_2100_are_managed_and_their_skew_is_shown(
    robots: EnrolledFleet,
) -> None:
    skews = {
        "arm1": clock.shift_to(robots.arm1, 1970),
        "arm2": clock.shift_to(robots.arm2, 2100),
    }
    for machine in skews:
        # Everything begins with the wrong clock, as after a boot without a battery.
        robots.robots[machine].exec("systemctl", "restart", "dorad", "dorad-agent")
    for machine, seconds in skews.items():
        wait_for_skew(robots, machine, seconds)
    table = robots.attempt("status").stdout
    print(table)
    for machine, seconds in skews.items():
        (line,) = (each for each in table.splitlines() if each.startswith(machine))
        assert f" {'+' if seconds > 0 else '-'}{int(abs(seconds) // 86400)}d" in line
    doctor = robots.attempt("doctor").stdout
    assert " days behind" in doctor
    assert " days ahead" in doctor
    flow = Flow("decades", sinks=("arm2", "arm1", "arm3"), policy="backpressure")
    with robots.running(flow):
        robots.flows_on(flow)
        before = robots.pids(flow)
        robots.arm2.exec("systemctl", "kill", "--signal=KILL", "dorad", "dorad-agent")
        robots.flows_on(flow)
        robots.wait_connected()
        assert robots.pids(flow) == before
        assert [each.missing for each in robots.reports(flow).values()] == [0, 0, 0]


def test_clocks_that_step_at_random_moments_disturb_nothing(
    robots: EnrolledFleet, chance: Random
) -> None:
    flow = Flow(
        "steps", sinks=("arm2", "arm3"), policy="backpressure", input_options="input_timeout: 20.0"
    )
    with robots.running(flow):
        before = robots.pids(flow)
        off = dict.fromkeys(robots.robots, 0.0)
        for _ in range(STEPS):
            machine = chance.choice([*off])
            off[machine] = chance.choice((-1, 1)) * 10 ** chance.uniform(0, 9)
            clock.shift(robots.robots[machine], off[machine])
            time.sleep(chance.uniform(0, 1.5))
        print({machine: f"{seconds:+.0f} s" for machine, seconds in off.items()})
        robots.flows_on(flow)
        for machine, seconds in off.items():
            wait_for_skew(robots, machine, seconds)
        assert robots.pids(flow) == before
        for check, report in robots.reports(flow).items():
            assert (report.missing, report.repeated) == (0, 0)
            assert report.longest < 10
            assert not any("INPUT_CLOSED" in line for line in robots.lines(flow, check))
    assert set(robots.states().values()) == {"connected"}
