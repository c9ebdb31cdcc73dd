"""A fleet of robots is handed over to a new authority, under dataflows, cuts and a full disk."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwtests.fleet.enrolled import EnrolledFleet, enrolled
from hwtests.fleet.flows import Flow
from hwtests.fleet.test_full_disks import AGENT, FULL, SMALL
from hwtests.robots.effort import only_long
from hwtests.robots.shell import wait_until

NOT_STORED = "the new authority cannot be stored: No space left on device"
ROOTS = f"grep -c BEGIN {AGENT}/identity/authority.pem"


@pytest.fixture
def fleet(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[EnrolledFleet]:
    """Three robots, of which the first has a small disk."""
    with enrolled(deb, fleet_deb, 3) as made:
        made.arm1.sh(SMALL)
        made.wait_connected()
        yield made


def status(fleet: EnrolledFleet) -> dict[str, Any]:
    said = fleet.attempt("authority", "status", "--json").stdout
    found: dict[str, Any] = json.loads(said) if said else {}
    return found


def roots(fleet: EnrolledFleet, robot: str) -> int:
    """Return how many authorities a robot trusts."""
    return int(fleet.robots[robot].sh(ROOTS))


def wait_for_roots(fleet: EnrolledFleet, robot: str, count: int) -> None:
    wait_until(lambda: roots(fleet, robot) == count, f"{robot} trusts {count}")


@only_long
@pytest.mark.timeout(900)
def test_a_fleet_of_robots_is_handed_over_after_a_first_try_was_cancelled(
    fleet: EnrolledFleet,
) -> None:
    flow = Flow("kept", policy="backpressure")
    with fleet.running(flow):
        before = status(fleet)["fingerprint"]
        arm3 = fleet.robots["arm3"]
        arm3.exec("systemctl", "stop", "dorad-agent")
        fleet.arm1.sh(FULL)
        fleet.dorafleet("authority", "hand-over")
        wait_for_roots(fleet, "arm2", 2)
        # One whose disk is full says so, and stays as it was.
        wait_until(
            lambda: NOT_STORED in fleet.attempt("status", "--json").stdout, "the status says why"
        )
        assert roots(fleet, "arm1") == 1
        assert status(fleet)["waiting"] == ["arm1", "arm3"]
        fleet.arm1.sh(f"rm -f {AGENT}/fill")
        fleet.arm1.exec("systemctl", "restart", "dorad-agent")
        wait_for_roots(fleet, "arm1", 2)
        fleet.flows_on(flow)

        fleet.dorafleet("authority", "cancel")
        for robot in ("arm1", "arm2"):
            wait_for_roots(fleet, robot, 1)
        fleet.flows_on(flow)
        # The server is killed in the middle of the next one, and a robot has no power at its end.
        arm3.exec("systemctl", "start", "dorad-agent")
        fleet.wait_connected()
        fleet.dorafleet("authority", "hand-over")
        fleet.server.exec("systemctl", "kill", "--signal=KILL", "dorafleet")
        wait_until(lambda: status(fleet).get("old") == [], "all have certificates", timeout=120)
        assert "were given to robots already" in fleet.attempt("authority", "cancel").stderr
        fleet.flows_on(flow)
        arm3.power_cut()
        fleet.dorafleet("authority", "finish")
        arm3.start()
        fleet.wait_connected()
        for robot in fleet.robots:
            wait_for_roots(fleet, robot, 1)
        after = status(fleet)
        assert after["fingerprint"] == after["next"] != before
        fleet.flows_on(flow)
        assert fleet.report(flow).missing == 0
        for robot in ("arm1", "arm2"):
            journal = fleet.robots[robot].sh("journalctl --no-pager --unit dorad-agent")
            assert "Traceback" not in journal
        assert fleet.dorafleet("audit", "verify").startswith("ok")
