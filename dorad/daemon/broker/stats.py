"""What there is to see of nodes and edges, read from shared words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.daemon.broker.edges import DAEMON, EdgeCounters, is_observer

if TYPE_CHECKING:
    from dorad.daemon.broker.mailbox import Lateness, Vitals
    from dorad.daemon.broker.state import BrokerState
    from dorad.shm.ring import Counters


class Stats:
    """The part of the broker that looks. It costs the nodes nothing."""

    _state: BrokerState

    def vitals(self, node_id: str) -> Vitals:
        """Return a node's signs of life.

        Raises:
            KeyError: there is no such node, or the dataflow has no mailboxes yet or any more.
        """
        return self._state.boxes[node_id].vitals(connected=node_id in self._state.connections)

    def activity(self, node_id: str) -> int:
        """Return a number that changes whenever the node sends or receives something."""
        state = self._state
        seen = [state.edge_counters(edge.key) for edge in state.edges.pushed_by(node_id)]
        box = state.boxes[node_id]
        received = sum(box.counters(name).received for name in box.rings)
        return received + sum(each.sent for each in seen if each is not None)

    def edge_counters_of(self, node_id: str, input_id: str) -> Counters:
        """Return the counters of an input, also of a guest's; `sent` never falls.

        Raises:
            KeyError: there is no such input.
        """
        box = self._state.boxes[node_id]
        rings = [name for name, ring in box.rings.items() if ring.input == input_id]
        fed = [
            e.ring for e in self._state.edges.into(node_id, input_id) if not is_observer(e.source)
        ]
        names = fed or [name for name in rings if not box.rings[name].leaving] or rings
        if not names:
            raise KeyError(input_id)
        return box.counters(names[0])

    def lateness(self) -> list[Lateness]:
        """Return how late nodes are with their timers."""
        boxes = self._state.boxes.items()
        return [late for name, box in boxes if not is_observer(name) for late in box.lateness()]

    def counters(self) -> list[EdgeCounters]:
        """Return what passed over every edge between nodes."""
        result = []
        for edge in self._state.edges:
            if edge.source == DAEMON or is_observer(edge.source) or is_observer(edge.consumer):
                continue
            box = self._state.boxes[edge.consumer]
            seen = box.counters(edge.ring)
            result.append(
                EdgeCounters(
                    source_node=edge.source,
                    output=edge.output,
                    node=edge.consumer,
                    input=edge.input,
                    queue_size=box.rings[edge.ring].plan.queue_size,
                    sent=seen.sent,
                    received=seen.received,
                    dropped=seen.dropped,
                    queued=seen.queued,
                    payload_bytes=seen.payload_bytes,
                    refused=seen.refused,
                    unreadable=seen.unreadable,
                    last_ns=seen.last_ns,
                    latency_sum=seen.latency_sum,
                    latency_diff=seen.latency_diff,
                    limited=box.node.is_limited(edge.input),
                )
            )
        return result
