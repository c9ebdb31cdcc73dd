"""The methods `fleet.watch` and `alerts.…`: rows of all robots, alerts that outlive a console."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import msgspec

from dorad.bell import Bell
from dorad.control import messages as m
from dorad.control.alertbook import AlertBook
from dorad.control.errors import ControlError
from dorad.control.rowdeltas import RowDeltas
from dorad.control.topparts import interval
from dorafleet.coordinator.rows import Known, Software, checked, fleet_row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from typing import NoReturn

    from dorad.control.asyncclient import AsyncClient
    from dorad.control.server import Call, Handler, StreamHandler
    from dorafleet.coordinator.planning import Planner
    from dorafleet.coordinator.robots import Robot, Robots

LOOK_S = 0.5
"""Time between two looks at what has changed."""
WHOLE_S = 5.0
"""Time between two looks at all robots."""
ROBOT_S = 1.0
"""Minimum time between two rows that a robot sends."""

_log = logging.getLogger(__name__)


class FleetWatching:
    """Follows all connected robots, and answers the methods about them."""

    def __init__(
        self,
        robots: Robots,
        planner: Planner,
        software: Callable[[str], Software] = lambda _: Software(),
    ) -> None:
        """`software` returns what rollouts know of a robot."""
        self._robots = robots
        self._planner = planner
        self._software = software
        self._own: dict[str, m.FleetRow] = {}
        """What each robot has said last of itself."""
        self._following: dict[str, AsyncClient] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._dirty: set[str] = set()
        self._since: dict[tuple[str, str, str], float] = {}
        self.rows: dict[str, m.FleetRow] = {}
        self.book = AlertBook()
        self._bell = Bell()
        """Rings when a row or an alert has changed."""

    @property
    def table(self) -> Mapping[str, Handler | StreamHandler]:
        """The handler of each method."""
        return {
            "fleet.watch": self.watch,
            "alerts.watch": self.alerts,
            "alerts.ack": self.ack,
        }

    def mark(self, robot: Robot) -> None:
        """Take note of a robot that has changed; follow it if it has just connected."""
        self._dirty.add(robot.id)
        client = robot.client
        if client is None or self._following.get(robot.id) is client:
            return
        self._following[robot.id] = client
        task = asyncio.create_task(self._follow(robot, client), name=f"row of {robot.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, robot: Robot, client: AsyncClient) -> None:
        """Take the rows that a robot sends, until its connection ends."""
        params = m.FleetWatch(interval=ROBOT_S)
        try:
            async with client.stream("fleet.watch", params, m.FleetRows) as events:
                async for event in events:
                    for row in event.rows[:1]:
                        self._own[robot.id] = checked(
                            row, robot.id, robot.skew.seconds, time.time()
                        )
                        self._dirty.add(robot.id)
        except ControlError as error:
            _log.debug("robot `%s` sends no rows: %s", robot.id, error)
            if error.code in ("unknown-method", "unsupported"):
                self._own.pop(robot.id, None)
                return  # older software: the connection stays the one that is followed
        if self._following.get(robot.id) is client:
            del self._following[robot.id]
            if robot.client is client:
                await asyncio.sleep(ROBOT_S)  # its dorad may be restarting
                self.mark(robot)

    async def run(self) -> NoReturn:
        """Keep rows and alerts up to date until cancelled."""
        due = 0.0
        try:
            while True:
                if time.monotonic() >= due:
                    due = time.monotonic() + WHOLE_S
                    self._dirty.update(robot.id for robot in self._robots.all)
                self.look()
                await asyncio.sleep(LOOK_S)
        finally:
            for task in self._tasks:
                task.cancel()

    def look(self) -> None:
        """Bring the rows of changed robots and the alerts up to date."""
        now = time.time()
        dirty, self._dirty = self._dirty, set()
        for id_ in dirty:
            row = fleet_row(self._own.get(id_), self._known(self._robots.get(id_)), now)
            for finding in row.findings:
                key = (id_, finding.cause, finding.subject)
                finding.since = self._since.setdefault(key, finding.since)
            before = self.rows.get(id_)
            if row.since is None or row.state != "unreach":
                same = before is not None and (before.state, before.why) == (row.state, row.why)
                row.since = before.since if same and before is not None else now
            if before is None or before.state != row.state:
                _log.debug("robot `%s` is %s: %s", id_, row.state, row.why)
            self.rows[id_] = row
        present = {
            (id_, each.cause, each.subject)
            for id_, row in self.rows.items()
            for each in row.findings
        }
        self._since = {key: at for key, at in self._since.items() if key in present}
        quiet = {id_ for id_, row in self.rows.items() if row.state == "update"}
        found = {id_: row.findings for id_, row in self.rows.items() if row.findings}
        self.book.observe(time.monotonic(), found, quiet)
        self._bell.ring()

    def _known(self, robot: Robot) -> Known:
        away = robot.away_since
        return Known(
            robot=robot.id,
            connected=robot.client is not None,
            ever_seen=robot.attached is not None,
            trouble=robot.reason or robot.state,
            daemon=robot.daemon,
            away_since=None if away is None else time.time() - (time.monotonic() - away),
            seen_at=robot.seen_at,
            skew=robot.skew.seconds,
            warnings=robot.warnings + ([robot.audit] if robot.audit else []),
            conflicts=robot.conflicts,
            shares=robot.shares,
            labels=self._planner.labels(robot),
            version="" if robot.attached is None else robot.attached.version,
            software=self._software(robot.id),
        )

    async def watch(self, _call: Call, params: m.FleetWatch) -> AsyncIterator[m.FleetRows]:
        """Yield all rows, then those that change."""
        deltas, pause = RowDeltas(), interval(params)
        if len(self.rows) < len(self._robots.all):
            self._dirty.update(robot.id for robot in self._robots.all)
            self.look()
        while True:
            order = (self.rows.get(robot.id) for robot in self._robots.all)
            event = deltas.take([row for row in order if row is not None])
            if event is not None:
                yield event
                await asyncio.sleep(pause)
            else:
                await self._bell.wait()

    async def alerts(self, _call: Call, params: m.AlertWatch) -> AsyncIterator[m.Alerts]:
        """Yield all alerts, whenever one changes."""
        sent: list[m.Alert] | None = None
        pause = interval(params)
        while True:
            alerts = self.book.alerts()
            if alerts != sent:
                sent = [msgspec.structs.replace(each) for each in alerts]
                yield m.Alerts(at=time.time(), alerts=alerts)
                await asyncio.sleep(pause)
            else:
                await self._bell.wait()

    async def ack(self, call: Call, params: m.AlertAck) -> m.Alert:
        """Keep who looks after an alert."""
        who = call.peer.name or f"user {call.peer.uid}"
        alert = self.book.ack(params.id, who, time.time(), undo=params.undo)
        self._bell.ring()
        return alert
