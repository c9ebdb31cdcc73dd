"""The methods `robot.…`: states of robots, labels, and what operators decide about them."""

from msgspec.structs import replace

from dorad.control.errors import ControlError
from dorad.control.messages import Nothing
from dorad.control.session import Call, handles
from dorad.dataflow.errors import TextError
from dorafleet.coordinator.auditmemories import AuditMemories
from dorafleet.coordinator.conflicts import Conflicts
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.messages import (
    AUDIT_ACKNOWLEDGE,
    ROBOT_ADOPT,
    ROBOT_LABEL,
    ROBOT_LIST,
    ROBOT_RESUME,
    ROBOT_TAKEOVER,
    AuditAcknowledge,
    AuditAcknowledged,
    RobotLabel,
    RobotList,
    RobotRef,
)
from dorafleet.coordinator.messages import Robot as RobotMessage
from dorafleet.coordinator.overview import FleetOverview
from dorafleet.coordinator.planner import Planner
from dorafleet.coordinator.robot import Robot
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.writer import actor_of
from dorafleet.inventory import syntax

MAX_LABELS = 100

SETTLED_S = 5.0
"""Seconds that a robot has to settle before its state is returned."""


class RobotMethods:
    """Answers the methods `robot.…`."""

    def __init__(
        self,
        fleet: Fleet,
        robots: Robots,
        planner: Planner,
        memories: AuditMemories,
        peer: str | None,
        overview: FleetOverview,
    ) -> None:
        self._fleet = fleet
        self._robots = robots
        self._planner = planner
        self._memories = memories
        self._overview = overview
        self._conflicts = Conflicts(fleet, robots, peer)

    @handles(ROBOT_LIST)
    async def list_all(self, _call: Call, _params: Nothing) -> RobotList:
        """List all robots, in their order."""
        return RobotList(robots=[self._message(robot) for robot in self._robots.all])

    @handles(ROBOT_LABEL)
    async def label(self, call: Call, params: RobotLabel) -> RobotMessage:
        """Change labels; nodes that wait for them are placed."""
        robot = self._robots.get(params.robot)
        for name, value in params.labels.items():
            try:
                if value is not None:  # a removed one is not checked: it changes nothing
                    syntax.label(name)
                    syntax.label(value)
            except TextError as error:
                raise ControlError("bad-request", error.message, error.hint) from None
        async with self._fleet.writer.changing:
            changed = {**self._fleet.labels(robot.id), **params.labels}
            given = robot.machine.labels
            changed = {name: value for name, value in changed.items() if given.get(name) != value}
            if len(changed) > MAX_LABELS:
                raise ControlError("refused", f"a robot has at most {MAX_LABELS} labels")
            await self._fleet.set_labels(robot.id, changed, actor_of(call))
        self._robots.changed(robot)
        return self._message(robot)

    @handles(ROBOT_ADOPT)
    async def adopt(self, call: Call, params: RobotRef) -> RobotMessage:
        """Copy a paused robot's state into the store."""
        robot = self._conflicting(params.robot)
        await self._conflicts.adopt(robot, actor_of(call))
        return await self._after(robot)

    @handles(ROBOT_RESUME)
    async def resume(self, call: Call, params: RobotRef) -> RobotMessage:
        """Make a paused robot follow the store."""
        robot = self._conflicting(params.robot)
        await self._conflicts.resume(robot, actor_of(call))
        return await self._after(robot)

    @handles(ROBOT_TAKEOVER)
    async def take_over(self, call: Call, params: RobotRef) -> RobotMessage:
        """Let a robot obey this coordinator from its next connection on."""
        robot = self._robots.get(params.robot)
        if robot.client is not None or not robot.outranked:
            how = (
                "obeys this coordinator" if robot.client is not None else "has not refused to obey"
            )
            raise ControlError("refused", f"robot `{robot.id}` {how}")
        async with self._fleet.writer.changing:
            record = {"action": "robot.takeover", "robot": robot.id, "why": robot.reason}
            await self._fleet.put_orders({}, {**actor_of(call), **record})
        robot.takes_over = True
        return self._message(robot)

    @handles(AUDIT_ACKNOWLEDGE)
    async def acknowledge(self, call: Call, params: AuditAcknowledge) -> AuditAcknowledged:
        """Let robots follow the audit, although it lacks records that they know."""
        named = [self._robots.get(id_) for id_ in params.robots]
        differ = [each for each in self._robots.all if each.audit or self._memories.lost(each)]
        done, failed = [], {}
        for robot in named or differ:
            if robot not in differ:
                failed[robot.id] = "its audit does not differ"
                continue
            try:
                await self._memories.acknowledge(robot, actor_of(call))
                done.append(robot.id)
            except ControlError as error:
                failed[robot.id] = error.message
        restored = self._fleet.restored
        if not named and restored is not None and not restored.acknowledged:
            async with self._fleet.writer.changing:
                record = {**actor_of(call), "action": "audit.acknowledge"}
                settled = replace(restored, acknowledged=True)
                await self._fleet.put_restored(settled, record)
        return AuditAcknowledged(robots=done, failed=failed)

    def _conflicting(self, id_: str) -> Robot:
        """Return a connected robot that is paused. Raises ControlError."""
        robot = self._robots.get(id_)
        self._robots.client(id_)
        if not robot.conflicts:
            raise ControlError("refused", f"robot `{id_}` has no conflict with the store")
        return robot

    async def _after(self, robot: Robot) -> RobotMessage:
        """Return the robot once its conflicts are gone, or soon."""
        await self._fleet.bell.until(lambda: not robot.conflicts, SETTLED_S)
        return self._message(robot)

    def _message(self, robot: Robot) -> RobotMessage:
        attached, findings = robot.attached, self._overview.findings(robot)
        return RobotMessage(
            id=robot.id,
            host=robot.machine.host,
            labels=self._planner.labels(robot),
            state=robot.state,
            reason=robot.trouble,
            seen_at=robot.seen_at,
            age=robot.age,
            skew=robot.skew.seconds,
            version="" if attached is None else attached.version,
            arch="" if attached is None else attached.arch,
            python="" if attached is None else attached.python,
            glibc="" if attached is None else attached.glibc,
            cores=None if attached is None else attached.cores,
            memory=None if attached is None else attached.memory,
            shares=robot.known_shares,
            releases=robot.known_releases,
            local=robot.local,
            conflicts=dict(robot.conflicts),
            audit=robot.audit,
            revoked=self._memories.lost(robot),
            outranked=robot.outranked and robot.client is None,
            warnings=[each.text for each in findings if each.severity == "warn"],
            user=robot.machine.user,
            port=robot.machine.port,
            address="" if robot.origin is None else robot.origin.host,
            machine_id="" if robot.origin is None else robot.origin.machine_id,
            clone=robot.clone,
            findings=findings,
        )
