"""Fixtures of the tests of fleets: robots that are enrolled, and two from nothing."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hwtests.fleet.enrolled import EnrolledFleet, enrolled
from hwtests.robots import Robot, Testbed, clock
from hwtests.robots.fixtures import (
    FAILED,
    deb,
    fleet_deb,
    newer_deb,
    pytest_runtest_makereport,
    robots_possible,
)
from hwtests.robots.rootfs import WITH_SSH

__all__ = ["deb", "fleet_deb", "newer_deb", "pytest_runtest_makereport", "robots_possible"]

CLUSTER = """\
coordinator: {addr: 198.18.0.1}
machines:
  - {id: arm1, host: robot1, user: root}
  - {id: arm2, host: robot2, user: pilot, labels: {zone: hall}}
"""
"""The first is reached as root, the second as a user with sudo."""


@dataclass
class Fleet:
    """The machines of a fleet: two robots and an operator's computer."""

    bed: Testbed
    arm1: Robot
    arm2: Robot
    operator: Robot


@pytest.fixture(scope="module")
def fleet(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[Fleet]:
    """Two robots with sshd and without packages, and an operator with both packages."""
    with Testbed(include=WITH_SSH) as bed:
        arm1, arm2, operator = bed.up(3)
        operator.push(deb, "/root/dorad.deb")
        operator.push(fleet_deb, "/root/dorafleet.deb")
        operator.exec("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
        operator.write("/root/cluster.yml", CLUSTER)
        key = operator.exec("cat", "/root/.ssh/id_ed25519.pub")
        arm1.write("/root/.ssh/authorized_keys", key)
        arm2.exec("useradd", "--create-home", "--shell", "/bin/bash", "pilot")
        arm2.write("/etc/sudoers.d/pilot", "pilot ALL=(ALL) NOPASSWD: ALL\n")
        arm2.write("/home/pilot/.ssh/authorized_keys", key)
        yield Fleet(bed, arm1, arm2, operator)


@pytest.fixture(autouse=True)
def restored(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep what a failed test of releases has left from failing those after it."""
    site = request.getfixturevalue("site") if "site" in request.fixturenames else None
    yield
    if site is not None and request.node.stash.get(FAILED, False):
        site.restore()


@pytest.fixture(scope="session")
def wall_clock(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The library by which clocks of robots are set wrong; None without a compiler."""
    if shutil.which("gcc") is None:
        return None
    return clock.compile_library(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="session")
def robots(
    robots_possible: None, deb: Path, fleet_deb: Path, wall_clock: Path | None
) -> Iterator[EnrolledFleet]:
    """Three robots of a fleet, and its server; for all tests, so each leaves it as it was."""
    with enrolled(deb, fleet_deb, 3, wall_clock) as found:
        yield found
