"""Bring one change to robots by ansible-playbook and by `dorafleet rollout`, and compare both.

    python -m hwtests.fleet.comparison [--robots 10] [--write]

As root, on a machine where robots can run. Both have the same batches and wait for the same time
until all nodes of a batch run.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hwtests.bench.machine import describe
from hwtests.fleet.ansible import HEALTHY_S, PLACE, Ansible
from hwtests.fleet.enrolled import EnrolledFleet, enrolled
from hwtests.fleet.releasing import ALL, CRASH, Site
from hwtests.robots import host
from hwtests.robots.fixtures import fleet_package, package
from hwtests.robots.shell import wait_until

KEPT = Path(__file__).parents[2] / "docs/bench/rollout.md"
TEXT = Path(__file__).with_name("comparison.md")
BATCH = 3
VICTIM = "arm3"
"""The robot that loses power in the middle of a change."""
RULES = ("--canary", "1", "--max-parallel", str(BATCH), "--min-healthy-time", f"{HEALTHY_S}s",
         "--confirm-deadline", "20s", "--healthy-deadline", "20s")  # fmt: skip


class Change(NamedTuple):
    """One change of all robots."""

    seconds: float
    bytes: int
    """On the cables of all robots, both ways."""
    code: int
    """The command's exit code."""


class Accident(NamedTuple):
    """What a system does when a robot loses power in the middle, or when the change is bad."""

    seconds: float
    """Until the command ends."""
    code: int
    changed: int
    """Other robots that have the change at the end."""
    after: str
    """What the robot runs once it is up again, or once the command has ended."""


class Results(NamedTuple):
    """All figures of one system."""

    nothing: Change
    """The same again, when there is nothing to do."""
    change: Change
    dead: Accident
    bad: Accident


class Measuring:
    """Counts bytes and seconds."""

    def __init__(self, fleet: EnrolledFleet) -> None:
        self._fleet = fleet

    def traffic(self) -> int:
        """Return the bytes on the cables of all robots so far."""
        network = self._fleet.bed.network
        return sum(network.traffic(robot.number) for robot in self._fleet.robots.values())

    def change(self, run: Callable[[], int]) -> Change:
        """Measure one command."""
        before, began = self.traffic(), time.monotonic()
        code = run()
        return Change(time.monotonic() - began, self.traffic() - before, code)


def die(fleet: EnrolledFleet) -> None:
    """Cut the power of the victim, so that nothing closes its connections."""
    robot = fleet.robots[VICTIM]
    fleet.bed.network.cut(robot.number)
    robot.power_cut()


def come_back(fleet: EnrolledFleet) -> None:
    """Undo `die`."""
    robot = fleet.robots[VICTIM]
    fleet.bed.network.repair(robot.number)
    robot.start()


