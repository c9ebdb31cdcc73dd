"""What a client says when it is the connection, not the daemon, that has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.control import codec
from dorad.control.errors import ControlError
from dorad.control.messages import Error

if TYPE_CHECKING:
    from pathlib import Path

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


def closed(code: int | None) -> ControlError:
    """Return the error for a connection that has ended, with the daemon's code if it gave one."""
    if code == _TOO_BIG:
        return ControlError("too-large", "the request has more bytes than dorad takes")
    if code == _GOING_AWAY:
        return ControlError("unavailable", "dorad was ended", "start it with `dora up`")
    return ControlError(
        "unavailable", "the connection to dorad has ended", "see with `dora status` whether it runs"
    )


def not_opened(error: Exception, path: Path, body: bytes = b"") -> ControlError:
    """Return the error for a connection that could not be opened.

    `body` is what the other end answered: a daemon says in it why it refuses.
    """
    if body:
        try:
            return ControlError.of(codec.decode(body, Error, "the refusal"))
        except ControlError:
            pass
    return ControlError(
        "unavailable", f"{path} does not answer as a dorad does: {error}", "try again"
    )
