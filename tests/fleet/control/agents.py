"""An agent that keeps its shares in memory, with faults on demand, over a real WebSocket."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from dorad import __version__
from dorad.agent import terms
from dorad.agent.dial import LIMITS
from dorad.agent.model import Memory
from dorad.bell import Bell
from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages.agent import (
    AGENT_METHODS,
    Accepts,
    AgentReport,
    AgentWatch,
    Attach,
    Attached,
    Remember,
    Remembered,
    ShareRef,
    ShareSet,
    ShareState,
)
from dorad.control.peer import Peer
from dorad.control.session import Call, ClientSession

from .fakereleases import FakeReleases

METHODS = {**m.METHODS, **AGENT_METHODS}


class FakeAgent:
    """One robot's agent. `shares` survive its connections, like an agent's file."""

    def __init__(
        self,
        robot: str,
        port: int,
        *,
        boot_id: str = "boot-1",
        machine_id: str = "",
        host: str = "127.0.0.1",
    ) -> None:
        """`host` is the address, of this machine, from which it connects."""
        self.robot = robot
        self.name = robot
        """What it says that it is."""
        self.arch = "x86_64"
        self.python = "3.13"
        self.accepts = Accepts()
        """What it takes, as its dorad.toml would say."""
        self.groups = True
        """Whether it can run a release together with other machines."""
        self.port = port
        self.boot_id = boot_id
        self.memory = Memory()
        """What it remembers of coordinators, as the real agent does."""
        self.machine_id = machine_id
        self.host = host
        self.pause = -1.0
        """What it was told at its last connection."""
        self.clock = 0.0
        self.delay = 0.0
        """Seconds that its reports are on their way."""
        self.shares: dict[str, ShareState] = {}
        self.sets: list[ShareSet] = []
        """All orders that it has received, in order."""
        self.becomes = "ready"
        """The status of a new share that is held; `starting` for one that is never ready."""
        self.params: dict[str, dict[str, Any]] = {}
        """What was set since the start, by node and key."""
        self.refusal: ControlError | None = None
        self.silent = False
        self.daemon = ""
        """Why its daemon cannot be used."""
        self.room: int | None = None
        self.deaf = False
        """Orders about shares get lost on the way to it."""
        self.lost: list[ShareSet] = []
        self.begins = asyncio.Event()
        """Set unless orders about shares are to wait."""
        self.begins.set()
        self.nonsense: Any = None
        """Sent instead of the next report."""
        self.handlers: dict[str, Callable[..., Any]] = {}
        """Further methods: those of the robot's daemon."""
        self.changed = Bell()
        self.releases = FakeReleases(self._on_release)
        self.ended = Bell()
        self._news: dict[str, None] = {}
        self._release_news: dict[str, None] = {}
        self.connection: ClientConnection
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, and keep the connection until it ends."""
        connection = await connect(
            f"ws://127.0.0.1:{self.port}/agent",
            additional_headers={"X-Robot": self.robot},
            compression=None,
            open_timeout=None,
            ping_interval=None,
            local_addr=(self.host, 0),
        )
        self.connection = connection
        session = ClientSession(
            connection,
            Peer(0, os.getuid(), os.getgid()),
            {
                "agent.attach": self._attach,
                "agent.remember": self._remember,
                "agent.watch": self._watch,
                "share.set": self._set,
                "share.open": self._open,
                "share.remove": self._remove,
                "dataflow.info": self._info,
                "release.order": self.releases.order,
                **self.handlers,
            },
            METHODS,
            "dorad-agent 1",
            LIMITS,
        )

        async def run() -> None:
            try:
                await session.run()
            finally:
                await connection.close()
                self.ended.ring()

        self._task = asyncio.create_task(run(), name=f"agent {self.robot}")

    @property
    def audit(self) -> str:
        return self.memory.audit

    @property
    def connected(self) -> bool:
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        """Cut the connection. The shares stay."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError, ConnectionClosed):
                await self._task

    async def _info(self, _call: Call, params: m.Ref) -> m.DataflowDetail:
        info = m.DataflowInfo(
            uuid=params.dataflow or "",
            name=None,
            status="running",
            nodes=1,
            cpu=0,
            memory=0,
            started_at=0,
        )
        return m.DataflowDetail(info=info, descriptor={}, path="", log_dir="", params=self.params)

    def report(self, dataflow: str, status: str, **fields: Any) -> None:
        """Change a share and report it."""
        self.shares[dataflow] = msgspec.structs.replace(
            self.shares[dataflow], status=status, since=time.time(), **fields
        )
        self._tell(dataflow)

    def _tell(self, dataflow: str) -> None:
        self._news[dataflow] = None
        self.changed.ring()

    def _on_release(self, dataflow: str) -> None:
        self._release_news[dataflow] = None
        self.changed.ring()

    async def _attach(self, _call: Call, params: Attach) -> Attached:
        before = self.memory
        self.memory = terms.obey(before, "fleet", "authority", params)
        if params.takes_over:
            for name, share in self.shares.items():
                self.shares[name] = msgspec.structs.replace(share, epoch=0)
            self.releases.forget_epochs()
        self.pause = params.pause
        self._news.clear()
        return Attached(
            robot=self.name,
            version=__version__,
            boot_id=self.boot_id,
            time=time.time() + self.clock,
            epoch=before.epoch,
            audit=before.audit,
            revocations=self.memory.revocations,
            arms=True,
            arch=self.arch,
            cores=4,
            memory=8 << 30,
            shares=list(self.shares.values()),
            releases=list(self.releases.states.values()),
            python=self.python,
            glibc="2.41",
            machine_id=self.machine_id,
            accepts=self.accepts,
            groups=self.groups,
        )

    async def _remember(self, _call: Call, params: Remember) -> Remembered:
        before = self.memory
        self.memory = terms.remember(before, params)
        return Remembered(time=time.time() + self.clock, audit=before.audit)

    async def _watch(self, _call: Call, params: AgentWatch) -> AsyncIterator[Any]:
        while True:
            if not self._news and not self._release_news and self.nonsense is None:
                await self.changed.wait(params.heartbeat)
            if self.silent:
                await asyncio.Event().wait()
            if self.nonsense is not None:
                nonsense, self.nonsense = self.nonsense, None
                yield nonsense
            news, self._news = self._news, {}
            releases, self._release_news = self._release_news, {}
            yield AgentReport(
                time=time.time() + self.clock - self.delay,
                shares=[self.shares[name] for name in news if name in self.shares],
                removed=[name for name in news if name not in self.shares],
                releases=[self.releases.states[name] for name in releases],
                daemon=self.daemon,
                room=self.room,
                accepts=self.accepts,
            )

    async def _set(self, _call: Call, params: ShareSet) -> ShareState:
        if self.deaf:
            self.lost.append(params)
            await asyncio.Event().wait()
        await self.begins.wait()
        self._check(params.epoch, params.generation, params.dataflow)
        self.sets.append(params)
        self.changed.ring()
        if self.refusal is not None and params.enabled:
            raise self.refusal
        if not params.enabled:
            status = "stopped"
        elif params.hold is None:
            status = "running"
        else:
            status = "starting"
        state = self._state(params, status)
        if status == "starting" and self.becomes != "starting":
            self.report(params.dataflow, self.becomes)
        return state

    def _state(self, params: ShareSet, status: str) -> ShareState:
        outcome = None
        if status == "stopped":
            outcome = m.DataflowState(
                uuid=params.content.uuid,
                name=params.dataflow,
                status="finished",
                results=[
                    m.NodeResult(node=node, outcome="ok", reason="stopped")
                    for node, robot in params.content.share.placement.items()
                    if robot == self.robot
                ],
            )
        state = self.shares[params.dataflow] = ShareState(
            dataflow=params.dataflow,
            uuid=params.content.uuid,
            epoch=params.epoch,
            generation=params.generation,
            status=status,
            since=time.time(),
            outcome=outcome,
        )
        return state

    async def _open(self, _call: Call, params: ShareRef) -> ShareState:
        self._check(params.epoch, params.generation, params.dataflow)
        self.report(params.dataflow, "running")
        return self.shares[params.dataflow]

    async def _remove(self, _call: Call, params: ShareRef) -> m.Nothing:
        self._check(params.epoch, params.generation, params.dataflow)
        del self.shares[params.dataflow]
        self._tell(params.dataflow)
        return m.Nothing()

    def _check(self, epoch: int, generation: int, dataflow: str) -> None:
        known = self.shares.get(dataflow)
        if known is not None and (epoch, generation) < (known.epoch, known.generation):
            raise ControlError("refused", f"generation {generation} of `{dataflow}` is old")
        if epoch != self.memory.epoch:
            raise ControlError("refused", f"term {epoch} is over")
