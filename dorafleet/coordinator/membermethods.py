"""The methods that add, change and remove robots while the coordinator runs."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from dorad.control.errors import ControlError
from dorad.control.session import Call, handles
from dorad.phrases import first_of
from dorafleet.coordinator import alertstore, lastseen
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.membermessages import (
    FLEET_IMPORT,
    ROBOT_ADD,
    ROBOT_REMOVE,
    FleetDifference,
    FleetImport,
    RobotAdd,
    RobotRemove,
)
from dorafleet.coordinator.members import MAX_MACHINES, Members, difference, machine_of, parts
from dorafleet.coordinator.planner import Planner
from dorafleet.coordinator.records import DataflowRecord
from dorafleet.coordinator.robot import unknown_robot
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.rollouts import Rollouts
from dorafleet.coordinator.secrets import Secrets
from dorafleet.coordinator.writer import actor_of
from dorafleet.inventory.model import Machine

Dismiss = Callable[[str, Mapping[str, Any]], Awaitable[None]]
"""Takes the certificates of a robot; the second argument is the author, for the audit."""

MAX_NAMED = 5
"""Dataflows that a refusal names."""

_log = logging.getLogger(__name__)


class MemberMethods:
    """Answers `robot.add`, `robot.remove` and `fleet.import`."""

    def __init__(
        self,
        members: Members,
        fleet: Fleet,
        robots: Robots,
        planner: Planner,
        rollouts: Rollouts,
        secrets: Secrets,
        dismiss: Dismiss | None,
        forget: Callable[[str], Awaitable[None]],
    ) -> None:
        """`forget` forgets what was measured of a robot that has left; `dismiss` as above."""
        self._members = members
        self._fleet = fleet
        self._robots = robots
        self._planner = planner
        self._rollouts = rollouts
        self._secrets = secrets
        self._dismiss = dismiss
        self._forget = forget

    @handles(ROBOT_ADD)
    async def add(self, call: Call, params: RobotAdd) -> FleetDifference:
        """Add a robot, or change the keys of one."""
        machine = machine_of(params.machine)
        async with self._fleet.writer.changing:
            change = difference(self._members.machines, [machine])
            if change.changed and not params.change:
                raise ControlError(
                    "exists",
                    f"robot `{machine.id}` is in the fleet with other keys: "
                    + "; ".join(change.changed[machine.id]),
                    "`--change` gives it these",
                )
            self._check_room(len(change.added))
            await self._put([machine], change, {**actor_of(call), "action": "robot.add"})
        return _without_others(change)

    @handles(ROBOT_REMOVE)
    async def remove(self, call: Call, params: RobotRemove) -> FleetDifference:
        """Remove a robot, which must run nothing unless it is lost."""
        await self._remove(params.robot, actor_of(call), lost=params.lost)
        return FleetDifference(removed=[params.robot])

    @handles(FLEET_IMPORT)
    async def import_(self, call: Call, params: FleetImport) -> FleetDifference:
        """Add and change the machines that are sent, and remove those that are named."""
        machines = [machine_of(each) for each in params.machines]
        counts = Counter(machine.id for machine in machines)
        if twice := [id_ for id_, count in counts.items() if count > 1]:
            raise ControlError("bad-request", f"the id `{twice[0]}` is given twice")
        for id_ in params.removes:
            if id_ not in self._members.machines:
                raise unknown_robot(id_, self._members.machines)
            if id_ in counts:
                raise ControlError("bad-request", f"`{id_}` cannot be sent and removed at once")
        audited = {**actor_of(call), "action": "fleet.import"}
        async with self._fleet.writer.changing:
            change = difference(self._members.machines, machines, params.removes)
            self._check_room(len(change.added) - len(change.removed))
            # Before anything is changed: a refusal leaves no half of a file.
            for id_ in change.removed:
                self._check_idle(id_)
            if params.dry_run:
                return change
            await self._put(machines, change, audited)
        for id_ in change.removed:
            await self._remove(id_, actor_of(call), lost=False)
        return change

    async def _put(
        self, machines: list[Machine], change: FleetDifference, audited: Mapping[str, Any]
    ) -> None:
        """Store those that are new or differ; each part is used as soon as it is stored."""
        new = {*change.added}
        wanted = [each for each in machines if each.id in new or each.id in change.changed]
        for part in parts(wanted):
            ids = [machine.id for machine in part]
            details = {
                "added": [id_ for id_ in ids if id_ in new],
                "changed": {id_: change.changed[id_] for id_ in ids if id_ in change.changed},
            }
            # What an earlier robot of this name has left is not of this one.
            stale = [key for id_ in ids if id_ in new for key in _measured_keys(id_)]
            generation = self._fleet.next_generation
            await self._members.put(part, {**audited, **details}, generation, stale)
            for machine in part:
                self._robots.put(machine, self._members.since[machine.id])
                _log.info(
                    "robot `%s` %s",
                    machine.id,
                    "joins the fleet"
                    if machine.id in new
                    else f"is changed: {'; '.join(change.changed[machine.id])}",
                )

    async def _remove(self, id_: str, actor: Mapping[str, Any], *, lost: bool) -> None:
        """Remove a robot. Raises ControlError if it shall run something and is not `lost`."""
        self._robots.get(id_)
        runs = self._runs(id_)
        if not lost:
            self._check_idle(id_)
        # While it is connected: it removes its secrets itself.
        await self._secrets.forget_robot(id_)
        async with self._fleet.writer.changing:
            self._robots.get(id_)
            if not lost:
                self._check_idle(id_)
            for record in self._fleet.running:
                if id_ in record.ports:
                    await self._leave(record, id_, actor)
            if self._dismiss is not None:
                await self._dismiss(id_, actor)
            audited = {**actor, "action": "robot.remove", "robot": id_, "lost": lost, "ran": runs}
            keys = [*self._rollouts.failed_keys(id_), *_measured_keys(id_), self._members.key(id_)]
            await self._fleet.remove_robot(id_, audited, keys)
            self._rollouts.forget_robot(id_)
            self._members.forget(id_)
            robot = self._robots.get(id_)
            client = robot.client
            self._robots.remove(id_)
        _log.info("robot `%s` leaves the fleet%s", id_, f"; it ran {', '.join(runs)}" * bool(runs))
        if client is not None:
            await client.close()
        await self._forget(id_)

    async def _leave(self, record: DataflowRecord, id_: str, actor: Mapping[str, Any]) -> None:
        """Take a robot out of a dataflow that runs: its nodes go elsewhere, or wait."""
        stay = {node: robot for node, robot in record.placement.items() if robot != id_}
        ports = {robot: port for robot, port in record.ports.items() if robot != id_}
        replace = msgspec.structs.replace
        why = f"its machine `{id_}` was removed from the fleet"
        generation = self._fleet.next_generation
        try:
            dataflow = self._fleet.dataflow(record)
            plan = self._planner.plan(dataflow, record.key, stay, ports, leave=frozenset({id_}))
        except ControlError as error:
            plan, why = None, f"{why}: {error.message}"
        if plan is None or not plan.ports:
            # No machine is left that could say that it has ended.
            after = replace(record, enabled=False, force=True, failure=why, generation=generation)
            await self._fleet.put(after, actor, "dataflow.failed", reason=why)
        else:
            after = replace(
                record,
                placement=plan.placement,
                pending=plan.pending,
                ports=plan.ports,
                generation=generation,
            )
            await self._fleet.put(after, actor, "dataflow.place", gone=[id_], reason=why)
        _log.info("dataflow `%s`: %s", record.key, why)

    def _runs(self, id_: str) -> list[str]:
        """Return what a robot shall run."""
        orders = self._fleet.orders(id_).items()
        return [record.key for record in self._fleet.running if id_ in record.ports] + [
            name for name, wanted in orders if wanted.release and wanted.enabled
        ]

    def _check_idle(self, id_: str) -> None:
        if runs := self._runs(id_):
            raise ControlError(
                "refused",
                f"robot `{id_}` runs {first_of((f'`{name}`' for name in runs), MAX_NAMED)}",
                f"stop that first; or `dorafleet robot remove {id_} --lost`: then nothing here "
                "knows of it, and what the robot runs goes on there",
            )

    def _check_room(self, more: int) -> None:
        if len(self._members.machines) + more > MAX_MACHINES:
            raise ControlError("refused", f"a fleet has at most {MAX_MACHINES} robots")


def _measured_keys(id_: str) -> tuple[str, str]:
    """Return the keys of what is stored of a robot's reports."""
    return f"{alertstore.PREFIX}{id_}", f"{lastseen.PREFIX}{id_}"


def _without_others(change: FleetDifference) -> FleetDifference:
    return msgspec.structs.replace(change, unlisted=[])
