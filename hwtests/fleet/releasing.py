"""A dataflow that comes from releases: built on the server, rolled out to robots."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwtests.fleet.enrolled import CLUSTER, NODES
from hwtests.fleet.flows import Flow
from hwtests.robots.shell import wait_until

if TYPE_CHECKING:
    import subprocess

    from hwtests.fleet.enrolled import EnrolledFleet
    from hwtests.robots import Robot

FOLDER = "/root/arm"
KEY = "/root/.ssh/id_ed25519"
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
GRIP = """\
from dora import Node

for event in Node():
    if event["type"] == "INPUT":
        %s
"""
QUICK = ("--cluster", CLUSTER, "--min-healthy-time", "2s")
"""Options of `rollout start`."""
FLOWS = {machine: Flow("arm", machine, (machine,)) for machine in ("arm1", "arm2")}
"""The dataflow on each robot: all its nodes are on that robot."""


@dataclass
class Site:
    """A fleet whose robots trust the operator's key."""

    fleet: EnrolledFleet

    def build(self, grip: str, key: str = KEY) -> str:
        """Build a release whose node `grip` does something else, and return its id."""
        server = self.fleet.server
        for script in ("count.py", "check.py"):
            server.push(NODES / script, f"{FOLDER}/{script}")
        server.write(f"{FOLDER}/dataflow.yml", TEXT)
        server.write(f"{FOLDER}/grip.py", GRIP % grip)
        words = ("release", "build", f"{FOLDER}/dataflow.yml", "--name", "arm")
        self.fleet.dorafleet(*words, "--key", key)
        shown = self.fleet.dorafleet("release", "show", "arm").splitlines()
        (release,) = (line.split()[1] for line in shown if line.startswith("  id "))
        return release

    def start(self, release: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Roll a release out, and follow it to its end."""
        done = self.fleet.attempt("rollout", "start", release, *QUICK, *more, timeout=180)
        print(done.stdout, done.stderr, sep="")
        return done

    def start_aside(self, release: str, *more: str) -> None:
        """The same, without waiting for it."""
        command = ("dorafleet", "rollout", "start", release, *QUICK, *more)
        words = ("systemd-run", "--quiet", "--collect", "--unit=rollout", "--setenv=HOME=/root")
        self.fleet.server.exec(*words, *command)

    def wait_until_followed(self) -> None:
        """Wait until the command that `start_aside` has started ends."""
        command = ("systemctl", "is-active", "--quiet", "rollout")
        wait_until(
            lambda: self.fleet.server.attempt(*command).returncode, "the rollout ends", timeout=120
        )

    def state(self, machine: str) -> dict[str, Any]:
        """Return what a robot says of the dataflow; empty without an agent, or without orders."""
        releases = self.fleet.agent(machine).get("releases", [])
        return dict(releases[0]) if releases else {}

    def running(self, machine: str) -> str:
        """Return the release that a robot runs by its own word, once it is confirmed."""
        state = self.state(machine)
        return state["running"] if state.get("phase") == "confirmed" else ""

    def files(self, machine: str) -> dict[str, str]:
        """Return the release that each program (`count`, `check`, `grip`) runs from."""
        robot = self.fleet.robots[machine]
        lines = robot.sh("ps -e -o args | grep /var/lib/dorad/releases/ | grep -v grep || true")
        found = {}
        for line in lines.splitlines():
            path = line.split("/var/lib/dorad/releases/")[1].split("/")
            found[path[-1].removesuffix(".py")] = path[0]
        return found

    def pids(self, machine: str) -> dict[str, int]:
        """Return the process of each node on a robot."""
        return self.fleet.pids(FLOWS[machine])[machine]

    def rollout(self) -> dict[str, Any]:
        """Return the newest rollout."""
        return dict(json.loads(self.fleet.attempt("rollout", "status", "--json").stdout))

    def check_untouched(self, machine: str, before: dict[str, int]) -> None:
        """Check that `count` and `check1` have kept their processes, and lost no message."""
        assert {**self.pids(machine), "grip": 0} == {**before, "grip": 0}
        flow = FLOWS[machine]
        self.fleet.flows_on(flow)
        report = self.fleet.report(flow)
        assert (report.missing, report.repeated, report.restarts) == (0, 0, 0)


def version(robot: Robot) -> str:
    """Return the version of the package dorad that is installed."""
    return robot.exec("dpkg-query", "--show", "--showformat=${Version}", "dorad")
