"""A fake daemon: a real server of the control API with prepared answers."""

import asyncio
import inspect
import os
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from msgspec import structs

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.peer import Peer
from dorad.control.server import ControlServer
from dorafleet.coordinator.token import make_token
from tests.cli.dora import dora

UUID = "01a210b8-7107-7668-ad50-a69259bce001"
OTHER = "01a210b8-a321-7141-b4aa-1dddd769657e"


def dataflow(
    name: str | None = "demo", status: m.Status = "running", **values: Any
) -> m.DataflowInfo:
    """Return a row of the list of dataflows."""
    given = {"uuid": UUID, "nodes": 2, "cpu": 1.25, "memory": 27_000_000, "started_at": 1000.0}
    return m.DataflowInfo(name=name, status=status, **{**given, **values})


def node(name: str, status: m.NodeStatus = "running", **values: Any) -> m.NodeInfo:
    """Return the info of a node of the dataflow `demo`."""
    given = {
        "dataflow": UUID,
        "dataflow_name": "demo",
        "pid": 4711,
        "restarts": 0,
        "metrics": m.NodeMetrics(cpu=2.5, memory=94_600_000),
    }
    return m.NodeInfo(node=name, status=status, **{**given, **values})


def daemon_status(**values: Any) -> m.DaemonStatus:
    """Return the status of a daemon."""
    given = {
        "version": "0.1.0",
        "protocol": m.PROTOCOL,
        "pid": 99,
        "started_at": 1000.0,
        "dataflows": 1,
        "nodes": 2,
        "state": "/var/lib/dorad/state.db",
    }
    return m.DaemonStatus(**{**given, **values})


class FakeDaemon:
    """Answers methods from `answers`: a struct, an error, or a function that returns either.

    For a stream it is a list of events: it waits at an `asyncio.Event`, and forever at `...`.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.answers: dict[str, Any] = {
            "daemon.status": daemon_status(),
            "dataflow.list": m.DataflowList(dataflows=[dataflow()]),
            "top.history": m.History(at=0.0, step=5.0),
        }
        self.calls: list[tuple[str, Any]] = []
        """Every request: the method and its parameters."""

    def dora(self, *arguments: str, **values: Any) -> CompletedProcess[str]:
        """Run a command against this daemon."""
        env = {"DORA_SOCKET": str(self.socket), "NO_COLOR": "1", **values.pop("env", {})}
        return dora(*arguments, env=env, **values)

    def asked(self, method: str) -> list[Any]:
        """Return the parameters of every call of a method."""
        return [params for name, params in self.calls if name == method]

    def handlers(self) -> Mapping[str, Any]:
        """Return a handler for every method."""
        return {
            name: self._streaming(name) if method.stream else self._answering(name)
            for name, method in m.METHODS.items()
        }

    def _answering(self, name: str) -> Any:
        async def handle(_: Any, params: Any) -> Any:
            answer = self._answer(name, params)
            return await answer if inspect.isawaitable(answer) else answer

        return handle

    def _streaming(self, name: str) -> Any:
        async def handle(call: Any, params: Any) -> Any:
            for event in self._answer(name, params):
                if event is ...:
                    await asyncio.Event().wait()
                elif isinstance(event, asyncio.Event):
                    await event.wait()
                elif isinstance(event, tuple):
                    yield structs.replace(event[0], stream=call.id), event[1]
                else:
                    yield event

        return handle

    def _answer(self, name: str, params: Any) -> Any:
        self.calls.append((name, params))
        answer = self.answers.get(name, m.Nothing())
        if callable(answer):
            answer = answer(params)
        if isinstance(answer, ControlError):
            raise answer
        return answer


class FakeCoordinator(FakeDaemon):
    """The same answers at a port of loopback, for clients with a token."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "none")
        self.folder = folder
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        state = folder / "dorafleet"
        state.mkdir(mode=0o700)
        self.token = make_token(state / "token")

    def admit(self, _: Any, request: Any) -> Peer:
        """Admit a client that sends the token."""
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            raise ControlError("refused", "the token is wrong")
        return Peer(0, 0, 0)

    def dora(self, *arguments: str, **values: Any) -> CompletedProcess[str]:
        """Run a command against this coordinator."""
        env = {
            "DORA_SOCKET": str(self.socket),
            "DORA_COORDINATOR_ADDR": "127.0.0.1",
            "DORA_COORDINATOR_PORT": str(self.port),
            "XDG_STATE_HOME": str(self.folder),
            "NO_COLOR": "1",
        }
        return dora(*arguments, env=env | values.pop("env", {}), **values)


@contextmanager
def fake_daemon() -> Iterator[FakeDaemon]:
    """Run a fake daemon in a thread until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="dora-test-") as folder:  # a socket's path is short
        daemon = FakeDaemon(Path(folder, "control.sock"))
        server = ControlServer(daemon.handlers(), version="dorad 0.1.0")
        with _serving(server, lambda: server.serve(daemon.socket)):
            yield daemon


@contextmanager
def fake_coordinator(folder: Path) -> Iterator[FakeCoordinator]:
    """Run a fake coordinator in a thread until the end of the block."""
    fake = FakeCoordinator(folder)
    server = ControlServer(fake.handlers(), version="0.1.0", name="dorafleet")
    with _serving(server, lambda: server.serve_tcp(fake.listener, fake.admit)):
        yield fake


@contextmanager
def _serving(server: ControlServer, listen: Callable[[], Awaitable[None]]) -> Iterator[None]:
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        await listen()
        ready.set()
        await asyncio.to_thread(done.wait)
        await server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(20)
    try:
        yield
    finally:
        done.set()
        thread.join()


def no_daemon(folder: Path) -> dict[str, str]:
    """Return variables with which a command finds no daemon."""
    return {"DORA_SOCKET": os.fspath(folder / "none.sock"), "NO_COLOR": "1"}
