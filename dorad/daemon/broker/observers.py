"""Observers: temporary participants that watch or feed a dataflow without being part of it."""

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from dorad.daemon.broker.edges import Edge, edge_of, is_observer
from dorad.daemon.broker.listener import Listener
from dorad.daemon.broker.mailbox import Mailbox
from dorad.daemon.broker.segments import Segments
from dorad.daemon.broker.state import BrokerState
from dorad.daemon.broker.wiring import Wiring
from dorad.dataflow.model import Input, NodeKind, NodeSpec, QueuePolicy

Targets = tuple[tuple[str, str], ...]
"""Inputs, as (node, input)."""

_log = logging.getLogger(__name__)


class Observers:
    """Mailboxes and edges that neither results nor snapshots contain; they end with the daemon.

    An observer never makes a producer wait. One without a process counts messages: each new one
    displaces the oldest.
    """

    def __init__(
        self,
        state: BrokerState,
        segments: Segments,
        wiring: Wiring,
        listener: Listener,
        forget: Callable[[str], None],
    ) -> None:
        """`forget` is called with the id of each observer that is about to be removed."""
        self._state = state
        self._segments = segments
        self._wiring = wiring
        self._listener = listener
        self._forget = forget

    async def add(
        self,
        observer_id: str,
        inputs: Sequence[Input] = (),
        outputs: Mapping[str, Targets] | None = None,
    ) -> None:
        """Add an observer that receives `inputs` and whose `outputs` feed inputs of nodes.

        Raises:
            ValueError: the id does not start with a dot, or is taken.
            KeyError: there is no such node or input.
            OSError: there is no memory left.
        """
        state = self._state
        outputs = outputs or {}
        if not is_observer(observer_id) or "/" in observer_id:
            raise ValueError(f"{observer_id!r} is not a valid observer id: it must start with '.'")
        if observer_id in state.mailboxes:
            raise ValueError(f"there is an observer {observer_id!r} already")
        items = tuple(replace(item, queue_policy=QueuePolicy.DROP_OLDEST) for item in inputs)
        for consumer, input_id in (target for targets in outputs.values() for target in targets):
            state.mailboxes[consumer].inputs[input_id]
        node = NodeSpec(
            observer_id, NodeKind.DYNAMIC, path="dynamic", inputs=items, outputs=tuple(outputs)
        )
        box = await asyncio.to_thread(Mailbox, node)
        if observer_id in state.mailboxes:
            box.close()
            raise ValueError(f"there is an observer {observer_id!r} already")
        state.mailboxes[observer_id] = box
        _log.debug("observer %s joins, receives %s, sends %s", observer_id, items, outputs)
        try:
            self._connect_edges(node, outputs)
        except BaseException:
            self.remove(observer_id)
            raise

    def _connect_edges(self, node: NodeSpec, outputs: Mapping[str, Targets]) -> None:
        state = self._state
        for item in node.inputs:
            edge = edge_of(state.dataflow, node.id, item, item.id)
            if edge is not None and (edge.daemon or edge.source in state.mailboxes):
                self._wiring.connect(edge)
        for output, targets in outputs.items():
            for consumer, input_id in targets:
                box = state.mailboxes[consumer]
                item = box.inputs[input_id]
                name = box.free_name(f"{input_id}@{node.id}")
                box.add_ring(name, item, source=node.id)
                blocking = item.queue_policy is QueuePolicy.BACKPRESSURE
                edge = Edge(node.id, output, consumer, input_id, name, blocking)
                self._wiring.announce(consumer, name, edge)
                self._wiring.connect(edge)

    def connect(self, observer_id: str, sock: socket.socket, pid: int) -> None:
        """Reserve a connection for an observer: process `pid` has the other end of `sock`.

        Takes ownership of the socket.
        """
        self._listener.reserve(sock, observer_id, pid)

    def remove(self, observer_id: str) -> None:
        """Remove an observer; queued messages of it are still received.

        An unknown observer has no effect.
        """
        state = self._state
        self._forget(observer_id)
        box = state.mailboxes.get(observer_id)
        if box is None or not is_observer(observer_id):
            return
        _log.debug("observer %s leaves", observer_id)
        connection = state.connections.pop(observer_id, None)
        if connection is not None:
            # The process checks its socket when this word changes, and finds it closed.
            box.mail_sent(box.mail + 1)
            connection.close("the observer was removed")
        for edge in state.edges.received_by(observer_id):
            self._wiring.disconnect(edge)
        for edge in state.edges.pushed_by(observer_id):
            self._wiring.retire_ring(edge.consumer, edge.ring, edge)
        self._segments.orphan(observer_id, None)
        del state.mailboxes[observer_id]
        state.conditions.pop(observer_id, None)
        box.close_rings()
        box.close()
