"""A dataflow that comes from releases: built on the server, rolled out to robots."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dorafleet.rollout.model import FINAL
from hwtests.fleet.enrolled import CLUSTER, NODES, EnrolledFleet, enrolled
from hwtests.fleet.flows import Flow
from hwtests.robots import Robot, RobotError
from hwtests.robots.shell import wait_until

FOLDER = "/root/arm"
KEY = "/root/.ssh/id_ed25519"
RELEASES = "/var/lib/dorad/releases"
COORDINATOR_HOME = "/var/lib/dorafleet"
TEXT = """\
nodes:
  - id: count
    path: count.py
    inputs: {tick: {source: dora/timer/hz/50, queue_size: 1000}}
    outputs: [number]
  - id: check1
    path: check.py
    inputs: {number: {source: count/number, queue_size: 1000}}
  - id: grip
    path: grip.py
    inputs: {number: {source: count/number, queue_size: 1000}}
"""
PROGRAMS = {"count", "check", "grip"}
GRIP = """\
from dora import Node

for event in Node():
    if event["type"] == "INPUT":
        %s
"""
CRASH = "raise RuntimeError('slips')"
QUICK = ("--cluster", CLUSTER, "--min-healthy-time", "2s", "--soak-time", "0s")
"""Options of `rollout start`."""
ALL = ("--canary", "0", "--max-parallel", "100%")
"""Options of a rollout to all robots at once."""
UNIT = "rollout"
"""Of a command that is followed elsewhere."""
MOVING = ("switching", "probation", "reverting")
"""Phases of a robot that is not what it was, and is not confirmed."""


@dataclass
class Site:
    """A fleet whose robots trust the operator's key."""

    fleet: EnrolledFleet
    text: ClassVar[str] = TEXT
    """The dataflow's file."""

    @property
    def flows(self) -> dict[str, Flow]:
        """The dataflow on each robot: all its nodes are on that robot."""
        return {machine: Flow("arm", machine, (machine,)) for machine in self.fleet.robots}

    def trust(self) -> None:
        """Let the robots accept what the operator's key signs."""
        self.fleet.dorafleet("release", "trust", CLUSTER, "--key", KEY)

    def give_releases(self) -> None:
        """Give the coordinator's user what it needs to send the operator's releases."""
        home = COORDINATOR_HOME
        self.fleet.server.sh(
            f"""\
mkdir -p {home}/.ssh {home}/.local/share
cp /root/.ssh/id_ed25519 /root/.ssh/known_hosts {home}/.ssh/
cp -r /root/.local/share/dorafleet {home}/.local/share/
chown -R dorafleet: {home}/.ssh {home}/.local
chmod 700 {home}/.ssh
"""
        )

    def confirm_first(self) -> None:
        """Let the robots trust the operator, and confirm a first release."""
        self.trust()
        assert self.start(self.build("first = event"), *ALL).returncode == 0

    def build(self, grip: str, *options: str, key: str = KEY, head: str = "") -> str:
        """Build a release whose node `grip` does something else, and return its id.

        `options` are more of `release build`, `head` are the first lines of the dataflow's file.
        """
        server = self.fleet.server
        for script in ("count.py", "check.py"):
            server.push(NODES / script, f"{FOLDER}/{script}")
        server.write(f"{FOLDER}/dataflow.yml", head + self.text)
        server.write(f"{FOLDER}/grip.py", GRIP % grip)
        words = ("release", "build", f"{FOLDER}/dataflow.yml", "--name", "arm", "--json")
        built = self.fleet.dorafleet(*words, "--key", key, *options, timeout=300)
        return str(json.loads(built)["release"])

    def start(self, release: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Roll a release out, and follow it to its end."""
        return self.attempt("rollout", "start", release, *QUICK, *more)

    def attempt(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of a rollout to its end, print what it has printed, and return it."""
        done = self.fleet.attempt(*words, timeout=300)
        print(done.stdout, done.stderr, sep="")
        return done

    def start_in_background(self, release: str, *more: str) -> None:
        """Start a rollout, without waiting for it."""
        self.run_in_background("rollout", "start", release, *QUICK, *more)

    def run_in_background(self, *command: str) -> None:
        """Run `dorafleet` on the server, without waiting for it."""
        words = ("systemd-run", "--quiet", "--collect", f"--unit={UNIT}", "--setenv=HOME=/root")
        self.fleet.server.exec(*words, "dorafleet", *command)

    def is_followed(self) -> bool:
        """Return whether the command that runs in the background still runs."""
        return self.fleet.server.attempt("systemctl", "is-active", "--quiet", UNIT).returncode == 0

    def wait_until_followed(self, timeout: float = 120) -> None:
        """Wait until the command that runs in the background ends."""
        try:
            wait_until(lambda: not self.is_followed(), "the rollout ends", timeout=timeout)
        except RobotError as error:
            raise RobotError(f"{error}\n{self.describe()}") from None

    def restore(self) -> None:
        """End what a failed test has left: faults, leases, and a rollout in the background."""
        fleet = self.fleet
        for machine in (fleet.server, *fleet.robots.values()):
            fleet.bed.network.repair(machine.number)
            if machine.leader is None:
                machine.start()
        for robot in fleet.robots.values():
            # Some leases end with their process only.
            robot.attempt("pkill", "-f", "dora busy")
            for line in robot.attempt("dora", "busy", "list", "-f", "json").stdout.splitlines():
                robot.attempt("dora", "busy", "end", json.loads(line)["id"])
        fleet.server.attempt("systemctl", "stop", UNIT)
        fleet.wait_connected()
        # Fails if it has ended already.
        fleet.attempt("rollout", "abort")
        wait_until(
            lambda: self.rollout()["summary"]["phase"] in FINAL, "the rollout ends", timeout=120
        )
        for name in fleet.robots:
            self.wait_for_confirmed(name)

    def describe(self) -> str:
        """Return what is known of a rollout that does not do what it should."""
        texts = [self.fleet.attempt("rollout", "status").stdout]
        words = ("journalctl", "-u", UNIT, "--lines=20", "--no-pager")
        texts.append(self.fleet.server.attempt(*words).stdout)
        for machine, robot in self.fleet.robots.items():
            if robot.leader is not None:
                printed = ("-b", "-u", "dorad-agent", "-u", "dorad", "--lines=25", "--no-pager")
                texts.append(f"--- {machine}\n{robot.attempt('journalctl', *printed).stdout}")
        return "\n".join(texts)

    def state(self, machine: str) -> dict[str, Any]:
        """Return what a robot says of the dataflow; empty without an agent, or without orders."""
        releases = self.fleet.agent(machine).get("releases", [])
        return dict(releases[0]) if releases else {}

    def running(self, machine: str) -> str:
        """Return the release that a robot runs by its own word, once it is confirmed."""
        state = self.state(machine)
        return state["running"] if state.get("phase") == "confirmed" else ""

    def wait_until_runs(self, machine: str, release: str, timeout: float = 60) -> None:
        """Wait until a robot has confirmed a release."""
        try:
            wait_until(
                lambda: self.running(machine) == release, f"{machine} has it", timeout=timeout
            )
        except RobotError as error:
            raise RobotError(f"{error}: {self.state(machine)}\n{self.describe()}") from None

    def wait_for_phase(self, machine: str, release: str, *phases: str, timeout: float = 60) -> None:
        """Wait until a robot that has got the order for a release is in one of these phases."""

        def reached() -> bool:
            state = self.state(machine)
            return state.get("release") == release and state.get("phase") in phases

        try:
            wait_until(reached, f"{machine} is {' or '.join(phases)}", timeout=timeout, every=0.02)
        except RobotError as error:
            raise RobotError(f"{error}: {self.state(machine)}\n{self.describe()}") from None

    def files(self, machine: str) -> dict[str, str]:
        """Return the release that each program (`count`, `check`, `grip`) runs from.

        Raises RobotError if a program runs twice.
        """
        robot = self.fleet.robots[machine]
        lines = robot.sh(f"ps -e -o args | grep {RELEASES}/ | grep -v grep || true")
        found: dict[str, str] = {}
        for line in lines.splitlines():
            path = line.split(f"{RELEASES}/")[-1].split("/")
            name = path[-1].removesuffix(".py")
            if name in found:
                raise RobotError(f"{machine} runs {name} twice:\n{lines}")
            found[name] = path[0]
        return found

    def one_confirmed(self, machine: str) -> str:
        """Return the confirmed release that a robot runs, whole and alone; else an empty text."""
        state = self.state(machine)
        if state.get("phase", "switching") in MOVING or state["running"] != state["confirmed"]:
            return ""
        files = self.files(machine)
        whole = files.keys() == PROGRAMS and files["grip"] == state["running"]
        return state["running"] if whole else ""

    def wait_for_confirmed(self, machine: str, timeout: float = 90) -> str:
        """Wait until a robot runs one confirmed release and nothing else; return which."""
        found = ""

        def settled() -> bool:
            nonlocal found
            found = self.one_confirmed(machine)
            return bool(found)

        what = f"{machine} runs one confirmed release"
        try:
            wait_until(settled, what, timeout=timeout, every=0.3)
        except RobotError as error:
            state, files = self.state(machine), self.files(machine)
            raise RobotError(f"{error}: {state}, {files}\n{self.describe()}") from None
        return found

    def pids(self, machine: str) -> dict[str, int]:
        """Return the process of each node on a robot."""
        return self.fleet.pids(self.flows[machine])[machine]

    def rollout(self) -> dict[str, Any]:
        """Return the newest rollout."""
        return dict(json.loads(self.fleet.attempt("rollout", "status", "--json").stdout))

    def rollouts(self) -> list[dict[str, Any]]:
        """Return all rollouts in brief, the newest first."""
        printed = self.fleet.dorafleet("rollout", "history", "--json")
        return [dict(json.loads(line)) for line in printed.splitlines()]

    def robot_states(self) -> dict[str, str]:
        """Return the state of each robot in the newest rollout."""
        return {robot["robot"]: robot["state"] for robot in self.rollout()["robots"]}

    def wait_for_states(self, **wanted: str) -> None:
        """Wait until the newest rollout has these robots in these states.

        A robot reports what has changed at most once a second.
        """
        try:
            wait_until(
                lambda: self.robot_states() == wanted, "the coordinator knows it", timeout=15
            )
        except RobotError as error:
            raise RobotError(f"{error}: {wanted}\n{self.describe()}") from None

    def check_untouched(self, machine: str, before: dict[str, int]) -> None:
        """Check that `count` and `check1` have kept their processes, and lost no message."""
        assert {**self.pids(machine), "grip": 0} == {**before, "grip": 0}
        flow = self.flows[machine]
        self.fleet.flows_on(flow)
        report = self.fleet.report(flow)
        assert (report.missing, report.repeated, report.restarts) == (0, 0, 0)


@contextmanager
def confirmed(deb: Path, fleet_deb: Path, count: int) -> Iterator[Site]:
    """Yield a fleet of so many robots that have confirmed a first release."""
    with enrolled(deb, fleet_deb, count) as fleet:
        site = Site(fleet)
        site.confirm_first()
        yield site


def version(robot: Robot) -> str:
    """Return the version of the package dorad that is installed."""
    return robot.exec("dpkg-query", "--show", "--showformat=${Version}", "dorad")
