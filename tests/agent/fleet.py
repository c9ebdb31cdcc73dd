"""A fleet of one robot: an authority, a coordinator that does what the test says, the agent."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from websockets.asyncio.server import Server, ServerConnection, serve

from dorad.agent.status import read_status
from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.limits import MAX_REPLY
from dorad.control.messages.agent import (
    AGENT_ATTACH,
    AGENT_WATCH,
    SHARE_SET,
    AgentReport,
    AgentWatch,
    Attach,
    Attached,
    ShareSet,
    ShareState,
)
from dorad.control.target import Accepted
from dorad.control.tls import Identity, server_context
from dorafleet.ca.authority import Authority, open_authority
from tests.agent.fakedorad import FakeDorad
from tests.agent.orders import order
from tests.harness.commands import Service, run_command, succeeds
from tests.harness.waiting import DEADLINE_S, until

ROBOT = "arm1"


class Coordinator:
    """Accepts the agent, and gives the test a client of it."""

    def __init__(self, folder: Path, authority: Authority, host: str = "127.0.0.1") -> None:
        self.authority = authority
        self.host = host
        self.port = 0
        self.hears: asyncio.Queue[ServerConnection] = asyncio.Queue()
        """Connections that were accepted, and not used yet."""
        self.refusal: tuple[int, bytes] | None = None
        """How every connection is answered."""
        self.retry_after = ""
        """A header of these answers."""
        self.tries = 0
        self._controls: list[Control] = []
        self._folder = folder
        self._server: Server | None = None

    async def start(
        self, identity: Identity | None = None, authority: Authority | None = None
    ) -> None:
        """Listen at a port, which stays the same."""
        signed = (authority or self.authority).issue_pair(
            identity or Identity("coordinator", "base")
        )
        (self._folder / "server.pem").write_text(signed.issued.chain)
        (self._folder / "server.key").write_text(signed.key)
        (self._folder / "root.pem").write_text(self.authority.certificate)
        context = server_context(
            self._folder / "server.pem", self._folder / "server.key", self._folder / "root.pem"
        )
        self._server = await serve(
            self._handle,
            self.host,
            self.port,
            ssl=context,
            process_request=self._process,
            compression=None,
            max_size=MAX_REPLY,
            close_timeout=0.2,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Close what a test has attached, and stop."""
        for control in self._controls:
            await control.close()
        await self.stop()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _handle(self, connection: ServerConnection) -> None:
        self.hears.put_nowait(connection)
        await connection.wait_closed()

    def _process(self, connection, request):
        self.tries += 1
        if self.refusal is not None:
            status, body = self.refusal
            answer = connection.respond(status, body.decode())
            if self.retry_after:
                answer.headers["Retry-After"] = self.retry_after
            return answer
        return None

    async def accepted(self) -> ServerConnection:
        """Return the next connection of the agent."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.hears.get()

    async def client(self) -> AsyncClient:
        """Return a client of the agent that connects next."""
        connection = await self.accepted()
        target = Accepted(connection, ROBOT)
        return await AsyncClient(target).open()

    async def attach(self, epoch: int = 1, audit: str = "", pause: float = 0.0) -> Control:
        """Return the attached agent that connects next, and stays until it is attached."""
        attach = Attach(
            coordinator="test:1", epoch=epoch, audit=audit, time=time.time(), pause=pause
        )
        while True:
            try:
                client = await self.client()
                try:
                    attached = await client.call(AGENT_ATTACH, attach)
                except BaseException:
                    await client.close()
                    raise
            except ControlError as error:
                if error.code != "unavailable":
                    raise
                continue  # killed since it connected
            self._controls.append(Control(client, attached))
            return self._controls[-1]

    async def attach_running(self) -> Control:
        """Attach the agent, and give it the share of `order`, which runs."""
        control = await self.attach()
        await send(control, order())
        await control.reaches("running")
        return control


class Control:
    """An attached agent: its client, and what it has reported."""

    def __init__(self, client: AsyncClient, attached: Attached) -> None:
        self.client = client
        self.attached = attached
        self.shares = {share.dataflow: share for share in attached.shares}
        self.releases = {each.dataflow: each for each in attached.releases}
        self.reports: list[AgentReport] = []
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        try:
            watch = AgentWatch(heartbeat=0.2)
            async with self.client.stream(AGENT_WATCH, watch) as reports:
                async for report in reports:
                    self.reports.append(report)
                    self.shares |= {share.dataflow: share for share in report.shares}
                    self.releases |= {each.dataflow: each for each in report.releases}
                    for name in report.removed:
                        self.shares.pop(name, None)
        except ControlError:
            return

    async def close(self) -> None:
        self._watching.cancel()
        await asyncio.wait([self._watching])
        await self.client.close()

    async def reaches(self, status: str, dataflow: str = "flow", generation: int = 0) -> ShareState:
        """Wait until the agent reports this status."""

        def holds() -> bool:
            share = self.shares.get(dataflow)
            return share is not None and share.status == status and share.generation >= generation

        try:
            await until(holds)
        except AssertionError:
            raise AssertionError(
                f"{dataflow} is not {status}: {self.shares.get(dataflow)}"
            ) from None
        return self.shares[dataflow]


class Agent:
    """The program in its own folder."""

    def __init__(self, folder: Path, socket: Path) -> None:
        self.folder = folder / "agent"
        self._log = folder / "agent.log"
        self._socket = socket
        self.process: Service | None = None

    def command(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return run_command(
            "dorad-agent", ["--state-dir", self.folder, *words], given=stdin, timeout=DEADLINE_S
        )

    def enrol(
        self,
        authority: Authority,
        *ports: int,
        robot: str = ROBOT,
        replace: bool = False,
        host: str = "127.0.0.1",
    ) -> None:
        """Give it an identity, as over SSH."""
        more = ["--replace"] if replace else []
        out = succeeds(self.command("enrol", robot, *more))
        issued = authority.issue(json.loads(out)["csr"], Identity("robot", robot))
        answer = {
            "robot": robot,
            "coordinators": [f"{host}:{port}" for port in ports],
            "chain": issued.chain,
            "authority": authority.certificate,
        }
        succeeds(self.command("certify", *more, stdin=json.dumps(answer)))

    def start(self, **env: str) -> None:
        self.process = Service(
            "dorad-agent",
            ["-v", "--state-dir", self.folder, "run", "--socket", self._socket],
            self._log,
            env=os.environ | env,
        )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Send SIGTERM, and return the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(DEADLINE_S)

    def clear(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    async def says(self, text: str) -> None:
        """Wait until its log has a text."""
        await until(lambda: text in self.log)

    async def connection(self, state: str):
        """Wait until its status has this state of the connection; return the status."""

        def holds() -> bool:
            try:
                return read_status(self.folder).connection.state == state
            except ControlError:
                return False

        await until(holds)
        return read_status(self.folder)


@asynccontextmanager
async def fleet(folder: Path, socket: Path) -> AsyncIterator[tuple[Coordinator, Agent]]:
    """Yield a coordinator that listens, and an agent that is enrolled and runs."""
    coordinator = Coordinator(folder, open_authority(folder / "ca"))
    await coordinator.start()
    agent = Agent(folder, socket)
    await asyncio.to_thread(agent.enrol, coordinator.authority, coordinator.port)
    agent.start()
    try:
        yield coordinator, agent
    except BaseException:
        print(agent.log[-8000:])
        raise
    finally:
        agent.clear()
        await coordinator.close()


@asynccontextmanager
async def robot(folder: Path) -> AsyncIterator[tuple[Coordinator, Agent, FakeDorad]]:
    """Yield a fleet whose robot has a daemon of the test."""
    dorad = FakeDorad(folder / "dorad.sock")
    await dorad.start()
    try:
        async with fleet(folder, dorad.path) as (coordinator, agent):
            yield coordinator, agent, dorad
    finally:
        await dorad.stop()


async def send(control: Control, share: ShareSet) -> ShareState:
    """Send an order; return the answer."""
    return await control.client.call(SHARE_SET, share)
