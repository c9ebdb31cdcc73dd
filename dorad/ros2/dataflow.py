"""The dataflow as its bridge sees it: events, outputs, and the counters of its edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorad.node.attachment import attached
from dorad.node.inputs import RingInput
from dorad.node.node import Node
from dorad.ros2.counts import Count
from dorad.shm.counters import add_lost

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dorad.node.events import Event


class Dataflow:
    """Sends on outputs, from any thread, and counts what does not get through."""

    def __init__(self) -> None:
        self._node: Node | None = None
        self._attachment: Any = None
        self._unsent = Count("messages of ROS 2 not sent")
        self.failed = False
        """Whether something did not get through although no queue policy asked for it, and nobody
        was answered with an error."""

    def attach(self) -> None:
        """Wait until all nodes of the dataflow are ready. Raises RuntimeError."""
        self._node = Node()
        self._attachment = attached(None, None)

    def events(self) -> Iterator[Event]:
        """Yield the events of the bridge's node, in one thread."""
        assert self._node is not None
        yield from self._node

    def send(self, output: str, array: Any, metadata: Mapping[str, Any] | None = None) -> None:
        """Send a message; count it as lost if there is no room for it."""
        assert self._node is not None
        try:
            self._node.send_output(output, array, dict(metadata or {}))
        except RuntimeError as error:
            self._unsent.add(1, str(error))
            self.count_lost((output,), 1)

    def count_lost(self, outputs: Iterable[str], number: int, *, failed: bool = True) -> None:
        """Count messages that never came to outputs, in all edges that lack them."""
        self.failed |= failed
        for output in outputs:
            for outlet in self._attachment.connection.outlets.get(output, ()):
                add_lost(outlet.peer.words, outlet.base, number)

    def count_refused(self, input_id: str, *, failed: bool = True) -> None:
        """Count the message that was just received on an input as one that cannot be read."""
        self.failed |= failed
        for ring in self._attachment.ring_receiver.inputs.of(input_id):
            if isinstance(ring, RingInput):
                ring.inlet.count_unreadable()
                return

    def close(self) -> None:
        """Report the counts."""
        self._unsent.close()
