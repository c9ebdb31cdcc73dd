"""Three members of etcd and two coordinators: the leader is cut off, members are killed."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import pytest

from hwtests.fleet.enrolled import (
    CLUSTER,
    UNIT,
    EnrolledFleet,
    cluster_text,
    exchange_keys,
    push_nodes,
)
from hwtests.fleet.flows import Flow
from hwtests.robots import Robot, RobotError, Testbed
from hwtests.robots.effort import only_long
from hwtests.robots.rootfs import WITH_SSH
from hwtests.robots.shell import wait_until

FOLDER = "/var/lib/dorafleet"
UNPACK = f"install -d -o dorafleet -g dorafleet -m 700 {FOLDER}; base64 -d | tar -C {FOLDER} -x"
OPTIONS = 'OPTIONS="--listen 0.0.0.0 --etcd http://127.0.0.1:2379"\n'
MEMBER = """\
ETCD_NAME=NAME
ETCD_DATA_DIR=/var/lib/etcd/fleet
ETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:2379
ETCD_ADVERTISE_CLIENT_URLS=http://127.0.0.1:2379
ETCD_LISTEN_PEER_URLS=http://ADDRESS:2380
ETCD_INITIAL_ADVERTISE_PEER_URLS=http://ADDRESS:2380
ETCD_INITIAL_CLUSTER=ALL
ETCD_INITIAL_CLUSTER_STATE=new
"""
TICKER = """\
nodes:
  - id: count
    path: /opt/flow/count.py
    deploy: {machine: arm1}
    inputs: {tick: dora/timer/hz/1}
    outputs: [number]
"""
TAKE_OVER_S = 60.0
"""Within which another coordinator leads and has all robots; the lease is 10 s."""


@dataclass
class Leaders:
    """A fleet, seen from each of its two coordinators."""

    bed: Testbed
    first: EnrolledFleet
    second: EnrolledFleet
    third: Robot
    """Has only a member of etcd."""


def start_member(robot: Robot) -> None:
    """Start the etcd of a machine, and wait until it is a member."""
    robot.exec("systemctl", "start", "--no-block", "etcd")
    wait_until_member(robot)


def kill_member(robot: Robot) -> None:
    """End the etcd of a machine with SIGKILL, and keep systemd from starting it again."""
    robot.sh("systemctl kill --signal=KILL etcd; systemctl stop etcd")


def start_members(servers: list[Robot]) -> None:
    """Start a member of etcd on each machine, and wait until it is healthy."""
    everyone = ",".join(f"{each.name}=http://{each.address}:2380" for each in servers)
    for robot in servers:
        text = MEMBER.replace("NAME", robot.name).replace("ADDRESS", robot.address)
        robot.write("/etc/default/etcd", text.replace("ALL", everyone))
        robot.exec("systemctl", "start", "--no-block", "etcd")
    for robot in servers:
        wait_until_member(robot)


def wait_until_member(robot: Robot) -> None:
    """Wait until the member of etcd on a machine is healthy."""
    wait_until(
        lambda: robot.attempt("systemctl", "is-active", "etcd").returncode == 0,
        f"etcd of {robot.name} is a member",
        timeout=60,
    )


@pytest.fixture(scope="module")
def leaders(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[Leaders]:
    """Two robots, two coordinators and three members of etcd."""
    with Testbed(include=(*WITH_SSH, "etcd-server")) as bed:
        bed.preinstall(deb)
        *robots, one, two, three = bed.up(5)
        for robot in (*robots, one, two, three):
            robot.sh("systemctl disable --now etcd; rm -rf /var/lib/etcd/*")
        start_members([one, two, three])
        for server in (one, two):
            server.push(fleet_deb, "/root/dorafleet.deb")
            server.exec("apt-get", "-qq", "install", "-y", "/root/dorafleet.deb", timeout=300)
            server.write(CLUSTER, cluster_text(len(robots), one.address))
            server.write("/etc/default/dorafleet", OPTIONS)
        for robot in robots:
            robot.exec("systemctl", "enable", "--now", "dorad")
            push_nodes(robot)
        exchange_keys(one, robots)
        machines = {f"arm{each.number}": each for each in robots}
        first = EnrolledFleet(bed, machines, one)
        first.start_coordinator()
        # It makes the authority once it leads; all coordinators of a fleet have the same.
        wait_until(
            lambda: one.attempt("test", "-e", f"{FOLDER}/coordinator.pem").returncode == 0,
            "it leads",
        )
        authority = one.sh(f"tar -C {FOLDER} -c ca | base64 -w0")
        two.exec("sh", "-euc", UNPACK, stdin=authority.encode())
        second = replace(first, server=two)
        second.start_coordinator()
        addresses = (word for each in (one, two) for word in ("--coordinator", each.address))
        first.dorafleet("enrol", CLUSTER, "--accept-new", *addresses, timeout=180)
        first.wait_connected()
        yield Leaders(bed, first, second, three)


@dataclass
class Commands:
    """Starts dataflows through one coordinator until its block ends, and keeps the answers."""

    fleet: EnrolledFleet
    prefix: str
    acknowledged: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        there = ("--coordinator-addr", "127.0.0.1")
        for number in itertools.count():
            if self._end.is_set():
                return
            name = f"{self.prefix}-{number}"
            words = ("dora", "start", "/opt/flow/ticker.yml", "--name", name, "--detach", *there)
            try:
                done = self.fleet.server.attempt(*words, timeout=120)
            except RobotError as error:
                self.failed.append(str(error))
                continue
            if done.returncode == 0:
                self.acknowledged.append(name)
            else:
                self.failed.append(done.stderr.strip())
                time.sleep(0.2)

    def wait_for_some(self) -> None:
        """Wait until some more commands are acknowledged."""
        enough = len(self.acknowledged) + 3
        try:
            wait_until(lambda: len(self.acknowledged) >= enough, "commands work", timeout=120)
        except RobotError as error:
            self.end()
            raise RobotError(f"{error}: {self.failed[-3:]}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End after the present command."""
        self._end.set()
        self._thread.join(timeout=150)


