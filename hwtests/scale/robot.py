"""One simulated robot: the agent's end of the protocol, without a daemon behind it.

It dials, answers the coordinator's requests from memory, and dials again when the connection ends,
as an agent does. Faults are switched on from outside.
"""

import asyncio
import json
import random
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Literal

from msgspec import structs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from dorad.agent.backoff import HandshakeTimeout, fleet_backoff
from dorad.agent.dial import GIVEN_UP
from dorad.control.errors import ControlError
from dorad.control.limits import MAX_REQUEST, Limits
from dorad.control.messages import METHODS, EdgeStats, NodeInfo, NodeMetrics, Nothing, Top
from dorad.control.messages.agent import (
    AGENT_METHODS,
    AgentReport,
    AgentWatch,
    Attach,
    Attached,
    Remember,
    Remembered,
    ShareRef,
    ShareSet,
    ShareState,
    ShareStatus,
)
from dorad.control.peer import Peer
from dorad.control.session import Call, ClientSession, Handler, StreamHandler
from hwtests.scale.releases import SimulatedReleases

Fault = Literal["", "churn", "mute", "babble"]

PROGRAM = "dorad-agent 0.0.0"
STABLE_S = 5.0
"""A connection that has lasted so long was not refused."""
SPREAD = 0.2
REPORT_S = 1.0
"""Changes are reported at most so often."""

CHURN_S = 5.0
"""A robot that comes and goes stays, and stays away, for up to so long."""
ARRIVE_S = 30.0
"""The longest time until the coordinator has attached."""

START_S = 0.1
"""How long the nodes of a share take until they are ready."""

SIZES = struct.Struct("=120xQQ")
"""`tcpi_bytes_acked` and `tcpi_bytes_received` of Linux's struct tcp_info."""

NONSENSE: tuple[str | bytes, ...] = (
    "",
    "{",
    "[" * 10_000,
    b"\x00\xff" * 500,
    json.dumps({"id": 1, "result": {"robot": 7}}),
    json.dumps({"id": 10**30, "event": None}),
    json.dumps({"id": None, "error": {"code": "no such code"}}),
    json.dumps({"id": 3, "event": {"time": "soon", "shares": [{"status": "fine"}]}}),
    json.dumps({"welcome": "dorad-agent", "protocol": -1}),
)
"""Frames that no agent sends."""

NODES, EDGES = 10, 20
"""Of what a robot runs when it is measured."""

_STARTED = time.time()


