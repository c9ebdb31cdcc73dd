"""Robots whose disks are full: an operator knows before, and stops are obeyed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hwtests.fleet.enrolled import EnrolledFleet, enrolled
from hwtests.fleet.flows import Flow
from hwtests.robots import Robot
from hwtests.robots.errors import RobotError
from hwtests.robots.shell import wait_until

AGENT, DORAD = "/var/lib/dorad-agent", "/var/lib/dorad"
SMALL = """\
systemctl stop {unit}
cp -a {folder} /root/kept
mount -t tmpfs -o size=8m tmpfs {folder}
chown --reference=/root/kept {folder}
chmod --reference=/root/kept {folder}
cp -a /root/kept/. {folder}
rm -r /root/kept
systemctl start {unit}
"""
"""Puts what a service writes on a disk of its own, so that only this one gets full."""
FULL = "mountpoint -q {folder} && ! dd if=/dev/zero of={folder}/fill bs=4k 2>/dev/null"


@pytest.fixture
def fleet(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[EnrolledFleet]:
    """Two robots, of which the first has small disks."""
    with enrolled(deb, fleet_deb, 2) as made:
        for folder, unit in ((AGENT, "dorad-agent"), (DORAD, "dorad")):
            made.arm1.sh(SMALL.format(folder=folder, unit=unit))
        made.wait_connected()
        yield made


def nodes(robot: Robot) -> str:
    return robot.sh(
        "systemctl list-units --no-legend --state=running 'dorad-*-count-*' 'dorad-*-check*'"
    )


def warnings(fleet: EnrolledFleet) -> str:
    return fleet.attempt("doctor").stdout


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_a_stop_is_obeyed_on_a_full_disk_and_kept_over_a_crash(
    fleet: EnrolledFleet, options: tuple[str, ...]
) -> None:
    flow, arm1 = Flow("full"), fleet.arm1
    fleet.start(flow)
    assert "count" in nodes(arm1)
    arm1.sh(FULL.format(folder=AGENT))
    try:
        wait_until(lambda: f"the disk of {AGENT} has " in warnings(fleet), "the doctor says so")
        # A coordinator with a new term is obeyed, too.
        fleet.server.exec("systemctl", "restart", "dorafleet")
        fleet.wait_connected()
        stop = ("dora", "stop", "full", *options, "--coordinator-addr", "127.0.0.1")
        stopped = fleet.server.attempt(*stop, timeout=60)
        # Nodes that were killed have failed, and the command says so.
        said = stopped.stdout + stopped.stderr
        assert stopped.returncode == 0 or (options and "was killed because" in said), said
        assert nodes(arm1) == nodes(fleet.robots["arm2"]) == ""
        wait_until(
            lambda: "its order is in shares.db.reserve" in arm1.exec("dorad-agent", "status"),
            "the robot says where the order is",
        )
        arm1.exec("systemctl", "kill", "--signal=KILL", "dorad-agent")
        fleet.wait_connected()
        arm1.exec("systemctl", "restart", "dorad-agent", "dorad")
        fleet.wait_connected()
        assert nodes(arm1) == ""
    finally:
        arm1.sh(f"rm -f {AGENT}/fill")
    wait_until(lambda: "reserve" not in arm1.exec("dorad-agent", "status"), "it is stored")
    wait_until(lambda: f"the disk of {AGENT} has " not in warnings(fleet), "the doctor is content")
    arm1.exec("systemctl", "kill", "--signal=KILL", "dorad-agent")
    fleet.wait_connected()
    assert nodes(arm1) == ""


def wait_until_shown(fleet: EnrolledFleet, text: str, *command: str) -> None:
    """Wait until a command of the fleet shows a text."""
    shown: list[str] = []

    def is_there() -> bool:
        shown[:] = [fleet.attempt(*command).stdout]
        return text in shown[0]

    try:
        wait_until(is_there, f"`{command[0]}` shows it", timeout=60)
    except RobotError as error:
        raise RobotError(f"{error}:\n{shown[0]}") from None


def test_a_full_disk_of_dorad_is_named_everywhere_and_a_restart_ends_no_node(
    fleet: EnrolledFleet,
) -> None:
    flow, arm1 = Flow("full"), fleet.arm1
    with fleet.running(flow):
        before = fleet.pids(flow)
        arm1.sh(FULL.format(folder=DORAD))
        text = f"the disk of {DORAD} has "
        for command in (("status",), ("doctor",), ("alerts", "--coordinator-addr", "127.0.0.1")):
            wait_until_shown(fleet, text, *command)
        assert text in arm1.attempt("dora", "doctor").stdout
        for signal in ("TERM", "KILL"):
            arm1.exec("systemctl", "kill", f"--signal={signal}", "dorad")
            arm1.exec("systemctl", "restart", "dorad")
            fleet.wait_connected()
            assert fleet.pids(flow) == before
            fleet.flows_on(flow)
        report = fleet.report(flow)
        assert (report.missing, report.repeated, report.restarts) == (0, 0, 0)
        arm1.sh(f"rm {DORAD}/fill")
        wait_until(lambda: text not in fleet.attempt("status").stdout, "status is content")
    assert nodes(arm1) == ""
