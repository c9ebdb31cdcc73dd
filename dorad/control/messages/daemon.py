"""Messages about the daemon itself: its state, and the network that it sees."""

from __future__ import annotations

from dorad.control.messages.base import Nothing, Struct
from dorad.control.messages.method import CallMethod
from dorad.int64 import Int64


class Interface(Struct):
    """A network interface."""

    name: str
    up: bool
    """Whether packets can pass now."""
    addresses: list[str] = []
    """Addresses with their prefix: `192.0.2.7/24`."""


class Network(Struct):
    """The network in the network namespace of the daemon."""

    interfaces: list[Interface]
    defaults: list[str] = []
    """Default routes, the preferred first: `192.0.2.1 over eth0`."""


class DaemonStatus(Struct):
    """The state of the daemon itself."""

    version: str
    protocol: Int64
    pid: Int64
    started_at: float
    dataflows: Int64
    """Number of running dataflows."""
    nodes: Int64
    """Number of running node processes."""
    state: str
    """Path of the state file."""
    adopted: Int64 = 0
    """Nodes of a previous daemon that this one has adopted."""
    notices: list[str] = []
    """Warnings for the administrator, such as a full disk or a damaged state file."""
    problem: str = ""
    """Why the daemon cannot start nodes; empty if it can."""
    memory: Int64 = 0
    """Resident bytes of the daemon."""
    cpu: float = 0.0
    """Percent of one core that the daemon used over the last seconds."""
    network: Network | None = None
    """The network as the daemon sees it; None while that is unknown."""


class Shutdown(Struct):
    """Stop the daemon. Refused with `busy` while dataflows run, unless `force` stops them first."""

    force: bool = False


DAEMON_STATUS = CallMethod(
    "daemon.status", "viewer", Nothing, DaemonStatus, "Return the state of the daemon."
)
DAEMON_SHUTDOWN = CallMethod("daemon.shutdown", "admin", Shutdown, Nothing, "Stop the daemon.")
