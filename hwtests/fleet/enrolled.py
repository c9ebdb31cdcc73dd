"""Robots that belong to a fleet, and the server with its coordinator, from their packages."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hwtests.fleet.flows import FLOW_FILE, Flow
from hwtests.robots import Robot, RobotError, Testbed, clock
from hwtests.robots.rootfs import WITH_SSH
from hwtests.robots.shell import wait_until

NODES = Path(__file__).parent / "nodes"
CLUSTER = "/etc/dorafleet/cluster.yml"
UNIT = "dorafleet"
"""The coordinator's unit."""

CONNECTED_S = 60.0
REPORT = re.compile(
    r"received (\d+), missing (\d+), repeated (\d+), restarts (\d+), next (\d+), "
    r"longest pause ([\d.]+), at ([\d.]+)"
)
GAP = re.compile(r"gap of (\d+) before \d+ at ([\d.]+)")


class Report(NamedTuple):
    """What a node `check` has printed last."""

    received: int = 0
    missing: int = 0
    """Numbers that never came."""
    repeated: int = 0
    restarts: int = 0
    """Of the source."""
    next: int = 0
    """The number after the last one."""
    longest: float = 0.0
    """Seconds between two messages."""
    at: float = 0.0
    """When it was printed, by the monotonic clock of this machine."""


class Gap(NamedTuple):
    """Numbers that a node `check` has missed at once."""

    numbers: int
    ended: float
    """By the monotonic clock of this machine."""


@dataclass
class Counted:
    """What the robots have counted as not delivered to one check."""

    dropped: int = 0
    """By queues."""
    lost: int = 0
    """Between machines."""

    @property
    def all(self) -> int:
        """Both."""
        return self.dropped + self.lost


