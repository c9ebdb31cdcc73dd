"""The server: one connection for calls and summaries, how fresh they are, and trying again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from dorad.control import messages as m
from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages.method import P, R
from dorad.control.target import Targets
from dorad.jitter import between
from dorafleet.console.model.fleet import FleetStore, FleetView
from dorafleet.console.model.targets import on_robot
from dorafleet.coordinator.messages import ALERTS_RECEIVERS, AlertReceivers

PROBE_S = 1.0
"""Time between two questions whether the server still answers."""
RECEIVERS_S = 3.0
"""Time between two questions whether alerts are delivered."""
STALE_S = 3.0
"""Seconds without an answer after which the screen is out of date."""
RETRY_S = (0.5, 1.0, 2.0, 5.0)
"""Pauses between attempts to connect."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LinkState:
    """How the connection is."""

    connected: bool = False
    server: str = ""
    """Name and version of the server."""
    where: str = ""
    role: str = ""
    round_trip: float | None = None
    """Seconds."""
    fresh_at: float = 0.0
    """When the server answered last, on the monotonic clock; 0 for never."""
    retry_at: float | None = None
    """When the next attempt is made, on the monotonic clock."""
    error: str = ""

    def stale(self, now: float) -> bool:
        """Return True if what is shown may be out of date."""
        return not self.connected or now - self.fresh_at > STALE_S


def steady(before: float | None, now: float) -> float:
    """Return the round trip to show: the last one, unless it has become much longer or shorter.

    A figure that flickers costs bytes on the way to the terminal, without information.
    """
    return before if before is not None and before / 4 < now < before * 2 else now


class Server:
    """Follows a daemon or a coordinator while `run` runs."""

    def __init__(
        self,
        open_target: Callable[[], Awaitable[Targets | None]],
        close_target: Callable[[], Awaitable[None]] | None = None,
        *,
        host: str = "",
    ) -> None:
        """`open_target` returns the servers to try; it is called before each attempt.

        `close_target` is called at the end. `host` is what the server's machine is called by SSH.
        """
        self.host = host
        self._open_target = open_target
        self._close_target = close_target
        self._client: AsyncClient | None = None
        self._fleet = FleetStore()
        self.link = LinkState()
        self.alerts: Sequence[m.Alert] = ()
        self.receivers: AlertReceivers | None = None
        """Where alerts are sent; None if the server has not told."""
        self.missing: set[str] = set()
        """Methods that the server does not offer."""
        self.answered: set[str] = set()
        """Methods to which rows or alerts have come."""
        self.version = 0
        """Grows with everything that changes here."""

    @property
    def fleet(self) -> FleetView:
        """The robots, as last described."""
        return self._fleet.view

    @property
    def is_daemon(self) -> bool:
        """Whether it is the daemon of one machine, and no coordinator."""
        return self.link.server.startswith("dorad ")

    def named(self, robot: str | None, dataflow: str) -> str:
        """Return how this server is asked about a dataflow of a robot."""
        return dataflow if self.is_daemon else on_robot(robot, dataflow)

    async def close(self) -> None:
        """Close what the servers are reached through, after `run` has ended."""
        if self._close_target is not None:
            await self._close_target()

    async def call(self, method: m.CallMethod[P, R], params: P) -> R:
        """Call a method. Raises ControlError, for instance while there is no connection."""
        if self._client is None:
            raise ControlError("unavailable", "not connected", self.link.error or None)
        return await self._client.call(method, params)

    async def connect(self) -> AsyncClient:
        """Return one more connection, for a stream that may be heavy. Raises ControlError."""
        target = await self._open_target()
        return await AsyncClient(target, name="dorafleet console").open()

    async def run(self) -> None:
        """Connect, again and again, until cancelled."""
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(20.0):
                    client = await self.connect()
                attempt = 0
            except (ControlError, TimeoutError, OSError) as error:
                self._lost(str(error) or "no answer")
            else:
                try:
                    await self._follow(client)
                finally:
                    self._client = None
                    with suppress(ControlError):  # it is lost anyway
                        await client.close()
            pause = RETRY_S[min(attempt, len(RETRY_S) - 1)] * between(0.8, 1.0)
            attempt += 1
            self._change(retry_at=time.monotonic() + pause)
            await asyncio.sleep(pause)

    async def _follow(self, client: AsyncClient) -> None:
        """Take what the server says until the connection ends."""
        self._client = client
        self._change(
            connected=True,
            server=client.daemon,
            where=client.server.name,
            role=client.role,
            fresh_at=time.monotonic(),
            retry_at=None,
            error="",
        )
        _log.debug("connected to %s, role %s", client.daemon, client.role or "unknown")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._probe(client))
                tasks.create_task(self._rows(client))
                tasks.create_task(self._alerts(client))
                tasks.create_task(self._receivers(client))
        except* ControlError as errors:
            self._lost(str(errors.exceptions[0]))

    async def _probe(self, client: AsyncClient) -> None:
        while True:
            began = time.monotonic()
            await client.call(m.DAEMON_STATUS, m.Nothing())
            now = time.monotonic()
            trip = steady(self.link.round_trip, now - began)
            # No change to paint: the next one shows it.
            self.link = replace(self.link, fresh_at=now, round_trip=trip)
            await asyncio.sleep(PROBE_S)

    async def _rows(self, client: AsyncClient) -> None:
        async with client.stream(m.FLEET_WATCH, m.FleetWatch(interval=0.5)) as rows:
            with self._unless_missing("fleet.watch"):
                async for update in rows:
                    self._fleet.take(update)
                    self.answered.add("fleet.watch")
                    self.version += 1
                raise ControlError("unavailable", "the server has ended `fleet.watch`")

    async def _alerts(self, client: AsyncClient) -> None:
        async with client.stream(m.ALERTS_WATCH, m.AlertWatch(interval=0.5)) as updates:
            with self._unless_missing("alerts.watch"):
                async for each in updates:
                    self.alerts = tuple(each.alerts)
                    self.answered.add("alerts.watch")
                    self.version += 1
                raise ControlError("unavailable", "the server has ended `alerts.watch`")

    async def _receivers(self, client: AsyncClient) -> None:
        with self._unless_missing("alerts.receivers"):
            while True:
                told = await client.call(ALERTS_RECEIVERS, m.Nothing())
                if told != self.receivers:
                    self.receivers = told
                    self.version += 1
                await asyncio.sleep(RECEIVERS_S)

    def _unless_missing(self, method: str) -> _Missing:
        return _Missing(self, method)

    def _lost(self, error: str) -> None:
        _log.debug("no connection: %s", error)
        self._client = None
        self._change(connected=False, error=error)

    def _change(self, **fields: Any) -> None:
        self.link = replace(self.link, **fields)
        self.version += 1


class _Missing:
    """Keeps in mind that an older server does not know a method, instead of failing."""

    def __init__(self, server: Server, method: str) -> None:
        self._server = server
        self._method = method

    def __enter__(self) -> None:
        self._server.missing.discard(self._method)

    def __exit__(self, _kind: object, error: object, _trace: object) -> bool:
        if isinstance(error, ControlError) and error.code in ("unknown-method", "unsupported"):
            _log.debug("the server has no %s", self._method)
            self._server.missing.add(self._method)
            self._server.version += 1
            return True
        return False
