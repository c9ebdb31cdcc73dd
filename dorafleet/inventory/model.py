"""A checked cluster.yml: frozen values, as the file says them or by default."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from dorad.dataflow.model import Amounts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dorad.dataflow.errors import Problem

COORDINATOR_PORT = 6013
DAEMON_PORT = 53291
ZENOH_PORT = 5456

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Coordinator:
    """Where the robots will find the coordinator."""

    addr: Address
    port: int = COORDINATOR_PORT


@dataclass(frozen=True, slots=True)
class Machine:
    """One robot, and how ssh reaches it."""

    id: str
    host: str
    """A name, an address, or a `Host` of ~/.ssh/config; without the user."""
    user: str | None = None
    """None: as ssh has it, from ~/.ssh/config or the name of who runs this."""
    port: int | None = None
    """Of sshd. None: as ssh has it, from ~/.ssh/config or 22."""
    daemon_port: int = DAEMON_PORT
    labels: Mapping[str, str] = field(default_factory=dict)
    zenoh_addr: Address | None = None
    """The host, where that is an address and the file says nothing else."""
    zenoh_port: int = ZENOH_PORT
    capacity: Amounts = field(default_factory=Amounts)
    """What there is of cores, memory, GPUs and devices, as far as the file says."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A whole file. Every machine's id is unique, and there is at least one."""

    machines: tuple[Machine, ...]
    coordinator: Coordinator
    path: Path
    """The file as it was named, for messages."""
    zenoh_peer: str | None = None
    warnings: tuple[Problem, ...] = field(default=(), compare=False)
    """What is accepted but will not do what the file hopes for."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the machines, in the order of the file."""
        return tuple(machine.id for machine in self.machines)
