"""Coordinators, agents and daemons of two successive releases, with the packages of both."""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hwtests.fleet import former
from hwtests.fleet.enrolled import (
    CLUSTER,
    UNIT,
    EnrolledFleet,
    cluster_text,
    exchange_keys,
    push_nodes,
)
from hwtests.fleet.flows import FLOW_FILE, Flow
from hwtests.fleet.releasing import ALL, QUICK, Site, version
from hwtests.robots import Robot, Testbed
from hwtests.robots.rootfs import WITH_SSH
from hwtests.robots.shell import wait_until

OTHER = "/opt/other"
"""Where a robot has the other version, too."""
PROGRAM = f"{OTHER}/usr/lib/dorad/bin/python3 -m"
FOR_ALL = ("--min-dorad", "0.1.0")
"""Options of a release that the robots of the former version take, too."""
MISMATCH = r"refused: arm\d has version \d of the protocol and this machine \d"
RUN = {
    "dorad": f"{PROGRAM} dorad.daemon.main --system --group dorad",
    "dorad-agent": f"{PROGRAM} dorad.agent.main run --socket /run/dorad/control.sock",
}


def run_other(robot: Robot, unit: str, package: Path) -> None:
    """Let a unit of a robot run the program of another package than the installed one."""
    robot.push(package, "/root/other.deb")
    robot.exec("dpkg-deb", "-x", "/root/other.deb", OTHER)
    # Its interpreter is a relative link to that of the system.
    robot.exec("ln", "-sf", "/usr/bin/python3", f"{OTHER}/usr/bin/python3")
    drop_in = f"[Service]\nExecStart=\nExecStart={RUN[unit]}\n"
    robot.write(f"/etc/systemd/system/{unit}.service.d/other.conf", drop_in)
    robot.exec("systemctl", "daemon-reload")
    robot.exec("systemctl", "restart", unit)


def program(robot: Robot, unit: str) -> str:
    """Return the interpreter of a unit's process."""
    pid = robot.exec("systemctl", "show", "-P", "MainPID", unit).strip()
    return robot.exec("cat", f"/proc/{pid}/cmdline").split("\0")[0]


@pytest.fixture(scope="module")
def former_debs(robots_possible: None, tmp_path_factory: pytest.TempPathFactory) -> former.Former:
    return former.build(tmp_path_factory.mktemp("former"))


