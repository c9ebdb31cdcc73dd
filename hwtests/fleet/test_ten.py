"""Rollouts to ten robots: a late crash, robots that are off, a cable that is cut many times."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwtests.fleet.enrolled import CLUSTER
from hwtests.fleet.releasing import FOLDER, RELEASES, Site, confirmed
from hwtests.robots import Robot
from hwtests.robots.effort import only_long
from hwtests.robots.shell import wait_until

ROBOTS = 10
LATE_CRASH = """\
import time
        globals().setdefault("began", time.monotonic())
        if time.monotonic() > globals()["began"] + 20:
            raise RuntimeError("slips")"""
"""A node that crashes 20 s after its first message."""
MODEL = 400 << 20
"""Bytes of a large file."""
CUTS = 10

pytestmark = [only_long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def site(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[Site]:
    """Ten robots that have confirmed a first release."""
    with confirmed(deb, fleet_deb, ROBOTS) as found:
        yield found


def test_a_release_that_crashes_late_reaches_the_canary_only(site: Site) -> None:
    old = site.running("arm1")
    bad = site.build(LATE_CRASH)
    rules = ("--cluster", CLUSTER, "--min-healthy-time", "40s", "--healthy-deadline", "90s")
    failed = site.attempt("rollout", "start", bad, *rules)
    assert failed.returncode == 1
    states = site.robot_states()
    (canary,) = (robot for robot, state in states.items() if state == "reverted")
    assert set(states.values()) == {"reverted", "waiting"}
    assert "exited with code 1" in failed.stdout
    for machine, robot in site.fleet.robots.items():
        assert site.wait_for_confirmed(machine) == old
        assert machine == canary or bad not in robot.sh(f"ls {RELEASES}")


def test_robots_that_are_off_follow_later_through_the_same_gates(site: Site) -> None:
    off = ("arm8", "arm9", "arm10")
    old, new = site.running("arm8"), site.build("seven = event")
    for machine in off:
        site.fleet.robots[machine].power_off()
        site.fleet.wait_for_machine(
            machine, lambda each: each["state"] == "unreachable", f"{machine} is off", timeout=60
        )
    done = site.start(new, "--canary", "1", "--max-parallel", "3")
    assert done.returncode == 0
    assert site.rollout()["summary"]["phase"] == "settled"
    for machine in site.fleet.robots.keys() - set(off):
        assert site.one_confirmed(machine) == new
    # The command that sends files has ended; the coordinator sends them to those that follow.
    site.give_releases()
    for machine in off:
        site.fleet.robots[machine].start()
    for machine in off:
        site.wait_until_runs(machine, new, timeout=120)
    assert site.rollout()["summary"]["phase"] == "succeeded"
    assert set(site.robot_states().values()) == {"confirmed"}
    assert old != new


def wait_until_arrived(robot: Robot, size: int) -> None:
    """Wait until a robot has received more bytes of a release than `size`."""
    arrived = f"cat {RELEASES}/incoming/* 2>/dev/null | wc -c"
    wait_until(
        lambda: int(robot.sh(arrived)) > size, f"{size} bytes have come", timeout=60, every=0.02
    )


def test_a_transfer_that_is_cut_ten_times_sends_no_byte_twice_and_the_next_one_little(
    site: Site,
) -> None:
    arm1, network = site.fleet.arm1, site.fleet.bed.network
    site.fleet.server.sh(f"head -c {MODEL} /dev/urandom >{FOLDER}/model.bin")
    new = site.build("model = event")
    before = network.traffic(arm1.number)
    site.start_in_background(new, "--robots", "arm1")
    for number in range(CUTS):
        wait_until_arrived(arm1, MODEL * (number + 1) // (CUTS + 2))
        network.cut(arm1.number)
        time.sleep(1)
        network.repair(arm1.number)
    site.wait_until_runs("arm1", new, timeout=120)
    site.wait_until_followed()
    sent = network.traffic(arm1.number) - before
    print(f"{sent} bytes on the cable")
    assert sent < 1.5 * MODEL

    changed = site.build("model = [event]")
    before = network.traffic(arm1.number)
    assert site.start(changed, "--robots", "arm1").returncode == 0
    sent = network.traffic(arm1.number) - before
    print(f"one changed script: {sent} bytes on the cable")
    assert sent < 100_000
