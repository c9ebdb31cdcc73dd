"""Errors of a client's connection: timeouts, a lost server, a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.control import codec
from dorad.control.errors import ControlError
from dorad.control.messages import Error

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.control.target import Tcp

_GOING_AWAY = 1001
_TOO_BIG = 1009


class Server(NamedTuple):
    """The server at the other end of a connection, as errors name it; the hints say what to do."""

    name: str
    place: str
    """`dorad at /run/dorad/control.sock (process 7)`"""
    if_slow: str
    if_silent: str
    if_stopped: str
    if_lost: str
    path: Path | None = None
    """The socket of a daemon on this machine."""
    pid: int | None = None
    """Of that daemon."""

    @property
    def address(self) -> str:
        """The path of a daemon's socket; a coordinator's host and port."""
        return str(self.path) if self.path is not None else self.place.rpartition(" at ")[2]


def dorad_at(path: Path, pid: int | None) -> Server:
    """Describe a daemon on this machine."""
    process = "" if pid is None else f" (process {pid})"
    kill = "`kill -9` its process" if pid is None else f"`kill -9 {pid}`"
    return Server(
        name="dorad",
        place=f"dorad at {path}{process}",
        if_slow="see what it is doing with `dora doctor`",
        if_silent=f"end it with {kill}, then start it again with `dora up`",
        if_stopped="start it with `dora up`",
        if_lost="check with `dora status` whether it runs",
        path=path,
        pid=pid,
    )


def dorad_on(machine: str) -> Server:
    """Describe a daemon on another machine, whose socket is forwarded to this one."""
    name = f"dorad on {machine}"
    there = f"check the network, and dorad with `systemctl status dorad` on {machine}"
    start = f"start it with `systemctl start dorad` on {machine}"
    return Server(name, name, if_slow=there, if_silent=there, if_stopped=start, if_lost=there)


def coordinator_at(target: Tcp) -> Server:
    """Describe a coordinator."""
    name = f"the coordinator at {target}"
    return Server(
        name=name,
        place=name,
        if_slow="a robot that it waits for may be away; see `dorafleet status`",
        if_silent="check the network, and the coordinator with `systemctl status dorafleet` there",
        if_stopped="start it there: `sudo systemctl start dorafleet` or `dorafleet up cluster.yml`",
        if_lost="check with `dora status` whether it can be reached",
    )


def agent_of(robot: str) -> Server:
    """Describe the agent of a robot."""
    name = f"the agent of {robot}"
    see = "see `journalctl -u dorad-agent` there"
    return Server(name, name, if_slow=see, if_silent=see, if_stopped=see, if_lost=see)


def call_timed_out(server: Server, method: str, seconds: float) -> ControlError:
    """Return the error for a call that the server did not answer in time."""
    message = f"{server.name} did not answer `{method}` within {seconds:g} s"
    return ControlError("deadline", message, server.if_slow)


def not_responding(server: Server, seconds: float) -> ControlError:
    """Return the error for a server that runs but does not respond."""
    message = f"{server.place} has not answered for {seconds:g} s"
    return ControlError("deadline", message, server.if_silent)


def connection_closed(server: Server, code: int | None) -> ControlError:
    """Return the error for a connection that has ended, with the server's code if it gave one."""
    if code == _TOO_BIG:
        return ControlError("too-large", f"the request is larger than {server.name} accepts")
    if code == _GOING_AWAY:
        return ControlError("unavailable", f"{server.name} has been stopped", server.if_stopped)
    return ControlError("unavailable", f"the connection to {server.name} was lost", server.if_lost)


def connect_failed(server: Server, error: Exception, body: bytes = b"") -> ControlError:
    """Return the error for a connection that could not be opened.

    `body` is the body of the HTTP answer, in which a server gives the reason for its refusal.
    """
    if body:
        try:
            return ControlError.of(codec.decode(body, Error, "the refusal"))
        except ControlError:
            pass  # not an answer of dorad
    if server.path is not None:
        message = f"the process at {server.path} does not answer like dorad: {error}"
        what = "check which program that is" if server.pid is None else f"see `ps {server.pid}`"
        return ControlError("unavailable", message, f"{what}; DORA_SOCKET names another socket")
    return ControlError(
        "unavailable",
        f"{server.place} does not answer like one: {error}",
        "check the address and the port, and that it is the same version",
    )