def listed(fleet: EnrolledFleet) -> set[str]:
    """Return the names of the dataflows that a coordinator knows."""
    lines = fleet.dora("list", "--format", "json").splitlines()
    return {json.loads(line)["name"] for line in lines}


def wait_until_leads(fleet: EnrolledFleet) -> None:
    """Wait until a coordinator leads, and has all robots; they obey it, and no other."""
    began = time.monotonic()
    wait_until(
        lambda: fleet.attempt("status").stdout.count(" connected ") == len(fleet.robots),
        f"{fleet.server.name} leads, and has all robots",
        timeout=TAKE_OVER_S,
        every=0.5,
    )
    print(f"{fleet.server.name} leads and has all robots {time.monotonic() - began:.1f} s later")
    wait_until(
        lambda: all(
            fleet.agent(machine)["connection"]["coordinator"].startswith(fleet.server.address)
            for machine in fleet.robots
        ),
        "robots obey it, and no other",
    )


def take_over(leaders: Leaders, commands: Commands) -> list[str]:
    """Wait until the second coordinator leads; return what either has acknowledged."""
    first, second = leaders.first, leaders.second
    wait_until_leads(second)
    with Commands(second, "new") as newer:
        newer.wait_for_some()
    commands.end()
    print(f"acknowledged: {commands.acknowledged}, {newer.acknowledged}")
    print(f"the old one said: {commands.failed[-1]}")
    assert listed(second) >= {*commands.acknowledged, *newer.acknowledged}
    # The old one has ended, waits for the lead, and answers no client.
    refused = first.server.attempt("dora", "list", "--coordinator-addr", "127.0.0.1")
    assert refused.returncode == 1
    return commands.acknowledged + newer.acknowledged


