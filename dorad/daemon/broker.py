"""The broker: hands nodes their mailboxes and descriptors, and tells them what happens.

It takes no part in the data: once two nodes have each other's descriptors, messages pass between
them without it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from dorad.daemon.connection import Connection
from dorad.daemon.mailbox import Mailbox
from dorad.daemon.pidwatch import PidWatch
from dorad.daemon.segments import EdgeKey, Segments
from dorad.dataflow.model import NodeOutput, QueuePolicy
from dorad.node.protocol import VERSION, Packet, ProtocolError
from dorad.shm import create, doorbell

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.dataflow.model import Dataflow

HELLO_DEADLINE_S = 5.0
"""Seconds a connection may stay open without saying which node it is."""

MAX_SEGMENT = 1 << 40

REAP_S = 1.0
"""Seconds between looks at the samples that ended processes have left in queues."""


class EdgeCounters(NamedTuple):
    """What passed over one edge so far; sent = received + dropped + queued, at rest.

    `refused` messages were never sent: the dataflow was stopping while they waited for room.
    """

    source_node: str
    output: str
    node: str
    input: str
    queue_size: int
    sent: int
    received: int
    dropped: int
    queued: int
    payload_bytes: int
    refused: int


class BrokerListener(Protocol):
    """Whom the broker tells what nodes do."""

    def on_connected(self, node_id: str, pid: int) -> None:
        """A node called `Node()` and waits at the barrier."""

    def on_outputs_done(self, node_id: str) -> None:
        """A node dropped its `Node`; the process may live on."""

    def on_disconnected(self, node_id: str) -> None:
        """A node's socket is gone."""


class _Edge(NamedTuple):
    output: str
    consumer: str
    input: str
    blocking: bool
    source: str

    @property
    def key(self) -> EdgeKey:
        return EdgeKey(self.consumer, self.input)


