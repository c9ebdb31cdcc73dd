"""The robots of the fleet: look them up, and call their agents."""

import time
from collections.abc import Callable, Iterable, Mapping

from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages import CallMethod
from dorad.control.messages.agent import RELEASE_ORDER, ShareState
from dorad.control.messages.method import P, R
from dorad.control.messages.releases import ReleaseOrder
from dorad.control.shortening import short_release, short_share
from dorafleet.coordinator.reports import MAX_USUAL, check_releases, check_shares, sizes_after
from dorafleet.coordinator.requests import AnswerKind
from dorafleet.coordinator.robot import MAX_REASON, Robot, unknown_robot
from dorafleet.inventory.model import Machine


class Robots:
    """All robots of the fleet, in their order. They come and go while the coordinator runs."""

    def __init__(
        self,
        machines: Iterable[Machine],
        since: Mapping[str, int],
        on_change: Callable[[Robot], None],
    ) -> None:
        """`since` are the generations from which they are in the fleet.

        `on_change` is called when something new is known of a robot.
        """
        self._robots = {
            machine.id: Robot(machine, since=since.get(machine.id, 0)) for machine in machines
        }
        self._on_change = on_change

    @property
    def all(self) -> list[Robot]:
        """All robots, in their order."""
        return list(self._robots.values())

    @property
    def machines(self) -> Mapping[str, Machine]:
        """The machines by their ids."""
        return {robot.id: robot.machine for robot in self._robots.values()}

    def find(self, id_: str) -> Robot | None:
        """Return a robot, None if it is not in the fleet."""
        return self._robots.get(id_)

    def put(self, machine: Machine, since: int) -> None:
        """Add a robot, or let one that is there have another address or other labels.

        `since` is the generation from which it is in the fleet.
        """
        robot = self._robots.get(machine.id)
        if robot is None:
            robot = self._robots[machine.id] = Robot(machine, since=since)
        robot.machine = machine
        self.changed(robot)

    def remove(self, id_: str) -> None:
        """Forget a robot. Its connection is closed elsewhere."""
        robot = self._robots.pop(id_)
        robot.reason = "it was removed from the fleet"
        self.changed(robot)

    def get(self, id_: str) -> Robot:
        """Return a robot. Raises ControlError."""
        robot = self._robots.get(id_)
        if robot is None:
            raise unknown_robot(id_, self._robots)
        return robot

    def shares_of(self, dataflow: str, robots: Iterable[str]) -> dict[str, ShareState | None]:
        """Return the last known share of a dataflow for each robot."""
        known = ((id_, self._robots.get(id_)) for id_ in robots)
        return {id_: None if each is None else each.shares.get(dataflow) for id_, each in known}

    def unreachable(self, robots: Iterable[str]) -> dict[str, str]:
        """Return the robots without a connection, with the reason."""
        return {
            id_: self._robots[id_].trouble if id_ in self._robots else "it is not in the fleet"
            for id_ in robots
            if id_ not in self._robots or self._robots[id_].client is None
        }

    def answered(
        self,
        kind: AnswerKind,
        dataflow: str,
        robots: Iterable[str],
        generation: int | None = None,
    ) -> dict[str, str]:
        """Return the robots whose last answer about a dataflow is this, each with the reason."""
        by_robot = {
            id_: robot.answered(kind, generation) for id_ in robots if (robot := self.find(id_))
        }
        return {id_: answers[dataflow] for id_, answers in by_robot.items() if dataflow in answers}

    def idle(self, dataflow: str, robots: Iterable[str]) -> set[str]:
        """Return the connected robots that have no share of a dataflow, and get none now."""
        known = (self._robots[id_] for id_ in robots if id_ in self._robots)
        return {
            robot.id
            for robot in known
            if robot.client and dataflow not in robot.shares and dataflow not in robot.sending
        }

    def away(self, seconds: float) -> set[str]:
        """Return the robots that could not be reached for this time."""
        now = time.monotonic()
        return {
            robot.id
            for robot in self._robots.values()
            if robot.away_since is not None and now - robot.away_since >= seconds
        }

    async def call(self, id_: str, method: CallMethod[P, R], params: P) -> R:
        """Call a method of a robot. Raises ControlError, for instance if it is not connected."""
        return await self.client(id_).call(method, params)

    def client(self, id_: str) -> AsyncClient:
        """Return the connection to a robot. Raises ControlError if there is none."""
        robot = self.get(id_)
        if robot.client is None:
            raise ControlError(
                "unavailable",
                f"robot `{id_}` cannot be reached: {robot.trouble}",
                "`dorafleet status` shows all robots",
            )
        return robot.client

    def refuse(self, id_: str, reason: str) -> None:
        """Record why a robot was refused, if it has no other connection."""
        robot = self._robots.get(id_)
        if robot is not None and robot.client is None:
            robot.was_refused, robot.reason = True, reason[:MAX_REASON]
            self.changed(robot)

    def forget_place(self, id_: str) -> None:
        """Give the place of a robot to the next machine that has a valid certificate."""
        robot = self._robots.get(id_)
        if robot is not None:
            robot.origin = robot.former = None
            robot.clones.clear()
            self.changed(robot)

    async def command(
        self, robot: Robot, method: CallMethod[P, ShareState], dataflow: str, params: P
    ) -> None:
        """Call a method of an agent that returns the state of a share, and take that state.

        A report of the same generation that arrives before the answer is the newer one.

        Raises:
            ControlError: the robot refuses, or cannot be reached.
        """
        before = robot.shares.get(dataflow)
        state = await self.call(robot.id, method, params)
        check_shares([state])
        state = short_share(state, MAX_USUAL)
        robot.sizes = sizes_after(robot.sizes, [state], ())
        known = robot.shares.get(dataflow)
        newer = known is before or known is None or known.generation < state.generation
        if newer and state.dataflow == dataflow:
            robot.shares[dataflow] = state
            self.changed(robot)

    async def order(self, robot: Robot, order: ReleaseOrder) -> None:
        """Give a robot an order about a release, and take its answer.

        A report of the same generation that arrives before the answer is the newer one.

        Raises:
            ControlError: the robot refuses, or cannot be reached.
        """
        before = robot.releases.get(order.dataflow)
        state = await self.call(robot.id, RELEASE_ORDER, order)
        check_releases([state])
        state = short_release(state, MAX_USUAL)
        robot.sizes = sizes_after(robot.sizes, (), [state])
        known = robot.releases.get(order.dataflow)
        newer = known is before or known is None or known.generation < state.generation
        if newer and state.dataflow == order.dataflow:
            robot.releases[order.dataflow] = state
        self.changed(robot)

    def changed(self, robot: Robot) -> None:
        """Report that something new is known of a robot."""
        self._on_change(robot)
