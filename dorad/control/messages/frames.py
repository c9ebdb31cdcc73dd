"""The frames of a connection: handshake, request, reply, error."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec

from dorad.control.messages.base import PROTOCOL, Struct
from dorad.int64 import Int64

ErrorCode = Literal[
    "bad-request",
    "unknown-method",
    "not-found",
    "ambiguous",
    "exists",
    "conflict",
    "busy",
    "refused",
    "deadline",
    "cancelled",
    "unavailable",
    "too-large",
    "too-slow",
    "version",
    "unsupported",
    "internal",
]


class Error(Struct):
    """Why a request failed. `code` is for programs, the rest for people."""

    code: Annotated[str, msgspec.Meta(examples=list(get_args(ErrorCode)))]
    """One of the codes above. A newer daemon may send others; treat them like `refused`."""
    message: str
    hint: str | None = None
    problems: list[str] = []
    """What is wrong with a dataflow, or what a coordinator waits for, one line each."""


class Hello(Struct):
    """The first frame from the client."""

    hello: str
    """Name and version of the client, such as `dora 0.1.0`."""
    protocol: Int64 = PROTOCOL


class Welcome(Struct):
    """The first frame from the daemon."""

    welcome: str
    """Name and version of the daemon, such as `dorad 0.1.0`."""
    protocol: Int64 = PROTOCOL
    role: str = ""
    """What the client may do: `viewer`, `operator` or `admin`; empty from an older server."""


class Request(Struct):
    """A request. The client chooses ids; one that is in use is refused."""

    id: Int64
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")


class Cancel(Struct):
    """The parameters of `cancel`: the id of the call or stream to end."""

    id: Int64


class Reply(Struct, omit_defaults=True):
    """An answer, an event of a stream, or the end of one. Exactly one of the fields is set."""

    id: Int64 | None
    """None if the id of the request could not be read."""
    result: Any = msgspec.UNSET
    event: Any = msgspec.UNSET
    end: bool = False
    """True at the end of a stream. After `cancel`, events that were already sent arrive before
    it."""
    error: Error | None = None
