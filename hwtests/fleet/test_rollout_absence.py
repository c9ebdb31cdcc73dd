"""Rollouts while a robot, a canary or the coordinator's machine is away, and rollouts that end."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hwtests.fleet.enrolled import enrolled
from hwtests.fleet.releasing import ALL, QUICK, Site
from hwtests.robots import RobotError
from hwtests.robots.shell import wait_until

CELLS = {"arm1": "north", "arm2": "north", "arm3": "south", "arm4": "south"}
"""The label `cell` of each robot."""
CONFIRM_S = 10.0
LATE_S = 10.0
"""What a return takes beyond the deadline that it follows, on a busy machine."""


@pytest.fixture(scope="module")
def site(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[Site]:
    """Four robots in two cells that have confirmed a first release."""
    with enrolled(deb, fleet_deb, len(CELLS)) as fleet:
        for machine, cell in CELLS.items():
            fleet.dorafleet("labels", machine, f"cell={cell}")
        fleet.dorafleet("labels", "arm4", "first=yes")
        found = Site(fleet)
        found.confirm_first()
        yield found


@contextmanager
def away(site: Site, machine: str) -> Iterator[None]:
    """Cut the cable of a robot until the end, from when the coordinator knows it on."""
    number = site.fleet.robots[machine].number
    site.fleet.bed.network.cut(number)
    try:
        site.fleet.wait_for_machine(
            machine, lambda each: each["state"] == "unreachable", f"{machine} is away", timeout=60
        )
        yield
    finally:
        site.fleet.bed.network.repair(number)


@contextmanager
def busy(site: Site, machine: str) -> Iterator[None]:
    """Hold a lease on a robot until the end."""
    robot = site.fleet.robots[machine]
    lease = ("dora", "busy", "carries a tray", "--", "sleep", "600")
    robot.exec("systemd-run", "--quiet", "--collect", "--unit=tray", *lease)
    try:
        wait_until(lambda: "carries a tray" in robot.exec("dora", "busy", "list"), "it is busy")
        yield
    finally:
        robot.exec("systemctl", "stop", "tray")


def wait_for_state(site: Site, state: str) -> None:
    """Wait until the newest rollout is in a state, with what it waits for."""
    seen: list[str] = []

    def reached() -> bool:
        seen[:] = [site.rollout()["summary"]["state"]]
        return seen == [state]

    try:
        wait_until(reached, f"the rollout is {state}", timeout=60, every=0.2)
    except RobotError as error:
        raise RobotError(f"{error}: {seen}\n{site.describe()}") from None


def journal(site: Site) -> list[tuple[str, list[str]]]:
    """Return the steps of the newest rollout, with their robots."""
    number = str(site.rollout()["summary"]["rollout"])
    lines = site.fleet.dorafleet("rollout", "history", number, "--json").splitlines()
    return [(step["what"], step["robots"]) for step in map(json.loads, lines)]


def check_all_run(site: Site, release: str) -> None:
    """Check that the rollout that runs in the background ends with a release on every robot."""
    site.wait_until_followed(timeout=180)
    wait_for_state(site, "succeeded")
    for machine in site.fleet.robots:
        assert site.one_confirmed(machine) == release


def test_a_robot_that_is_cut_off_in_its_switch_is_back_with_the_old_release_at_the_deadline(
    site: Site,
) -> None:
    arm1, old, new = site.fleet.arm1, site.running("arm1"), site.build("cut = 'off'")
    before = site.pids("arm1")
    with busy(site, "arm1"):
        site.start_in_background(new, "--robots", "arm1", "--confirm-deadline", f"{CONFIRM_S:g}s")
        wait_until(lambda: site.state("arm1")["waiting"] == "busy", "it has the order", timeout=60)
        site.fleet.bed.network.cut(arm1.number)
    try:
        site.wait_for_phase("arm1", new, "probation")
        began = time.monotonic()
        assert site.files("arm1")["grip"] == new
        site.wait_for_phase("arm1", new, "reverted")
        took = time.monotonic() - began
        print(f"it went back after {took:.1f} s: {site.state('arm1')['reason']}")
        assert took < CONFIRM_S + LATE_S
        assert "no contact" in site.state("arm1")["reason"]
        assert site.one_confirmed("arm1") == old
        assert {**site.pids("arm1"), "grip": 0} == {**before, "grip": 0}
    finally:
        site.fleet.bed.network.repair(arm1.number)
    site.fleet.wait_connected()
    site.wait_until_followed()
    assert site.robot_states() == {"arm1": "reverted"}
    # It is an operator who decides whether to try it there again.
    others = site.start(new, *ALL)
    assert others.returncode == 0
    assert "left out: arm1 (it has failed there: no contact" in others.stderr
    assert site.one_confirmed("arm1") == old
    assert site.start(new, *ALL, "--retry").returncode == 0
    assert site.one_confirmed("arm1") == new


def test_a_canary_that_is_away_is_waited_for_and_no_other_robot_is_switched(site: Site) -> None:
    old, new = site.running("arm1"), site.build("canary = 'away'")
    with away(site, "arm4"):
        site.start_in_background(new, "--canary-label", "first=yes", "--max-parallel", "100%")
        wait_for_state(site, "canary, waiting (unreachable)")
        assert site.fleet.attempt("rollout", "status").stdout.count("unreachable") > 1
        for machine in ("arm1", "arm2", "arm3"):
            assert site.files(machine)["grip"] == old
    check_all_run(site, new)


def test_a_robot_that_is_away_keeps_its_cell_as_it_is_and_the_other_cell_switches(
    site: Site,
) -> None:
    old, new = site.running("arm3"), site.build("budget = 1")
    with away(site, "arm4"):
        site.start_in_background(new, *ALL, "--budget", "cell=1")
        site.wait_until_runs("arm1", new)
        site.wait_until_runs("arm2", new)
        wait_for_state(site, "rolling, waiting (budget)")
        assert site.files("arm3")["grip"] == old
    check_all_run(site, new)
    # Never two robots of one cell at a time.
    moving: set[str] = set()
    for what, robots in journal(site):
        if what == "order switch":
            moving.update(robots)
        elif what.startswith("verdict"):
            moving.difference_update(robots)
        cells = [CELLS[robot] for robot in moving]
        assert len(cells) == len(set(cells)), journal(site)


def test_a_coordinator_whose_machine_loses_power_continues_and_no_robot_switches_twice(
    site: Site,
) -> None:
    server, new = site.fleet.server, site.build("power = 'lost'")
    site.start_in_background(new, "--canary", "1", "--max-parallel", "1")
    site.wait_until_runs("arm1", new)
    server.power_cut()
    pids = {"arm1": site.pids("arm1")}
    server.start()
    site.fleet.wait_connected()
    # Another operator, who has the files, too.
    site.run_in_background("rollout", "follow", *QUICK[:2])
    check_all_run(site, new)
    assert site.pids("arm1") == pids["arm1"]
    steps = [step for step in journal(site) if step[0] == "order switch"]
    assert sorted(robot for _, robots in steps for robot in robots) == sorted(CELLS)
    assert site.fleet.dorafleet("audit", "verify").startswith("ok")


def test_an_abort_leaves_a_busy_robot_with_what_it_runs_when_its_lease_ends(site: Site) -> None:
    old, new = site.running("arm2"), site.build("aborted = 'busy'")
    with busy(site, "arm2"):
        site.start_in_background(new, *ALL)
        for machine in ("arm1", "arm3", "arm4"):
            site.wait_until_runs(machine, new)
        site.wait_for_states(arm1="confirmed", arm2="busy", arm3="confirmed", arm4="confirmed")
        site.fleet.dorafleet("rollout", "abort")
        site.wait_until_followed()
    wait_until(lambda: site.robot_states()["arm2"] == "left", "it keeps what it had")
    assert site.one_confirmed("arm2") == old
    assert site.start(site.build("after = 'busy'"), *ALL).returncode == 0


def test_an_abort_lets_a_robot_on_probation_finish_and_switches_no_other(site: Site) -> None:
    old, new = site.running("arm2"), site.build("aborted = 'probation'")
    rules = ("--canary-label", "first=yes", "--min-healthy-time", "8s")
    site.start_in_background(new, *rules)
    site.wait_for_phase("arm4", new, "probation")
    site.fleet.dorafleet("rollout", "abort")
    site.wait_until_followed()
    site.wait_until_runs("arm4", new)
    wait_until(lambda: site.robot_states()["arm4"] == "confirmed", "the coordinator knows it")
    for machine in ("arm1", "arm2", "arm3"):
        assert site.one_confirmed(machine) == old
    assert site.start(site.build("after = 'probation'"), *ALL).returncode == 0


def test_an_abort_instead_of_a_promotion_leaves_the_release_to_the_canary(site: Site) -> None:
    old, new = site.running("arm2"), site.build("aborted = 'promotion'")
    site.start_in_background(new, "--canary-label", "first=yes", "--no-auto-promote")
    wait_for_state(site, "awaiting_promotion")
    site.fleet.dorafleet("rollout", "abort")
    site.wait_until_followed()
    assert site.rollout()["summary"]["phase"] == "aborted"
    runs = {machine: site.one_confirmed(machine) for machine in CELLS}
    assert runs == {**dict.fromkeys(CELLS, old), "arm4": new}
    undone = site.attempt("rollout", "undo", *QUICK[:2])
    assert undone.returncode == 0
    assert site.one_confirmed("arm4") == old
