"""The facts about a robot that an installation depends on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec

from dorafleet.robot import commands
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
