"""Follow the daemon of this machine: measurements, log lines and traces of all its dataflows."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING

from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages import LOGS_READ, DataflowInfo, LogRead, Top

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dorad.telemetry.exporter import Exporter

LIST_S = 1.0
"""Time between two looks for new dataflows."""
RETRY_S = 2.0
NAME = "dorad-telemetry"

_ENDED = math.inf
"""Instead of the time of the newest line: there are no more."""

_log = logging.getLogger(__name__)


class RobotSource:
    """Gives the exporter what the daemon knows, and connects again when that was restarted."""

    def __init__(
        self,
        socket: Path | None,
        exporter: Exporter,
        *,
        interval: float | None,
        logs: bool,
        warn: Callable[[str], None],
    ) -> None:
        """`interval` is that of measurements in seconds, or None; `warn` is for the operator."""
        self._socket = socket
        self._exporter = exporter
        self._interval = interval
        self._logs = logs
        self._warn = warn
        self._began = time.time()
        self._client: AsyncClient | None = None
        self._followed: dict[str, float] = {}
        """The dataflows whose lines were read, with the time of the newest."""

    async def run(self) -> None:
        """Follow the daemon until cancelled."""
        reachable = True
        while True:
            try:
                async with AsyncClient(self._socket, name=NAME) as client:
                    _log.info("connected to %s", client.daemon)
                    self._client, reachable = client, True
                    await self._follow(client)
            except* ControlError as group:
                error = group.exceptions[0]
                if reachable:
                    self._warn(f"no measurements and no log lines: {error}; trying again")
                reachable = False
                _log.debug("the daemon cannot be followed: %r", group.exceptions)
            finally:
                self._client = None
            await asyncio.sleep(RETRY_S)

    async def top(self) -> Top | None:
        """Return a measurement made now; None while there is no daemon."""
        if self._client is None:
            return None
        try:
            return await self._client.top()
        except ControlError as error:
            _log.debug("no measurement: %s", error)
            return None

    async def _follow(self, client: AsyncClient) -> None:
        async with asyncio.TaskGroup() as tasks:
            if self._interval is not None:
                tasks.create_task(self._measure(client, self._interval))
            tasks.create_task(self._follow_traces(client))
            following: dict[str, asyncio.Task[None]] = {}
            while True:
                flows = await client.list()
                known = {flow.uuid for flow in flows}
                self._followed = {uuid: at for uuid, at in self._followed.items() if uuid in known}
                for flow in flows if self._logs else ():
                    task = following.get(flow.uuid)
                    if (task is None or task.done()) and self._has_lines(flow):
                        following[flow.uuid] = tasks.create_task(self._read_lines(client, flow))
                following = {uuid: task for uuid, task in following.items() if uuid in known}
                await asyncio.sleep(LIST_S)

    def _has_lines(self, flow: DataflowInfo) -> bool:
        """Return whether a dataflow may have lines that were not read yet."""
        if flow.ended_at is None:
            return True
        return flow.ended_at >= self._began and self._followed.get(flow.uuid) != _ENDED

    async def _measure(self, client: AsyncClient, interval: float) -> None:
        while True:
            self._exporter.measured(await client.top())
            await asyncio.sleep(interval)

    async def _follow_traces(self, client: AsyncClient) -> None:
        """Take traces, also for the exemplars of metrics that are only scraped."""
        try:
            async with client.follow_traces() as stream:
                async for batch in stream:
                    self._exporter.traced(batch)
        except ControlError as error:
            if not client.connected:
                raise
            self._warn(f"no traces are sent: {error}")

    async def _read_lines(self, client: AsyncClient, flow: DataflowInfo) -> None:
        """Read the lines of a dataflow until it has ended.

        After a restart of the daemon, from the time of the newest line on: some come twice.
        """
        newest = self._followed.get(flow.uuid, self._began)
        if newest == _ENDED:  # it was started again
            newest = flow.started_at
        wanted = LogRead(dataflow=flow.uuid, since=newest, follow=True)
        try:
            async with client.stream(LOGS_READ, wanted) as stream:
                async for lines in stream:
                    self._exporter.logged(lines, flow.name)
                    for record in lines.lines:
                        newest = max(record.timestamp, newest)
                    self._followed[flow.uuid] = newest
            self._followed[flow.uuid] = _ENDED
        except ControlError as error:
            if not client.connected:
                raise
            if error.code != "not-found":
                self._warn(f"log lines of {flow.name or flow.uuid} are not sent: {error}")
