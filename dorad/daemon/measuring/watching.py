"""Keep the row and the alerts of this machine up to date, for streams that follow them."""

import asyncio
import logging
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import NoReturn

import msgspec
import psutil

from dorad import __version__
from dorad.bell import Bell
from dorad.control.alertbook import AlertBook, PastAlertBook, identity
from dorad.control.messages import Alert, DataflowState, FleetRow
from dorad.control.nextsteps import next_step
from dorad.daemon.measuring.measure import Measure
from dorad.daemon.measuring.summary import CrashHistory, findings, keep_since, row, unmeasured
from dorad.daemon.record import Record
from dorad.daemon.registry import Registry
from dorad.diskspace import DiskWatch, LowDisk

EVERY_S = 1.0
"""Time between two looks without an event."""
MIN_PAUSE_S = 0.2
"""Minimum time between two looks."""
AGENT_S = 30.0
"""Seconds after a boot in which the agent starts what a fleet runs here: it starts after dorad, and
must read its orders first."""

_log = logging.getLogger(__name__)


class SelfWatch:
    """The row and the alerts of this machine. Belongs to one event loop."""

    def __init__(self, registry: Registry, measure: Measure) -> None:
        self._registry = registry
        self._measure = measure
        self._crashes = CrashHistory()
        self._disks = DiskWatch(registry.folders)
        self.book = AlertBook()
        self.past = PastAlertBook()
        self.robot = socket.gethostname()
        """The name of this machine."""
        stored = registry.store.load_alerts()
        self.book.restore(time.monotonic(), {self.robot: stored})
        self._since = {(x.finding.cause, x.finding.subject): x.finding.since for x in stored}
        self._stored = identity(stored)
        self.row: FleetRow | None = None
        """The current row; None before the first look."""
        self.bell = Bell()
        """Rings after each look."""

    async def run(self) -> NoReturn:
        """Update after each event of a dataflow, and once a second, until cancelled.

        A row that cannot be brought up to date says so.
        """
        changed = asyncio.Event()

        async def listen() -> None:
            async with aclosing(self._registry.event_bus.subscribe(None)) as events:
                async for _ in events:
                    changed.set()

        listening = asyncio.create_task(listen(), name="events for the row")
        try:
            while True:
                changed.clear()
                try:
                    # A disk may take its time.
                    self.look(await asyncio.to_thread(self._disks.low))
                except Exception as error:  # noqa: BLE001 - the cause may be temporary
                    self._fail(error)
                await asyncio.sleep(MIN_PAUSE_S)
                try:
                    async with asyncio.timeout(EVERY_S - MIN_PAUSE_S):
                        await changed.wait()
                except TimeoutError:
                    pass
        finally:
            listening.cancel()

    def look(self, low_disks: Sequence[LowDisk]) -> None:
        """Bring the row and the alerts up to date; the disks have been measured."""
        now = time.time()
        top = self._measure.top()
        self._crashes.add(now, top.nodes)
        problem = self._registry.runner.node_users.problem()
        wrong = findings(
            now,
            top.nodes,
            top.edges,
            ended(self._registry.records, now),
            self._crashes,
            problem,
            self._measure.troubles(),
            low_disks,
            self._disks.filling(),
        )
        keep_since(wrong, self._since)
        for each in wrong:
            each.hint = next_step(each)
        self._since = {(each.cause, each.subject): each.since for each in wrong}
        fresh = row(
            self.robot,
            top.nodes,
            top.edges,
            wrong,
            cpu=psutil.cpu_percent(None),
            memory=psutil.virtual_memory().percent,
            version=__version__,
        )
        before = self.row
        if before is None or (before.state, before.why) != (fresh.state, fresh.why):
            _log.debug("this machine is %s: %s", fresh.state, fresh.why)
        since = state_since(fresh, before, now)
        self.row = msgspec.structs.replace(fresh, since=since, seen_at=now)
        self.past.add(self.book.observe(time.monotonic(), {self.robot: wrong}), now)
        self._store()
        self.bell.ring()

    def _fail(self, error: Exception) -> None:
        """Report that nothing is known now, beside what was wrong before."""
        now, before = time.time(), self.row or FleetRow(robot=self.robot, known=False)
        wrong = [unmeasured(now, str(error)), *(x for x in before.findings if x.node is not None)]
        if before.why != wrong[0].text:
            _log.warning("this machine cannot be measured, trying again: %r", error)
        keep_since(wrong, self._since)
        for each in wrong:
            each.hint = next_step(each)
        self._since = {(each.cause, each.subject): each.since for each in wrong}
        fields = {"state": "fail", "why": wrong[0].text, "since": wrong[0].since, "known": False}
        self.row = msgspec.structs.replace(before, findings=wrong, **fields)
        self.past.add(self.book.observe(time.monotonic(), {self.robot: wrong}), now)
        self.bell.ring()

    def ack(self, id_: str, who: str, *, undo: bool) -> Alert:
        """Store who acknowledges an alert, also for the next daemon. Raises ControlError."""
        alert = self.book.ack(id_, who, time.time(), undo=undo)
        self._store()
        self.bell.ring()
        return alert

    def _store(self) -> None:
        alerts = self.book.stored().get(self.robot, [])
        if identity(alerts) != self._stored:
            self._registry.store.put_alerts(alerts)
            self._stored = identity(alerts)


def ended(records: Iterable[Record], now: float) -> list[tuple[DataflowState, float]]:
    """Return the dataflows that ended last under their name, and do not run again.

    One that was lost with its machine is not among them while its agent has time to start it. After
    a boot the clock may be set back: an end that is to come hides nothing.
    """
    last = {record.title: record for record in records}
    return [
        (record.state(), at)
        for record in last.values()
        if (at := record.row.ended_at) is not None
        and not (record.lost and record.row.options.share and 0 <= now - at < AGENT_S)
    ]


def state_since(row: FleetRow, before: FleetRow | None, now: float) -> float | None:
    """Return when the state of a row began: with its worst finding, or with its text.

    The text of a finding counts, and changes, while what is wrong is still the same.
    """
    if row.findings:
        return row.findings[0].since
    same = before is not None and (before.state, before.why) == (row.state, row.why)
    return before.since if same and before is not None else now
