"""How dorad is on a robot: its version, its service, what runs under it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec

from dorafleet.robot import commands
from dorafleet.robot.facts import NOT_FOUND, installed_version, service_state
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from dorafleet.ssh.connection import Connection, Finished

Content = TypeVar("Content")

MAX_DATAFLOWS = 1000
"""Dataflows that are taken from one robot; more are no answer of dorad's."""


class Dataflow(msgspec.Struct, frozen=True):
    """A dataflow that runs on a robot: a line of `dora list --format json`."""

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
    """The service and what it answers."""

    service: str
    """`active`, `inactive`, `failed`, …: what systemctl says."""
    answers: bool
    version: str | None = None
    """Of the daemon that answers."""
    problem: str | None = None
    """Why it does not answer, in its own words."""


@dataclass(frozen=True, slots=True)
class State:
    """All that `dorafleet status` shows of a robot that is reached."""

    daemon: Daemon
    package: str | None
    """The version of the package; None if dorad is not there as a package."""
    dataflows: tuple[Dataflow, ...] = ()

    @property
    def well(self) -> bool:
        """Whether the service is active and answers."""
        return self.daemon.service == "active" and self.daemon.answers


async def read_state(robot: Connection) -> State:
    """Ask a robot how it is. Raises SshError."""
    daemon, package, listed = await asyncio.gather(
        read_daemon(robot, uid=0),
        robot.run(commands.VERSION),
        robot.run(commands.DATAFLOWS),
    )
    dataflows = _dataflows(listed) if daemon.answers else ()
    return State(daemon, installed_version(package), dataflows)


async def read_daemon(robot: Connection, uid: int) -> Daemon:
    """Ask a robot for its service; through sudo unless `uid` is 0. Raises SshError."""
    active, status = await asyncio.gather(
        robot.run(commands.ACTIVE), robot.run(commands.as_root(commands.DAEMON, uid))
    )
    service = service_state(active)
    if status.code == NOT_FOUND:
        return Daemon(service, answers=False, problem="dorad is not installed")
    try:
        said = _decode(status.stdout, _Status)
    except ValueError:
        return Daemon(service, answers=False, problem=f"`dora status` says: {status.last_words}")
    answers = status.code == 0 and said.daemon.status == "running"
    problem = None if answers else said.error or status.last_words
    return Daemon(service, answers, said.daemon.version or None, problem)


def _dataflows(listed: Finished) -> tuple[Dataflow, ...]:
    """Return the dataflows out of JSON lines. Raises SshError for anything else."""
    if listed.code:
        raise SshError(Code.FAILED, f"`dora list` says: {listed.last_words}")
    lines = listed.stdout.splitlines()
    if len(lines) > MAX_DATAFLOWS:
        raise SshError(Code.FAILED, f"`dora list` lists {len(lines)} dataflows")
    return tuple(map(_dataflow, lines))


def _dataflow(line: str) -> Dataflow:
    try:
        return _decode(line, Dataflow)
    except ValueError as error:
        raise SshError(Code.FAILED, f"`dora list` says: {line[:200]}") from error


def _decode(text: str, kind: type[Content]) -> Content:
    """Return the JSON that a robot printed. Raises ValueError for whatever else it printed."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
