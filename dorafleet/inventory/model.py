"""A checked cluster.yml as frozen data, with defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from dorad.dataflow.settings import Amounts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dorad.dataflow.errors import Problem

COORDINATOR_PORT = 6013
DAEMON_PORT = 53291
ZENOH_PORT = 5456

Address = IPv4Address | IPv6Address


def endpoint(address: Address, port: int) -> str:
    """Return an address with its port: `10.0.0.1:6013`."""
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Coordinator:
    """The address at which robots will find the coordinator."""

    addr: Address
    port: int = COORDINATOR_PORT


@dataclass(frozen=True, slots=True)
class Machine:
    """One robot, and how ssh reaches it."""

    id: str
    host: str
    """A name, an address, or a `Host` of ~/.ssh/config; without the user."""
    user: str | None = None
    """None: as for ssh, from ~/.ssh/config or the name of the current user."""
    port: int | None = None
    """The port of sshd. None: as for ssh, from ~/.ssh/config or 22."""
    daemon_port: int = DAEMON_PORT
    labels: Mapping[str, str] = field(default_factory=dict)
    zenoh_addr: Address | None = None
    """By default the host, if that is an address."""
    zenoh_port: int = ZENOH_PORT
    capacity: Amounts = field(default_factory=Amounts)
    """What there is of cores, memory, GPUs and devices, as far as the file says."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The content of a file: at least one machine, with unique ids."""

    machines: tuple[Machine, ...]
    coordinator: Coordinator
    path: Path
    """The path as given on the command line, for messages."""
    zenoh_peer: str | None = None
    warnings: tuple[Problem, ...] = field(default=(), compare=False)
    """Accepted keys that have no effect yet."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the machines, in the order of the file."""
        return tuple(machine.id for machine in self.machines)
