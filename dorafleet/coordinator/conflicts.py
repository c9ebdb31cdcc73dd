"""End a conflict with a robot whose state is newer than the store: adopt or overrule it."""

import logging
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages.agent import SHARE_SET, ShareState
from dorad.control.naming import check_name, check_uuid
from dorafleet.coordinator.dataflowstates import outcome_of
from dorafleet.coordinator.fleet import Fleet, checked
from dorafleet.coordinator.records import HOLD_S, DataflowRecord, End, RobotAssignment, StartOptions
from dorafleet.coordinator.robot import Robot
from dorafleet.coordinator.robotcalls import ask_one
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.shares import end_of, ports_for, share_request
from dorafleet.coordinator.verdicts import FINAL

_log = logging.getLogger(__name__)


class Conflicts:
    """Ends the conflicts of robots."""

    def __init__(self, fleet: Fleet, robots: Robots, peer: str | None) -> None:
        """`peer` is the endpoint that all links connect to."""
        self._peer = peer
        self._fleet = fleet
        self._robots = robots

    async def resume(self, robot: Robot, actor: Mapping[str, Any]) -> None:
        """Give the store's dataflows a generation above the robot's, and end what it lacks.

        Raises ControlError or StoreError.
        """
        async with self._fleet.writer.changing:
            for name in list(robot.conflicts):
                generation = self._fleet.next_generation
                wanted = self._fleet.owner(robot.id, name)
                record = self._fleet.get(name)
                _log.info("robot `%s`: `%s` becomes what the store says", robot.id, name)
                if record is not None and wanted is not None:
                    newer = msgspec.structs.replace(record, generation=generation)
                    await self._fleet.put(newer, actor, "robot.resume", robot=robot.id)
                    await self._overrule(robot, newer)
                else:
                    uuid = robot.shares[name].uuid
                    epoch = self._fleet.writer.epoch
                    request = end_of(name, uuid, robot.id, epoch=epoch, generation=generation)
                    await self._robots.command(robot, SHARE_SET, name, request)

    async def adopt(self, robot: Robot, actor: Mapping[str, Any]) -> None:
        """Copy the robot's state into the store.

        Where its nodes are is known, where those of other robots are only if the store has it.
        Raises ControlError or StoreError.
        """
        for name in list(robot.conflicts):
            share = robot.shares[name]
            check_uuid(share.uuid)
            if name != share.uuid:
                check_name(name, ())
            ref = m.Ref(dataflow=share.uuid)
            detail = await ask_one(self._robots, robot.id, m.DATAFLOW_INFO, ref)
            nodes = set()
            if share.status not in FINAL:
                listed = await ask_one(self._robots, robot.id, m.NODE_LIST, ref)
                nodes = {node.node for node in listed.nodes}
            async with self._fleet.writer.changing:
                before = self._fleet.get(name)
                if before is not None and before.uuid != share.uuid:
                    self._check_over(before, robot)
                record = self._adopted(robot, share, detail, nodes)
                gone = set() if before is None else {*before.robots} - {*record.robots}
                _log.info("robot `%s`: the store takes over its `%s`", robot.id, name)
                await self._fleet.put(record, actor, "robot.adopt", gone=gone, robot=robot.id)
                await self._overrule(robot, record)

    async def _overrule(self, robot: Robot, record: DataflowRecord) -> None:
        """Send a robot a share at once if the robot's has a higher generation.

        The store counts from a backup or a copy, so its generations may be below those that robots
        have from a former term. Under a new term they accept that. Raises ControlError.
        """
        if robot.shares[record.key].generation <= record.generation:
            return
        request = share_request(
            record.key,
            RobotAssignment(record.generation, uuid=record.uuid),
            record,
            robot.id,
            self._robots.machines,
            self._peer,
            self._fleet.writer.epoch,
        )
        _log.debug("robot `%s`: `%s` gets a lower generation", robot.id, record.key)
        await self._robots.command(robot, SHARE_SET, record.key, request)

    def _check_over(self, before: DataflowRecord, robot: Robot) -> None:
        """Raise ControlError if another run of a dataflow, which the store has, runs somewhere.

        After a restore it usually does not: a newer run has replaced it on all its robots.
        """
        shares = self._robots.shares_of(before.key, before.robots)
        for id_, share in shares.items():
            if share is not None and share.uuid == before.uuid and share.status not in FINAL:
                raise ControlError(
                    "exists",
                    f"`{id_}` runs another run of `{before.key}`, {before.uuid}",
                    f"`dora stop {before.uuid}` stops that, or `dorafleet resume {robot.id}`",
                )

    def _adopted(
        self, robot: Robot, share: ShareState, detail: m.DataflowDetail, nodes: set[str]
    ) -> DataflowRecord:
        """Return the dataflow of the store as the robot has it."""
        name = share.dataflow
        before = self._fleet.get(name)
        known = [node.id for node in checked(detail.descriptor, detail.path).nodes]
        old = before if before is not None and before.uuid == share.uuid else None
        elsewhere = {} if old is None else old.placement
        placement = {
            node: robot.id if node in nodes else elsewhere[node]
            for node in known
            if node in nodes or elsewhere.get(node, robot.id) != robot.id
        }
        ports = {} if old is None else dict(old.ports)
        if robot.id not in ports:
            used = self._fleet.ports_used(name)
            ports |= ports_for([robot.id], self._robots.machines, used)
        record = DataflowRecord(
            uuid=share.uuid,
            name=None if name == share.uuid else name,
            path=detail.path,
            original=detail.descriptor if old is None else old.original,
            descriptor=detail.descriptor,
            options=StartOptions() if old is None else old.options,
            placement=placement,
            pending={},
            ports=ports,
            generation=min(share.generation, self._fleet.next_generation),
            started_at=min(max(0.0, detail.info.started_at), time.time()),
            hold=HOLD_S if old is None else old.hold,
            enabled=share.status not in {"stopping", *FINAL},
            opened=share.status not in {"starting", "ready"},
            params=({} if old is None else old.params)
            | {node: values for node, values in detail.params.items() if node in nodes},
        )
        if share.status not in FINAL:
            return record
        status, results, failures = outcome_of(record, {robot.id: share})
        return msgspec.structs.replace(record, end=End(time.time(), status, results, failures))
