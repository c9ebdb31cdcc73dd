"""The limits of the control API: sizes, counts and times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dorad.control.messages import (
    EdgeNew,
    EdgeRef,
    NodeAdd,
    NodeReplace,
    NodeStop,
    Stop,
    Wait,
)

if TYPE_CHECKING:
    from dorad.control.messages import Struct

MAX_REQUEST = 4 << 20
"""Maximum bytes of a frame from a client. A larger one closes its connection with code 1009."""

MAX_REPLY = 64 << 20
"""Maximum bytes of a frame from the daemon."""

MAX_START_WAIT_S = 30.0
"""Maximum seconds that a change of a dataflow waits until the dataflow has started."""

_DEFAULT_GRACE = 10.0
"""Seconds from a stop's beginning to SIGTERM when a request gives none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on a server's clients. Times are in seconds."""

    connections: int = 128
    """Maximum number of clients; a further one is answered with HTTP status 503."""
    opening: int = 512
    """Maximum number of open sockets, including those that have sent no request yet."""
    calls: int = 64
    """Maximum number of calls that run at a time for one client."""
    streams: int = 32
    """Maximum number of streams that run at a time for one client."""
    hello: float = 5.0
    """Time from the connection to the HTTP request, and from there to the `hello` frame."""
    call: float = 60.0
    """Time for a call whose parameters do not request more."""
    reply: int = MAX_REPLY
    """Maximum bytes of a frame to the client."""
    slow: float = 120.0
    """Time for a client to read one frame; then its stream, or its connection, is ended."""


def time_allowed(params: Struct, usual: float) -> float | None:
    """Return the seconds that a call with these parameters may take; None means no limit.

    This is `usual` plus the time that the call requests: the `timeout` of a wait; for a stop, the
    time until SIGKILL, which is one and a half times its grace; for a change of a dataflow, the
    time that the dataflow's start may still take.
    """
    match params:
        case Wait():
            return None if params.timeout is None else usual + params.timeout
        case Stop(force=True):
            return usual
        case Stop():
            return usual + _until_kill(params.grace)
        case NodeStop() | NodeReplace():
            return usual + _until_kill(params.grace) + MAX_START_WAIT_S
        case NodeAdd() | EdgeNew() | EdgeRef():
            return usual + MAX_START_WAIT_S
    return usual


def _until_kill(grace: float | None) -> float:
    return 1.5 * (_DEFAULT_GRACE if grace is None else grace)
