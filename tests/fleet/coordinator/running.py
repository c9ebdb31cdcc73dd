"""A coordinator in its own process, and a client that knows only JSON and WebSocket."""

import asyncio
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.protocol import State

from dorad.control.tls import client_context
from tests.harness.commands import Service, run_command
from tests.harness.waiting import DEADLINE_S

CLUSTER = """\
coordinator: {addr: 10.0.0.1}
machines:
  - {id: arm1, host: 10.0.0.11, labels: {zone: hall}}
  - {id: arm2, host: 10.0.0.12}
"""


class RefusedError(Exception):
    """An error that the coordinator answered."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code = error["code"]
        self.error = error


class Process:
    """A running coordinator."""

    def __init__(self, process: Service, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.port = int(process.wait_until_printed(r"ready at \S+ port (\d+)")[1])

    @property
    def token(self) -> str:
        return (self.folder / "token").read_text().strip()

    @property
    def tls(self) -> bool:
        return (self.folder / "coordinator.pem").exists()

    def url(self, path: str = "/") -> str:
        return f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.port}{path}"

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


def arguments(folder: Path, *more: str, file: str = CLUSTER) -> list[str]:
    """Return the arguments of a coordinator whose files are in a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "cluster.yml").write_text(file)
    return ["serve", str(folder / "cluster.yml"), "--state", str(folder), "--port", "0", *more]


def log_of(folder: Path) -> Path:
    """Return the file to which a coordinator prints: beside its folder, which is its own."""
    return folder.with_name(f"{folder.name}.log")


def refused(folder: Path, *more: str) -> str:
    """Run a coordinator that must refuse to start, and return what it prints."""
    done = run_command("dorafleet", arguments(folder, *more), timeout=DEADLINE_S)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@contextmanager
def coordinator(folder: Path, *more: str, file: str = CLUSTER, **env: str) -> Iterator[Process]:
    """Start a coordinator whose files are in a folder; kill it in the end if it still runs."""
    words = arguments(folder, *more, file=file)
    with Service("dorafleet", words, log_of(folder), env={**os.environ, **env}) as process:
        try:
            yield Process(process, folder)
        finally:
            process.kill()


class Client:
    """A client that waits for each answer."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._id = 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the result. Raises RefusedError."""
        self._id += 1
        request = {"id": self._id, "method": method, "params": params}
        await self.connection.send(json.dumps(request))
        answer = json.loads(await self.connection.recv())
        assert answer["id"] == self._id
        if "error" in answer:
            raise RefusedError(answer["error"])
        result: dict[str, Any] = answer["result"]
        return result


@asynccontextmanager
async def connected(
    process: Process, tls: ssl.SSLContext | None = None, path: str = "/", **headers: str
) -> AsyncIterator[Any]:
    """Open a WebSocket with the token, or with other headers, or with a context for TLS."""
    sent = headers or ({} if tls else {"Authorization": f"Bearer {process.token}"})
    if tls is None and process.tls:
        tls = client_context(process.folder / "authority.pem")
    async with asyncio.timeout(DEADLINE_S):
        connection = await connect(
            process.url(path),
            additional_headers=sent,
            compression=None,
            ssl=tls,
            close_timeout=1,
            # The deadline above is the only one, also on a busy machine.
            open_timeout=None,
            ping_interval=None,
        )
        try:
            yield connection
        finally:
            # Closing one that its peer has just closed may meet a transport without a loop.
            if connection.state is State.OPEN:
                await connection.close()
            else:
                await connection.wait_closed()


@asynccontextmanager
async def client(
    process: Process, name: str = "test 1", *, tls: ssl.SSLContext | None = None, **headers: str
) -> AsyncIterator[Client]:
    """Connect and shake hands."""
    async with connected(process, tls, **headers) as connection:
        await connection.send(json.dumps({"hello": name, "protocol": 1}))
        welcome = json.loads(await connection.recv())
        assert welcome["welcome"].startswith("dorafleet ")
        yield Client(connection)