class Broker:
    """The mailboxes and connections of one dataflow. Belongs to one event loop."""

    def __init__(
        self,
        dataflow: Dataflow,
        dataflow_id: str,
        socket_path: Path,
        listener: BrokerListener,
        *,
        hello_deadline: float = HELLO_DEADLINE_S,
    ) -> None:
        self._dataflow = dataflow
        self._dataflow_id = dataflow_id
        self._path = socket_path
        self._listener = listener
        self._hello_deadline = hello_deadline
        self._edges = [
            _Edge(
                output=item.source.output,
                consumer=node.id,
                input=item.id,
                blocking=item.queue_policy is QueuePolicy.BACKPRESSURE,
                source=item.source.node,
            )
            for node in dataflow.nodes
            for item in node.all_inputs
            if isinstance(item.source, NodeOutput)
        ]
        self._boxes: dict[str, Mailbox] = {}
        self._connections: dict[str, Connection] = {}
        self._strangers: dict[Connection, asyncio.TimerHandle] = {}
        self._waiting: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self._dynamic = PidWatch(self._process_ended)
        self._segments = Segments()
        self._reaper: asyncio.TimerHandle | None = None
        self._growing: set[asyncio.Task[None]] = set()
        self._gone: set[str] = set()
        self._epoch_ns: int | None = None
        self._poison: str | None = None
        self._server: socket.socket | None = None

    # -- life --------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make all mailboxes and listen.

        Raises:
            OSError: /dev/shm is full, or the socket cannot be made.
        """
        create.sweep()
        try:
            for node in self._dataflow.nodes:
                self._boxes[node.id] = Mailbox(self._dataflow, node, self._dataflow_id)
            server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            self._server = server
            self._path.unlink(missing_ok=True)
            server.bind(os.fspath(self._path))
            self._path.chmod(0o600)
            server.listen(128)
        except BaseException:
            await self.close()
            raise
        asyncio.get_running_loop().add_reader(server.fileno(), self._accept)

    async def close(self) -> None:
        """End every connection and let go of every descriptor and of the socket's name."""
        loop = asyncio.get_running_loop()
        if self._server is not None:
            loop.remove_reader(self._server.fileno())
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)
        for connection in (*self._strangers, *self._connections.values()):
            connection.close("the dataflow has ended")
        if self._reaper is not None:
            self._reaper.cancel()
        self._dynamic.close()
        self._segments.close()
        for box in self._boxes.values():
            box.close()
        self._boxes.clear()
        # What is being made for a connection that is gone is closed as soon as it is there.
        while self._growing:
            await asyncio.wait(self._growing)

    def node_config(self, node_id: str) -> str:
        """Return the text of DORA_NODE_CONFIG for a node."""
        return json.dumps(
            {
                "node_id": node_id,
                "dataflow_id": self._dataflow_id,
                "daemon_socket": os.fspath(self._path),
            }
        )

    # -- what the supervisor decides ---------------------------------------------------------

    def open_barrier(self) -> None:
        """Let `Node()` return in every node that waits, and at once in later ones."""
        if self._epoch_ns is not None or self._poison is not None:
            return
        self._epoch_ns = time.monotonic_ns()
        for node_id in list(self._connections):
            self._send(node_id, "start", {"epoch_ns": self._epoch_ns})

    def poison(self, reason: str) -> None:
        """Make `Node()` raise in every node that waits, and in later ones."""
        self._poison = reason
        for connection in list(self._connections.values()):
            connection.send("refused", {"error": reason})

    def stop(self, node_id: str, reason: str) -> None:
        """Send STOP with `reason`, MANUAL or ALL_INPUTS_CLOSED."""
        self._tell(node_id, "stop", {"reason": reason})

    def close_input(self, node_id: str, input_id: str) -> None:
        """Send INPUT_CLOSED, which the node sees after what is queued."""
        self._tell(node_id, "closed", {"input": input_id})

    def node_failed(self, node_id: str, source_node: str, error: str, input_ids: list[str]) -> None:
        """Send NODE_FAILED."""
        fields = {"source_node_id": source_node, "error": error, "affected_input_ids": input_ids}
        self._tell(node_id, "failed", fields)

    def detach(self, node_id: str) -> None:
        """Take note that a node's process is gone for good: nobody waits for it any more."""
        self._gone.add(node_id)
        self._take_back(node_id)
        self._boxes[node_id].close_rings()
        for producer in {edge.source for edge in self._edges if edge.consumer == node_id}:
            self._send_edges(producer, {e.output for e in self._edges if e.consumer == node_id})

    def released(self, node_id: str) -> None:
        """Take note that a node's process has ended and that another one will take its place.

        What waits for the node goes on waiting, and newer messages displace it: nobody blocks on a
        node that is not there.
        """
        self._take_back(node_id)

    def _take_back(self, node_id: str) -> None:
        """Undo what an ended process has left: its connection, its borrows, its samples."""
        connection = self._connections.get(node_id)
        if connection is not None:
            # A child that it forked may keep the socket open.
            connection.close("its process has ended")
        self._boxes[node_id].clear_hazards()
        self._orphan(node_id, None)

    def activity(self, node_id: str) -> int:
        """Return a number that changes whenever the node sends or receives something."""
        sent = sum(
            self._boxes[edge.consumer].counters(edge.input).sent
            for edge in self._edges
            if edge.source == node_id
        )
        box = self._boxes[node_id]
        seen = [box.counters(input_id) for input_id in box.rings]
        return sent + sum(each.received for each in seen)

    def counters(self) -> list[EdgeCounters]:
        """Return what passed over every edge between nodes."""
        result = []
        for edge in self._edges:
            box = self._boxes[edge.consumer]
            seen = box.counters(edge.input)
            result.append(
                EdgeCounters(
                    source_node=edge.source,
                    output=edge.output,
                    node=edge.consumer,
                    input=edge.input,
                    queue_size=box.rings[edge.input].queue_size,
                    sent=seen.sent,
                    received=seen.received,
                    dropped=seen.dropped,
                    queued=seen.queued,
                    payload_bytes=seen.payload_bytes,
                    refused=seen.refused,
                )
            )
        return result

    def _tell(self, node_id: str, kind: str, fields: dict[str, Any]) -> None:
        """Send something that a node must learn, also if it attaches only later."""
        if node_id in self._connections:
            self._send(node_id, kind, fields)
        elif node_id not in self._gone:
            self._waiting.setdefault(node_id, []).append((kind, fields))

    def _send(
        self, node_id: str, kind: str, fields: dict[str, Any], fds: tuple[int, ...] = ()
    ) -> None:
        connection = self._connections.get(node_id)
        if connection is not None:
            connection.send(kind, fields, fds)
            self._boxes[node_id].mail_sent(connection.sent)

    # -- connections -------------------------------------------------------------------------

    def _accept(self) -> None:
        if self._server is None:
            return
        try:
            sock, _ = self._server.accept()
        except OSError:
            # The other side has given up already, or descriptors are short: it will try again.
            return
        sock.setblocking(False)
        connection = Connection(sock, self._on_packet, self._on_end)
        if connection.uid not in (0, os.getuid()):
            connection.close("another user's process")
            return
        loop = asyncio.get_running_loop()
        self._strangers[connection] = loop.call_later(
            self._hello_deadline, connection.close, "said nothing"
        )

    def _on_end(self, connection: Connection, reason: str) -> None:
        handle = self._strangers.pop(connection, None)
        if handle is not None:
            handle.cancel()
        for node_id, known in list(self._connections.items()):
            if known is connection:
                del self._connections[node_id]
                self._nobody_reads(node_id)
                self._listener.on_disconnected(node_id)

    def _nobody_reads(self, node_id: str) -> None:
        if node_id in self._gone:
            return
        self._boxes[node_id].leave()
        for edge in self._edges:
            if edge.consumer == node_id and edge.blocking:
                doorbell.ring(self._boxes[edge.source].space)

    def _on_packet(self, connection: Connection, packet: Packet) -> None:
        if connection in self._strangers:
            if packet.kind != "hello":
                raise ProtocolError(f"a {packet.kind!r} where 'hello' was due")
            self._hello(connection, packet)
            return
        node_id = next(n for n, known in self._connections.items() if known is connection)
        match packet.kind:
            case "ready":
                self._ready(node_id, connection)
            case "grow":
                size = packet.number("size")
                if not 0 < size <= MAX_SEGMENT:
                    raise ProtocolError(f"a segment of {size} bytes")
                task = asyncio.ensure_future(self._grow(node_id, connection, size))
                self._growing.add(task)
                task.add_done_callback(self._growing.discard)
            case "retire":
                self._retire(node_id, packet.number("segment"))
            case "done":
                self._orphan(node_id, connection.pid)
                self._listener.on_outputs_done(node_id)
            case unknown:
                raise ProtocolError(f"the unknown packet {unknown!r}")

    def _hello(self, connection: Connection, packet: Packet) -> None:
        node_id = packet.text("node")
        refusal = self._refusal(node_id, packet)
        self._strangers.pop(connection).cancel()
        if refusal is not None:
            connection.send("refused", {"error": refusal})
            connection.close("refused")
            return
        self._connections[node_id] = connection
        box = self._boxes[node_id]
        box.attach()
        if box.node.is_dynamic:
            self._dynamic.add(connection.pid, node_id)
        self._send(node_id, "welcome", {}, (box.memory, box.bell, box.space))
        self._introduce(node_id)
        for kind, fields in self._waiting.pop(node_id, []):
            self._send(node_id, kind, fields)

    def _ready(self, node_id: str, connection: Connection) -> None:
        if self._poison is not None:
            connection.send("refused", {"error": self._poison})
            return
        late = self._epoch_ns is not None
        self._listener.on_connected(node_id, connection.pid)
        if late:
            self._send(node_id, "start", {"epoch_ns": self._epoch_ns})

    def _refusal(self, node_id: str, packet: Packet) -> str | None:
        if packet.number("version") != VERSION:
            return (
                "the node's version of the node API does not fit the daemon's; install one of both"
            )
        dynamic = packet.fields.get("dynamic") is True
        box = self._boxes.get(node_id)
        if box is None:
            return f"the running dataflow has no node {node_id!r}"
        if dynamic and not box.node.is_dynamic:
            return f"node {node_id!r} is started by its dataflow; only `path: dynamic` nodes attach"
        if self._poison is not None:
            return self._poison
        if node_id in self._connections:
            pid = self._connections[node_id].pid
            return f"node {node_id!r} is already attached, as process {pid}"
        return None

    def _introduce(self, node_id: str) -> None:
        """Hand a node what it needs to reach the nodes it sends to and receives from."""
        consumers = {edge.consumer for edge in self._edges if edge.source == node_id}
        for consumer in sorted(consumers):
            box = self._boxes[consumer]
            self._send(node_id, "peer", {"node": consumer}, (box.memory, box.bell))
        mine = [edge for edge in self._edges if edge.consumer == node_id]
        for source in sorted({edge.source for edge in mine if edge.blocking}):
            self._send(node_id, "source", {"node": source}, (self._boxes[source].space,))
        sources = {edge.source for edge in mine}
        for segment in self._segments.of(sources):
            self._send(node_id, "segment", {"segment": segment.number}, (segment.memory,))
        self._send_edges(node_id, {edge.output for edge in self._edges if edge.source == node_id})

    def _send_edges(self, node_id: str, outputs: set[str]) -> None:
        for output in sorted(outputs):
            to = [
                [edge.consumer, self._boxes[edge.consumer].rings[edge.input].base, edge.blocking]
                for edge in self._edges
                if edge.source == node_id
                and edge.output == output
                and edge.consumer not in self._gone
            ]
            self._send(node_id, "edges", {"output": output, "to": to})

    # -- samples -----------------------------------------------------------------------------

    async def _grow(self, node_id: str, connection: Connection, size: int) -> None:
        self._reap()
        try:
            # Allocating zeroes the pages, which takes a quarter of a second for each gigabyte.
            memory = await asyncio.to_thread(create.create, size)
        except OSError as error:
            if self._connections.get(node_id) is connection:
                self._send(node_id, "full", {"error": str(error)})
            return
        if self._connections.get(node_id) is not connection:
            # Whoever has taken its place meanwhile did not ask for it.
            os.close(memory)
            return
        number = self._segments.add(node_id, connection.pid, memory)
        # Subscribers hear of it before its owner can put anything into it.
        for consumer in self._consumers(node_id):
            self._send(consumer, "segment", {"segment": number}, (memory,))
        self._send(node_id, "grown", {"segment": number}, (memory,))

    def _consumers(self, node_id: str) -> set[str]:
        return {edge.consumer for edge in self._edges if edge.source == node_id}

    def _retire(self, node_id: str, number: int) -> None:
        try:
            self._segments.retire(number, node_id)
        except KeyError:
            raise ProtocolError(f"segment {number} is not the node's own") from None
        self._tell_retired(node_id, number)

    def _tell_retired(self, owner: str, number: int) -> None:
        for consumer in self._consumers(owner):
            self._send(consumer, "retired", {"segment": number})

    def _orphan(self, node_id: str, pid: int | None) -> None:
        """Let go of an ended process's segments once no queued message lies in them."""
        heads = {
            edge.key: self._boxes[edge.consumer].counters(edge.input).sent
            for edge in self._edges
            if edge.source == node_id
        }
        self._segments.orphan(node_id, pid, heads)
        self._reap()

    def _reap(self) -> None:
        for segment in self._segments.reap(self._passed):
            self._tell_retired(segment.owner, segment.number)
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        if self._segments.orphans:
            self._reaper = asyncio.get_running_loop().call_later(REAP_S, self._reap)

    def _passed(self, edge: EdgeKey) -> int:
        """Return how many messages of an edge were received or dropped, or never will be read."""
        seen = self._boxes[edge.node].counters(edge.input)
        return seen.sent if edge.node in self._gone else seen.sent - seen.queued

    def _process_ended(self, pid: int, node_id: str) -> None:
        """Take back what the process of a dynamic node has left."""
        if node_id not in self._connections and node_id not in self._dynamic:
            self._boxes[node_id].clear_hazards()
        self._orphan(node_id, pid)
