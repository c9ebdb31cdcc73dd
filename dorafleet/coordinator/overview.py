"""The methods `fleet.watch` and `alerts.…`: the rows of all robots, and alerts."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import NoReturn

import msgspec

from dorad.bell import Bell
from dorad.control import messages as m
from dorad.control.alertbook import MAX_PAST, AlertBook, PastAlertBook
from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.rowdeltas import RowDeltas
from dorad.control.session import Call, handles
from dorad.control.topparts import interval
from dorafleet.coordinator.alertstore import AlertStore
from dorafleet.coordinator.auditmemories import AuditMemories
from dorafleet.coordinator.connections import PACE_S
from dorafleet.coordinator.findings import OVER, RobotFacts, findings_of, links_down
from dorafleet.coordinator.handover import HandOvers
from dorafleet.coordinator.planner import Planner
from dorafleet.coordinator.robot import Robot
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.rows import Failure, Known, Software, checked, fleet_row, resumed, steady
from dorafleet.coordinator.secrets import Secrets
from dorafleet.coordinator.writer import Writer, actor_of

CHECK_S = 0.5
"""Time between two checks for changes."""
WHOLE_S = 5.0
"""Time between two checks of all robots."""
ROBOT_S = 1.0
"""Minimum time between two rows that a robot sends."""
COMING_S = 20.0
"""Seconds that robots have to come back after a coordinator has started: agents try again every
5 s. Until then, what is wrong with one that has not come yet stays as the last coordinator knew it.
"""

MAX_PAST_OF_ROBOT = 20
"""Alerts of one robot that are over and are kept."""

MAX_ID = 1000
"""Characters of an alert's id in the audit."""

_log = logging.getLogger(__name__)