class Robot:
    """A robot of the fleet. `run` lasts until it is cancelled."""

    def __init__(self, name: str, address: str, port: int, context: ssl.SSLContext) -> None:
        self.name = name
        self.tries = 0
        self.attached = False
        self.last_attached = 0.0
        self.refusals: Counter[str] = Counter()
        self.fault: Fault = ""
        self._url = f"wss://{address}:{port}/agent"
        self._context = context
        self._connection: ClientConnection | None = None
        self._epoch = 0
        self._pause = 0.0
        self._allowed = HandshakeTimeout()
        self._was_attached = False
        self._audit = ""
        self._shares: dict[str, ShareState] = {}
        self._releases = SimulatedReleases(self._report_release)
        self._changed_releases: set[str] = set()
        self._changed: set[str] = set()
        self._removed: set[str] = set()
        self._news = asyncio.Event()
        self._arrived = asyncio.Event()
        """Set when the coordinator has attached on this connection."""
        self._starting: set[asyncio.Task[None]] = set()
        self._handlers: dict[str, Handler | StreamHandler] = {
            "agent.attach": self._attach,
            "agent.remember": self._remember,
            "agent.watch": self._watch,
            "share.set": self._set,
            "share.open": self._open,
            "share.remove": self._remove,
            "release.order": self._releases.order,
            "top": self._top,
        }

    @property
    def running(self) -> int:
        """How many of its shares run."""
        return sum(share.status == "running" for share in self._shares.values())

    def drop(self) -> None:
        """Lose the connection, as when a cable is cut."""
        if self._connection is not None:
            self._connection.transport.abort()

    def traffic(self) -> tuple[int, int]:
        """Return the bytes sent and received on the connection that is open, with TLS."""
        if self._connection is None:
            return (0, 0)
        sock: socket.socket | None = self._connection.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return (0, 0)
        sent, received = SIZES.unpack(
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SIZES.size)
        )
        return sent, received

    def inflict(self, fault: Fault) -> None:
        """Begin with a fault, or end it with an empty one."""
        if self.fault == fault:
            return
        self.fault = fault
        self.drop()

    async def run(self) -> None:
        """Stay connected."""
        backoff = fleet_backoff(self._pause)
        while True:
            began = time.monotonic()
            try:
                await self._connect_once()
                reason = "closed"
            except InvalidStatus as error:
                reason = f"HTTP {error.response.status_code}"
            except TimeoutError:
                reason = "TimeoutError"
                self._allowed.expired()
            except (OSError, WebSocketException) as error:
                reason = type(error).__name__
                if self._connection is None and isinstance(error, GIVEN_UP):
                    self._allowed.expired()
            finally:
                self.attached = False
                self._connection = None
            self.refusals[reason] += 1
            if self._was_attached:
                self._allowed.answered()
            if self._was_attached or time.monotonic() - began > STABLE_S + self._timeout:
                backoff = fleet_backoff(self._pause)
            self._was_attached = False
            if self.fault == "churn":
                await asyncio.sleep(random.uniform(0, CHURN_S))
            pause = self._allowed.pause
            await asyncio.sleep(max(backoff.next(), random.uniform(pause / 4, pause)))

    @property
    def _timeout(self) -> float:
        """Seconds for a handshake, as an agent has them."""
        return self._allowed.seconds(self._pause)

    async def _connect_once(self) -> None:
        self.tries += 1
        async with connect(
            self._url,
            ssl=self._context,
            server_hostname="",
            compression=None,
            max_size=MAX_REQUEST,
            open_timeout=self._timeout,
            ssl_handshake_timeout=self._timeout + 1,
            close_timeout=1,
            ping_interval=None,
            user_agent_header=None,
            proxy=None,
        ) as connection:
            self._connection = connection
            if self.fault == "babble":
                await self._babble(connection)
                return
            session = ClientSession(
                connection,
                Peer(0, 0, 0),
                self._handlers,
                METHODS | AGENT_METHODS,
                PROGRAM,
                Limits(hello=30),
            )
            async with asyncio.TaskGroup() as tasks:
                serving = tasks.create_task(session.run())
                if self.fault == "churn":
                    await self._stay(serving)
                    connection.transport.abort()

    async def _stay(self, serving: asyncio.Task[ControlError | None]) -> None:
        """Wait until the coordinator has attached, and a random time after that."""
        self._arrived.clear()
        arriving = asyncio.create_task(self._arrived.wait())
        await asyncio.wait(
            (serving, arriving), timeout=ARRIVE_S, return_when=asyncio.FIRST_COMPLETED
        )
        arriving.cancel()
        await asyncio.wait((serving,), timeout=random.uniform(0, CHURN_S))

    async def _babble(self, connection: ClientConnection) -> None:
        """Send nonsense until the coordinator ends the connection."""
        for frame in random.choices(NONSENSE, k=20):
            await connection.send(frame)
        async for _ in connection:
            await connection.send(random.choice(NONSENSE))

    async def _attach(self, call: Call, params: Attach) -> Attached:
        if params.epoch < self._epoch:
            raise ControlError(
                "refused", f"epoch {params.epoch} is older than {self._epoch}, which I have obeyed"
            )
        attached = Attached(
            robot=self.name,
            version="0.0.0",
            boot_id=f"boot-of-{self.name}",
            time=time.time(),
            epoch=self._epoch,
            audit=self._audit,
            arch="x86_64",
            cores=4.0,
            memory=8 << 30,
            shares=list(self._shares.values()),
            releases=list(self._releases.states.values()),
        )
        self._epoch, self._pause = params.epoch, params.pause
        self._audit = self._audit or params.audit
        return attached

    async def _top(self, call: Call, params: Nothing) -> Top:
        """Measure the nodes and edges that a robot of this kind would have."""
        nodes = [
            NodeInfo(
                dataflow=f"local-{self.name}",
                dataflow_name="pick",
                node=f"node{number}",
                status="running",
                pid=1000 + number,
                restarts=0,
                metrics=NodeMetrics(cpu=random.uniform(0, 50), memory=100 << 20),
            )
            for number in range(NODES)
        ]
        edges = [
            EdgeStats(
                dataflow=f"local-{self.name}",
                source=f"node{number}/out",
                target=f"node{(number + 1 + place) % NODES}/in{place}",
                queue_size=10,
                sent=10**6,
                received=10**6,
                dropped=0,
                queued=0,
                payload=10**9,
                rate=random.uniform(10, 100),
                drop_rate=0.0,
                bandwidth=1e6,
                latency=1e-3,
                jitter=1e-4,
                latency_p50=1e-3,
                latency_p99=random.uniform(1e-3, 1e-1),
                latency_worst=0.5,
                latencies=[0] * 15 + [10_000] * 10,
            )
            for number in range(NODES)
            for place in range(EDGES // NODES)
        ]
        return Top(at=time.time(), window=5.0, nodes=nodes, edges=edges)

    async def _remember(self, call: Call, params: Remember) -> Remembered:
        before = self._audit
        if before in ("", params.known):
            self._audit = params.audit
        return Remembered(time=time.time(), audit=before)

    async def _watch(self, call: Call, params: AgentWatch) -> AsyncIterator[AgentReport]:
        self.attached, self.last_attached = True, time.monotonic()
        self._was_attached = True
        self._arrived.set()
        while True:
            if self.fault == "mute" and self._connection is not None:
                # It neither reads nor writes, but its kernel still acknowledges.
                self._connection.transport.pause_reading()
                await asyncio.Event().wait()
            changed, self._changed = self._changed, set()
            removed, self._removed = self._removed, set()
            releases, self._changed_releases = self._changed_releases, set()
            self._news.clear()
            yield AgentReport(
                time=time.time(),
                shares=[self._shares[name] for name in sorted(changed) if name in self._shares],
                removed=sorted(removed),
                releases=[self._releases.states[name] for name in releases],
            )
            seconds = params.heartbeat * random.uniform(1 - SPREAD, 1 + SPREAD)
            await asyncio.sleep(REPORT_S if self._changed or self._changed_releases else 0)
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _set(self, call: Call, params: ShareSet) -> ShareState:
        status: ShareStatus = "stopped"
        if params.enabled:
            status = "starting" if params.hold is not None else "running"
        state = ShareState(
            dataflow=params.dataflow,
            uuid=params.content.uuid,
            epoch=params.epoch,
            generation=params.generation,
            status=status,
            since=time.time(),
        )
        self._shares[params.dataflow] = state
        if status == "starting":
            task = asyncio.create_task(self._get_ready(params.dataflow, params.generation))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)
        else:
            self._report(params.dataflow)
        return state

    async def _get_ready(self, dataflow: str, generation: int) -> None:
        await asyncio.sleep(START_S)
        share = self._shares.get(dataflow)
        if share is not None and (share.generation, share.status) == (generation, "starting"):
            self._become(share, "ready")

    async def _open(self, call: Call, params: ShareRef) -> ShareState:
        share = self._shares.get(params.dataflow)
        if share is None:
            raise ControlError("not-found", f"there is no share of {params.dataflow}")
        return self._become(share, "running")

    async def _remove(self, call: Call, params: ShareRef) -> Nothing:
        self._shares.pop(params.dataflow, None)
        self._removed.add(params.dataflow)
        self._news.set()
        return Nothing()

    def _report_release(self, dataflow: str) -> None:
        self._changed_releases.add(dataflow)
        self._news.set()

    def _become(self, share: ShareState, status: ShareStatus) -> ShareState:
        state = structs.replace(share, status=status, since=time.time())
        self._shares[share.dataflow] = state
        self._report(share.dataflow)
        return state

    def _report(self, dataflow: str) -> None:
        self._changed.add(dataflow)
        self._news.set()
