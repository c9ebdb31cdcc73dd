"""What a client says when it is the connection, not the daemon, that has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from websockets.exceptions import InvalidStatus

from dorad.control import codec
from dorad.control.errors import ControlError
from dorad.control.messages import Error

if TYPE_CHECKING:
    from pathlib import Path

    from websockets.exceptions import ConnectionClosed

_GOING_AWAY = 1001
_TOO_BIG = 1009


def late(method: str, seconds: float) -> ControlError:
    """Return the error for a call that was not answered in time."""
    return ControlError(
        "deadline",
        f"dorad did not answer `{method}` within {seconds:g} s",
        "see what it is doing with `dora doctor`",
    )


def hung(path: Path, pid: int | None, seconds: float) -> ControlError:
    """Return the error for a daemon that lives but says nothing."""
    process = "" if pid is None else f" (process {pid})"
    kill = "`kill -9` its process" if pid is None else f"`kill -9 {pid}`"
    return ControlError(
        "deadline",
        f"dorad at {path}{process} has not answered for {seconds:g} s",
        f"end it with {kill} and start it again with `dora up`",
    )


def closed(error: ConnectionClosed) -> ControlError:
    """Return the error for a connection that has ended."""
    code = None if error.rcvd is None else error.rcvd.code
    if code == _TOO_BIG:
        return ControlError("too-large", "the request has more bytes than dorad takes")
    if code == _GOING_AWAY:
        return ControlError("unavailable", "dorad was ended", "start it with `dora up`")
    return ControlError(
        "unavailable", "the connection to dorad has ended", "see with `dora status` whether it runs"
    )


def not_opened(error: Exception, path: Path) -> ControlError:
    """Return the error for a connection that could not be opened: the daemon's, if it said why."""
    if isinstance(error, InvalidStatus):
        try:
            return ControlError.of(codec.decode(bytes(error.response.body), Error, "the refusal"))
        except ControlError:
            pass
    return ControlError(
        "unavailable", f"{path} does not answer as a dorad does: {error}", "try again"
    )
