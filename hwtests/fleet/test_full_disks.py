"""Robots whose disks are full: an operator knows before, and stops are obeyed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hwtests.fleet.enrolled import enrolled
from hwtests.fleet.flows import Flow
from hwtests.robots.shell import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hwtests.fleet.enrolled import EnrolledFleet
    from hwtests.robots import Robot

AGENT = "/var/lib/dorad-agent"
SMALL = f"""\
systemctl stop dorad-agent
cp -a {AGENT} /root/kept
mount -t tmpfs -o size=8m tmpfs {AGENT}
chown dorad-agent:dorad {AGENT}
chmod 750 {AGENT}
cp -a /root/kept/. {AGENT}
systemctl start dorad-agent
"""
"""Puts what the agent writes on a disk of its own, so that only this one gets full."""
FULL = f"mountpoint -q {AGENT} && ! dd if=/dev/zero of={AGENT}/fill bs=4k 2>/dev/null"


@pytest.fixture
def fleet(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[EnrolledFleet]:
    """Two robots, of which the first has a small disk."""
    with enrolled(deb, fleet_deb, 2) as made:
        made.arm1.sh(SMALL)
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
    arm1.sh(FULL)
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
