"""The state of dorad on a robot: its version, its services, its running dataflows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from dorafleet.robot import commands
from dorafleet.robot.facts import (
    NOT_FOUND,
    decode,
    installed_version,
    service_state,
    user_id,
)
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from dorafleet.ssh.connection import CommandResult, Connection

MAX_DATAFLOWS = 1000
"""Maximum number of dataflows of one robot; a longer list is refused."""


class Dataflow(msgspec.Struct, frozen=True):
    """A running dataflow: a line of `dora list --format json`."""

    uuid: str
    name: str | None
    status: str
    nodes: int


class _Daemon(msgspec.Struct):
    status: str
    version: str | None = None


class _Status(msgspec.Struct):
    """The answer of `dora status --format json`."""

    daemon: _Daemon
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Daemon:
    """The state of the service."""

    service: str
    """`active`, `inactive`, `failed`, …: the state that systemctl reports."""
    answers: bool
    version: str | None = None
    """The version of the running daemon."""
    problem: str | None = None
    """The reason why it does not answer."""
    lasting: bool = False
    """True if it will not answer later either."""


@dataclass(frozen=True, slots=True)
class State:
    """The state of a robot that was reached."""

    daemon: Daemon
    package: str | None
    """The version of the package; None if dorad was not installed as a package."""
    dataflows: tuple[Dataflow, ...] = ()

    @property
    def healthy(self) -> bool:
        """True if the service is active and answers."""
        return self.daemon.service == "active" and self.daemon.answers


async def read_state(robot: Connection) -> State:
    """Read the state of a robot. Raises SshError."""
    daemon, package, listed = await asyncio.gather(
        read_daemon(robot, uid=0),
        robot.run(commands.VERSION),
        robot.run(commands.DATAFLOWS),
    )
    dataflows = _dataflows(listed) if daemon.answers else ()
    return State(daemon, installed_version(package), dataflows)


async def read_daemon(robot: Connection, uid: int) -> Daemon:
    """Read the state of a robot's service, with sudo unless `uid` is 0. Raises SshError."""
    active, status = await asyncio.gather(
        robot.run(commands.ACTIVE), robot.run(commands.as_root(commands.DAEMON, uid))
    )
    service = service_state(active)
    if status.code == NOT_FOUND:
        return Daemon(service, answers=False, problem="dorad is not installed", lasting=True)
    try:
        answer = decode(status.stdout, _Status)
    except ValueError:
        problem = f"`dora status` prints: {status.last_line}"
        # It may fail while the service starts; success with other output is not dorad's.
        return Daemon(service, answers=False, problem=problem, lasting=status.code == 0)
    answers = status.code == 0 and answer.daemon.status == "running"
    failure = None if answers else answer.error or status.last_line
    return Daemon(service, answers, answer.daemon.version or None, failure)


def _dataflows(listed: CommandResult) -> tuple[Dataflow, ...]:
    """Return the dataflows in JSON lines. Raises SshError for other output."""
    if listed.code:
        raise SshError(Code.FAILED, f"`dora list` failed: {listed.last_line}")
    lines = listed.stdout.splitlines()
    if len(lines) > MAX_DATAFLOWS:
        raise SshError(Code.FAILED, f"`dora list` lists {len(lines)} dataflows")
    return tuple(map(_dataflow, lines))


def _dataflow(line: str) -> Dataflow:
    try:
        return decode(line, Dataflow)
    except ValueError as error:
        raise SshError(Code.FAILED, f"`dora list` prints: {line[:200]}") from error


UNITS = (commands.UNIT, commands.AGENT_UNIT)


class Unit(NamedTuple):
    """A unit, in the words of systemctl."""

    active: str
    """`active`, `inactive`, `failed`, ..."""
    enabled: str
    """`enabled`, `disabled`, `not-found`, ..."""


Units = dict[str, Unit]
"""By name."""


async def read_units(robot: Connection) -> Units:
    """Read the state of both units. Raises SshError."""
    states = await asyncio.gather(*(_read_unit(robot, unit) for unit in UNITS))
    return dict(zip(UNITS, states, strict=True))


async def disable_agent(robot: Connection) -> None:
    """Stop the agent, now and at boot, and remove its secrets. Raises SshError."""
    uid = user_id(await robot.check(commands.USER_ID))
    for words in (commands.DISABLE_AGENT, commands.REMOVE_SECRETS):
        await robot.check(commands.as_root(words, uid))


async def _read_unit(robot: Connection, unit: str) -> Unit:
    active, enabled = await asyncio.gather(
        robot.run(("systemctl", "is-active", unit)), robot.run(("systemctl", "is-enabled", unit))
    )
    return Unit(service_state(active), service_state(enabled))
