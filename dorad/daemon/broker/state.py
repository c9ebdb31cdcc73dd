"""The state that the parts of a broker share: mailboxes, connections, edges, conditions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dorad.daemon.broker.conditions import Conditions
from dorad.daemon.broker.edges import EdgeTable, is_observer
from dorad.daemon.broker.nodeconfig import configuration
from dorad.daemon.storing import call_now
from dorad.dataflow.model import LINK
from dorad.dataflow.recording import is_recorder
from dorad.node.payload import pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.daemon.broker.connection import Connection
    from dorad.daemon.broker.edges import Edge, EdgeKey
    from dorad.daemon.broker.mailbox import Mailbox
    from dorad.daemon.storing import WhenStored
    from dorad.dataflow.model import Dataflow
    from dorad.launch.host import FdStore
    from dorad.shm.counters import Counters


class BrokerState:
    """The participants of one dataflow and the ways to reach them. Belongs to one event loop."""

    def __init__(
        self,
        dataflow: Dataflow,
        dataflow_id: str,
        store: FdStore,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called when the snapshot would differ; `store` outlives the daemon."""
        self.dataflow = dataflow
        self.dataflow_id = dataflow_id
        self.store = store
        self.changed = changed
        self.edges = EdgeTable()
        self.mailboxes: dict[str, Mailbox] = {}
        self.connections: dict[str, Connection] = {}
        self.conditions: dict[str, Conditions] = {}
        self.exited: set[str] = set()
        """Nodes whose process has exited and will not be restarted."""
        self.ended_operators: set[tuple[str, str]] = set()
        """Operators, as (node, operator), that have ended in a process that still runs."""
        self.restarts: dict[str, int] = {}
        self.params: dict[str, dict[str, Any]] = {}
        self.epoch_ns: int | None = None
        """When the start barrier opened, on CLOCK_MONOTONIC."""
        self.when_stored: WhenStored = call_now
        """Calls a function once the snapshot is stored."""
        self.link: dict[str, Any] | None = None
        """The configuration of the link process, if the dataflow has one; it holds its key."""
        self.abort_reason: str | None = None
        """Why no node may start; None if they may."""
        self.refused: set[str] = set()
        """Nodes that were sent `abort_reason`."""

    def connection(self, node_id: str) -> Connection | None:
        """Return the connection of a node; None if it has none."""
        return self.connections.get(node_id)

    def node_of(self, connection: Connection) -> str | None:
        """Return the node of a connection; None if it has no node's place."""
        for node_id, known in self.connections.items():
            if known is connection:
                return node_id
        return None

    def send(
        self, node_id: str, kind: str, fields: dict[str, Any], fds: tuple[int, ...] = ()
    ) -> None:
        """Send a packet to a node if it is connected."""
        connection = self.connections.get(node_id)
        if connection is not None:
            connection.send(kind, fields, fds)

    def wake(self, node_id: str) -> None:
        """Make a sleeping node read its rings. The caller has fenced after its last push.

        The packet goes over the node's socket, not its doorbell: the doorbell is an open file that
        the node shares, and the node could make a write to it block the daemon.
        """
        box = self.mailboxes.get(node_id)
        if box is not None and box.asleep:
            self.send_ping(node_id)

    def send_ping(self, node_id: str) -> None:
        """Send a packet that makes a node read its rings, unless it has unread packets already."""
        box, connection = self.mailboxes.get(node_id), self.connections.get(node_id)
        if box is not None and connection is not None and connection.accepted <= box.seen:
            connection.send("ping", {})

    def edge_counters(self, key: EdgeKey) -> Counters | None:
        """Return the counters of an edge; None if no process will receive its queued messages."""
        box = self.mailboxes.get(key.node)
        if box is None or key.node in self.exited or key.ring not in box.rings:
            return None
        return box.counters(key.ring)

    def receives(self, edge: Edge) -> bool:
        """Return True if a present or later process receives the messages of an edge."""
        operator = edge.input.partition("/")[0]
        ended = (edge.consumer, operator) in self.ended_operators
        return edge.consumer not in self.exited and not ended

    def conditions_of(self, node_id: str) -> Conditions:
        """Return the conditions that hold for a node."""
        return self.conditions.setdefault(node_id, Conditions())

    def welcome(self, node_id: str, connection: Connection) -> None:
        """Give a process its node's place, mailbox and configuration.

        Raises:
            OSError: there are no descriptors left.
        """
        box = self.mailboxes[node_id]
        content = configuration(
            self.dataflow,
            self.dataflow_id,
            box,
            self.edges,
            restart_count=self.restarts.get(node_id, 0),
            params=self.params.get(node_id, {}),
            link=self.link if node_id == LINK else None,
            recorded_params=self.params if is_recorder(self.mailboxes[node_id].node) else None,
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

    def keep_mailbox(self, node_id: str) -> None:
        """Store a node's mailbox for the next daemon; an observer's ends with this one."""
        if not is_observer(node_id):
            box = self.mailboxes[node_id]
            self.store.store(self.name("box", node_id), (box.memory, box.bell, box.space))

    def keep_connection(self, node_id: str, connection: Connection) -> None:
        """Store a node's connection for the next daemon; an observer's ends with this one."""
        if not is_observer(node_id):
            name = self.name("conn", node_id, str(connection.pid))
            connection.kept_as = name
            self.store.store(name, (connection.fileno(),))

    def name(self, *parts: str) -> str:
        """Return the name under which a part of this dataflow is stored."""
        return "/".join((self.dataflow_id, *parts))
