"""What a run of a dataflow is given and takes over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from dorad.launch.host import FdStore, KeptProcess, NoStore
from dorad.node import protocol
from dorad.shm import layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.control.messages import Share
    from dorad.control.peer import Peer
    from dorad.dataflow.model import NodeSpec
    from dorad.launch.fetch import Downloads
    from dorad.launch.helper import HelperHost
    from dorad.trace.store import TraceStore

SNAPSHOT = 3
"""Version of what a daemon stores of a run."""

OLDEST_SNAPSHOT = 3
"""The oldest version that this one reads."""

FORMAT = [layout.MAGIC, protocol.VERSION, SNAPSHOT]
"""Format of shared memory, packets and snapshots; see `can_adopt`."""


def can_adopt(kept: object) -> bool:
    """Return True if this version can adopt nodes of a daemon with another FORMAT, or the same."""
    if not isinstance(kept, list) or len(kept) != len(FORMAT):
        return False  # of release 0.1, which wrote a text
    magic, version, snapshot = kept
    return (
        isinstance(version, int)
        and isinstance(snapshot, int)
        and magic == layout.MAGIC
        and protocol.OLDEST <= version <= protocol.VERSION
        and OLDEST_SNAPSHOT <= snapshot <= SNAPSHOT
    )


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
    stepped: bool = False
    """Whether nodes run one at a time, as the broker's `stepper` lets them."""
    hold: float | None = None
    """With it, the start barrier opens only after `open_barrier`; after so many seconds the start
    fails."""


DEFAULT_OPTIONS = RunOptions()


class RunServices:
    """What a daemon does for one of its runs. This one is for a run without a daemon."""

    store: FdStore = NoStore()
    """Keeps descriptors for the next daemon."""
    marker: str | None = None
    """Marks processes for the next daemon."""
    helpers: HelperHost | None = None
    """Starts helper processes."""
    downloads: Downloads | None = None
    """Keeps downloaded nodes."""
    traces: TraceStore | None = None
    """Keeps the traces of all dataflows of the daemon; without it, the run keeps its own."""
    has_others = False
    """Whether processes of other users may connect."""

    def admits(self, peer: Peer) -> bool:
        """Return True if this process of another user may connect."""
        del peer
        return False

    def may_use(self, node: NodeSpec, peer: Peer) -> bool:
        """Return True if a process may attach as a dynamic node."""
        del node
        return peer.uid in (0, os.getuid())

    def store_snapshot(self) -> None:
        """Store what `snapshot()` of the run returns."""

    def forget(self, pid: int) -> None:
        """Forget a process that has exited; a snapshot without it has been stored."""

    def publish(self, what: str, node: str | None, text: str, data: dict[str, Any]) -> None:
        """Publish an event of the run."""


class Inheritance(Struct, frozen=True):
    """The state that an earlier daemon left of an adopted dataflow."""

    descriptors: dict[str, tuple[int, ...]]
    processes: tuple[KeptProcess, ...]
    snapshot: dict[str, Any]
    started_at: float
    """When the dataflow was started, in seconds since 1970."""
