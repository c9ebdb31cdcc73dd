"""What a run of a dataflow takes over from an earlier daemon, and what it ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from dorad.node import protocol
from dorad.shm import layout

if TYPE_CHECKING:
    from dorad.daemon.broker.readings import EdgeCounters
    from dorad.daemon.rules.exits import Result
    from dorad.launch.host import KeptProcess

FORMAT = f"{layout.MAGIC:x}.{protocol.VERSION}.3"
"""Format of shared memory, packets and snapshots. A daemon cannot adopt nodes that use another
format."""


class Ended(Struct, frozen=True):
    """Result of a run."""

    results: tuple[Result, ...]
    """One for each node that the daemon starts, in the order of their ends."""
    edges: tuple[EdgeCounters, ...]
    seconds: float
    """From the start of the first process to the end of the last."""
    failure: str = ""
    """Why the start failed for a reason outside the nodes; empty if it did not."""

    @property
    def ok(self) -> bool:
        """Whether every node ended well."""
        return not self.failure and all(result.ok for result in self.results)


class Inheritance(Struct, frozen=True):
    """The state that an earlier daemon left of an adopted dataflow."""

    descriptors: dict[str, tuple[int, ...]]
    processes: tuple[KeptProcess, ...]
    snapshot: dict[str, Any]
    started_at: float
    """When the dataflow was started, in seconds since 1970."""
