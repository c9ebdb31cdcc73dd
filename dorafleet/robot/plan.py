"""The steps that an installation needs, as a function of the robot's facts."""

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
    """Copy the package and install it with apt-get."""
    enable: bool
    """Start the service, now and at boot."""

    @property
    def nothing(self) -> bool:
        """True if the robot needs no step."""
        return not self.install and not self.enable


def plan(facts: Facts, package: Package) -> Plan:
    """Return the steps. Raises SshError if the package does not fit the robot."""
    if facts.architecture is None:
        raise SshError(Code.REFUSED, "it has no dpkg", "packages are for Debian and Ubuntu")
    if facts.service == "no systemd":
        raise SshError(Code.REFUSED, "it has no systemd", "dorad runs as a systemd service")
    if package.architecture not in (facts.architecture, ANY):
        message = f"it is {facts.architecture}, the package is for {package.architecture}"
        raise SshError(Code.REFUSED, message, "build one there, or on such a machine: make deb")
    return Plan(
        install=facts.version != package.version,
        enable=facts.service != "active" or not facts.enabled,
    )
