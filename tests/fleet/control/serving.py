"""The fleet half of a coordinator in this process, with agents that connect to it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.limits import Limits
from dorad.control.messages.agent import Revocation
from dorad.control.peer import Peer
from dorad.control.server import Authenticate, Call, ControlServer
from dorafleet.coordinator.access import AGENT_PATH
from dorafleet.coordinator.control import FleetControl
from dorafleet.coordinator.keptincidents import IncidentSettings, KeptIncidents
from dorafleet.coordinator.keptreleases import Folder
from dorafleet.coordinator.members import Members
from dorafleet.coordinator.messages import METHODS
from dorafleet.coordinator.renewal import Sign
from dorafleet.coordinator.supply import Supply
from dorafleet.coordinator.writer import Writer
from dorafleet.inventory.model import Cluster, Machine
from dorafleet.notify.settings import NotifySettings
from dorafleet.store.model import Store
from dorafleet.store.sqlite import SqliteStore
from tests.harness.waiting import DEADLINE_S, until

from .agents import FakeAgent

TALK = {
    "nodes": [
        {"id": "talker", "path": "talker.py", "outputs": ["out"], "deploy": {"machine": "arm1"}},
        {
            "id": "listener",
            "path": "listener.py",
            "inputs": {"in": "talker/out"},
            "deploy": {"machine": "arm2"},
        },
    ]
}
"""A dataflow over two robots."""


def machine(id_: str, number: int, **labels: str) -> Machine:
    return Machine(
        id_, f"10.0.0.{number}", labels=labels, zenoh_addr=ip_address(f"10.0.0.{number}")
    )


MACHINES = (machine("arm1", 1, zone="hall"), machine("arm2", 2), machine("arm3", 3))


def _peer(connection: ServerConnection, request: Request) -> Peer:
    name = request.headers.get("X-Robot")
    if name is None:
        raise ControlError("refused", "who are you?")
    return Peer(0, os.getuid(), os.getgid(), name=name, role="robot")


def with_commands(connection: ServerConnection, request: Request) -> Peer:
    """Admit robots, and commands as `ann`."""
    if "X-Robot" in request.headers:
        return _peer(connection, request)
    return Peer(0, os.getuid(), os.getgid(), name="ann")


class Fleet:
    """A leader and its agents."""

    def __init__(
        self, control: FleetControl, store: Store, port: int, server: ControlServer
    ) -> None:
        self.control = control
        self.server = server
        self.store = store
        self.port = port
        self.agents: dict[str, FakeAgent] = {}
        self._table = control.table

    async def agent(self, robot: str, **options: Any) -> FakeAgent:
        """Connect an agent, and wait until the leader knows it."""
        agent = FakeAgent(robot, self.port, **options)
        self.agents[robot] = agent
        await self.connect(agent)
        return agent

    async def connect(self, agent: FakeAgent) -> None:
        known = self.control.robots.get(agent.robot)
        # Of a connection that was cut, the coordinator may hear only now.
        before = known.client
        await agent.start()
        await self.until(lambda: known.client not in (None, before))

    async def disconnect(self, agent: FakeAgent) -> None:
        """Stop an agent, and wait until the leader knows."""
        await agent.stop()
        await self.until(lambda: self.control.robots.get(agent.robot).client is None)

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until a condition holds."""
        await until(holds)

    async def call(self, method: str, params: m.Struct | None = None) -> Any:
        """Call a method like a client."""
        call = Call(1, method, Peer(0, os.getuid(), os.getgid(), name="ann"), "test 1")
        return await self._table[method](call, m.Nothing() if params is None else params)

    def stream(self, method: str, params: m.Struct) -> Any:
        """Open a stream like a client."""
        call = Call(1, method, Peer(0, os.getuid(), os.getgid(), name="ann"), "test 1")
        return self._table[method](call, params)

    async def start(self, descriptor: dict[str, Any] = TALK, **options: Any) -> m.Started:
        given = {"name": "talk", "path": "/srv/talk.yml", **options}
        started = await self.call("dataflow.start", m.Start(descriptor=descriptor, **given))
        assert isinstance(started, m.Started)
        return started

    async def wait(self, until: m.Until, dataflow: str = "talk") -> m.DataflowState:
        params = m.Wait(dataflow=dataflow, until=until, timeout=DEADLINE_S)
        state = await self.call("dataflow.wait", params)
        assert isinstance(state, m.DataflowState)
        return state

    async def run(self, descriptor: dict[str, Any] = TALK, **options: Any) -> m.Started:
        """Start a dataflow, and wait until it runs."""
        started = await self.start(descriptor, **options)
        await self.wait("running")
        return started

    async def stop_agents(self) -> None:
        for agent in self.agents.values():
            await agent.stop()


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})


@asynccontextmanager
async def leading(
    folder: Path,
    machines: tuple[Machine, ...] = MACHINES,
    *,
    peer: str | None = None,
    store: Store | None = None,
    authenticate: Authenticate | None = None,
    sign: Sign | None = None,
    supply: Supply | None = None,
    uploads: Folder | None = None,
    port: int = 0,
    notify: NotifySettings = NotifySettings(),  # noqa: B008  # it is frozen
    revocations: Callable[[], Sequence[Revocation]] = tuple,
    read_file: Callable[[], Cluster] | None = None,
) -> AsyncIterator[Fleet]:
    """Lead with the store in a folder, or another one, until the block ends."""
    async with AsyncExitStack() as stack:
        if store is None:
            store = await SqliteStore.open(folder / "coordinator.db")
            stack.push_async_callback(store.close)
        term = await stack.enter_async_context(store.lead("test"))
        writer = Writer(store, term)
        members = Members(store, writer, read_file)
        await members.load(machines)
        control = FleetControl(
            *(store, writer, members, peer, lambda: None, sign, supply, notify),
            revocations=revocations,
            uploads=uploads,
            incidents=KeptIncidents(folder / "incidents", IncidentSettings()),
        )
        await control.load()
        sock = socket.create_server(("127.0.0.1", port))
        server = ControlServer(
            control.table,
            version="1",
            methods=METHODS,
            # Many of these serve in one process, each slow to answer then.
            limits=Limits(opening=4096, hello=DEADLINE_S),
            accept={AGENT_PATH: control.connections.accept},
        )
        await server.serve_tcp(sock, authenticate or _peer)
        stack.push_async_callback(server.close)
        fleet = Fleet(control, store, sock.getsockname()[1], server)
        stack.push_async_callback(fleet.stop_agents)
        working = asyncio.create_task(control.run())
        stack.push_async_callback(_cancelled, working)
        yield fleet
        if working.done():
            working.result()
