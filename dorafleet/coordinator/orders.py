"""Send robots their orders about releases, again until each has stored them."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages.releases import HealthRules, ReleaseOrder, ReleaseState
from dorad.problems import ProblemError
from dorafleet.coordinator.releases import is_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorafleet.coordinator.fleet import Fleet
    from dorafleet.coordinator.records import Wanted
    from dorafleet.coordinator.robot import Robot
    from dorafleet.coordinator.robots import Robots
    from dorafleet.coordinator.rollouts import Rollouts
    from dorafleet.rollout.model import Rollout

AT_ONCE = 64
"""Robots that get an order at the same time."""

RETRY_S = 1.0
MAX_RETRY_S = 30.0

_FOR_GOOD = frozenset({"refused", "bad-request", "unsupported", "too-large", "unknown-method"})
"""Errors that the same order meets again."""

_log = logging.getLogger(__name__)


def order_of(dataflow: str, wanted: Wanted, head: Rollout | None, epoch: int) -> ReleaseOrder:
    """Return the order for a desired state; `head` is the rollout that it is from."""
    order = ReleaseOrder(
        epoch=epoch,
        generation=wanted.generation,
        dataflow=dataflow,
        release=wanted.release or None,
        params=wanted.params,
        enabled=wanted.enabled,
        switch=wanted.switch,
        rollout=str(wanted.rollout) if wanted.rollout else "",
        rules=HealthRules() if head is None else head.strategy.rules,
        allow_lower=wanted.allow_lower,
        retry=wanted.retry,
        stay=wanted.stay,
        rejects=wanted.rejects,
        soak_time=wanted.soak_time,
        withdraw=wanted.withdraw,
        group=wanted.group,
        committed=wanted.committed,
    )
    if head is not None:
        order.busy, order.busy_max = head.strategy.busy, head.strategy.busy_max
    return order


class Orders:
    """Sends orders; one task for each robot at a time."""

    def __init__(self, fleet: Fleet, robots: Robots, rollouts: Rollouts) -> None:
        self._fleet = fleet
        self._robots = robots
        self._rollouts = rollouts
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._failures: dict[str, int] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    def mark(self, ids: Iterable[str]) -> None:
        """Compare robots with their orders soon, but those that have left the cluster file."""
        for id_ in ids:
            robot = self._robots.find(id_)
            if id_ in self._sending:
                self._again.add(id_)
            elif robot is not None and self._due(robot):
                task = asyncio.create_task(self._send(id_), name=f"orders {id_}")
                self._sending[id_] = task

    async def close(self) -> None:
        """End all tasks."""
        tasks = list(self._sending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _due(self, robot: Robot) -> list[ReleaseOrder]:
        """Return the orders that a robot has not stored yet."""
        if robot.client is None:
            return []
        due = []
        for dataflow, wanted in self._fleet.orders(robot.id).items():
            if wanted.release and not is_id(wanted.release):
                continue  # set by hand, and no release that is registered
            state = robot.releases.get(dataflow)
            known = robot.ordered.get(dataflow, 0 if state is None else state.generation)
            if state is None and dataflow not in robot.ordered and not wanted.release:
                continue  # there is nothing to remove
            if state is not None and state.generation > wanted.generation:
                continue  # newer than the store; `dorafleet drift` shows it
            if known < wanted.generation:
                head = self._rollouts.heads.get(wanted.rollout)
                due.append(order_of(dataflow, wanted, head, self._fleet.writer.epoch))
        return due

    async def _send(self, id_: str) -> None:
        robot = self._robots.get(id_)
        try:
            async with self._slots:
                while True:
                    self._again.discard(id_)
                    for order in self._due(robot):
                        await self._send_one(robot, order)
                    if id_ not in self._again:
                        break
            self._failures.pop(id_, None)
        except ProblemError as error:
            if robot.client is not None:
                self._retry(id_, error)
        finally:
            del self._sending[id_]

    async def _send_one(self, robot: Robot, order: ReleaseOrder) -> None:
        wanted = self._fleet.owner(robot.id, order.dataflow)
        if wanted is None or wanted.generation != order.generation:
            return  # another one has taken its place; an abort, for example
        what = "none" if order.release is None else order.release[:12]
        act = "switch to" if order.switch else "get ready for"
        _log.debug(
            "robot `%s`: %s %s of `%s`, generation %d",
            robot.id, act, what, order.dataflow, order.generation,
        )  # fmt: skip
        try:
            await self._robots.order(robot, order)
        except ControlError as error:
            if error.code == "conflict":
                _log.warning("robot `%s` has a newer order: %s", robot.id, error)
            elif error.code not in _FOR_GOOD:
                self._robots.keep_undelivered(robot, order.dataflow, error)
                raise
            else:
                _log.warning("robot `%s` refuses its order: %s", robot.id, error)
            self._refuse(robot, order, error)
        self._robots.keep_undelivered(robot, order.dataflow, None)

    def _refuse(self, robot: Robot, order: ReleaseOrder, error: ControlError) -> None:
        """Record a refusal as if the robot had reported it."""
        state = robot.releases.get(order.dataflow) or ReleaseState(
            dataflow=order.dataflow,
            epoch=order.epoch,
            generation=order.generation,
            phase="pending",
            since=time.time(),
            release="",
        )
        robot.ordered[order.dataflow] = order.generation
        robot.releases[order.dataflow] = msgspec.structs.replace(
            state, generation=order.generation, refused=True, reason=error.message
        )
        self._robots.changed(robot)

    def _retry(self, id_: str, error: ProblemError) -> None:
        count = self._failures[id_] = self._failures.get(id_, 0) + 1
        seconds = min(MAX_RETRY_S, RETRY_S * 2 ** min(count - 1, 10))
        _log.warning("robot `%s`: %s; trying again in %g s", id_, error, seconds)
        asyncio.get_running_loop().call_later(seconds, self.mark, [id_])
