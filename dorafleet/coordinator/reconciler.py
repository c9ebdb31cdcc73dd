"""The loop that reconciles robots with the store, and dataflows with the reports of robots."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages import Failure
from dorad.control.messages.agent import SHARE_OPEN, SHARE_REMOVE, SHARE_SET, ShareRef
from dorad.problems import ProblemError
from dorafleet.coordinator.folding import outcome_of
from dorafleet.coordinator.reconcile import (
    Conflict,
    Fail,
    Finish,
    Open,
    OpenShare,
    RemoveShare,
    SetShare,
    actions_for,
    judge,
)
from dorafleet.coordinator.records import End
from dorafleet.coordinator.shares import end_of, share_of, share_set
from dorafleet.coordinator.writing import COORDINATOR
from dorafleet.store.errors import Code, StoreError

if TYPE_CHECKING:
    from dorad.control.eventbus import EventBus
    from dorafleet.coordinator.fleet import Fleet
    from dorafleet.coordinator.planning import Planner
    from dorafleet.coordinator.reconcile import Action, Verdict
    from dorafleet.coordinator.records import Record
    from dorafleet.coordinator.robot import Robot
    from dorafleet.coordinator.robots import Robots
    from dorafleet.coordinator.starting import Starter

EVERY_S = 30.0
"""Seconds between two passes over everything."""

FAILOVER_S = 60.0
"""Seconds without a robot after which its nodes with `deploy.failover` move to others."""

REPLAN_S = 1.0
"""Minimum seconds between two tries to place nodes."""

MIN_PAUSE_S = 0.05

RETRY_S = 1.0
MAX_RETRY_S = 30.0

_FOR_GOOD = ("refused", "bad-request", "unsupported", "too-large")
"""Errors that the same share meets again."""

_log = logging.getLogger(__name__)


class Reconciler:
    """Converges robots that are dirty at once, and all of them every `EVERY_S`."""

    def __init__(
        self,
        fleet: Fleet,
        robots: Robots,
        planner: Planner,
        starter: Starter,
        event_bus: EventBus,
        peer: str | None,
    ) -> None:
        """`peer` is the endpoint that all links connect to, if there is one."""
        self._fleet = fleet
        self._robots = robots
        self._planner = planner
        self._starter = starter
        self._event_bus = event_bus
        self._peer = peer
        self._dirty = {robot.id for robot in robots.all}
        self._wake = asyncio.Event()
        self._busy: set[str] = set()
        self._failures: dict[str, int] = {}
        self._starting: dict[str, float] = {}
        """When a start was first seen, by its UUID, on the monotonic clock."""
        self._replanned = 0.0
        self._full_pass = time.monotonic()

    def mark(self, *robots: str) -> None:
        """Reconcile these robots soon. Those that have left the cluster file get no orders."""
        self._dirty.update(id_ for id_ in robots if self._robots.find(id_) is not None)
        self._wake.set()

    async def run(self) -> NoReturn:
        """Converge until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._settle_all()
                dirty, self._dirty = self._dirty, self._dirty & self._busy
                for id_ in dirty - self._busy:
                    self._busy.add(id_)
                    tasks.create_task(self._converge(id_), name=f"robot {id_}")
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause()):
                        await self._wake.wait()
                self._wake.clear()
                if time.monotonic() - self._full_pass >= EVERY_S:
                    self._mark_all()

    def _mark_all(self) -> None:
        """Reconcile all robots, and send again the orders that they have not carried out."""
        _log.debug("looking at all robots")
        self._full_pass = time.monotonic()
        for robot in self._robots.all:
            robot.stored.clear()
            self._dirty.add(robot.id)

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
        ends.append(self._full_pass + EVERY_S - now)
        return max(MIN_PAUSE_S, min((end for end in ends if end > 0), default=0.0))

    async def _converge(self, id_: str) -> None:
        """Carry out the actions for one robot; repeat failed ones later."""
        robot = self._robots.get(id_)
        try:
            for action in self._actions(robot):
                await self._act(robot, action)
            self._failures.pop(id_, None)
        except ControlError as error:
            if robot.client is not None:
                self._retry(id_, error)
        except ProblemError as error:
            self._retry(id_, error)
        finally:
            self._busy.discard(id_)
            if id_ in self._dirty:
                self._wake.set()

    def _retry(self, id_: str, error: ProblemError) -> None:
        count = self._failures[id_] = self._failures.get(id_, 0) + 1
        seconds = min(MAX_RETRY_S, RETRY_S * 2 ** min(count - 1, 10))
        _log.warning("robot `%s`: %s; trying again in %g s", id_, error, seconds)
        asyncio.get_running_loop().call_later(seconds, self.mark, id_)

    def _actions(self, robot: Robot) -> list[Action]:
        if robot.client is None:
            return []
        for name in list(robot.undelivered):
            if self._fleet.owner(robot.id, name) is None:
                self._robots.keep_undelivered(robot, name, None)
        wanted = self._fleet.wanted(robot.id)
        records = [record for name in wanted if (record := self._fleet.get(name)) is not None]
        opened = {record.key for record in records if record.opened}
        actions = actions_for(wanted, opened, robot.shares, self._fleet.restored, robot.newer)
        conflicts = {each.dataflow: each.reason for each in actions if isinstance(each, Conflict)}
        for name in conflicts.keys() - robot.conflicts.keys():
            _log.warning("robot `%s` is paused, `%s`: %s", robot.id, name, conflicts[name])
        if conflicts != robot.conflicts:
            robot.conflicts = conflicts
            self._fleet.bell.ring()
        return actions

    async def _act(self, robot: Robot, action: Action) -> None:
        match action:
            case SetShare(name):
                await self._set(robot, name)
            case OpenShare(name):
                record = self._fleet.get(name)
                if record is not None:
                    _log.debug("robot `%s`: opening the barrier of `%s`", robot.id, name)
                    ref = ShareRef(
                        epoch=self._fleet.writer.epoch, generation=record.generation, dataflow=name
                    )
                    await self._robots.command(robot, SHARE_OPEN, name, ref)
            case RemoveShare(name):
                _log.debug("robot `%s`: removing the share of `%s`", robot.id, name)
                generation = robot.shares[name].generation
                ref = ShareRef(epoch=self._fleet.writer.epoch, generation=generation, dataflow=name)
                await self._robots.call(robot.id, SHARE_REMOVE, ref)
                self._robots.keep_undelivered(robot, name, None)
                robot.shares.pop(name, None)
                robot.stored.pop(name, None)
            case Conflict():
                pass  # reported where it was found

    async def _set(self, robot: Robot, name: str) -> None:
        record, wanted = self._fleet.get(name), self._fleet.owner(robot.id, name)
        if wanted is None:
            return  # it was cleaned meanwhile
        known = (robot.stored.get(name), robot.refusals.get(name, (0, ""))[0])
        if wanted.generation in known:
            return  # it is carrying it out, or never will
        epoch = self._fleet.writer.epoch
        if record is None or record.uuid != wanted.uuid or robot.id not in record.ports:
            request = end_of(name, wanted.uuid, robot.id, epoch=epoch, generation=wanted.generation)
        else:
            share = share_of(
                record.placement, record.ports, robot.id, self._robots.machines, self._peer
            )
            request = share_set(record, share, epoch)
        _log.debug("robot `%s`: generation %d of `%s`", robot.id, request.generation, name)
        robot.sending.add(name)
        try:
            await self._robots.command(robot, SHARE_SET, name, request)
        except ControlError as error:
            if error.code == "conflict":
                robot.newer[name] = (request.generation, error.message)
                self.mark(robot.id)
                return
            if error.code not in _FOR_GOOD:
                self._robots.keep_undelivered(robot, name, error)
                raise
            _log.warning("robot `%s` refuses its share of `%s`: %s", robot.id, name, error)
            robot.refusals[name] = (request.generation, error.message)
            self._fleet.bell.ring()
            self._wake.set()
            return
        finally:
            robot.sending.discard(name)
        robot.stored[name] = request.generation
        self._robots.keep_undelivered(robot, name, None)
        robot.refusals.pop(name, None)

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
                    self.mark(*await self._starter.start_again(record.key))
                except ProblemError as error:
                    _log.warning("dataflow `%s`: %s", record.key, error)

    async def _settle(self, record: Record) -> None:
        if self._judge(record) is None:
            return
        async with self._fleet.writer.changing:
            found = self._fleet.get(record.key)
            if found is None or (verdict := self._judge(found)) is None:
                return
            await self._follow(found, verdict)

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
        self.mark(*placed.robots)

    async def _end(self, record: Record) -> None:
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

    def _judge(self, record: Record) -> Verdict | None:
        refused = self._robots.refused(record.key, record.robots, record.generation)
        since = self._starting.get(record.uuid)
        return judge(
            record,
            self._robots.shares_of(record.key, record.robots),
            self._robots.unreachable(record.robots),
            refused,
            self._robots.undelivered(record.key, record.robots),
            self._robots.idle(record.key, record.robots),
            overdue=since is not None and time.monotonic() - since >= record.hold,
        )

    async def _follow(self, record: Record, verdict: Verdict) -> None:
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
        self.mark(*record.robots)
