"""Send each robot what it should run, again until it has stored it: the one loop for that."""

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

import msgspec

from dorad.control.asyncclient import AsyncClient
from dorad.control.messages.agent import SHARE_OPEN, SHARE_REMOVE, SHARE_SET, ShareRef
from dorad.control.messages.releases import ReleaseState
from dorad.problems import ProblemError
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.requests import Answer, Request, Term, due_requests, order_of
from dorafleet.coordinator.robot import MAX_REASON, Robot
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.rollouts import Rollouts
from dorafleet.coordinator.shares import share_request

COMPARE_S = 30.0
"""Seconds between two comparisons of all robots with the store."""

RETRY_S = 1.0
MAX_RETRY_S = 30.0

_FOR_GOOD = frozenset(
    {"refused", "bad-request", "unsupported", "too-large", "unknown-method", "conflict"}
)
"""Errors that the same request meets again."""

_log = logging.getLogger(__name__)


class Delivery:
    """Brings robots to their desired state; one task for each robot at a time."""

    def __init__(self, fleet: Fleet, robots: Robots, rollouts: Rollouts, peer: str | None) -> None:
        """`peer` is the endpoint that all links connect to, if there is one."""
        self._fleet = fleet
        self._robots = robots
        self._rollouts = rollouts
        self._peer = peer
        self._marked = {robot.id for robot in robots.all}
        self._busy: set[str] = set()
        self._wake = asyncio.Event()

    def mark(self, ids: Iterable[str]) -> None:
        """Compare robots with the store soon."""
        self._marked.update(ids)
        self._wake.set()

    async def run(self) -> NoReturn:
        """Deliver until cancelled."""
        clock = asyncio.get_running_loop().time
        compare_at = clock() + COMPARE_S
        async with asyncio.TaskGroup() as tasks:
            while True:
                marked = self._marked - self._busy
                self._marked &= self._busy
                for id_ in marked:
                    # Those that have left the fleet get nothing.
                    robot = self._robots.find(id_)
                    if robot is not None and self._due(robot):
                        self._busy.add(id_)
                        tasks.create_task(self._deliver(robot), name=f"robot {id_}")
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(compare_at):
                        await self._wake.wait()
                self._wake.clear()
                if clock() >= compare_at:
                    compare_at = clock() + COMPARE_S
                    self._forget_stored()

    def _forget_stored(self) -> None:
        """Send again what robots have stored, but do not report."""
        _log.debug("comparing all robots with the store")
        for robot in self._robots.all:
            robot.answers = {
                name: each for name, each in robot.answers.items() if each.kind != "stored"
            }
            self._marked.add(robot.id)

    def _due(self, robot: Robot) -> list[Request]:
        """Return the requests for a robot, and show its conflicts."""
        if robot.client is None or self._robots.find(robot.id) is not robot:
            return []
        desired = self._fleet.desired(robot.id)
        records = (self._fleet.get(name) for name in desired)
        due = due_requests(
            desired,
            {record.key for record in records if record is not None and record.opened},
            robot.shares,
            robot.releases,
            robot.answers,
            self._fleet.restored,
            Term(self._fleet.writer.epoch, self._fleet.term_since),
        )
        for name in due.over:
            self._record(robot, name, None)
        for name in due.conflicts.keys() - robot.conflicts.keys():
            _log.warning("robot `%s` is paused, `%s`: %s", robot.id, name, due.conflicts[name])
        for name in due.strange.keys() - robot.strange.keys():
            _log.warning("robot `%s` reports of `%s` %s", robot.id, name, due.strange[name])
        if (due.conflicts, due.strange) != (robot.conflicts, robot.strange):
            robot.conflicts, robot.strange = due.conflicts, due.strange
            self._robots.changed(robot)
        return due.requests

    async def _deliver(self, robot: Robot) -> None:
        """Send a robot what it is due, until there is nothing left or all has failed."""
        try:
            while due := self._due(robot):
                # One at a time: what follows may have changed meanwhile.
                await self._send(robot, due[0])
            self._marked.discard(robot.id)
        finally:
            self._busy.discard(robot.id)
            self._wake.set()

    async def _send(self, robot: Robot, request: Request) -> None:
        name, client = request.dataflow, robot.client
        _log.debug(
            "robot `%s`: %s `%s`, generation %d",
            robot.id, request.kind, name, request.generation,
        )  # fmt: skip
        robot.sending.add(name)
        try:
            await self._carry_out(robot, request)
            answer = Answer(request, "stored")
        except ProblemError as error:
            if not self._is_on(robot, client):
                return  # it is due again on the new connection
            answer = self._failed(robot, request, error)
        finally:
            robot.sending.discard(name)
        if self._is_on(robot, client):
            self._record(robot, name, answer)

    def _is_on(self, robot: Robot, client: AsyncClient | None) -> bool:
        """Return True if a robot is still in the fleet, with this connection."""
        return robot.client is client and self._robots.find(robot.id) is robot

    async def _carry_out(self, robot: Robot, request: Request) -> None:
        name, epoch = request.dataflow, self._fleet.writer.epoch
        if request.kind == "remove":
            ref = ShareRef(epoch=epoch, generation=request.generation, dataflow=name)
            await self._robots.call(robot.id, SHARE_REMOVE, ref)
            robot.shares.pop(name, None)
            return
        wanted = self._fleet.desired(robot.id)[name]
        match request.kind:
            case "order":
                head = self._rollouts.heads.get(wanted.rollout)
                await self._robots.order(robot, order_of(name, wanted, head, epoch))
            case "open":
                ref = ShareRef(epoch=epoch, generation=request.generation, dataflow=name)
                await self._robots.command(robot, SHARE_OPEN, name, ref)
            case "set":
                record, machines = self._fleet.get(name), self._robots.machines
                share = share_request(name, wanted, record, robot.id, machines, self._peer, epoch)
                await self._robots.command(robot, SHARE_SET, name, share)

    def _failed(self, robot: Robot, request: Request, error: ProblemError) -> Answer:
        """Return what has become of a request that a robot has not stored."""
        reason = error.message[:MAX_REASON]
        if request.kind == "set" and error.code == "conflict":
            return Answer(request, "newer", reason)
        if request.kind in ("set", "order") and error.code in _FOR_GOOD:
            _log.warning("robot `%s` refuses `%s`: %s", robot.id, request.dataflow, error)
            if request.kind == "order":
                self._refuse(robot, request, reason)
            return Answer(request, "refused", reason)
        before = robot.answers.get(request.dataflow)
        count = 1 if before is None else before.failures + 1
        seconds = min(MAX_RETRY_S, RETRY_S * 2 ** min(count - 1, 10))
        _log.warning("robot `%s`: %s; trying again in %g s", robot.id, error, seconds)
        answer = Answer(request, "failed", reason, count, waits=True)
        asyncio.get_running_loop().call_later(seconds, self._repeat, robot, answer)
        return answer

    def _repeat(self, robot: Robot, answer: Answer) -> None:
        """Send a request again that has failed, unless another one took its place."""
        name = answer.request.dataflow
        if robot.answers.get(name) is answer:
            robot.answers[name] = replace(answer, waits=False)
            self.mark([robot.id])

    def _refuse(self, robot: Robot, request: Request, reason: str) -> None:
        """Record that an order is refused as if the robot had reported it."""
        name = request.dataflow
        state = robot.releases.get(name) or ReleaseState(
            dataflow=name,
            epoch=self._fleet.writer.epoch,
            generation=request.generation,
            phase="pending",
            since=time.time(),
            release="",
        )
        robot.releases[name] = msgspec.structs.replace(
            state, generation=request.generation, refused=True, reason=reason
        )
        self._robots.changed(robot)

    def _record(self, robot: Robot, name: str, answer: Answer | None) -> None:
        """Keep what has become of a request, and show what was not stored."""
        before = robot.answers.pop(name, None)
        if answer is not None:
            robot.answers[name] = answer
        if any(each is not None and each.kind != "stored" for each in (before, answer)):
            self._robots.changed(robot)