def measure_ansible(fleet: EnrolledFleet, folder: Path) -> tuple[Results, str]:
    """Return the figures of ansible-playbook, and its version. Our agents are off meanwhile."""
    count = len(fleet.robots)
    serial = [1, *[BATCH] * ((count - 1 + BATCH - 1) // BATCH)]
    for robot in fleet.robots.values():
        robot.exec("systemctl", "stop", "dorad-agent")
    ansible, measuring = Ansible(fleet, folder, serial), Measuring(fleet)

    def play() -> int:
        process = ansible.play()
        print(process.communicate()[0])
        return process.returncode

    def has(machine: str, text: str) -> bool:
        found = fleet.robots[machine].attempt("cat", f"{PLACE}/grip.py")
        return found.stdout == text

    def others(text: str) -> int:
        return sum(has(machine, text) for machine in fleet.robots if machine != VICTIM)

    def runs(machine: str) -> str:
        listed = fleet.robots[machine].attempt("dora", "node", "list").stdout
        found = next((each for each in listed.splitlines() if "grip" in each), "")
        return " ".join(found.split()[:2])

    ansible.change("first = event")
    if play():
        raise SystemExit("the playbook fails")
    ansible.change("second = event")
    change = measuring.change(play)
    nothing = measuring.change(play)

    text, began, process = ansible.change("third = event"), time.monotonic(), ansible.play()
    wait_until(lambda: has(VICTIM, text), f"{VICTIM} is in its change", timeout=120)
    die(fleet)
    print(process.communicate()[0])
    seconds = time.monotonic() - began
    changed = others(text)
    come_back(fleet)
    wait_until(lambda: runs(VICTIM), f"{VICTIM} runs something", timeout=60)
    file = "new" if has(VICTIM, text) else "old"
    dead = Accident(seconds, process.returncode, changed, f"the {file} file, not checked")

    text, began = ansible.change(CRASH), time.monotonic()
    code = play()
    bad = Accident(
        time.monotonic() - began, code, others(text), f"arm1: {runs('arm1') or 'nothing'}"
    )
    for robot in fleet.robots.values():
        robot.attempt("dora", "stop", "arm")
        robot.attempt("dora", "disable", "arm")
        robot.exec("systemctl", "start", "dorad-agent")
    return Results(nothing, change, dead, bad), ansible.version


def measure_ours(fleet: EnrolledFleet) -> Results:
    """Return our figures."""
    site, measuring = Site(fleet), Measuring(fleet)

    def has(release: str) -> int:
        others = [machine for machine in fleet.robots if machine != VICTIM]
        return sum(site.running(machine) == release for machine in others)

    site.trust()
    if site.start(site.build("first = event"), *ALL).returncode:
        raise SystemExit("the first rollout fails")
    second = ""

    def roll_out() -> int:
        nonlocal second
        second = site.build("second = event")
        return site.start(second, *RULES).returncode

    change = measuring.change(roll_out)
    nothing = measuring.change(lambda: site.start(second, *RULES).returncode)

    began = time.monotonic()
    third = site.build("third = event")
    site.start_in_background(third, *RULES)
    site.wait_for_phase(VICTIM, third, "switching", "probation", timeout=120)
    die(fleet)
    site.wait_until_followed(timeout=300)
    seconds = time.monotonic() - began
    changed = has(third)
    phase = site.rollout()["summary"]["phase"]
    come_back(fleet)
    runs = site.wait_for_confirmed(VICTIM)
    what = "the new release" if runs == third else "the old release"
    code = 0 if phase in ("succeeded", "settled") else 1
    dead = Accident(seconds, code, changed, f"{what}, checked by itself; the rollout: {phase}")
    fleet.wait_connected()

    began = time.monotonic()
    fourth = site.build(CRASH)
    failed = site.start(fourth, *RULES)
    seconds = time.monotonic() - began
    runs = site.wait_for_confirmed("arm1")
    what = "the release before, checked" if runs == third else "another release"
    bad = Accident(seconds, failed.returncode, has(fourth), f"arm1: {what}")
    return Results(nothing, change, dead, bad)


def page(count: int, peer: Results, version: str, ours: Results) -> str:
    """Return the page."""
    machine = describe()
    return TEXT.read_text(encoding="utf-8").format(
        robots=count,
        batch=BATCH,
        healthy=HEALTHY_S,
        victim=VICTIM,
        version=version,
        place=f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}",
        load=machine["load_before"],
        table="\n".join(_rows(count, peer, ours)),
    )


def _rows(count: int, peer: Results, ours: Results) -> list[str]:
    both = (peer, ours)

    def row(name: str, cell: Callable[[Results], str]) -> str:
        return f"| {name} | {' | '.join(cell(each) for each in both)} |"

    return [
        row("one changed file: seconds", lambda each: f"{each.change.seconds:.1f}"),
        row("bytes on the cables of all robots", lambda each: f"{each.change.bytes:,}"),
        row("bytes of one robot", lambda each: f"{each.change.bytes // count:,}"),
        row("the same again: seconds", lambda each: f"{each.nothing.seconds:.1f}"),
        row("bytes on the cables of all robots", lambda each: f"{each.nothing.bytes:,}"),
        row(
            f"{VICTIM} loses power in the change: seconds until the command ends",
            lambda each: f"{each.dead.seconds:.1f}",
        ),
        row("exit code", lambda each: str(each.dead.code)),
        row("other robots with the change", lambda each: f"{each.dead.changed} of {count - 1}"),
        row("the robot, once it is up again, runs", lambda each: each.dead.after),
        row(
            "a change that crashes: seconds until the command ends",
            lambda each: f"{each.bad.seconds:.1f}",
        ),
        row("exit code", lambda each: str(each.bad.code)),
        row("afterwards", lambda each: each.bad.after),
    ]


def main() -> int:
    """Measure both, print the page, and write it if that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--robots", type=int, default=10, metavar="N", help="at least 4  [10]")
    parser.add_argument("--write", action="store_true", help=f"write {KEPT.name}")
    options = parser.parse_args()
    if options.robots < BATCH + 1:
        parser.error(f"--robots must be at least {BATCH + 1}")
    if reason := host.missing():
        sys.exit(reason)
    deb = package()
    with enrolled(deb, fleet_package(deb), options.robots) as fleet:
        with tempfile.TemporaryDirectory() as folder:
            peer, version = measure_ansible(fleet, Path(folder))
        print(version, peer)
        fleet.wait_connected()
        ours = measure_ours(fleet)
        print(ours)
    text = page(options.robots, peer, version, ours)
    print(text)
    if options.write:
        KEPT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
