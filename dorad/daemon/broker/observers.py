"""Observers: who watches or feeds a dataflow for a while without being part of it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from dorad.daemon.broker.edges import Edge, edge_of, is_observer
from dorad.daemon.broker.mailbox import Mailbox
from dorad.dataflow.model import NodeKind, NodeSpec, QueuePolicy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dorad.daemon.broker.rewiring import Rewiring
    from dorad.daemon.broker.samples import Samples
    from dorad.daemon.broker.state import BrokerState
    from dorad.dataflow.model import Input

Targets = tuple[tuple[str, str], ...]
"""Inputs, as (node, input)."""

_log = logging.getLogger(__name__)


class Observers:
    """Their mailboxes and edges, which no result and no snapshot speaks of.

    A guest that receives never makes anybody wait. One to which no process attaches is a ghost:
    messages come, displace each other, and are counted.
    """

    def __init__(self, state: BrokerState, samples: Samples, rewiring: Rewiring) -> None:
        self._state = state
        self._samples = samples
        self._rewiring = rewiring

    async def add(
        self, observer_id: str, inputs: Sequence[Input], outputs: Mapping[str, Targets]
    ) -> None:
        """Make room for a guest, feed its inputs, and let its outputs feed inputs of nodes.

        Raises:
            ValueError: its id does not start with a dot, or is taken.
            KeyError: there is no such node or input.
            OSError: there is no room for it.
        """
        state = self._state
        if not is_observer(observer_id) or "/" in observer_id:
            raise ValueError(f"a guest's id starts with a dot, and {observer_id!r} is none")
        if observer_id in state.boxes:
            raise ValueError(f"there is a guest {observer_id!r} already")
        items = tuple(replace(item, queue_policy=QueuePolicy.DROP_OLDEST) for item in inputs)
        for consumer, input_id in (target for targets in outputs.values() for target in targets):
            state.boxes[consumer].inputs[input_id]
        node = NodeSpec(
            observer_id, NodeKind.DYNAMIC, path="dynamic", inputs=items, outputs=tuple(outputs)
        )
        box = await asyncio.to_thread(Mailbox, node)
        if observer_id in state.boxes:
            box.close()
            raise ValueError(f"there is a guest {observer_id!r} already")
        state.boxes[observer_id] = box
        _log.debug("guest %s joins, receives %s, sends %s", observer_id, items, outputs)
        try:
            self._wire(node, outputs)
        except BaseException:
            self.remove(observer_id)
            raise

    def _wire(self, node: NodeSpec, outputs: Mapping[str, Targets]) -> None:
        state = self._state
        for item in node.inputs:
            edge = edge_of(state.dataflow, node.id, item, item.id)
            if edge is not None and (edge.daemon or edge.source in state.boxes):
                self._rewiring.connect(edge)
        for output, targets in outputs.items():
            for consumer, input_id in targets:
                box = state.boxes[consumer]
                item = box.inputs[input_id]
                name = box.free_name(f"{input_id}@{node.id}")
                box.add_ring(name, item, source=node.id)
                blocking = item.queue_policy is QueuePolicy.BACKPRESSURE
                edge = Edge(node.id, output, consumer, input_id, name, blocking)
                self._rewiring.announce(consumer, name, edge)
                self._rewiring.connect(edge)

    def remove(self, observer_id: str) -> None:
        """Let go of a guest; what it has sent is still received. It need not be there."""
        state = self._state
        box = state.boxes.get(observer_id)
        if box is None or not is_observer(observer_id):
            return
        _log.debug("guest %s leaves", observer_id)
        connection = state.connections.pop(observer_id, None)
        if connection is not None:
            # It looks at its socket when this word moves, and finds that it has ended.
            box.mail_sent(box.mail + 1)
            connection.close("the guest was let go")
        for edge in state.edges.received_by(observer_id):
            self._rewiring.disconnect(edge)
        for edge in state.edges.pushed_by(observer_id):
            self._rewiring.give_up(edge.consumer, edge.ring, edge)
        self._samples.orphan(observer_id, None)
        del state.boxes[observer_id]
        state.node_facts.pop(observer_id, None)
        box.close_rings()
        box.close()
