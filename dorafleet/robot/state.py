"""How dorad is on a robot: its version, its service, what runs under it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dorafleet.robot import commands
from dorafleet.robot.facts import NOT_FOUND, installed_version, service_state
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from dorafleet.ssh.connection import Connection, Finished


@dataclass(frozen=True, slots=True)
class Dataflow:
    """A dataflow that runs on a robot."""

    uuid: str
    name: str | None
    status: str
    nodes: int


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
        said = json.loads(status.stdout)
        daemon = said["daemon"]
        answers = status.code == 0 and daemon["status"] == "running"
        version = _text(daemon.get("version"))
        problem = None if answers else _text(said.get("error")) or status.last_words
    except (ValueError, KeyError, TypeError, AttributeError):
        return Daemon(service, answers=False, problem=f"`dora status` says: {status.last_words}")
    return Daemon(service, answers, version, problem)


def _dataflows(listed: Finished) -> tuple[Dataflow, ...]:
    """Return the dataflows out of JSON lines. Raises SshError for anything else."""
    if listed.code:
        raise SshError(Code.FAILED, f"`dora list` says: {listed.last_words}")
    return tuple(_dataflow(line) for line in listed.stdout.splitlines())


def _dataflow(line: str) -> Dataflow:
    try:
        entry: Any = json.loads(line)
        name, nodes = _text(entry.get("name")), int(entry["nodes"])
        return Dataflow(str(entry["uuid"]), name, str(entry["status"]), nodes)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SshError(Code.FAILED, f"`dora list` says: {line[:200]}") from error


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
