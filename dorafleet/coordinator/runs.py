"""The runs of dataflows that were started: what robots report decides how each goes on."""

import asyncio
import logging
import time
from contextlib import suppress
from typing import NoReturn

import msgspec

from dorad.control.eventbus import EventBus
from dorad.control.messages import Failure
from dorad.problems import ProblemError
from dorafleet.coordinator.dataflowstates import outcome_of
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.planner import Planner
from dorafleet.coordinator.records import DataflowRecord, End
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.starter import Starter
from dorafleet.coordinator.verdicts import Fail, Finish, Open, Verdict, judge
from dorafleet.coordinator.writer import COORDINATOR
from dorafleet.store.errors import Code, StoreError

EVERY_S = 30.0
"""Maximum seconds between two looks at all runs."""

FAILOVER_S = 60.0
"""Seconds without a robot after which its nodes with `deploy.failover` move to others."""

REPLAN_S = 1.0
"""Minimum seconds between two tries to place nodes."""

MIN_PAUSE_S = 0.05

_log = logging.getLogger(__name__)


class Runs:
    """Follows the runs: opens barriers, fails starts, moves nodes, stores ends, starts again."""

    def __init__(
        self,
        fleet: Fleet,
        robots: Robots,
        planner: Planner,
        starter: Starter,
        event_bus: EventBus,
    ) -> None:
        self._fleet = fleet
        self._robots = robots
        self._planner = planner
        self._starter = starter
        self._event_bus = event_bus
        self._starting: dict[str, float] = {}
        """When a start was first seen, by its UUID, on the monotonic clock."""
        self._replanned = 0.0

    async def run(self) -> NoReturn:
        """Follow the reports of robots until cancelled."""
        while True:
            changed = self._fleet.bell.next
            await self._settle_all()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await changed.wait()

    def _pause(self) -> float:
        """Return the seconds until something is due."""
        now = time.monotonic()
        ends = [
            self._starting[record.uuid] + record.hold - now
            for record in self._fleet.running
            if record.uuid in self._starting
        ]
        if any(
            record.pending if record.running else record.again for record in self._fleet.records
        ):
            ends.append(REPLAN_S)
        return max(MIN_PAUSE_S, min((end for end in ends if end > 0), default=EVERY_S))

    async def _settle_all(self) -> None:
        """Let each dataflow follow what its robots have reported."""
        running = self._fleet.running
        starting = {record.uuid for record in running if not record.opened and record.enabled}
        self._starting = {uuid: self._starting.get(uuid, time.monotonic()) for uuid in starting}
        lost = self._robots.away(FAILOVER_S)
        replans = time.monotonic() - self._replanned >= REPLAN_S
        if replans:
            self._replanned = time.monotonic()
        for record in running:
            try:
                await self._settle(record)
                if replans and (record.pending or lost & record.ports.keys()):
                    await self._replan(record.key, lost)
            except ProblemError as error:
                _log.warning("dataflow `%s`: %s", record.key, error)
        for record in self._fleet.records:
            if record.again is not None and not record.running:
                try:
                    await self._starter.start_again(record.key)
                except ProblemError as error:
                    _log.warning("dataflow `%s`: %s", record.key, error)

    async def _settle(self, record: DataflowRecord) -> None:
        if self._judge(record) is None:
            return
        async with self._fleet.writer.changing:
            current = self._fleet.get(record.key)
            if current is None or (verdict := self._judge(current)) is None:
                return
            await self._follow(current, verdict)

    async def _replan(self, key: str, lost: set[str]) -> None:
        """Place pending nodes, and nodes with failover whose robot is lost."""
        async with self._fleet.writer.changing:
            record = self._fleet.get(key)
            if record is None or not (record.running and record.enabled and record.opened):
                return
            plan = self._planner.replan(record, lost)
            if plan is None:
                return
            moved = {
                node: robot
                for node, robot in plan.placement.items()
                if record.placement.get(node) != robot
            }
            _log.info("dataflow `%s`: nodes go to machines: %s", key, moved)
            placed = msgspec.structs.replace(
                record,
                placement=plan.placement,
                pending=plan.pending,
                ports=plan.ports,
                generation=self._fleet.next_generation,
            )
            await self._fleet.put(placed, COORDINATOR, "dataflow.place", moved=moved)
        for node, robot in moved.items():
            self._event_bus.publish(record.uuid, "node-placed", node, f"on {robot}", robot=robot)

    async def _end(self, record: DataflowRecord) -> None:
        """Store a dataflow that has ended; without its results if these are too large."""
        end = record.end
        assert end is not None
        try:
            await self._fleet.put(
                record, COORDINATOR, "dataflow.ended", robots=(), status=end.status
            )
        except StoreError as error:
            if error.code is not Code.TOO_LARGE:
                raise
            _log.warning("the results of dataflow `%s` are not kept: %s", record.key, error)
            note = [Failure(headline="the results of its nodes are too large to be kept")]
            bare = msgspec.structs.replace(end, results=[], failures=note)
            await self._end(msgspec.structs.replace(record, end=bare))

    def _judge(self, record: DataflowRecord) -> Verdict | None:
        key, robots = record.key, record.robots
        since = self._starting.get(record.uuid)
        return judge(
            record,
            self._robots.shares_of(key, robots),
            self._robots.unreachable(robots),
            self._robots.answered("refused", key, robots, record.generation),
            self._robots.answered("failed", key, robots),
            self._robots.idle(key, robots),
            overdue=since is not None and time.monotonic() - since >= record.hold,
        )

    async def _follow(self, record: DataflowRecord, verdict: Verdict) -> None:
        replace = msgspec.structs.replace
        match verdict:
            case Open():
                _log.info("dataflow `%s` runs: all robots are ready", record.key)
                opened = replace(record, opened=True)
                await self._fleet.put(opened, COORDINATOR, "dataflow.opened", robots=())
                self._event_bus.publish(record.uuid, "dataflow-running")
            case Fail(reason):
                _log.warning("dataflow `%s` is not started: %s", record.key, reason)
                failed = replace(
                    record,
                    enabled=False,
                    failure=f"the start failed: {reason}",
                    generation=self._fleet.next_generation,
                )
                await self._fleet.put(failed, COORDINATOR, "dataflow.failed", reason=reason)
            case Finish(missing):
                shares = self._robots.shares_of(record.key, record.robots)
                status, results, failures = outcome_of(record, shares)
                _log.info("dataflow `%s` has ended: %s", record.key, status)
                end = End(time.time(), status, results, failures, list(missing))
                await self._end(replace(record, end=end))
                self._event_bus.publish(record.uuid, "dataflow-ended", text=status)
