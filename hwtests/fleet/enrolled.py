"""Two robots that belong to a fleet, and the operator's machine with the coordinator."""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hwtests.robots import RobotError, Testbed
from hwtests.robots.shell import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwtests.robots import Robot

NODES = Path(__file__).parent / "nodes"
CLUSTER = "/root/cluster.yml"
CLUSTER_TEXT = """\
coordinator: {addr: 198.18.0.13}
machines:
  - {id: arm1, host: 198.18.0.11, user: root, labels: {has: sensor}}
  - {id: arm2, host: 198.18.0.12, user: root, labels: {has: screen}}
"""
FLOW = """\
nodes:
  - id: count
    path: /opt/flow/count.py
    deploy: {labels: {has: sensor}}
    inputs: {tick: dora/timer/hz/50}
    outputs: [number]
  - id: check
    path: /opt/flow/check.py
    deploy: {labels: {has: screen}}
    inputs:
      number: {source: count/number, queue_size: QUEUE, queue_policy: POLICY}
"""
COORDINATOR = "coordinator"
"""The name of its unit, and a dataflow's."""

CONNECTED_S = 60.0


class Report(NamedTuple):
    """What the node `check` has printed last."""

    received: int
    missing: int
    longest: float
    """Seconds between two messages."""


@dataclass
class EnrolledFleet:
    """The machines, with one coordinator."""

    bed: Testbed
    arm1: Robot
    arm2: Robot
    operator: Robot

    def dora(self, *words: str, timeout: float = 120) -> str:
        """Run `dora` on the operator's machine, through the coordinator."""
        there = ("--coordinator-addr", "127.0.0.1")
        return self.operator.exec("dora", *words, *there, timeout=timeout)

    def start(self, name: str, *, queue: int = 100, policy: str = "drop_oldest") -> None:
        """Start a dataflow over both robots, and wait until data flows."""
        text = FLOW.replace("QUEUE", str(queue)).replace("POLICY", policy)
        self.operator.write("/opt/flow/dataflow.yml", text)
        self.dora("start", "/opt/flow/dataflow.yml", "--name", name, "--detach")
        try:
            wait_until(lambda: self.report(name).received > 0, "data flows", timeout=30)
        except RobotError as error:
            raise RobotError(f"{error}\n{self.describe(name)}") from None

    def describe(self, name: str) -> str:
        """Return what is known of a dataflow that does not do what it should."""
        there = ("--coordinator-addr", "127.0.0.1")
        texts = [self.operator.attempt("dora", "node", "list", *there).stdout]
        for robot in (self.arm1, self.arm2):
            said = robot.attempt("dora", "logs", name, "--tail", "40")
            printed = ("SYSLOG_IDENTIFIER=dorad", "--lines=20", "--no-pager")
            own = robot.attempt("journalctl", *printed).stdout
            texts.append(f"--- {robot.name}\n{said.stdout}{said.stderr}{own}")
        return "\n".join(texts)

    def stop(self, name: str) -> None:
        """Stop a dataflow on all robots."""
        self.dora("stop", name)

    def report(self, name: str) -> Report:
        """Return what the last node has seen, asked on its robot."""
        done = self.arm2.attempt("dora", "logs", name, "--node", "check")
        found = re.findall(r"received (\d+), missing (\d+), longest pause ([\d.]+)", done.stdout)
        if not found:
            return Report(0, 0, 0.0)
        received, missing, longest = found[-1]
        return Report(int(received), int(missing), float(longest))

    def flows_on(self, name: str, *, within: float = 15.0) -> float:
        """Wait until more data has come than now; return how long it took."""
        before, began = self.report(name).received, time.monotonic()
        wait_until(lambda: self.report(name).received > before, "data flows on", timeout=within)
        return time.monotonic() - began

    def pids(self, name: str) -> dict[str, dict[str, int]]:
        """Return the process of each node, links too, by robot; asked on the robots."""
        found = {}
        for machine, robot in (("arm1", self.arm1), ("arm2", self.arm2)):
            listed = robot.attempt("dora", "node", "list", "-d", name, "--format", "json")
            lines = map(json.loads, listed.stdout.splitlines())
            found[machine] = {each["node"]: each["pid"] for each in lines}
        return found

    def start_coordinator(self) -> None:
        """Start the coordinator as a unit of its own."""
        self.operator.exec(
            *("systemd-run", "--quiet", f"--unit={COORDINATOR}", "--setenv=HOME=/root"),
            *("--property=Type=notify", "--property=NotifyAccess=all", "--collect"),
            *("dorafleet", "serve", CLUSTER, "--listen", "0.0.0.0"),
        )

    def kill_coordinator(self) -> None:
        """End it with SIGKILL."""
        self.operator.exec("systemctl", "kill", "--signal=KILL", COORDINATOR)
        wait_until(
            lambda: self.operator.attempt("systemctl", "is-active", COORDINATOR).returncode,
            "the coordinator is dead",
        )

    def states(self) -> dict[str, str]:
        """Return what each agent says of its connection."""
        found = {}
        for name, robot in (("arm1", self.arm1), ("arm2", self.arm2)):
            said = robot.attempt("dorad-agent", "status", "--json").stdout
            content: dict[str, Any] = json.loads(said) if said else {}
            found[name] = content.get("connection", {}).get("state", said)
        return found

    def wait_connected(self, timeout: float = CONNECTED_S) -> float:
        """Wait until both agents are connected; return how long it took."""
        began = time.monotonic()
        try:
            wait_until(
                lambda: set(self.states().values()) == {"connected"}, "connected", timeout=timeout
            )
        except RobotError as error:
            raise RobotError(f"{error}: {self.states()}") from None
        return time.monotonic() - began


@contextmanager
def enrolled(deb: Path, fleet_deb: Path) -> Iterator[EnrolledFleet]:
    """Yield a fleet whose robots are enrolled over SSH and connected."""
    with Testbed(include=("openssh-server", "openssh-client")) as bed:
        bed.preinstall(deb)
        arm1, arm2, operator = bed.up(3)
        operator.push(fleet_deb, "/root/dorafleet.deb")
        operator.exec("apt-get", "-qq", "install", "-y", "/root/dorafleet.deb", timeout=300)
        operator.exec("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
        operator.write(CLUSTER, CLUSTER_TEXT)
        key = operator.exec("cat", "/root/.ssh/id_ed25519.pub")
        for robot in (arm1, arm2):
            robot.write("/root/.ssh/authorized_keys", key)
            robot.exec("systemctl", "enable", "--now", "dorad")
            for script in ("count.py", "check.py"):
                robot.push(NODES / script, f"/opt/flow/{script}")
        fleet = EnrolledFleet(bed, arm1, arm2, operator)
        fleet.start_coordinator()
        operator.exec("dorafleet", "enrol", CLUSTER, "--accept-new", timeout=180)
        fleet.wait_connected()
        yield fleet
