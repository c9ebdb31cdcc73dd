"""The facts about a robot that an installation depends on, and the steps that it needs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec

from dorafleet.robot import commands
from dorafleet.robot.package import ANY, Package
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from dorafleet.ssh.connection import CommandResult, Connection

Content = TypeVar("Content")

NOT_FOUND = 127
"""The exit code of a shell for an unknown command."""

MAX_UID_DIGITS = 10
"""A user id has 32 bits."""
MAX_WORD = 80
"""Maximum characters of a version, or of a service's state."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about one robot."""

    uid: int
    """The id of the ssh user."""
    architecture: str | None
    """As dpkg names it; None without dpkg."""
    version: str | None
    """The version of the package dorad; None if it is not installed."""
    service: str
    """`active`, `inactive`, `failed`, …: the state that systemctl reports."""
    enabled: bool


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """The steps, in this order."""

    install: bool
    """Copy the package and install it with apt-get."""
    enable: bool
    """Start the service, now and at boot."""

    @property
    def nothing(self) -> bool:
        """True if the robot needs no step."""
        return not self.install and not self.enable


def plan(facts: Facts, package: Package) -> InstallPlan:
    """Return the steps. Raises SshError if the package does not fit the robot."""
    if facts.architecture is None:
        raise SshError(Code.REFUSED, "it has no dpkg", "packages are for Debian and Ubuntu")
    if facts.service == "no systemd":
        raise SshError(Code.REFUSED, "it has no systemd", "dorad runs as a systemd service")
    if package.architecture not in (facts.architecture, ANY):
        message = f"it is {facts.architecture}, the package is for {package.architecture}"
        raise SshError(Code.REFUSED, message, "build one there, or on such a machine: make deb")
    return InstallPlan(
        install=facts.version != package.version,
        enable=facts.service != "active" or not facts.enabled,
    )


async def read_facts(robot: Connection) -> Facts:
    """Read the facts about a robot. Raises SshError."""
    user, architecture, version, active, enabled = await asyncio.gather(
        robot.check(commands.USER_ID),
        robot.run(commands.ARCHITECTURE),
        robot.run(commands.VERSION),
        robot.run(commands.ACTIVE),
        robot.run(commands.ENABLED),
    )
    return Facts(
        uid=user_id(user),
        architecture=None if architecture.code else architecture.stdout.strip(),
        version=installed_version(version),
        service=service_state(active),
        enabled=enabled.stdout.strip() == "enabled",
    )


def user_id(printed: str) -> int:
    """Return the number that `id -u` has printed. Raises SshError for other output."""
    uid = printed.strip()
    if not uid.isdecimal() or len(uid) > MAX_UID_DIGITS:
        raise SshError(Code.FAILED, f"`id -u` prints {uid[:80]!r}", "does ssh start a shell there?")
    return int(uid)


async def check_sudo(robot: Connection) -> None:
    """Check that the ssh user, who is not root, can use sudo. Raises SshError."""
    done = await robot.run(commands.MAY_SUDO)
    if done.code:
        message = f"its user is not root, and sudo fails: {done.last_line}"
        hint = "let the user sudo without a password, or log in as root (`user: root`)"
        raise SshError(Code.DENIED, message, hint)


def installed_version(answer: CommandResult) -> str | None:
    """Return the version in dpkg-query's output, None if the package is not fully installed."""
    status, _, version = answer.stdout.strip().partition(" ")
    return version[:MAX_WORD] if answer.code == 0 and status == "installed" else None


def service_state(answer: CommandResult) -> str:
    """Return the state that systemctl prints, which is `inactive` also for an unknown unit."""
    if answer.code == NOT_FOUND:
        return "no systemd"
    return (answer.stdout.strip() or answer.last_line)[:MAX_WORD]


def decode(text: str, kind: type[Content]) -> Content:
    """Return the JSON that a robot printed. Raises ValueError for other output."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