@dataclass
class EnrolledFleet:
    """The machines, with one coordinator."""

    bed: Testbed
    robots: dict[str, Robot]
    """By the ids of the cluster file: arm1, arm2, and so on."""
    server: Robot
    clocks: bool = False
    """Whether `hwtests.robots.clock` can set the clocks of all machines wrong."""

    @property
    def arm1(self) -> Robot:
        """The first robot."""
        return self.robots["arm1"]

    @property
    def arm2(self) -> Robot:
        """The second robot."""
        return self.robots["arm2"]

    def dora(self, *words: str, timeout: float = 120) -> str:
        """Run `dora` on the server, through the coordinator."""
        there = ("--coordinator-addr", "127.0.0.1")
        return self.server.exec("dora", *words, *there, timeout=timeout)

    def dorafleet(self, *words: str, timeout: float = 120) -> str:
        """Run `dorafleet` on the server."""
        return self.server.exec("dorafleet", *words, timeout=timeout)

    def attempt(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run `dorafleet` on the server; accept any exit code."""
        return self.server.attempt("dorafleet", *words, timeout=timeout)

    def start(self, flow: Flow) -> None:
        """Start a dataflow, and wait until data reaches all its checks."""
        self.server.write(FLOW_FILE, flow.text)
        self.dora("start", FLOW_FILE, "--name", flow.name, "--detach")
        try:
            self.flows_on(flow, within=30)
        except RobotError as error:
            raise RobotError(f"{error}\n{self.describe(flow)}") from None

    @contextmanager
    def running(self, flow: Flow) -> Iterator[None]:
        """Run a dataflow, and stop it at the end."""
        self.start(flow)
        try:
            yield
        except (RobotError, AssertionError):
            print(self.describe(flow))
            raise
        finally:
            self.dora("stop", flow.name)

    def describe(self, flow: Flow) -> str:
        """Return what is known of a dataflow that does not do what it should."""
        there = ("--coordinator-addr", "127.0.0.1")
        texts = [self.server.attempt("dora", "node", "list", *there).stdout]
        for name, robot in self.robots.items():
            said = robot.attempt("dora", "logs", flow.name, "--tail", "15")
            printed = ("-u", "dorad", "-u", "dorad-agent", "--lines=15", "--no-pager")
            own = robot.attempt("journalctl", *printed).stdout
            texts.append(f"--- {name}\n{said.stdout}{said.stderr}{own}")
        return "\n".join(texts)

    def lines(self, flow: Flow, check: str = "check1") -> list[str]:
        """Return the last lines of a check, asked on its robot."""
        words = ("dora", "logs", flow.name, "--node", check, "--tail", "200")
        return self.robots[flow.checks[check]].attempt(*words).stdout.splitlines()

    def report(self, flow: Flow, check: str = "check1") -> Report:
        """Return what a check has seen."""
        for line in reversed(self.lines(flow, check)):
            if found := REPORT.search(line):
                received, missing, repeated, restarts, following = map(int, found.groups()[:5])
                longest, at = map(float, found.groups()[5:])
                return Report(received, missing, repeated, restarts, following, longest, at)
        return Report()

    def reports(self, flow: Flow) -> dict[str, Report]:
        """Return what all checks have seen."""
        return {check: self.report(flow, check) for check in flow.checks}

    def gaps(self, flow: Flow, check: str = "check1") -> list[Gap]:
        """Return the latest gaps that a check has seen."""
        found = GAP.findall("\n".join(self.lines(flow, check)))
        return [Gap(int(number), float(at)) for number, at in found]

    def flows_on(self, flow: Flow, *checks: str, within: float = 15.0) -> float:
        """Wait until these checks, or all, have received more; return how long it took."""
        began = time.monotonic()
        waiting = {check: self.report(flow, check).received for check in checks or flow.checks}

        def more() -> bool:
            for check, before in list(waiting.items()):
                if self.report(flow, check).received > before:
                    del waiting[check]
            return not waiting

        try:
            wait_until(more, f"{flow.name} flows on", timeout=within)
        except RobotError as error:
            raise RobotError(f"{error}: nothing new at {', '.join(waiting)}") from None
        return time.monotonic() - began

    def counted(self, flow: Flow, check: str = "check1") -> Counted:
        """Return what the robots have counted as not delivered to a check, from `dora top`."""
        found = Counted()
        machine = flow.checks[check]
        for node in json.loads(self.dora("top", "--once")):
            if node["dataflow_name"] != flow.name:
                continue
            where = node["daemon_id"]["machine_id"]
            mine = (flow.source, "dora.link", f"{machine}/count/number"), (machine, check, "number")
            for edge in node["inputs"]:
                if (where, node["node_id"], edge["id"]) in mine:
                    found.dropped += edge["dropped"]
                    found.lost += edge["lost"]
        return found

    def wait_until_counted(self, flow: Flow, check: str = "check1") -> Report:
        """Wait until what a check misses is what the robots have counted, and return its report."""
        seen: list[object] = []

        def agree() -> bool:
            seen[:] = [self.counted(flow, check), self.report(flow, check)]
            return self.counted(flow, check).all == self.report(flow, check).missing

        try:
            wait_until(agree, "counters agree")
        except RobotError as error:
            raise RobotError(f"{error}: {seen}, {self.gaps(flow, check)}") from None
        return self.report(flow, check)

    def pids(self, flow: Flow) -> dict[str, dict[str, int]]:
        """Return the process of each node, links too, by robot; asked on the robots."""
        found = {}
        for machine, robot in self.robots.items():
            listed = robot.attempt("dora", "node", "list", "-d", flow.name, "--format", "json")
            lines = map(json.loads, listed.stdout.splitlines())
            found[machine] = {each["node"]: each["pid"] for each in lines}
        return found

    def start_coordinator(self) -> None:
        """Start the coordinator, and wait until it is ready."""
        self.server.exec("systemctl", "start", UNIT)

    def kill_coordinator(self) -> None:
        """End it with SIGKILL, and keep systemd from starting it again."""
        self.server.sh(f"systemctl kill --signal=KILL {UNIT}; systemctl stop {UNIT}")

    def agent(self, machine: str) -> dict[str, Any]:
        """Return what the agent of a robot says of itself; empty if none runs."""
        said = self.robots[machine].attempt("dorad-agent", "status", "--json").stdout
        return json.loads(said) if said else {}

    def states(self) -> dict[str, str]:
        """Return what each agent says of its connection."""
        return {
            name: self.agent(name).get("connection", {}).get("state", "no agent")
            for name in self.robots
        }

    def wait_connected(self, timeout: float = CONNECTED_S) -> float:
        """Wait until all agents are connected; return how long it took."""
        began = time.monotonic()
        try:
            wait_until(
                lambda: set(self.states().values()) == {"connected"}, "connected", timeout=timeout
            )
        except RobotError as error:
            raise RobotError(f"{error}: {self.states()}") from None
        return time.monotonic() - began

    def machines(self) -> dict[str, dict[str, Any]]:
        """Return what the coordinator knows of each robot."""
        said = self.attempt("status", "--json")
        if not said.stdout:
            raise RobotError(said.stderr)
        return {each["id"]: each for each in json.loads(said.stdout)}

    def wait_for_machine(
        self,
        machine: str,
        holds: Callable[[dict[str, Any]], object],
        what: str,
        timeout: float = 30,
    ) -> dict[str, Any]:
        """Wait until the coordinator says something of a robot; return all that it says."""
        found: dict[str, Any] = {}

        def met() -> object:
            found.clear()
            found.update(self.machines()[machine])
            return holds(found)

        try:
            wait_until(met, what, timeout=timeout, every=0.2)
        except RobotError as error:
            about = {key: value for key, value in found.items() if key != "shares"}
            raise RobotError(f"{error}: {about}") from None
        return found


def cluster_text(count: int, coordinator: str, router: str = "") -> str:
    """Return a cluster file for so many robots of a test bed."""
    lines = [f"coordinator: {{addr: {coordinator}}}"]
    if router:
        lines.append(f"zenoh_peer: {router}")
    lines.append("machines:")
    lines += [
        f"  - {{id: arm{number}, host: 198.18.0.{10 + number}, user: root}}"
        for number in range(1, count + 1)
    ]
    return "\n".join(lines) + "\n"


def exchange_keys(server: Robot, robots: list[Robot]) -> None:
    """Let root of the server log in to the robots over SSH as root."""
    server.exec("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
    key = server.exec("cat", "/root/.ssh/id_ed25519.pub")
    for robot in robots:
        robot.write("/root/.ssh/authorized_keys", key)


def push_nodes(robot: Robot) -> None:
    """Put the programs of the dataflows on a robot."""
    for script in ("count.py", "check.py"):
        robot.push(NODES / script, f"/opt/flow/{script}")


@contextmanager
def enrolled(
    deb: Path,
    fleet_deb: Path,
    count: int = 2,
    wall_clock: Path | None = None,
    router: str = "",
) -> Iterator[EnrolledFleet]:
    """Yield a fleet whose robots are enrolled over SSH and connected.

    With `wall_clock`, the library of `hwtests.robots.clock`, clocks can be set wrong. All links
    connect to `router`, if one is given.
    """
    with Testbed(include=WITH_SSH) as bed:
        bed.preinstall(deb)
        *robots, server = bed.up(count + 1)
        server.push(fleet_deb, "/root/dorafleet.deb")
        server.exec("apt-get", "-qq", "install", "-y", "/root/dorafleet.deb", timeout=300)
        exchange_keys(server, robots)
        server.write(CLUSTER, cluster_text(count, server.address, router))
        if wall_clock:
            for robot in (*robots, server):
                clock.prepare(robot, wall_clock)
        for robot in robots:
            robot.exec("systemctl", "enable", "--now", "dorad")
            push_nodes(robot)
        fleet = EnrolledFleet(
            bed, {f"arm{each.number}": each for each in robots}, server, wall_clock is not None
        )
        server.exec("systemctl", "enable", UNIT)
        fleet.start_coordinator()
        fleet.dorafleet("enrol", CLUSTER, "--accept-new", timeout=180)
        fleet.wait_connected()
        yield fleet
