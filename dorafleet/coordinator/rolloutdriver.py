"""The task that drives rollouts: it writes each next step to the journal, then carries it out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, get_args

from dorad.control.errors import ControlError
from dorad.control.messages.releases import ReleasePhase
from dorad.problems import ProblemError
from dorafleet.coordinator.orders import Orders
from dorafleet.coordinator.writing import COORDINATOR
from dorafleet.rollout.decide import decide, is_over
from dorafleet.rollout.gates import is_leased
from dorafleet.rollout.model import MOVING, FleetRobot, Seen, View
from dorafleet.rollout.operate import refuse
from dorafleet.rollout.steps import Verdicts
from dorafleet.rollout.summary import row
from dorafleet.rollout.verdicts import reported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dorafleet.coordinator.fleet import Fleet
    from dorafleet.coordinator.planning import Planner
    from dorafleet.coordinator.robot import Robot
    from dorafleet.coordinator.robots import Robots
    from dorafleet.coordinator.rollouts import Rollouts
    from dorafleet.rollout.model import Member, Rollout

EVERY_S = 1.0
"""Maximum seconds between two checks of rollouts, so that no deadline is missed."""

PAUSE_S = 0.1
"""Minimum seconds between two looks."""

RESEND_S = 30.0
"""Seconds between two comparisons of all robots with their orders."""

MAX_STEPS = 50
"""Steps of one rollout before others get their turn."""

STORE_RETRY_S = 2.0

_RANKS = {phase: rank for rank, phase in enumerate(get_args(ReleasePhase))}
"""The phases of a robot in the order in which it goes through them."""

_GONE = Seen(trouble="it is no longer in the cluster file", away_for=float("inf"))

_log = logging.getLogger(__name__)


class _Stay(NamedTuple):
    """The time of a robot in a phase of an order."""

    order: object
    rank: int
    spent: float
    """Seconds for which it could be reached, until the last check."""
    at: float | None
    """When it was checked last; None if it could not be reached then."""


class Timers:
    """Since when something has been the same, on the monotonic clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[object, tuple[object, float]] = {}
        self._stays: dict[object, _Stay] = {}

    def seconds(self, key: object, value: object) -> float:
        """Return the seconds since `value` was another one for `key`."""
        now = self._clock()
        known = self._since.get(key)
        if known is None or known[0] != value:
            self._since[key] = (value, now)
            return 0.0
        return now - known[1]

    def in_phase(self, key: object, order: object, rank: int, *, reachable: bool) -> float:
        """Return the seconds for which a robot could be reached since its last progress.

        `rank` grows with its phases. A phase that it goes back to is no progress, nor is a new
        connection: otherwise one robot could hold up the others for good.
        """
        now = self._clock()
        known = self._stays.get(key)
        spent = 0.0
        if known is not None and known.order == order and rank <= known.rank:
            spent = known.spent + (0.0 if known.at is None else now - known.at)
            rank = known.rank
        self._stays[key] = _Stay(order, rank, spent, now if reachable else None)
        return spent

    def forget(self, number: int) -> None:
        """Forget what is kept for a rollout; its number is the first part of each key."""
        self._since = {key: at for key, at in self._since.items() if not _is_of(key, number)}
        self._stays = {key: stay for key, stay in self._stays.items() if not _is_of(key, number)}


def _is_of(key: object, number: int) -> bool:
    return isinstance(key, tuple) and key[0] == number


