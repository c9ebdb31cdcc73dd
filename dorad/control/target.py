"""Where a server of the control API is: a daemon, a coordinator, or a robot that has connected."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

    from websockets.asyncio.connection import Connection

    from dorad.control.pace import Pace

COORDINATOR_PORT = 6013
"""The port of a coordinator, unless another one is given."""


class UnixSocket(NamedTuple):
    """A daemon on this machine, or one whose socket is forwarded from another machine."""

    path: Path
    machine: str = ""
    """The machine from which it is forwarded; empty for this one."""


class TlsFiles(NamedTuple):
    """Files with which a client checks a coordinator, and shows who it is itself (PEM)."""

    ca: Path
    """The authority of the fleet."""
    certificate: Path | None = None
    key: Path | None = None
    """None if it is in the file of the certificate."""


class Tcp(NamedTuple):
    """A coordinator."""

    host: str
    port: int = COORDINATOR_PORT
    token: Path | None = None
    """The file with the coordinator's token; None sends none."""
    tls: TlsFiles | None = None
    """None connects in plain text, which only loopback allows."""

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"


class Accepted(NamedTuple):
    """A robot that has connected to this process, and now waits for requests."""

    connection: Connection
    robot: str
    pace: Pace | None = None
    """How fast its frames are read; None as fast as they come."""


Targets: TypeAlias = tuple[UnixSocket | Tcp, ...]
"""Servers to try; the first that runs is used."""


class Timing(NamedTuple):
    """How long a client waits for a server, in seconds."""

    connect: float
    """From the first try to the server's welcome."""
    call: float
    """For a call whose parameters do not request more, and for sending a request."""
    silence: float
    """Without a frame before the client pings, and between checks for the answer."""
    answer: float
    """For the answer to a ping, or any other frame."""


NEAR = Timing(connect=2.0, call=30.0, silence=0.3, answer=2.0)
"""For a daemon on the same machine."""

# Calls take longer than the server's own limit of 60 s, whose error says what it waited for.
FAR = Timing(connect=5.0, call=70.0, silence=3.0, answer=10.0)
"""For a coordinator, over any network."""

ROBOT = Timing(connect=10.0, call=70.0, silence=15.0, answer=15.0)
"""For robots: there are many of them, and they send heartbeats."""


def is_loopback(host: str) -> bool:
    """Return True if a host is certainly this machine."""
    from ipaddress import ip_address  # not needed for a daemon, and slow to import

    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_here(host: str) -> bool:
    """Return True if an address is one of this machine. Names are not looked up."""
    import socket  # not needed for a daemon

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except (OSError, UnicodeError):
        return False
    return True
