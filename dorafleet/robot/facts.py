"""What a robot is and has, before something is installed on it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dorafleet.robot import commands
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from dorafleet.ssh.connection import Connection, Finished

NOT_FOUND = 127
"""The exit code of a shell that finds no such command."""

MAX_UID_DIGITS = 10
"""A user id has 32 bits."""
MAX_WORD = 80
"""Characters of a version or a state of a service that are shown."""


@dataclass(frozen=True, slots=True)
class Facts:
    """As measured in one moment."""

    uid: int
    """Of the user who is logged in."""
    architecture: str | None
    """As dpkg names it; None without dpkg."""
    version: str | None
    """Of the package dorad; None if it is not installed."""
    service: str
    """`active`, `inactive`, `failed`, …: what systemctl says."""
    enabled: bool


async def read_facts(robot: Connection) -> Facts:
    """Ask a robot. Raises SshError."""
    who, architecture, version, active, enabled = await asyncio.gather(
        robot.check(commands.WHO),
        robot.run(commands.ARCHITECTURE),
        robot.run(commands.VERSION),
        robot.run(commands.ACTIVE),
        robot.run(commands.ENABLED),
    )
    uid = who.strip()
    if not uid.isdecimal() or len(uid) > MAX_UID_DIGITS:
        raise SshError(Code.FAILED, f"`id -u` says {uid[:80]!r}", "is there a shell behind ssh?")
    return Facts(
        uid=int(uid),
        architecture=None if architecture.code else architecture.stdout.strip(),
        version=installed_version(version),
        service=service_state(active),
        enabled=enabled.stdout.strip() == "enabled",
    )


def installed_version(answer: Finished) -> str | None:
    """Return the version out of dpkg-query's answer; None if the package is not fully there."""
    status, _, version = answer.stdout.strip().partition(" ")
    return version[:MAX_WORD] if answer.code == 0 and status == "installed" else None


def service_state(answer: Finished) -> str:
    """Return systemctl's word; it says `inactive` also of a unit that there is not."""
    if answer.code == NOT_FOUND:
        return "no systemd"
    return (answer.stdout.strip() or answer.last_words)[:MAX_WORD]