class RolloutDriver:
    """Drives all rollouts that are not over."""

    def __init__(self, fleet: Fleet, robots: Robots, rollouts: Rollouts, planner: Planner) -> None:
        self.clock: Callable[[], float] = time.time
        """Returns seconds since 1970, for windows."""
        self._fleet = fleet
        self._robots = robots
        self._rollouts = rollouts
        self._planner = planner
        self._orders = Orders(fleet, robots, rollouts)
        self._timers = Timers()
        self._wake = asyncio.Event()

    def mark(self, *robots: str) -> None:
        """Check the rollouts soon, and the orders of these robots at once."""
        self._orders.mark(robots)
        self._wake.set()

    async def run(self) -> NoReturn:
        """Drive until cancelled."""
        compared = 0.0
        try:
            while True:
                if time.monotonic() - compared >= RESEND_S:
                    compared = time.monotonic()
                    self._orders.mark(robot.id for robot in self._robots.all)
                for rollout in self._rollouts.open:
                    try:
                        await self._advance(rollout.number)
                    except ProblemError as error:
                        _log.warning("rollout %d: %s", rollout.number, error)
                        await asyncio.sleep(STORE_RETRY_S)
                await asyncio.sleep(PAUSE_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(EVERY_S if self._rollouts.open else RESEND_S):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            await self._orders.close()

    async def _advance(self, number: int) -> None:
        """Make the steps of one rollout that are due."""
        for _ in range(MAX_STEPS):
            async with self._fleet.writer.changing:
                rollout = self._rollouts.heads.get(number)
                if rollout is None or rollout.over:
                    return
                view = self.view(rollout, self._rollouts.known_members(number))
                decision = decide(view)
                if decision.step is not None:
                    states = {
                        id_: seen.state for id_, seen in view.seen.items() if seen.state is not None
                    }
                    robots = await self._rollouts.put_step(number, decision.step, states)
                    self._orders.mark(robots)
                elif is_over(view):
                    rows = [row(view, member, None) for member in view.members.values()]
                    counts = Counter[str](each.state for each in rows)
                    await self._rollouts.put_over(number, dict(counts))
                    self._timers.forget(number)
                else:
                    return
        self._wake.set()

    async def refuse(
        self,
        number: int,
        robot: str,
        reason: str,
        by: str = "",
        actor: Mapping[str, Any] = COORDINATOR,
    ) -> None:
        """Take the refusal of a robot that a sender of files received.

        Raises:
            ControlError: the robot is in no such rollout, or does not wait for files.
            StoreError: it cannot be written.
        """
        async with self._fleet.writer.changing:
            rollout = self._rollouts.find(number)
            view = self.view(rollout, await self._rollouts.members(number))
            member = view.members.get(robot)
            if member is None:
                raise ControlError("not-found", f"rollout {number} has no robot `{robot[:100]}`")
            judged = refuse(rollout, member, view.seen[robot], reason)
            if judged is not None:
                await self._rollouts.put_step(number, Verdicts((judged,)), {}, by=by, actor=actor)
        self._wake.set()

    def view(self, rollout: Rollout, members: Mapping[str, Member]) -> View:
        """Return the input of a decision about a rollout."""
        known = {robot.id: robot for robot in self._robots.all}
        seen = {
            id_: self._seen(rollout, member, known[id_]) if id_ in known else _GONE
            for id_, member in members.items()
        }
        fleet = {}
        if rollout.strategy.disruption_budget is not None:
            label = rollout.strategy.disruption_budget.group_by
            fleet = {
                robot.id: FleetRobot(
                    self._planner.labels(robot).get(label, ""), is_available(robot)
                )
                for robot in known.values()
            }
        # Its own release is the one that it takes away.
        rejected = self._rollouts.rejected(rollout.dataflow) - {rollout.release}
        return View(rollout, members, seen, fleet, self.clock(), rejected)

    def _seen(self, rollout: Rollout, member: Member, robot: Robot) -> Seen:
        state = robot.releases.get(rollout.dataflow)
        trouble = robot.trouble
        if robot.audit and not trouble:
            # The store may be a copy, and this rollout over or undone.
            trouble = f"it knows a later store: {robot.audit}; see `dorafleet audit acknowledge`"
        reachable = not trouble
        leased = is_leased(Seen(state=state))
        phase = reported(member, Seen(state=state))
        key = (rollout.number, robot.id)
        leased_for = self._timers.seconds((*key, "leased"), leased)
        away_for = self._timers.seconds((*key, "away"), reachable)
        if robot.away_since is not None:
            away_for = time.monotonic() - robot.away_since
        return Seen(
            reachable=reachable,
            trouble=trouble,
            undelivered=robot.undelivered.get(rollout.dataflow, ""),
            away_for=0.0 if reachable else away_for,
            state=state,
            leased_for=leased_for if leased else 0.0,
            phase_for=self._timers.in_phase(
                key,
                (member.order, member.generation),
                -1 if phase is None else _RANKS[phase.phase],
                reachable=reachable,
            )
            if member.in_flight
            else 0.0,
            owned=self._is_owned(rollout, member, robot),
        )

    def _is_owned(self, rollout: Rollout, member: Member, robot: Robot) -> bool:
        """Return False if a robot has since received an order of another rollout."""
        state, restored = robot.releases.get(rollout.dataflow), self._fleet.restored
        if (
            restored is not None
            and state is not None
            and rollout.generation_before <= restored.backup < state.generation < restored.first
        ):
            return False  # after the backup from which the store was restored
        wanted = self._fleet.owner(robot.id, rollout.dataflow)
        return not member.order or (wanted is not None and wanted.generation == member.generation)


def is_available(robot: Robot) -> bool:
    """Return True if a robot is connected and none of its dataflows has a problem."""
    if robot.trouble:
        return False
    if any(share.status in ("failed", "pending") for share in robot.shares.values()):
        return False
    return not any(
        state.phase in MOVING or state.phase == "stuck" or state.failed
        for state in robot.releases.values()
    )
