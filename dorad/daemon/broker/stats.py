"""Counters and signs of life of nodes and edges, read from shared memory."""

from collections.abc import Collection

from dorad.daemon.broker.edges import DAEMON, is_observer
from dorad.daemon.broker.readings import EdgeCounters, Lateness
from dorad.daemon.broker.state import BrokerState
from dorad.daemon.rules.health import Vitals
from dorad.shm.counters import Counters


class Stats:
    """Reads the counters of a dataflow. Reading costs the nodes nothing."""

    def __init__(self, state: BrokerState) -> None:
        self._state = state

    def vitals(self, node_id: str) -> Vitals:
        """Return a node's signs of life.

        Raises:
            KeyError: there is no such node, or the dataflow has not begun, or has ended.
        """
        state = self._state
        return state.mailboxes[node_id].vitals(connected=node_id in state.connections)

    def pid(self, node_id: str) -> int | None:
        """Return the process that has a node's place; None if no process has it."""
        connection = self._state.connections.get(node_id)
        return None if connection is None else connection.pid

    def protocol(self, node_id: str) -> int | None:
        """Return the version of the node API that a node's process and the daemon speak.

        None if no process has its place.
        """
        connection = self._state.connections.get(node_id)
        return None if connection is None else connection.version

    def connected(self) -> frozenset[str]:
        """Return the nodes that have a process in the dataflow, the link process among them."""
        return frozenset(self._state.connections)

    def activity(self, node_id: str) -> int:
        """Return a number that changes whenever the node sends or receives something."""
        state = self._state
        counters = [state.edge_counters(edge.key) for edge in state.edges.pushed_by(node_id)]
        box = state.mailboxes[node_id]
        received = sum(box.counters(name).received for name in box.rings)
        return received + sum(each.sent for each in counters if each is not None)

    def input_counters(self, node_id: str, input_id: str) -> Counters:
        """Return the counters of an input of a node or observer; `sent` never falls.

        Raises:
            KeyError: there is no such input.
        """
        box = self._state.mailboxes[node_id]
        rings = [name for name, ring in box.rings.items() if ring.input == input_id]
        edges = self._state.edges.into(node_id, input_id)
        fed = [edge.ring for edge in edges if not is_observer(edge.source)]
        names = fed or [name for name in rings if not box.rings[name].retiring] or rings
        if not names:
            raise KeyError(input_id)
        return box.counters(names[0])

    def lateness(self) -> list[Lateness]:
        """Return how late nodes are with their timers."""
        boxes = self._state.mailboxes.items()
        return [late for name, box in boxes if not is_observer(name) for late in box.lateness()]

    def at_rest(self, besides: Collection[str] = ()) -> tuple[int, ...] | None:
        """Return all counts of messages if no queue holds one and every attached node sleeps.

        Two equal results in succession mean that nothing happens until a message comes from
        outside. Nodes of `besides` may be awake, and may have queued messages.
        """
        state = self._state
        for name, box in state.mailboxes.items():
            attached = name in state.connections and name not in besides
            if attached and not is_observer(name) and not box.asleep:
                return None
        counts = []
        for edge in self.counters():
            if edge.queued and edge.node in state.connections and edge.node not in besides:
                return None
            counts += [edge.sent, edge.received]
        return tuple(counts)

    def counters(self) -> list[EdgeCounters]:
        """Return the counters of every edge between nodes."""
        result = []
        for edge in self._state.edges:
            if edge.source == DAEMON or is_observer(edge.source) or is_observer(edge.consumer):
                continue
            box = self._state.mailboxes[edge.consumer]
            counted = box.counters(edge.ring)
            result.append(
                EdgeCounters(
                    source_node=edge.source,
                    output=edge.output,
                    node=edge.consumer,
                    input=edge.input,
                    queue_size=box.rings[edge.ring].plan.queue_size,
                    sent=counted.sent,
                    received=counted.received,
                    dropped=counted.dropped,
                    queued=counted.queued,
                    payload_bytes=counted.payload_bytes,
                    refused=counted.refused,
                    unreadable=counted.unreadable,
                    lost=counted.lost,
                    last_ns=counted.last_ns,
                    latency_sum=counted.latency_sum,
                    latency_diff=counted.latency_diff,
                    latencies=box.latencies(edge.ring),
                    limited=box.node.is_limited(edge.input),
                )
            )
        return result
