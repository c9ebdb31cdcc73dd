"""How much and how long: the sizes, numbers and times that bound the control API."""

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

LARGEST_REQUEST = 4 << 20
"""Bytes of a frame that a client may send; a larger one ends its connection with code 1009."""

LARGEST_REPLY = 64 << 20
"""Bytes of a frame that a daemon may send."""

STARTING_S = 30.0
"""Seconds that a change of a dataflow waits for a start that is not complete yet."""

_USUAL_GRACE = 10.0
"""Seconds that stopping takes at most until SIGTERM when a request does not say."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server allows its clients; times in seconds."""

    connections: int = 128
    """Clients at a time; another one is answered with HTTP status 503."""
    opening: int = 512
    """Sockets at a time that may be open, those included that have not said what they want."""
    calls: int = 64
    """Calls that run at a time for one client."""
    streams: int = 32
    """Streams that run at a time for one client."""
    hello: float = 5.0
    """From the connection to the HTTP request, and from there to the `hello` frame."""
    call: float = 60.0
    """For a call that does not itself ask for more."""
    slow: float = 120.0
    """For a client to read one frame; then its stream ends, or its connection."""


def time_allowed(params: Struct, usual: float) -> float | None:
    """Return the seconds that a call with these parameters may take; None: any time.

    It is `usual`, and what the call itself asks for on top of it: the `timeout` of a wait, the
    time from a stop's beginning to SIGKILL, which is one and a half times its grace, and for a
    change of a dataflow the time that its start may still take.
    """
    match params:
        case Wait():
            return None if params.timeout is None else usual + params.timeout
        case Stop(force=True):
            return usual
        case Stop():
            return usual + _until_kill(params.grace)
        case NodeStop() | NodeReplace():
            return usual + _until_kill(params.grace) + STARTING_S
        case NodeAdd() | EdgeNew() | EdgeRef():
            return usual + STARTING_S
    return usual


def _until_kill(grace: float | None) -> float:
    return 1.5 * (_USUAL_GRACE if grace is None else grace)