@pytest.fixture(scope="module")
def site(
    former_debs: former.Former, deb: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A coordinator of the former release, and robots of which each is another mixture.

    arm1 is former as a whole, arm2 new as a whole; arm3 has a new agent and a former dorad, arm4 a
    former agent and a new dorad.
    """
    with Testbed(include=WITH_SSH) as bed:
        bed.preinstall(former_debs.robot)
        arm1, server = bed.up(2)
        server.push(former_debs.fleet, "/root/former.deb")
        server.exec("apt-get", "-qq", "install", "-y", "/root/former.deb", timeout=300)
        bed.preinstall(deb)
        new = bed.up(3)
        robots = [arm1, *new]
        exchange_keys(server, robots)
        lines = [f"  - {{id: arm{n}, host: {each.address}, user: root}}"
                 for n, each in enumerate(robots, 1)]  # fmt: skip
        server.write(CLUSTER, "\n".join([*cluster_text(0, server.address).splitlines(), *lines]))
        for robot in robots:
            robot.exec("systemctl", "enable", "--now", "dorad")
            push_nodes(robot)
        run_other(new[1], "dorad", former_debs.robot)
        fleet = EnrolledFleet(bed, {f"arm{n}": each for n, each in enumerate(robots, 1)}, server)
        server.exec("systemctl", "enable", UNIT)
        fleet.start_coordinator()
        fleet.dorafleet("enrol", CLUSTER, "--accept-new", timeout=180)
        # The former agent does not read the newer one's file, which has nothing yet.
        new[2].sh("systemctl stop dorad-agent; rm -f /var/lib/dorad-agent/shares.db*")
        run_other(new[2], "dorad-agent", former_debs.robot)
        fleet.wait_connected()
        assert (
            program(new[1], "dorad")
            == program(new[2], "dorad-agent")
            == f"{OTHER}/usr/lib/dorad/bin/python3"
        )
        found = Site(fleet)
        found.trust()
        yield found


def check_rollout(site: Site, number: int) -> None:
    """Check that a release gets to all robots, that a bad one goes back, and an undo does, too."""
    first = site.build(f"good = {number}", *FOR_ALL)
    done = site.start(first, *ALL)
    assert done.returncode == 0
    second = site.build(f"better = {number}", *FOR_ALL)
    assert site.start(second, "--canary", "1", "--max-parallel", "2").returncode == 0
    undone = site.attempt("rollout", "undo", *QUICK[:2])
    assert undone.returncode == 0
    for machine in site.fleet.robots:
        assert site.running(machine) == first
        bad = site.build(f"raise RuntimeError('{machine} {number}')", *FOR_ALL)
        assert site.start(bad, "--robots", machine, "--healthy-deadline", "20s").returncode == 1
        assert site.robot_states() == {machine: "reverted"}
        assert site.wait_for_confirmed(machine) == first


def names_versions(robot: Robot) -> bool:
    """Return whether the link of a robot says that the other one speaks another version."""
    said = robot.attempt("dora", "logs", "mixed", "--node", "dora.link").stdout
    return re.search(MISMATCH, said) is not None


def check_dataflows(site: Site) -> None:
    """Check that dataflows run over robots whose dorads have one version, and no others do.

    The frames of links have changed: those of two versions refuse each other, and say so.
    """
    fleet = site.fleet
    for machines in (("arm1", "arm3"), ("arm2", "arm4")):
        flow = Flow("same", machines[0], machines[1:], policy="backpressure", hz=20)
        with fleet.running(flow):
            fleet.flows_on(flow)
            top = json.loads(fleet.dora("top", "--once"))
            assert {each["daemon_id"]["machine_id"] for each in top} >= set(machines)
            assert "received" in fleet.dora("logs", "same", "--node", "check1", "--tail", "5")
            report = fleet.report(flow)
            assert (report.missing, report.repeated) == (0, 0)
    fleet.server.write(FLOW_FILE, Flow("mixed", "arm1", ("arm2",)).text)
    # It waits for the links for two minutes.
    started = ("dora", "start", FLOW_FILE, "--name", "mixed", "--coordinator-addr", "127.0.0.1")
    fleet.server.exec("systemd-run", "--quiet", "--collect", "--setenv=HOME=/root", *started)
    for machine in ("arm1", "arm2"):
        named = partial(names_versions, fleet.robots[machine])
        wait_until(named, f"{machine} names the versions", timeout=60)
    fleet.dora("stop", "mixed")


def test_a_former_coordinator_works_with_newer_robots(site: Site) -> None:
    check_rollout(site, 1)
    check_dataflows(site)


def test_a_newer_coordinator_takes_over_and_works_with_former_robots(
    site: Site, fleet_deb: Path, deb: Path
) -> None:
    server, fleet = site.fleet.server, site.fleet
    before = {machine: site.pids(machine) for machine in fleet.robots}
    for path in (deb, fleet_deb):
        server.push(path, f"/root/{path.name}")
    names = (f"/root/{deb.name}", f"/root/{fleet_deb.name}")
    server.exec("apt-get", "-qq", "install", "-y", "--allow-downgrades", *names, timeout=300)
    wait_until(lambda: fleet.attempt("status").returncode == 0, "all robots are well", timeout=60)
    assert {machine: site.pids(machine) for machine in fleet.robots} == before
    check_rollout(site, 2)
    check_dataflows(site)


def test_a_robot_is_upgraded_from_the_former_release_and_runs_its_release(
    site: Site, deb: Path, former_debs: former.Former
) -> None:
    """Its nodes start again, because the format of shared memory has changed."""
    arm1, fleet = site.fleet.robots["arm1"], site.fleet
    before = site.one_confirmed("arm1")
    assert before
    fleet.server.push(former_debs.robot, "/root/former-robot.deb")
    words = ("upgrade", CLUSTER, f"/root/{deb.name}", "--previous", "/root/former-robot.deb")
    done = fleet.attempt(*words, "--only", "arm1", "--min-healthy-time", "3s", timeout=300)
    assert done.returncode == 0, done.stderr
    assert version(arm1) != former.VERSION
    assert "another format of shared memory" in arm1.exec("journalctl", "-u", "dorad", "--no-pager")
    # The newer agent continues with what the former one has stored.
    fleet.wait_connected()
    assert site.wait_for_confirmed("arm1") == before
    fleet.flows_on(site.flows["arm1"])
    new = site.build("after = 'the upgrade'", *FOR_ALL)
    assert site.start(new, *ALL).returncode == 0
    assert site.one_confirmed("arm1") == new
