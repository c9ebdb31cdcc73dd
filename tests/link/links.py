"""Two brokers in this process, which stand for two machines, and a link process for each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from dorad.control.messages import LinkTls
from dorad.daemon.sharelink import read_tls
from dorad.dataflow.model import LINK, Dataflow, NodeSpec, QueuePolicy
from dorad.node.protocol import CONFIG
from tests.daemon.clients import Program, Stage, stage
from tests.daemon.flows import dataflow, node
from tests.harness.ports import free_port
from tests.harness.waiting import DEADLINE_S, until

SENDER = """
import sys, time
import pyarrow as pa
from dora import Node
count, size, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
node = Node()
for number in range(count):
    value = pa.array([number] * max(1, size // 8), type=pa.int64())
    node.send_output("out", value, {"number": number, "name": "frame"})
    if pause:
        time.sleep(pause)
    with open(sys.argv[4], "a") as out:
        out.write(f"{number}\\n")
"""

RECEIVER = """
import sys
from dora import Node
for event in Node():
    if event["type"] == "INPUT":
        value, meta = event["value"], event["metadata"]
        same = value[0].as_py() == value[-1].as_py() == meta["number"]
        with open(sys.argv[1], "a") as out:
            out.write(f"{meta['number']} {len(value)} {value.type} {same} {meta['name']}\\n")
"""


def lines(path: Path) -> list[str]:
    """Return the lines of a file that may not be there yet."""
    return path.read_text().splitlines() if path.exists() else []


class Link:
    """The link process of one machine."""

    def __init__(
        self, on: Stage, config: dict[str, Any], program: tuple[str, ...] = ("-m", "dorad.link")
    ) -> None:
        self.errors = bytearray()
        self._on = on
        self._first = len(on.reports)
        self._config = config
        self.configure()
        self.process = subprocess.Popen(
            [sys.executable, *program],
            env=os.environ | {CONFIG: on.broker.node_config(LINK)},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._reading = asyncio.create_task(asyncio.to_thread(self._read_errors))

    def configure(self, **changed: Any) -> None:
        """Change its configuration."""
        self._config = self._config | changed
        self._on.broker.set_link(self._config | {"tls": contents(self._config.get("tls"))})

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors += line

    @property
    def reports(self) -> list[dict[str, Any]]:
        """Everything that it has reported."""
        return [msgspec.to_builtins(each) for each in self._on.reports[self._first :]]

    def status(self) -> dict[str, Any]:
        """Return the last status; empty before the first."""
        found: dict[str, Any] = {"peers": {}}
        for each in self.reports:
            if each["kind"] == "status":
                found["peers"] |= each["peers"]
                for key in ("outgoing", "incoming"):
                    if each[key]:
                        found[key] = each[key]
        return found if found["peers"] else {}

    def peer(self, machine: str) -> dict[str, Any]:
        """Return the state of the link to a machine; empty before the first status."""
        found: dict[str, Any] = self.status().get("peers", {}).get(machine, {})
        return found

    def events(self) -> list[tuple[str, str]]:
        """Return the events of the other machine, by channel."""
        return [(each["name"], each["event"]) for each in self.reports if each["kind"] == "event"]

    async def until(self, holds: Any, deadline_s: float = DEADLINE_S) -> None:
        """Wait until a condition holds; show what the process said if it does not."""
        await until(
            holds,
            why=lambda: f"{self.process.poll()} {self.status()}\n{self.errors.decode()}",
            deadline_s=deadline_s,
        )

    async def stop(self) -> int:
        """Tell the process to stop, and return its exit code."""
        self._on.broker.notifications.stop(LINK, "MANUAL")
        code = await asyncio.to_thread(self.process.wait, DEADLINE_S)
        await self._end()
        return code

    async def kill(self) -> None:
        """Kill the process."""
        self.process.kill()
        await asyncio.to_thread(self.process.wait, DEADLINE_S)
        await self._end()

    async def _end(self) -> None:
        await self._reading
        assert self.process.stderr is not None
        self.process.stderr.close()


def contents(tls: dict[str, str] | None) -> dict[str, Any] | None:
    """Return the files of a `tls` section as the daemon passes them on."""
    found = None if tls is None else read_tls(LinkTls(**tls))
    return None if found is None else {**msgspec.to_builtins(found), "verify_name": True}


class Connected(Program):
    """A program whose node is connected when the context begins: it misses no message."""

    def __init__(self, on: Stage, node_id: str, program: str, *args: object) -> None:
        super().__init__(on, node_id, program, *args)
        self._event = ("connected", node_id)
        self._events = on.events
        self._before = on.events.count(self._event)

    async def __aenter__(self) -> Connected:
        await until(lambda: self._events.count(self._event) != self._before)
        return self


class Relay:
    """A TCP cable that can be cut."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, target: int) -> Relay:
        found = cls(target)
        await found.heal()
        return found

    async def heal(self) -> None:
        """Pass connections on again."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, back}
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._copy(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        sink.close()


class Pair:
    """Machines `alpha` and `beta`: node `a` on alpha sends to nodes `b` and `c` on beta."""

    def __init__(self, alpha: Stage, beta: Stage, port: int, scheme: str, host: str) -> None:
        self.alpha, self.beta = alpha, beta
        self.links: list[Link] = []
        self.relay: Relay | None = None
        """What beta connects through, if not directly."""
        self._host = host
        self._port = port
        self._scheme = scheme

    def start_alpha(self, *, reliable: bool = False, **changed: Any) -> Link:
        channel = {"name": "a/out", "machine": "beta", "input": "x", "reliable": reliable}
        return self._start(
            self.alpha,
            {"machine": "alpha", "listen": [self._address(self._port)], "outgoing": [channel]}
            | changed,
        )

    def start_beta(self, *, channel: dict[str, Any] | None = None, **changed: Any) -> Link:
        given = {"name": "a/out", "machine": "alpha", "output": "out"} | (channel or {})
        port = self._port if self.relay is None else self.relay.port
        return self._start(
            self.beta,
            {"machine": "beta", "connect": [self._address(port)], "incoming": [given]} | changed,
        )

    def _address(self, port: int) -> str:
        return f"{self._scheme}/{self._host}:{port}"

    @property
    def address(self) -> str:
        """Where alpha listens."""
        return self._address(self._port)

    async def cable(self) -> Relay:
        """Let beta connect through a cable that can be cut."""
        self.relay = await Relay.open(self._port)
        return self.relay

    def _start(self, on: Stage, config: dict[str, Any]) -> Link:
        link = Link(on, {"dataflow": "test-flow"} | config)
        self.links.append(link)
        return link


def with_policy(spec: NodeSpec, policy: QueuePolicy, size: int) -> NodeSpec:
    """Return a node all of whose inputs have this policy and queue size."""
    inputs = tuple(replace(each, queue_policy=policy, queue_size=size) for each in spec.inputs)
    return replace(spec, inputs=inputs)


@contextlib.asynccontextmanager
async def pair(
    policy: QueuePolicy = QueuePolicy.DROP_OLDEST,
    size: int = 100,
    scheme: str = "tcp",
    host: str = "127.0.0.1",
) -> AsyncIterator[Pair]:
    """Alpha with `a`, and beta with `b` and `c`, without any process.

    The inputs of the link and of `b` have this policy.
    """
    first = dataflow(node("a"), with_policy(node(LINK, x="a/out"), policy, size))
    sink = with_policy(node("b", x=f"{LINK}/out"), policy, size)
    other = with_policy(node("c", x=f"{LINK}/out"), QueuePolicy.DROP_OLDEST, size)
    async with machines_of(first, dataflow(node(LINK), sink, other), scheme, host) as found:
        yield found


@contextlib.asynccontextmanager
async def machines_of(
    first: Dataflow, second: Dataflow, scheme: str = "tcp", host: str = "127.0.0.1"
) -> AsyncIterator[Pair]:
    """Two machines with these dataflows, each with a link; alpha's host is a part of a locator.

    Links that are still there at the end are killed.
    """
    async with (
        stage(first, hello_deadline=DEADLINE_S) as alpha,
        stage(second, hello_deadline=DEADLINE_S) as beta,
    ):
        found = Pair(alpha, beta, free_port(), scheme, host)
        try:
            yield found
        finally:
            for link in found.links:
                if link.process.returncode is None:
                    await link.kill()
            if found.relay is not None:
                await found.relay.cut()