def test_a_leader_that_is_cut_off_is_obeyed_by_no_robot_and_nothing_acknowledged_is_lost(
    leaders: Leaders,
) -> None:
    """Robots still reach the old leader; it does not reach the other members of etcd."""
    first, second = leaders.first, leaders.second
    flow = Flow("kept", policy="backpressure")
    for fleet in (first, second):
        fleet.server.write("/opt/flow/ticker.yml", TICKER)
    first.start(flow)
    before = first.pids(flow)
    with Commands(first, "old") as commands:
        commands.wait_for_some()
        for other in (second.server, leaders.third):
            leaders.bed.network.split(first.server.number, other.number)
        try:
            acknowledged = take_over(leaders, commands)
            second.flows_on(flow)
            assert second.pids(flow) == before
            assert (second.report(flow).missing, second.report(flow).restarts) == (0, 0)
        finally:
            for machine in (first.server, second.server, leaders.third):
                leaders.bed.network.repair(machine.number)
    # Back again, it follows. When the second is killed it leads, with everything that was said.
    wait_until(
        lambda: first.server.attempt("systemctl", "is-active", UNIT).returncode == 0, "it is back"
    )
    second.kill_coordinator()
    wait_until_leads(first)
    assert listed(first) >= {*acknowledged, flow.name}
    first.flows_on(flow)
    assert first.pids(flow) == before
    for name in (flow.name, *acknowledged):
        first.dora("stop", name)


def why_not(fleet: EnrolledFleet) -> str:
    """Return what `dorafleet status` says on the machine of a coordinator that does not lead."""
    done = fleet.attempt("status")
    return done.stderr if done.returncode == 1 else ""


def waits_because(fleet: EnrolledFleet, reason: str) -> None:
    """Wait until `dorafleet status` gives this reason why a coordinator does not lead."""
    try:
        wait_until(lambda: reason in why_not(fleet), reason, timeout=60, every=0.5)
    except RobotError as error:
        raise RobotError(f"{error}: {why_not(fleet)}") from None
    print(f"{fleet.server.name}: {why_not(fleet).strip()}")


@only_long
@pytest.mark.timeout(900)
def test_members_of_etcd_are_killed_one_by_one_and_nothing_acknowledged_is_lost(
    leaders: Leaders,
) -> None:
    """Each coordinator has only the member on its own machine."""
    first, second, third = leaders.first, leaders.second, leaders.third
    flow = Flow("quorum", policy="backpressure")
    for fleet in (first, second):
        fleet.server.write("/opt/flow/ticker.yml", TICKER)
    second.start_coordinator()
    wait_until_leads(first)
    waits_because(second, f"it waits to lead: `{first.server.name}:")
    epochs = [first.agent("arm1")["epoch"]]
    first.start(flow)
    before = first.pids(flow)
    acknowledged: list[str] = []
    try:
        with Commands(first, "most") as commands:
            commands.wait_for_some()
            # Two of three members are enough.
            kill_member(third)
            commands.wait_for_some()
            # One is not: none can write, and each says why. Robots go on.
            kill_member(first.server)
            waits_because(first, "etcd cannot be reached: 127.0.0.1 port 2379")
            waits_because(second, "no member of etcd at http://127.0.0.1:2379 can answer")
        acknowledged += commands.acknowledged
        print(f"acknowledged: {commands.acknowledged}; then: {commands.failed[-1]}")
        second.flows_on(flow)
        assert "connected" not in second.states().values()
        # With the third one back there are two, and the second coordinator has one of them.
        start_member(third)
        wait_until_leads(second)
        epochs.append(second.agent("arm1")["epoch"])
        assert listed(second) >= {*acknowledged, flow.name}
        with Commands(second, "back") as newer:
            newer.wait_for_some()
            start_member(first.server)
            waits_because(first, f"it waits to lead: `{second.server.name}:")
            # The leader dies with its member.
            kill_member(second.server)
            second.kill_coordinator()
            wait_until_leads(first)
        acknowledged += newer.acknowledged
        epochs.append(first.agent("arm1")["epoch"])
        assert listed(first) >= {*acknowledged, flow.name}
        assert epochs == sorted(set(epochs)), "each leader has a higher epoch"
        first.flows_on(flow)
        assert first.pids(flow) == before
        assert (first.report(flow).missing, first.report(flow).restarts) == (0, 0)
    finally:
        for robot in (first.server, second.server, third):
            start_member(robot)
    for name in (flow.name, *acknowledged):
        first.dora("stop", name)
