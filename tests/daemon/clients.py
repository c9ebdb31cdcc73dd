"""Clients of a broker: well-behaved nodes as processes, and a raw socket that sends anything."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dorad.daemon.broker.broker import HELLO_DEADLINE_S, Broker
from dorad.daemon.storing import Changes
from dorad.dataflow.model import Dataflow
from dorad.link.reports import ChannelEvent, Status
from dorad.node.protocol import VERSION
from tests.daemon.flows import dataflow, node
from tests.harness.waiting import DEADLINE_S, until

SENDER = """
import pyarrow as pa
from dora import Node
node = Node()
number = 0
while (event := node.next(timeout=0.002))["type"] != "STOP":
    # Every other message lies in a sample; sizes vary, so the daemon is asked for memory.
    node.send_output("out", bytes(8 if number % 2 else 1000 * (number % 500)))
    number += 1
"""

RECEIVER = """
from dora import Node
for event in Node():
    if event["type"] == "INPUT":
        len(event["value"])
"""

PROGRAMS = {"a": SENDER, "b": RECEIVER}


class EventRecorder:
    """Records the events of a broker."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []
        self.reports: list[Status | ChannelEvent] = []
        """Of the link process."""
        self.notes: list[tuple[str, str]] = []

    def on_note(self, node_id: str, text: str) -> None:
        self.notes.append((node_id, text))

    def on_link(self, report: Status | ChannelEvent) -> None:
        self.reports.append(report)

    def on_connected(self, node_id: str, pid: int) -> None:
        self.events.append(("connected", node_id))

    def on_waiting(self, node_id: str, pid: int) -> None:
        self.events.append(("waiting", node_id))

    def on_outputs_done(self, node_id: str) -> None:
        self.events.append(("done", node_id))

    def on_disconnected(self, node_id: str) -> None:
        self.events.append(("disconnected", node_id))


def four_nodes() -> Dataflow:
    """`a` sends to `b` and `c`, which the dataflow starts, and to `d`, which is dynamic."""
    return dataflow(
        node("a"), node("b", x="a/out"), node("c", x="a/out"), node("d", x="a/out", dynamic=True)
    )


class Stage:
    """An open broker, its socket and its events."""

    def __init__(self, broker: Broker, path: Path, events: EventRecorder) -> None:
        self.broker = broker
        self.path = path
        self.events = events.events
        self.reports = events.reports
        self.notes = events.notes

    def received(self, node_id: str) -> int:
        """Return the number of messages a node has received."""
        return sum(edge.received for edge in self.broker.stats.counters() if edge.node == node_id)

    async def makes_progress(self) -> None:
        """Wait until `b` has received more messages from `a` than can have been queued."""
        goal = self.received("b") + 30
        await until(lambda: self.received("b") >= goal)

    def client(self) -> "Client":
        """A new connection."""
        return Client(self.path)

    @asynccontextmanager
    async def attached(self, node_id: str) -> AsyncIterator["Client"]:
        """A connection that has attached as a node."""
        with self.client() as client:
            await client.attach(node_id)
            yield client


@asynccontextmanager
async def stage(
    flow: Dataflow | None = None,
    *,
    hello_deadline: float = HELLO_DEADLINE_S,
    changes: Changes | None = None,
) -> AsyncIterator[Stage]:
    """A broker whose barrier is open, without any node."""
    events = EventRecorder()
    with tempfile.TemporaryDirectory(prefix="dora-test-") as folder:
        path = Path(folder) / "broker.sock"
        broker = Broker(
            flow or four_nodes(),
            "test",
            path,
            events,
            hello_deadline=hello_deadline,
            changes=changes,
        )
        await broker.open()
        broker.notifications.open_barrier()
        try:
            yield Stage(broker, path, events)
        finally:
            await broker.close()


@asynccontextmanager
async def pair(on: Stage) -> AsyncIterator[None]:
    """The nodes `a` and `b` as processes that exchange messages continually."""
    processes = {name: start(on.broker, name) for name in PROGRAMS}
    try:
        await on.makes_progress()
        yield
        assert [process.poll() for process in processes.values()] == [None, None]
        for name, process in processes.items():
            on.broker.notifications.stop(name, "MANUAL")
            assert await asyncio.to_thread(process.wait, DEADLINE_S) == 0
    finally:
        for process in processes.values():
            process.kill()
            await asyncio.to_thread(process.wait)


def start(broker: Broker, name: str) -> subprocess.Popen[bytes]:
    """Start the process of node `a` or `b`."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAMS[name]],
        env={**os.environ, "DORA_NODE_CONFIG": broker.node_config(name)},
    )


class Program:
    """The process of a node that runs a program; killed at the end, and its node released."""

    def __init__(self, on: Stage, node_id: str, program: str, *args: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, args)],
            env={**os.environ, "DORA_NODE_CONFIG": on.broker.node_config(node_id)},
            stdin=subprocess.PIPE,
        )

    async def __aenter__(self) -> "Program":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.process.kill()
        await self.ended()

    async def ended(self) -> int:
        """Wait for the end of the process and return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await asyncio.to_thread(self.process.wait, DEADLINE_S)


class Client:
    """A socket to a broker, for anything that can be sent over it."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(os.fspath(path))
        self._socket.setblocking(False)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def peek(self) -> bytes:
        """Return the next bytes unconsumed; empty at the end. Raises BlockingIOError."""
        return self._socket.recv(1 << 17, socket.MSG_PEEK)

    def receive_descriptors(self) -> list[int]:
        """Return descriptors of the next packet; the caller closes them. Raises BlockingIOError."""
        _, fds, _, _ = socket.recv_fds(self._socket, 1 << 17, 8)
        return fds

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send one packet unchanged."""
        socket.send_fds(self._socket, [data], list(fds))

    def send_packet(self, kind: str, **fields: Any) -> None:
        """Send one packet of the protocol."""
        self.send(json.dumps({"t": kind, **fields}).encode())

    def hello(
        self, node_id: str, *, dynamic: bool = False, version: int = VERSION, **more: Any
    ) -> None:
        """Say hello as a node."""
        me = {"dynamic": dynamic, "pid": os.getpid(), "version": version}
        self.send_packet("hello", node=node_id, **me, **more)

    async def attach(self, node_id: str) -> None:
        """Attach as a node; packets after the welcome stay unread."""
        self.hello(node_id, dynamic=node_id == "d")
        assert (await self.packet())["t"] == "welcome"

    async def packet(self) -> dict[str, Any]:
        """Return the next packet; descriptors with it are lost. Empty at the end."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DEADLINE_S):
                data = await loop.sock_recv(self._socket, 1 << 17)
        except ConnectionResetError:
            data = b""
        return json.loads(data) if data else {}

    async def packet_of(self, kind: str) -> dict[str, Any]:
        """Return the next packet of a kind, skipping others; fails at the end."""
        while (packet := await self.packet()).get("t") != kind:
            assert packet, f"the connection ended before a packet {kind!r}"
        return packet

    async def descriptors_with(self, kind: str) -> list[int]:
        """Return the descriptors that come with the next packet of a kind."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    data, fds, _, _ = socket.recv_fds(self._socket, 1 << 17, 4)
                except BlockingIOError:
                    await asyncio.sleep(0.005)
                    continue
                if json.loads(data)["t"] == kind:
                    return fds
                for descriptor in fds:
                    os.close(descriptor)

    async def ended(self) -> list[dict[str, Any]]:
        """Wait for the end of the connection; return the packets received before."""
        output = []
        while packet := await self.packet():
            output.append(packet)
        return output
