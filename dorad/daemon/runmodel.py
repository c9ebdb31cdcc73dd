"""What a run of a dataflow is given and takes over, and what it ends with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from dorad.launch.host import NoStore
from dorad.node import protocol
from dorad.shm import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dorad.control.messages import Share
    from dorad.control.peer import Peer
    from dorad.daemon.broker.readings import EdgeCounters
    from dorad.daemon.rules.exits import Result
    from dorad.daemon.supervisor.ports import PublishEvent
    from dorad.dataflow.model import NodeSpec
    from dorad.launch.fetch import Downloads
    from dorad.launch.helper import HelperHost
    from dorad.launch.host import FdStore, KeptProcess

FORMAT = f"{layout.MAGIC:x}.{protocol.VERSION}.3"
"""Format of shared memory, packets and snapshots. A daemon cannot adopt nodes that use another
format."""


class RunOptions(Struct, frozen=True):
    """How a dataflow runs, beside what its file says."""

    exit_when_nodes_finish: bool | None = None
    """Overrides the flag in the file."""
    stop_after: float | None = None
    """Seconds from the start of the first process to the stop."""
    hot_reload: bool = False
    """Whether nodes and operators reload changed Python files."""
    params: Mapping[str, dict[str, Any]] = {}
    """The parameters that each node starts with."""
    share: Share | None = None
    """How this machine reaches the others, if the dataflow has nodes elsewhere."""
    hold: float | None = None
    """With it, the start barrier opens only after `open_barrier`; after so many seconds the start
    fails."""


DEFAULT_OPTIONS = RunOptions()


class RunServices(Struct, frozen=True):
    """What a daemon does for one of its runs. The defaults are for a run without a daemon."""

    store: FdStore = NoStore()
    """Keeps descriptors for the next daemon."""
    marker: str | None = None
    """Marks processes for the next daemon."""
    admits: Callable[[Peer], bool] | None = None
    """Decides which processes of other users may connect."""
    may_use: Callable[[NodeSpec, Peer], bool] = lambda node, peer: peer.uid in (0, os.getuid())
    """Decides which processes may attach as a dynamic node."""
    helpers: HelperHost | None = None
    """Starts helper processes."""
    downloads: Downloads | None = None
    """Keeps downloaded nodes."""
    on_change: Callable[[], None] = lambda: None
    """Called when `snapshot()` would differ."""
    forget: Callable[[int], None] = lambda pid: None
    """Called after `on_change` with the pid of each process that has exited."""
    on_event: PublishEvent = lambda what, node, text, data: None
    """Called with each event of the run."""


NO_DAEMON = RunServices()


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
