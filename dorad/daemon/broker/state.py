"""The state that the parts of a broker share: mailboxes, connections, edges, conditions."""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dorad.daemon.broker.connection import Connection
from dorad.daemon.broker.edges import Edge, EdgeKey, EdgeTable, is_observer
from dorad.daemon.broker.mailbox import Mailbox
from dorad.daemon.broker.nodeconfig import configuration
from dorad.daemon.storing import Changes
from dorad.dataflow.model import LINK, Dataflow
from dorad.dataflow.recording import is_recorder
from dorad.launch.host import FdStore
from dorad.node.payload import pack
from dorad.shm.counters import Counters

MANUAL = "MANUAL"

Condition = tuple[str, dict[str, Any]]
"""The kind and the fields of a packet."""


class Conditions:
    """The conditions that hold for a node now, as the packets that report them.

    Every process of the node gets them after its welcome. So nothing is lost if a packet was sent
    to a process that had already ended.
    """

    def __init__(self, conditions: Iterable[Condition] = ()) -> None:
        self._all: dict[tuple[str, str], Condition] = {}
        for kind, fields in conditions:
            self._all[_key(kind, fields)] = (kind, fields)

    def __iter__(self) -> Iterator[Condition]:
        """Yield the conditions in the order of their arrival, a stop last."""
        yield from sorted(self._all.values(), key=lambda condition: condition[0] == "stop")

    def __len__(self) -> int:
        return len(self._all)

    def add(self, kind: str, fields: dict[str, Any]) -> bool:
        """Add a condition; return False if it held already."""
        key = _key(kind, fields)
        condition = (kind, fields)
        if self._all.get(key) == condition:
            return False
        self._all[key] = condition
        return True

    def holds(self, kind: str, subject: str = "") -> bool:
        """Return True if a condition of an input or a source holds."""
        return (kind, subject) in self._all

    def drop(self, kind: str, subject: str = "") -> bool:
        """Remove a condition of an input or a source; return False if it did not hold."""
        return self._all.pop((kind, subject), None) is not None

    def drop_manual_stop(self) -> None:
        """Remove a manual stop: it was meant for one process, and another one takes its place."""
        condition = self._all.get(("stop", ""))
        if condition is not None and condition[1]["reason"] == MANUAL:
            del self._all["stop", ""]


def _key(kind: str, fields: dict[str, Any]) -> tuple[str, str]:
    names = ("input", "source_node_id", "operator", "node")
    return kind, next((fields[name] for name in names if fields.get(name)), "")


class BrokerState:
    """The participants of one dataflow and the ways to reach them. Belongs to one event loop."""

    def __init__(
        self,
        dataflow: Dataflow,
        dataflow_id: str,
        store: FdStore,
        changes: Changes,
        params: Mapping[str, dict[str, Any]],
        *,
        stepped: bool = False,
    ) -> None:
        """`changes` learns when the snapshot would differ; `store` outlives the daemon."""
        self.dataflow = dataflow
        self.stepped = stepped
        """Whether a `Stepper` runs one node at a time."""
        self.dataflow_id = dataflow_id
        self.store = store
        self.changed = changes.changed
        self.when_stored = changes.when_stored
        self.edges = EdgeTable()
        self.mailboxes: dict[str, Mailbox] = {}
        self.connections: dict[str, Connection] = {}
        self.conditions: dict[str, Conditions] = {}
        self.exited: set[str] = set()
        """Nodes whose process has exited and will not be restarted."""
        self.ended_operators: set[tuple[str, str]] = set()
        """Operators, as (node, operator), that have ended in a process that still runs."""
        self.restarts: dict[str, int] = {}
        self.params = {node_id: dict(values) for node_id, values in params.items()}
        self.epoch_ns: int | None = None
        """When the start barrier opened, on CLOCK_MONOTONIC."""
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
            stepped=self.stepped,
            params=self.params.get(node_id, {}),
            link=self.link if node_id == LINK else None,
            recorded_params=self.params if is_recorder(self.mailboxes[node_id].node) else None,
        )
        config = pack(content)
        try:
            box.attach()
            self.connections[node_id] = connection
            connection.count_in(box)
            self.keep_connection(node_id, connection)
            connection.send(
                "welcome",
                {"version": connection.version},
                (box.memory, box.bell, box.space, config),
            )
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
