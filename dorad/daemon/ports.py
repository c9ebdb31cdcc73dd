"""What the supervisor needs from the broker and from the launcher of processes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.dataflow.model import Node
    from dorad.launch.model import Exit


class EdgeCounters(Protocol):
    """What passed over one edge so far: sent = received + dropped + queued."""

    @property
    def source_node(self) -> str:
        """Who sends."""

    @property
    def output(self) -> str:
        """The sender's output."""

    @property
    def node(self) -> str:
        """Who receives."""

    @property
    def input(self) -> str:
        """The receiver's input."""

    @property
    def queue_size(self) -> int:
        """Messages the input keeps for a slow receiver."""

    @property
    def sent(self) -> int:
        """Messages pushed."""

    @property
    def received(self) -> int:
        """Messages taken."""

    @property
    def dropped(self) -> int:
        """Messages that newer ones displaced."""

    @property
    def queued(self) -> int:
        """Messages that wait."""


class Broker(Protocol):
    """The mailboxes of a dataflow, as far as decisions act on them. No call blocks."""

    def node_config(self, node_id: str) -> str:
        """Return the text of DORA_NODE_CONFIG."""

    def open_barrier(self) -> None:
        """Let every `Node()` return, now and later."""

    def poison(self, reason: str) -> None:
        """Let every `Node()` raise, now and later."""

    def stop(self, node_id: str, reason: str) -> None:
        """Send STOP; a second one is not sent."""

    def close_input(self, node_id: str, input_id: str) -> None:
        """Send INPUT_CLOSED after whatever is queued."""

    def node_failed(self, node_id: str, source_node: str, error: str, input_ids: list[str]) -> None:
        """Send NODE_FAILED."""

    def detach(self, node_id: str) -> None:
        """Take note that the node's process is gone for good."""

    def activity(self, node_id: str) -> int:
        """Return a number that changes whenever the node sends or receives."""

    def counters(self) -> Sequence[EdgeCounters]:
        """Return the counters of every edge."""


class Started(Protocol):
    """A node's process."""

    def signal(self, sig: int) -> None:
        """Send `sig` to the whole process group; nothing happens after its end."""

    async def wait(self) -> Exit:
        """Return how the process ended, once all it wrote has been read."""

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines it wrote to stderr."""


StartNode = Callable[["Node", str], Awaitable[Started]]
"""Starts the process of a node, given its DORA_NODE_CONFIG. Raises LaunchError."""

Notice = Callable[[str, "str | None", str], None]
"""Tells the user something about the run: level, the node it is about, one sentence."""