class FleetOverview:
    """Follows all connected robots, and answers the methods about them."""

    def __init__(
        self,
        robots: Robots,
        planner: Planner,
        writer: Writer,
        kept: AlertStore,
        memories: AuditMemories,
        secrets: Secrets,
        hand_overs: HandOvers | None,
        software: Callable[[str], Software] = lambda _: Software(),
    ) -> None:
        """`software` returns what rollouts know of a robot."""
        self._memories = memories
        self._secrets = secrets
        self._hand_overs = hand_overs
        self._robots = robots
        self._planner = planner
        self._writer = writer
        self._kept = kept
        self._software = software
        self._started = time.monotonic()
        self._own: dict[str, m.FleetRow] = {}
        """The last own row of each robot."""
        self._described: set[str] = set()
        """Robots whose own row is of now, or that have older software, which sends none."""
        self._following: dict[str, AsyncClient] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._dirty: set[str] = set()
        self._since: dict[tuple[str, str, str], float] = {}
        self._states: dict[str, tuple[str, float]] = {}
        """The last state of each robot and when it began, also from an earlier coordinator."""
        self._failures: dict[str, Failure | None] = {}
        self._updating: set[str] = set()
        """Robots that are being changed, and do not fail now."""
        self.rows: dict[str, m.FleetRow] = {}
        self.book = AlertBook()
        self.past = PastAlertBook(MAX_PAST_OF_ROBOT)
        self._bell = Bell()
        """Rings when a row or an alert has changed."""
        self._keeping = asyncio.Lock()
        """What is stored while an alert is acknowledged must not lack that."""

    async def load(self) -> Collection[str]:
        """Take over the alerts of the coordinator before; return the robots that it has known.

        Raises:
            StoreError: the store cannot be read.
        """
        stored = await self._kept.load()
        self.book.restore(time.monotonic(), stored)
        self.past.restore(await self._kept.load_past())
        self._states = await self._kept.load_states()
        self._since = {
            (robot, each.finding.cause, each.finding.subject): each.finding.since
            for robot, alerts in stored.items()
            for each in alerts
        }
        return stored

    def mark(self, robot: Robot) -> None:
        """Record that a robot has changed; follow it if it has just connected."""
        self._dirty.add(robot.id)
        client = robot.client
        if client is None or self._following.get(robot.id) is client:
            return
        self._following[robot.id] = client
        self._described.discard(robot.id)
        task = asyncio.create_task(self._follow(robot, client), name=f"row of {robot.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def forget(self, id_: str) -> None:
        """Forget the row and the alerts of a robot that has left the fleet."""
        # Not while they are being stored.
        async with self._keeping:
            for known in (self._own, self._following, self._states, self._failures, self.rows):
                known.pop(id_, None)
            for ids in (self._described, self._dirty, self._updating):
                ids.discard(id_)
            self._since = {key: at for key, at in self._since.items() if key[0] != id_}
            self.book.forget_robot(id_)
            self.past.forget_robot(id_)
            self._kept.forget_robot(id_)
        self._bell.ring()

    async def _follow(self, robot: Robot, client: AsyncClient) -> None:
        """Take the rows that a robot sends, until its connection ends."""
        params = m.FleetWatch(interval=ROBOT_S)
        try:
            async with client.stream(m.FLEET_WATCH, params) as events:
                async for event in events:
                    if self._following.get(robot.id) is not client:
                        return  # it has connected again, and this row is of before
                    for row in event.rows[:1]:
                        own = checked(row, robot.id, robot.skew.seconds)
                        self._own[robot.id] = own
                        robot.dataflows = tuple(filter(None, own.dataflow.split(", ")))
                        self._described.add(robot.id)
                        self._dirty.add(robot.id)
                    # One that sends without end waits, and is closed when too much waits.
                    await asyncio.sleep(PACE_S)
        except ControlError as error:
            _log.debug("robot `%s` sends no rows: %s", robot.id, error)
            followed = self._following.get(robot.id) is client
            if followed and error.code in ("unknown-method", "unsupported"):
                self._own.pop(robot.id, None)
                self._described.add(robot.id)
                self._dirty.add(robot.id)
                return  # older software: the connection stays the one that is followed
        if self._following.get(robot.id) is client:
            del self._following[robot.id]
            self._described.discard(robot.id)
            self._dirty.add(robot.id)
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
                await self._keep()
                await asyncio.sleep(CHECK_S)
        finally:
            for task in self._tasks:
                task.cancel()

    def look(self) -> None:
        """Bring the rows of changed robots and the alerts up to date."""
        now = time.time()
        dirty, self._dirty = self._dirty, set()
        for id_ in dirty:
            robot = self._robots.find(id_)
            if robot is None:
                continue  # it was removed, and its connection ends now
            row = fleet_row(self._own.get(id_), self._known(robot), now)
            for finding in row.findings:
                key = (id_, finding.cause, finding.subject)
                finding.since = self._since.setdefault(key, finding.since)
            before = self.rows.get(id_)
            # What is back soon after the start of this coordinator has not changed meanwhile.
            back = before is None or (self._has_just_started and not before.known)
            row.since = since_of(row, None if back else before, now)
            if back and row.state == "ok":
                row.since = resumed(row.since or now, self._states.get(id_), now)
            if row.state == "update":
                self._updating.add(id_)
            else:
                self._updating.discard(id_)
            row, self._failures[id_] = steady(row, before, self._failures.get(id_), now)
            if before is None or before.state != row.state:
                _log.debug("robot `%s` is %s: %s", id_, row.state, row.why)
            self.rows[id_] = row
            if row.since is not None and (row.known or not self._has_just_started):
                self._states[id_] = (row.state, row.since)
        present = {
            (id_, each.cause, each.subject)
            for id_, row in self.rows.items()
            for each in row.findings
        }
        unknown = self._unknown()
        self._since = {
            key: at for key, at in self._since.items() if key in present or key[0] in unknown
        }
        missed = {
            id_: row.findings
            for id_, row in self.rows.items()
            # One that was removed has a row until its connection is closed.
            if row.findings and (robot := self._robots.find(id_)) and self._is_missed(robot)
        }
        self.past.add(
            self.book.observe(time.monotonic(), missed, self._updating, unknown), time.time()
        )
        self._bell.ring()

    def _unknown(self) -> set[str]:
        """Return the robots that may still come back after the start of this coordinator.

        One that is connected counts until its daemon has described it.
        """
        if not self._has_just_started:
            return set()
        return {
            robot.id
            for robot in self._robots.all
            if robot.id not in self._own and not robot.daemon and robot.was_seen
        }

    async def _keep(self) -> None:
        async with self._keeping:
            await self._kept.keep(self.book.stored(), self._seen)
        await self._kept.keep_past(self.past.latest(MAX_PAST))
        await self._kept.keep_states(
            {id_: self._states[id_] for id_ in self._states.keys() & self.rows.keys()}
        )

    @property
    def _seen(self) -> set[str]:
        """The robots that have ever connected."""
        now = {robot.id for robot in self._robots.all if robot.ever_seen}
        return now | set(self._kept.robots)

    def findings(self, robot: Robot) -> list[m.Finding]:
        """Return what is wrong with a robot now, failures first."""
        own = self._own.get(robot.id)
        current = findings_of([] if own is None else own.findings, self._facts(robot), time.time())
        for finding in current:
            key = (robot.id, finding.cause, finding.subject)
            finding.since = self._since.get(key, finding.since)
        return current

    def _facts(self, robot: Robot) -> RobotFacts:
        shares = robot.known_shares
        parts = {
            (machine, share.dataflow): part
            for share in shares
            for machine in links_down(share)
            if (part := self._part(machine, share.dataflow))
        }
        return robot.facts._replace(
            away_since=_away_since(robot),
            lost=self._memories.lost(robot),
            hand_over="" if self._hand_overs is None else self._hand_overs.state.warning(robot.id),
            shares=shares,
            releases=list(robot.releases.values()),
            secrets=list(self._secrets.differences(robot)),
            parts=parts,
        )

    def _part(self, machine: str, dataflow: str) -> str:
        """Return why the part of a dataflow on a machine has no links; empty if it runs there."""
        robot = self._robots.find(machine)
        if robot is None or robot.client is None:
            return "out of reach"
        share = robot.shares.get(dataflow)
        return share.status if share is not None and share.status in OVER else ""

    def _known(self, robot: Robot) -> Known:
        return Known(
            facts=self._facts(robot),
            seen_at=robot.seen_at,
            labels=self._planner.labels(robot),
            version="" if robot.attached is None else robot.attached.version,
            software=self._software(robot.id),
            coming=self._has_just_started and robot.seen is None and robot.was_seen,
            awaited=robot.id not in self._described,
        )

    @property
    def _has_just_started(self) -> bool:
        return time.monotonic() - self._started < COMING_S

    def _is_missed(self, robot: Robot) -> bool:
        """Return True unless a robot was never here, or may still come back after a start."""
        return robot.seen is not None or (not self._has_just_started and robot.was_seen)

    @handles(m.FLEET_WATCH)
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

    @handles(m.ALERTS_WATCH)
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

    @handles(m.ALERTS_PAST)
    async def past_alerts(self, _call: Call, params: m.PastAlertsRead) -> m.PastAlerts:
        """Return the alerts that are over."""
        return m.PastAlerts(alerts=self.past.latest(params.limit))

    @handles(m.ALERTS_ACK)
    async def ack(self, call: Call, params: m.AlertAck) -> m.Alert:
        """Store the user who acknowledges an alert, and the record in the audit, at once."""
        who, at = call.peer.name or f"user {call.peer.uid}", time.time()
        record = {**actor_of(call), "action": call.method, "alert": params.id[:MAX_ID]}
        async with self._writer.changing, self._keeping:
            after = self.book.stored_after_ack(params.id, who, at, undo=params.undo)
            seen = self._seen
            kept = {robot: alerts for robot, alerts in after.items() if robot in seen}
            await self._kept.keep_acknowledged(kept, {**record, "undo": params.undo})
            alert = self.book.ack(params.id, who, at, undo=params.undo)
        self._bell.ring()
        return alert


def _away_since(robot: Robot) -> float | None:
    """Return since when a robot is away, in seconds since 1970."""
    if robot.away_since is None:
        return None
    if robot.seen is None and robot.seen_at is not None:
        return min(robot.seen_at, time.time())  # it did not come back to this coordinator
    return time.time() - (time.monotonic() - robot.away_since)


def since_of(row: m.FleetRow, before: m.FleetRow | None, now: float) -> float | None:
    """Return when the state of a robot began; `before` is its last row."""
    if row.state in ("fail", "warn", "unreach") and row.findings:
        worst = next((each for each in row.findings if each.text == row.why), row.findings[0])
        return worst.since
    if row.state in ("update", "busy") and row.since is not None:
        return row.since
    if row.state == "unreach" and row.since is None and before is not None:
        return before.since if before.state == "unreach" else now
    if before is None or row.state == "unreach":
        return now if row.since is None and row.state != "unreach" else row.since
    same = (before.state, before.why) == (row.state, row.why)
    return before.since if same else now
