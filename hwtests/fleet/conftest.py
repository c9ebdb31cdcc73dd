"""Fixtures of the tests of the fleet manager: two robots, and a machine for the operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from hwtests.fleet.enrolled import EnrolledFleet, enrolled
from hwtests.robots import Testbed
from hwtests.robots.fixtures import deb, fleet_deb, newer_deb, robots_possible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hwtests.robots import Robot

__all__ = ["deb", "fleet_deb", "newer_deb", "robots_possible"]

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
    with Testbed(include=("openssh-server", "openssh-client", "sudo")) as bed:
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


@pytest.fixture(scope="module")
def robots(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[EnrolledFleet]:
    """Two robots with the package that are enrolled in a fleet, and the operator's machine."""
    with enrolled(deb, fleet_deb) as found:
        yield found
