"""What has to be done on a robot so that a package runs there: a function of what it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dorafleet.robot.package import ANY
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from dorafleet.robot.facts import Facts
    from dorafleet.robot.package import Package


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps, in this order."""

    install: bool
    """Copy the package and have apt-get install it."""
    enable: bool
    """Have systemd start the service, now and at boot."""

    @property
    def nothing(self) -> bool:
        """Whether the robot is as it should be."""
        return not self.install and not self.enable


def plan(facts: Facts, package: Package) -> Plan:
    """Return the steps. Raises SshError if the package does not fit the robot."""
    if facts.architecture is None:
        raise SshError(Code.REFUSED, "it has no dpkg", "packages are for Debian and Ubuntu")
    if facts.service == "no systemd":
        raise SshError(Code.REFUSED, "it has no systemd", "dorad is a service of systemd there")
    if package.architecture not in (facts.architecture, ANY):
        said = f"it is {facts.architecture}, the package is for {package.architecture}"
        raise SshError(Code.REFUSED, said, "build one there, or on such a machine: make deb")
    return Plan(
        install=facts.version != package.version,
        enable=facts.service != "active" or not facts.enabled,
    )
