"""A release over three robots: they change as one, whatever is cut or ended in the middle."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hwtests.fleet.enrolled import enrolled
from hwtests.fleet.flows import Flow
from hwtests.fleet.releasing import CRASH, QUICK, Site
from hwtests.robots import RobotError
from hwtests.robots.effort import only_long
from hwtests.robots.shell import wait_until

TEXT = """\
nodes:
  - id: count
    path: count.py
    deploy: {machine: arm1}
    inputs: {tick: {source: dora/timer/hz/50, queue_size: 1000}}
    outputs: [number]
  - id: check1
    path: check.py
    deploy: {labels: {role: checks}}
    inputs: {number: {source: count/number, queue_size: 1000}}
  - id: grip
    path: grip.py
    deploy: {labels: {role: grips}}
    inputs: {number: {source: count/number, queue_size: 1000}}
"""
FLOW = Flow("arm", "arm1", ("arm2",), queue=1000)
SHORT = ("--confirm-deadline", "20s", "--healthy-deadline", "60s", "--progress-deadline", "2m")
SETTLED_S = 180.0
"""A cut, the return of all machines, and what a busy machine adds."""


@dataclass
class Cell(Site):
    """Three robots that run a release as one instance."""

    text: ClassVar[str] = TEXT

    def start(self, release: str, *more: str) -> subprocess.CompletedProcess[str]:
        return self.attempt("rollout", "start", release, *QUICK, "--scope", "one", *more)

    def start_in_background(self, release: str, *more: str) -> None:
        self.run_in_background("rollout", "start", release, *QUICK, "--scope", "one", *more)

    def one_confirmed(self, machine: str) -> str:
        return self.running(machine)

    def releases(self) -> set[str]:
        """Return the confirmed releases that the machines run; empty texts while one moves."""
        return {self.running(machine) for machine in self.fleet.robots}

    def wait_until_whole(self, *wanted: str) -> str:
        """Wait until all machines run one of these releases, and data flows; return which."""
        found: set[str] = set()

        def whole() -> bool:
            found.clear()
            found.update(self.releases())
            return len(found) == 1 and found <= {*wanted}

        try:
            wait_until(whole, "the cell runs one release", timeout=SETTLED_S)
        except RobotError as error:
            raise RobotError(f"{error}: {found}\n{self.describe()}") from None
        self.fleet.flows_on(FLOW, within=30)
        return found.pop()

    def kept(self) -> tuple[Any, Any]:
        """Return the processes of the nodes that no release of these tests replaces."""
        pids = self.fleet.pids(FLOW)
        return pids["arm1"].get("count"), pids["arm2"].get("check1")


@pytest.fixture(scope="module")
def site(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[Cell]:
    """Three robots that have confirmed a first release as one instance."""
    with enrolled(deb, fleet_deb, 3) as fleet:
        fleet.dorafleet("labels", "arm2", "role=checks")
        fleet.dorafleet("labels", "arm3", "role=grips")
        found = Cell(fleet)
        found.trust()
        first = found.start(found.build("first = event"))
        assert first.returncode == 0, first.stdout + first.stderr
        yield found


def test_a_release_replaces_one_node_and_the_others_lose_nothing(site: Cell) -> None:
    before, seen = site.kept(), site.fleet.report(FLOW)
    new = site.build("second = event")
    planned = site.fleet.dorafleet("plan", new, "--scope", "one")
    assert "arm on arm3: grip" in planned
    assert site.start(new).returncode == 0
    assert site.wait_until_whole(new) == new
    assert site.kept() == before
    after = site.fleet.report(FLOW)
    assert (after.missing, after.restarts) == (seen.missing, seen.restarts)
    nodes = site.fleet.dora("node", "list", "-d", "arm", "--format", "json")
    found = {each["node"]: each["machine"] for each in map(json.loads, nodes.splitlines())}
    assert {name: found[name] for name in ("count", "check1", "grip")} == {
        "count": "arm1", "check1": "arm2", "grip": "arm3",
    }  # fmt: skip


def test_one_that_crashes_takes_all_back(site: Cell) -> None:
    (old,) = site.releases()
    before = site.kept()
    failed = site.start(site.build(CRASH), *SHORT)
    assert failed.returncode == 1
    assert site.wait_until_whole(old) == old
    assert site.kept() == before
    assert site.fleet.attempt("drift").returncode == 0


@pytest.mark.parametrize(
    ("machine", "phase"),
    [
        ("arm1", "probation"),
        ("arm3", "switching"),
        pytest.param("arm1", "staged", marks=only_long),
        pytest.param("arm1", "switching", marks=only_long),
        pytest.param("arm2", "staged", marks=only_long),
        pytest.param("arm2", "switching", marks=only_long),
        pytest.param("arm2", "probation", marks=only_long),
        pytest.param("arm3", "staged", marks=only_long),
        pytest.param("arm3", "probation", marks=only_long),
    ],
)
@pytest.mark.parametrize("fault", ["cable", "power"])
def test_a_machine_that_is_cut_off_or_loses_power_leaves_no_half_changed_cell(
    site: Cell, machine: str, phase: str, fault: str
) -> None:
    (old,) = site.releases()
    new = site.build(f"{fault}_{machine}_{phase} = event")
    robot = site.fleet.robots[machine]
    site.start_in_background(new, *SHORT)
    try:
        site.wait_for_phase(machine, new, phase, "confirmed")
        if fault == "cable":
            site.fleet.bed.network.cut(robot.number)
            wait_until(
                lambda: site.fleet.machines()[machine]["state"] == "unreachable",
                f"{machine} is away",
                timeout=60,
            )
            site.fleet.bed.network.repair(robot.number)
        else:
            robot.power_cut()
            robot.start()
        site.wait_until_followed(SETTLED_S)
        found = site.wait_until_whole(old, new)
    finally:
        site.restore()
    rollout = site.rollout()["summary"]
    assert (found == new) == (rollout["phase"] in ("succeeded", "settled")), rollout


def test_the_coordinator_is_killed_in_the_middle(site: Cell) -> None:
    new = site.build("leader = event")
    site.start_in_background(new, *SHORT)
    site.wait_for_phase("arm3", new, "switching", "probation", "confirmed")
    site.fleet.kill_coordinator()
    site.fleet.start_coordinator()
    site.fleet.wait_connected()
    assert site.wait_until_whole(new) == new
