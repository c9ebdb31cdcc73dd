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
from typing import TYPE_CHECKING, Any, Protocol

from dorad.daemon.connection import Connection
from dorad.daemon.edges import EdgeCounters, edges_of
from dorad.daemon.extensions import KINDS, Extensions
from dorad.daemon.mailbox import Mailbox
from dorad.daemon.pidwatch import PidWatch
from dorad.daemon.samples import Samples
from dorad.node.payload import pack
from dorad.node.protocol import VERSION, Packet, ProtocolError
from dorad.shm import create, doorbell

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.daemon.segments import EdgeKey
    from dorad.dataflow.model import Dataflow
    from dorad.shm.ring import Counters

HELLO_DEADLINE_S = 5.0
"""Seconds a connection may stay open without saying which node it is."""

MAX_SEGMENT = 1 << 40


class BrokerListener(Protocol):
    """Whom the broker tells what nodes do."""

    def on_connected(self, node_id: str, pid: int) -> None:
        """A node called `Node()` and waits at the barrier."""

    def on_outputs_done(self, node_id: str) -> None:
        """A node dropped its `Node`; the process may live on."""

    def on_disconnected(self, node_id: str) -> None:
        """A node's socket is gone."""


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
        self._edges = edges_of(dataflow)
        self._boxes: dict[str, Mailbox] = {}
        self._connections: dict[str, Connection] = {}
        self._strangers: dict[Connection, asyncio.TimerHandle] = {}
        self._waiting: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self._dynamic = PidWatch(self._process_ended)
        self._samples = Samples(self._edges, self)
        self._extensions = Extensions(self)
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
        self._dynamic.close()
        for box in self._boxes.values():
            box.close()
        self._boxes.clear()
        await self._samples.close()

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
            self.send(node_id, "start", {"epoch_ns": self._epoch_ns})

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
        self._samples.orphan(node_id, None)
        self._extensions.leave(node_id)

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
            self.send(node_id, kind, fields)
        elif node_id not in self._gone:
            self._waiting.setdefault(node_id, []).append((kind, fields))

    def send(
        self, node_id: str, kind: str, fields: dict[str, Any], fds: tuple[int, ...] = ()
    ) -> None:
        """Send a packet to a node, if it is connected."""
        connection = self._connections.get(node_id)
        if connection is not None:
            connection.send(kind, fields, fds)
            self._boxes[node_id].mail_sent(connection.sent)

    def connection(self, node_id: str) -> Connection | None:
        """Return a node's connection, if it has one."""
        return self._connections.get(node_id)

    def edge_counters(self, edge: EdgeKey) -> Counters | None:
        """Return what an edge has seen, None if its consumer will never read again."""
        return None if edge.node in self._gone else self._boxes[edge.node].counters(edge.input)

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
                self._samples.grow(node_id, size)
            case "retire":
                self._samples.retire(node_id, packet.number("segment"))
            case "done":
                self._samples.orphan(node_id, connection.pid)
                self._listener.on_outputs_done(node_id)
            case kind if kind in KINDS:
                self._extensions.answer(node_id, packet)
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
        config = pack(box.config)
        try:
            self.send(node_id, "welcome", {}, (box.memory, box.bell, box.space, config))
        finally:
            os.close(config)
        self._introduce(node_id)
        for kind, fields in self._waiting.pop(node_id, []):
            self.send(node_id, kind, fields)

    def _ready(self, node_id: str, connection: Connection) -> None:
        if self._poison is not None:
            connection.send("refused", {"error": self._poison})
            return
        late = self._epoch_ns is not None
        self._listener.on_connected(node_id, connection.pid)
        if late:
            self.send(node_id, "start", {"epoch_ns": self._epoch_ns})

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
            self.send(node_id, "peer", {"node": consumer}, (box.memory, box.bell))
        mine = [edge for edge in self._edges if edge.consumer == node_id]
        for source in sorted({edge.source for edge in mine if edge.blocking}):
            self.send(node_id, "source", {"node": source}, (self._boxes[source].space,))
        self._samples.show(node_id)
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
            self.send(node_id, "edges", {"output": output, "to": to})

    def _process_ended(self, pid: int, node_id: str) -> None:
        """Take back what the process of a dynamic node has left."""
        if node_id not in self._connections and node_id not in self._dynamic:
            self._boxes[node_id].clear_hazards()
            self._extensions.leave(node_id)
        self._samples.orphan(node_id, pid)
