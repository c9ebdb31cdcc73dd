"""Start dataflows: from a client's order, and again once the run that a restart stops has ended."""

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.eventbus import EventBus
from dorad.control.naming import check_name
from dorad.dataflow.model import Dataflow
from dorad.phrases import first_of
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.planner import PlacementPlan, Planner
from dorafleet.coordinator.records import DataflowRecord, StartOptions
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.writer import COORDINATOR
from dorafleet.rollout.model import Rollout

COMING_S = 5.0
"""Seconds that a start waits for machines that are not connected."""
AGAIN_S = 15.0
"""The same after a restart's stop: after the coordinator's start, agents take some seconds."""

MAX_LISTED = 5
"""Nodes and machines that a message names."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """What to start."""

    dataflow: Dataflow
    name: str | None
    path: str
    original: dict[str, Any]
    options: StartOptions
    hold: float
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    stay: Mapping[str, str] = field(default_factory=dict)
    """The robots that nodes stay on."""
    set_before: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Parameters by node."""

    @property
    def key(self) -> str:
        """The key of the new record."""
        return self.name or self.uuid


class Starter:
    """Places dataflows and stores them; `Delivery` sends machines their shares."""

    def __init__(
        self,
        fleet: Fleet,
        robots: Robots,
        planner: Planner,
        event_bus: EventBus,
        unfinished: Callable[[str], Rollout | None],
    ) -> None:
        """`unfinished` returns the rollout of a dataflow that may still give orders."""
        self._unfinished = unfinished
        self._fleet = fleet
        self._robots = robots
        self._planner = planner
        self._event_bus = event_bus
        self._waiting: dict[str, float] = {}
        """When a run that is started again was first seen ended, by its UUID, on the monotonic
        clock."""

    async def start(self, start: Start, actor: Mapping[str, Any]) -> DataflowRecord:
        """Store a new run, and return it. Raises ControlError."""
        # After the coordinator's start all robots connect at once.
        await self._fleet.bell.until(lambda: not self._away(start), COMING_S)
        async with self._fleet.writer.changing:
            return await self._put(start, actor)

    async def start_again(self, key: str) -> None:
        """Start a dataflow that a restart has ended.

        It waits for machines that are away. What cannot be started stays ended, with the reason.
        """
        async with self._fleet.writer.changing:
            old = self._fleet.get(key)
            if old is None or old.running or old.again is None:
                return
            again = old.again
            if self._fleet.run(again.uuid) is not None:
                # Killed between the two: it has no name, so its key is another one.
                await self._forget(old, "dataflow.restarted")
                return
            start = Start(
                dataflow=self._fleet.dataflow(old),
                name=old.name,
                path=old.path,
                original=old.original,
                options=old.options,
                hold=old.hold,
                uuid=again.uuid,
                stay=old.placement,
                set_before=again.params,
            )
            try:
                if self._away(start) and self._is_early(old):
                    return
                await self._put(start, again.actor)
            except ControlError as error:
                _log.warning("dataflow `%s` is not started again: %s", key, error)
                await self._forget(old, "dataflow.restart.failed", reason=error.message)
            else:
                if old.name is None:
                    await self._forget(old, "dataflow.restarted")
            self._waiting.pop(old.uuid, None)

    def left(self, record: DataflowRecord) -> list[str]:
        """Return the robots where an ended dataflow may still run.

        Without those that have left the fleet: nothing is ever heard of them.
        """
        if record.end is None:
            return list(record.robots)
        missing = [id_ for id_ in record.end.missing if self._robots.find(id_) is not None]
        waiting = self._robots.unreachable(missing)
        return [id_ for id_ in missing if id_ in waiting]

    def _away(self, start: Start) -> dict[str, str]:
        return self._planner.plan(start.dataflow, start.key, start.stay, {}).away

    def _is_early(self, old: DataflowRecord) -> bool:
        """Return True if machines that a run needs may still connect."""
        since = self._waiting.setdefault(old.uuid, time.monotonic())
        return time.monotonic() - since < AGAIN_S

    async def _forget(self, old: DataflowRecord, action: str, **details: Any) -> None:
        """Store that an ended run is not started again, or was."""
        assert old.end is not None
        end = old.end
        if reason := details.get("reason"):
            why = m.Failure(headline=f"it was not started again: {reason}")
            end = msgspec.structs.replace(end, failures=[*end.failures, why])
        after = msgspec.structs.replace(old, again=None, end=end)
        await self._fleet.put(after, COORDINATOR, action, robots=(), **details)

    async def _put(self, start: Start, actor: Mapping[str, Any]) -> DataflowRecord:
        """Place the nodes and store the run; return it."""
        key, set_before = start.key, start.set_before
        before, plan = self.plan(start)
        record = DataflowRecord(
            uuid=start.uuid,
            name=start.name,
            path=start.path,
            original=start.original,
            descriptor=start.dataflow.descriptor,
            options=start.options,
            placement=plan.placement,
            pending=plan.pending,
            ports=plan.ports,
            generation=self._fleet.next_generation,
            started_at=time.time(),
            hold=start.hold,
            params={id_: set_before[id_] for id_ in plan.placement if id_ in set_before},
        )
        gone = [] if before is None else [r for r in before.robots if r not in record.ports]
        await self._fleet.put(record, actor, "dataflow.start", gone=gone)
        _log.info("dataflow `%s` (%s) starts on %s", key, start.uuid, ", ".join(record.robots))
        self._event_bus.publish(start.uuid, "dataflow-starting")
        return record

    def plan(self, start: Start) -> tuple[DataflowRecord | None, PlacementPlan]:
        """Return the ended run of this name, and where the nodes go. Raises ControlError."""
        if start.name is not None:
            check_name(start.name, self._fleet.records)
        before = self._fleet.get(start.key)
        if before is not None:
            self._check_ended(before)
        self._check_free(start.key)
        return before, self._placed(start)

    def _placed(self, start: Start) -> PlacementPlan:
        """Return where the nodes go. Raises ControlError if no node has a machine."""
        plan = self._planner.plan(start.dataflow, start.key, start.stay, {})
        if plan.away:
            nodes = first_of((f"`{node}`" for node in plan.pending), MAX_LISTED)
            away = first_of((f"`{id_}`: {why}" for id_, why in plan.away.items()), MAX_LISTED, "; ")
            raise ControlError(
                "unavailable",
                f"there is no machine for {nodes}: {away}",
                "`dorafleet status` shows all robots",
            )
        if not plan.placement and start.dataflow.nodes:
            raise ControlError(
                "refused",
                "no machine takes any of the nodes",
                "`dorafleet explain` shows why",
                [f"{node}: {reason}" for node, reason in plan.pending.items()],
            )
        return plan

    def _check_ended(self, before: DataflowRecord) -> None:
        """Raise ControlError if an ended dataflow may still run somewhere."""
        for robot in self.left(before):
            raise ControlError(
                "exists",
                f"`{before.key}` has not ended on `{robot}`, which cannot be reached",
                "choose another name with --name",
            )

    def _check_free(self, key: str) -> None:
        """Raise ControlError if a release has the name of a dataflow: one name, one deployment."""
        if (rollout := self._unfinished(key)) is not None:
            raise ControlError(
                "exists",
                f"`{key}` belongs to the release {rollout.name}: rollout {rollout.number} is "
                f"{rollout.phase}",
                "choose another name with --name",
            )
        for robot in self._robots.all:
            owner = self._fleet.owner(robot.id, key)
            there = robot.releases.get(key)
            if owner is None or not owner.is_order:
                continue
            # Without a release it is being removed, and then the name is free.
            release = owner.release or ("" if there is None else there.release or there.running)
            if release:
                raise ControlError(
                    "exists",
                    f"`{key}` on `{robot.id}` belongs to the release `{release[:12]}`",
                    "choose another name with --name",
                )
