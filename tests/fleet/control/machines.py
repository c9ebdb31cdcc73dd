"""A fleet on this machine: a coordinator over TLS, and robots with a real dorad and agent each."""

import asyncio
import json
import os
import re
import signal
import ssl
import subprocess
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.target import Tcp, TlsFiles
from dorafleet.coordinator import accessmessages
from dorafleet.coordinator.accessmessages import ENROL_TOKEN
from tests.harness.commands import Service, run_command
from tests.harness.ports import free_port
from tests.harness.waiting import DEADLINE_S, until

TALKER = """\
import pyarrow as pa
from dora import Node
node = Node()
sent = 0
for event in node:
    if event["type"] == "INPUT":
        sent += 1
        node.send_output("out", pa.array([sent]))
"""

LISTENER = """\
from dora import Node
node = Node()
for event in node:
    if event["type"] == "INPUT":
        print("got", event["value"][0].as_py(), flush=True)
"""

DESCRIPTOR = {
    "nodes": [
        {
            "id": "talker",
            "path": "talker.py",
            "inputs": {"tick": "dora/timer/millis/50"},
            "outputs": ["out"],
            "deploy": {"machine": "arm1"},
        },
        {
            "id": "listener",
            "path": "listener.py",
            # Tests count every message, also on a machine that has no time for the listener.
            "inputs": {"in": {"source": "talker/out", "queue_policy": "backpressure"}},
            "deploy": {"machine": "arm2"},
        },
    ]
}


class Program:
    """A process that writes a log, and can be killed and started again."""

    def __init__(self, log: Path, program: str, *arguments: str | Path) -> None:
        self.log = log
        self._program = program
        self._arguments = arguments
        self._process: Service | None = None

    def start(self) -> None:
        self._process = Service(self._program, self._arguments, self.log)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._process = None

    async def until_logged(self, pattern: str) -> re.Match[str]:

        def look() -> re.Match[str] | None:
            # First whether it has ended: it may print as its last act.
            ended = self._process is not None and self._process.poll() is not None
            text = self.log.read_text() if self.log.exists() else ""
            found = re.search(pattern, text)
            assert found or not ended, f"it has ended: {text}"
            return found

        found = await until(look, why=lambda: f"{pattern} is not in: {self.log.read_text()}")
        assert found is not None
        return found


class Robot:
    """A dorad with its agent."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        control = folder / "run" / "control.sock"
        self.dorad = Program(
            folder / "dorad.log",
            *("dorad", "--runtime-dir", folder / "run"),
            *("--state-dir", folder / "state"),
        )
        self.agent = Program(
            folder / "agent.log",
            *("dorad-agent", "--state-dir", folder / "agent", "run", "--socket", control),
        )

    def join(self, robot: str, port: int, token: accessmessages.EnrolToken) -> None:
        """Enrol with a token, as an operator does at the robot."""
        done = run_command(
            "dorad-agent",
            [
                *("--state-dir", self.folder / "agent", "join", f"127.0.0.1:{port}"),
                *("--robot", robot),
                *("--authority", b64encode(ssl.PEM_cert_to_DER_cert(token.authority)).decode()),
            ],
            given=token.token,
            timeout=DEADLINE_S,
        )
        assert done.returncode == 0, done.stderr


class Fleet:
    """The processes of a fleet."""

    def __init__(
        self, folder: Path, machines: Sequence[Mapping[str, Any]] = ({"id": "arm1"}, {"id": "arm2"})
    ) -> None:
        """`machines` are blocks of a cluster.yml. SSH reaches none of them."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.port = free_port()
        cluster = folder / "cluster.yml"
        blocks = [
            {**each, "host": "127.0.0.1", "port": free_port(), "zenoh_port": free_port()}
            for each in machines
        ]
        coordinator = {"addr": "127.0.0.1", "port": self.port}
        cluster.write_text(json.dumps({"coordinator": coordinator, "machines": blocks}))
        (folder / "flow").mkdir()
        (folder / "flow" / "talker.py").write_text(TALKER)
        (folder / "flow" / "listener.py").write_text(LISTENER)
        self.coordinator = Program(
            folder / "coordinator.log",
            *("dorafleet", "serve", cluster, "--state", folder / "state", "--tls"),
        )
        self.robots = {each["id"]: Robot(folder / each["id"]) for each in machines}

    @property
    def path(self) -> str:
        """The file of the dataflow."""
        return str(self.folder / "flow" / "flow.yml")

    @property
    def target(self) -> Tcp:
        state = self.folder / "state"
        return Tcp("127.0.0.1", self.port, state / "token", TlsFiles(state / "authority.pem"))

    def client(self) -> AsyncClient:
        return AsyncClient(self.target)

    async def start(self) -> None:
        self.coordinator.start()
        for robot in self.robots.values():
            robot.dorad.start()
        await self.coordinator.until_logged(r"ready at \S+ port \d+")
        async with self.client() as client:
            for id_, robot in self.robots.items():
                await robot.dorad.until_logged("ready at")
                token = await client.call(ENROL_TOKEN, accessmessages.EnrolRef(robot=id_))
                await asyncio.to_thread(robot.join, id_, self.port, token)
                robot.agent.start()
        for robot in self.robots.values():
            await robot.agent.until_logged(r"coordinator \S+: connected")

    def end(self) -> None:
        for robot in self.robots.values():
            robot.agent.end()
            robot.dorad.end()
        self.coordinator.end()

    async def again(self) -> AsyncClient:
        """Connect to the coordinator once it can be reached."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                return await self.client().open()
            except ControlError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)


@asynccontextmanager
async def fleet_of_two(folder: Path) -> AsyncIterator[Fleet]:
    """Run a fleet until the block ends."""
    os.environ.pop("DORA_SOCKET", None)
    async with AsyncExitStack() as stack:
        fleet = Fleet(folder)
        stack.callback(fleet.end)
        await fleet.start()
        yield fleet
