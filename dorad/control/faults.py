"""Errors of a client's connection: timeouts, a lost daemon, a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.control import codec
from dorad.control.errors import ControlError
from dorad.control.messages import Error

if TYPE_CHECKING:
    from pathlib import Path

_GOING_AWAY = 1001
_TOO_BIG = 1009


def call_timed_out(method: str, seconds: float) -> ControlError:
    """Return the error for a call that the daemon did not answer in time."""
    return ControlError(
        "deadline",
        f"dorad did not answer `{method}` within {seconds:g} s",
        "see what it is doing with `dora doctor`",
    )


def not_responding(path: Path, pid: int | None, seconds: float) -> ControlError:
    """Return the error for a daemon that runs but does not respond."""
    process = "" if pid is None else f" (process {pid})"
    kill = "`kill -9` its process" if pid is None else f"`kill -9 {pid}`"
    return ControlError(
        "deadline",
        f"dorad at {path}{process} has not answered for {seconds:g} s",
        f"end it with {kill}, then start it again with `dora up`",
    )


def connection_closed(code: int | None) -> ControlError:
    """Return the error for a connection that has ended, with the daemon's code if it gave one."""
    if code == _TOO_BIG:
        return ControlError("too-large", "the request is larger than dorad accepts")
    if code == _GOING_AWAY:
        return ControlError("unavailable", "dorad has been stopped", "start it with `dora up`")
    return ControlError(
        "unavailable",
        "the connection to dorad was lost",
        "check with `dora status` whether it runs",
    )


def connect_failed(error: Exception, path: Path, body: bytes = b"") -> ControlError:
    """Return the error for a connection that could not be opened.

    `body` is the body of the HTTP answer, in which a daemon gives the reason for its refusal.
    """
    if body:
        try:
            return ControlError.of(codec.decode(body, Error, "the refusal"))
        except ControlError:
            pass
    return ControlError(
        "unavailable", f"the process at {path} does not answer like dorad: {error}", "try again"
    )
