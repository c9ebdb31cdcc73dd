"""What the parts of the broker share: mailboxes, connections, edges, and what nodes were told."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dorad.daemon.broker.edges import EdgeTable, is_observer
from dorad.daemon.broker.nodeconfig import configuration
from dorad.daemon.broker.nodefacts import NodeFacts
from dorad.node.payload import pack

if TYPE_CHECKING:
    from dorad.daemon.broker.connection import Connection
    from dorad.daemon.broker.edges import Edge
    from dorad.daemon.broker.mailbox import Mailbox
    from dorad.daemon.broker.segments import EdgeKey
    from dorad.dataflow.model import Dataflow
    from dorad.launch.host import FdStore
    from dorad.shm.ring import Counters


class BrokerState:
    """The members of one dataflow and the ways to reach them. Belongs to one event loop."""

    def __init__(self, dataflow: Dataflow, dataflow_id: str, store: FdStore) -> None:
        self.dataflow = dataflow
        self.dataflow_id = dataflow_id
        self.store = store
        self.edges = EdgeTable()
        self.boxes: dict[str, Mailbox] = {}
        self.connections: dict[str, Connection] = {}
        self.node_facts: dict[str, NodeFacts] = {}
        self.gone: set[str] = set()
        self.ended: set[tuple[str, str]] = set()
        """Operators, by node and id, that have ended while the process of their node goes on."""
        self.restarts: dict[str, int] = {}
        self.params: dict[str, dict[str, Any]] = {}
        self.epoch_ns: int | None = None
        """When the barrier opened, on CLOCK_MONOTONIC."""
        self.abort_start: str | None = None
        """Why no node may start."""

    def connection(self, node_id: str) -> Connection | None:
        """Return a node's connection, if it has one."""
        return self.connections.get(node_id)

    def node_of(self, connection: Connection) -> str | None:
        """Return whose connection it is."""
        for node_id, known in self.connections.items():
            if known is connection:
                return node_id
        return None

    def send(
        self, node_id: str, kind: str, fields: dict[str, Any], fds: tuple[int, ...] = ()
    ) -> None:
        """Send a packet to a node, if it is connected."""
        connection = self.connections.get(node_id)
        if connection is not None:
            connection.send(kind, fields, fds)

    def wake(self, node_id: str) -> None:
        """Make a node that sleeps look at its rings. The caller has fenced after its last push.

        It is told over its socket. Its doorbell is an open file that it shares with us: it could
        make a write there block us.
        """
        box = self.boxes.get(node_id)
        if box is not None and box.asleep:
            self.send_ping(node_id)

    def send_ping(self, node_id: str) -> None:
        """Send something that a node reads, and looks around; it does anyway if more is unread."""
        box, connection = self.boxes.get(node_id), self.connections.get(node_id)
        if box is not None and connection is not None and connection.said <= box.seen:
            connection.send("ping", {})

    def edge_counters(self, edge: EdgeKey) -> Counters | None:
        """Return what an edge has seen, None if nobody will ever take what is queued on it."""
        box = self.boxes.get(edge.node)
        if box is None or edge.node in self.gone or edge.ring not in box.rings:
            return None
        return box.counters(edge.ring)

    def receives(self, edge: Edge) -> bool:
        """Tell whether somebody takes, or will take, what comes over an edge."""
        operator = edge.input.partition("/")[0]
        return edge.consumer not in self.gone and (edge.consumer, operator) not in self.ended

    def facts_of(self, node_id: str) -> NodeFacts:
        """Return what holds for a node."""
        return self.node_facts.setdefault(node_id, NodeFacts())

    def welcome(self, node_id: str, connection: Connection) -> None:
        """Let a process take its node's place: everything it maps is its own from now on.

        Raises:
            OSError: descriptors are short.
        """
        box = self.boxes[node_id]
        content = configuration(
            self.dataflow,
            self.dataflow_id,
            box,
            self.edges,
            restart_count=self.restarts.get(node_id, 0),
            params=self.params.get(node_id, {}),
        )
        config = pack(content)
        try:
            box.attach()
            self.connections[node_id] = connection
            connection.on_sent = box.mail_sent
            self.keep_connection(node_id, connection)
            connection.send("welcome", {}, (box.memory, box.bell, box.space, config))
        finally:
            os.close(config)

    # -- what outlives the daemon ------------------------------------------------------------

    def keep_box(self, node_id: str) -> None:
        """Keep a node's mailbox; a guest's ends with the daemon."""
        if not is_observer(node_id):
            box = self.boxes[node_id]
            self.store.store(self.name("box", node_id), (box.memory, box.bell, box.space))

    def keep_connection(self, node_id: str, connection: Connection) -> None:
        """Keep a connection open whatever becomes of the daemon."""
        if not is_observer(node_id):
            name = self.name("conn", node_id, str(connection.pid))
            connection.kept_as = name
            self.store.store(name, (connection.fileno(),))

    def name(self, *parts: str) -> str:
        """Return the name of something kept."""
        return "/".join((self.dataflow_id, *parts))
