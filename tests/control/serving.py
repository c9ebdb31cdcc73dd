"""A control server with canned handlers, and a client that knows only JSON and WebSocket."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, unix_connect

from dorad.control import messages as m
from dorad.control.limits import Limits
from dorad.control.peer import peer_of
from dorad.control.server import Call, ControlServer
from tests.harness.waiting import DEADLINE_S

VERSION = "1.2.3"


async def status(call: Call, params: m.Nothing) -> m.DaemonStatus:
    return m.DaemonStatus(
        version=VERSION,
        protocol=m.PROTOCOL,
        pid=call.peer.pid,
        started_at=1.0,
        dataflows=0,
        nodes=0,
        state=call.client,
    )


def event_number(number: int, text: str = "") -> m.Event:
    return m.Event(at=number, dataflow="u", what="node-started", text=text)


class Endless:
    """Handlers that run until they are cancelled, and record it."""

    def __init__(self) -> None:
        self.running = 0
        self.sent = 0
        self._changed = asyncio.Event()

    @property
    def handlers(self) -> dict[str, Any]:
        return {"daemon.status": status, "dataflow.wait": self.wait, "watch": self.watch}

    async def wait(self, call: Call, params: m.Wait) -> m.DataflowState:
        with self._counted():
            await asyncio.Event().wait()
        raise AssertionError

    async def watch(self, call: Call, params: m.Watch) -> AsyncIterator[m.Event]:
        """Yield one event and wait; for the dataflow `flood`, yield events without end."""
        with self._counted():
            while params.dataflow == "flood":
                yield event_number(self.sent, "x" * 10_000)
                self.sent += 1
            yield event_number(0)
            await asyncio.Event().wait()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._move(1)
        try:
            yield
        finally:
            self._move(-1)

    def _move(self, by: int) -> None:
        self.running += by
        self._changed.set()
        self._changed = asyncio.Event()

    async def until_running(self, number: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while self.running != number:
                await self._changed.wait()


@asynccontextmanager
async def serving(
    folder: Path,
    handlers: Mapping[str, Any],
    *,
    limits: Limits | None = None,
    credentials: Any = peer_of,
) -> AsyncIterator[Path]:
    """Run a server in this event loop; yield its socket."""
    server = ControlServer(handlers, version=VERSION, limits=limits, credentials=credentials)
    path = folder / "control.sock"
    await server.serve(path)
    try:
        yield path
    finally:
        async with asyncio.timeout(DEADLINE_S):
            await server.close()


@contextmanager
def serving_beside(
    folder: Path, handlers: Mapping[str, Any], limits: Limits | None = None
) -> Iterator[Path]:
    """Run a server in an event loop of its own thread; yield its socket."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    context = serving(folder, handlers, limits=limits)

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(DEADLINE_S)

    try:
        path = run(context.__aenter__())
        try:
            yield path
        finally:
            run(context.__aexit__(None, None, None))
            run(loop.shutdown_default_executor())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Raw:
    """A client that follows the document and uses no code of dorad."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def receive(self) -> Any:
        async with asyncio.timeout(DEADLINE_S):
            frame = await self.connection.recv()
        return json.loads(frame) if isinstance(frame, str) else frame

    async def ask(self, id_: int, method: str, params: Any = None) -> None:
        await self.send({"id": id_, "method": method, "params": params or {}})

    async def call(self, id_: int, method: str, params: Any = None) -> Any:
        """Return the reply to this id; skip others."""
        await self.ask(id_, method, params)
        while (reply := await self.receive())["id"] != id_:
            pass
        return reply


@asynccontextmanager
async def raw(path: Path, *, greet: bool = True) -> AsyncIterator[Raw]:
    """Connect to a server, and say hello."""
    async with unix_connect(str(path), compression=None, ping_interval=None) as connection:
        client = Raw(connection)
        if greet:
            await client.send({"hello": "test", "protocol": 1})
            assert (await client.receive())["welcome"] == f"dorad {VERSION}"
        yield client
