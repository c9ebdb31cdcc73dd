"""The task that drives rollouts: it writes each next step to the journal, then carries it out."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn, get_args

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages.releases import ReleasePhase, ReleaseState
from dorad.problems import ProblemError
from dorafleet.coordinator.findings import strange_text
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.planner import Planner
from dorafleet.coordinator.records import Restored
from dorafleet.coordinator.robot import Robot
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.rollouts import Rollouts
from dorafleet.coordinator.writer import COORDINATOR
from dorafleet.rollout.decide import decide, is_over
from dorafleet.rollout.gates import is_leased
from dorafleet.rollout.model import MOVING, FleetRobot, Member, Rollout, Seen, View
from dorafleet.rollout.operate import refuse
from dorafleet.rollout.steps import Verdicts
from dorafleet.rollout.summary import row
from dorafleet.rollout.verdicts import REMOVED, goes_forward, reported

EVERY_S = 1.0
"""Maximum seconds between two checks of rollouts, so that no deadline is missed."""

PAUSE_S = 0.1
"""Minimum seconds between two looks."""

MAX_STEPS = 50
"""Steps of one rollout before others get their turn."""

STORE_RETRY_S = 2.0

_RANKS = {phase: rank for rank, phase in enumerate(get_args(ReleasePhase))}
"""The phases of a robot in the order in which it goes through them."""

STEP_S = 1.0
"""Seconds by which a clock that was set differs at least."""

_GONE = Seen(trouble=REMOVED, away_for=float("inf"), owned=False, removed=True)

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
    """Since when something has been the same, on the monotonic clock.

    The first part of a key is the number of a rollout.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[object, tuple[object, float]] = {}
        self._stays: dict[object, _Stay] = {}
        self._dates: dict[object, tuple[float, float]] = {}
        """What was stored, and when that was."""

    def date(self, key: object, at: float, now: float) -> float:
        """Return when something was, by the wall clock that shows `now`.

        By the one that was right when it was stored, it was at `at`: the clock may have been set
        since, and no time that something lasts shall change by that.
        """
        if not at:
            return at  # never
        known = self._dates.get(key)
        if known is None or known[0] != at:
            known = self._dates[key] = (at, self._clock() - max(0.0, now - at))
        date = now - (self._clock() - known[1])
        return at if abs(date - at) < STEP_S else date

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
        self._dates = {key: date for key, date in self._dates.items() if not _is_of(key, number)}


def _is_of(key: object, number: int) -> bool:
    return isinstance(key, tuple) and key[0] == number


class RolloutDriver:
    """Drives all rollouts that are not over; `Delivery` sends what they order."""

    def __init__(self, fleet: Fleet, robots: Robots, rollouts: Rollouts, planner: Planner) -> None:
        self.clock: Callable[[], float] = time.time
        """Returns seconds since 1970, for windows."""
        self._fleet = fleet
        self._robots = robots
        self._rollouts = rollouts
        self._planner = planner
        self._timers = Timers()

    async def run(self) -> NoReturn:
        """Drive until cancelled."""
        while True:
            changed = self._fleet.bell.next
            for rollout in self._rollouts.open:
                try:
                    await self._advance(rollout.number)
                except ProblemError as error:
                    _log.warning("rollout %d: %s", rollout.number, error)
                    await asyncio.sleep(STORE_RETRY_S)
            await asyncio.sleep(PAUSE_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S if self._rollouts.open else None):
                    await changed.wait()

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
                    await self._rollouts.put_step(number, decision.step, states)
                elif is_over(view):
                    rows = [row(view, member, None) for member in view.members.values()]
                    counts = Counter[str](each.state for each in rows)
                    await self._rollouts.put_over(number, dict(counts))
                    self._timers.forget(number)
                else:
                    return

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

    def view(self, rollout: Rollout, members: Mapping[str, Member]) -> View:
        """Return the input of a decision about a rollout."""
        now = self.clock()
        if not rollout.over:
            rollout, members = dated(self._timers, rollout, members, now)
        known = {robot.id: robot for robot in self._robots.all}
        seen = {
            id_: self._seen(rollout, member, robot)
            # One that came back under this name is another robot.
            if (robot := known.get(id_)) is not None and robot.since <= rollout.generation_before
            else _GONE
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
        return View(rollout, members, seen, fleet, now, rejected)

    def _seen(self, rollout: Rollout, member: Member, robot: Robot) -> Seen:
        state = robot.releases.get(rollout.dataflow)
        trouble = robot.trouble
        if robot.audit and not trouble:
            # The store may be a copy, and this rollout over or undone.
            trouble = f"it knows a later store: {robot.audit}; see `dorafleet audit acknowledge`"
        reachable = not trouble
        strange = robot.strange.get(rollout.dataflow, "")
        leased = is_leased(Seen(state=state))
        phase = reported(member, Seen(state=state))
        is_lost = was_lost(self._fleet.restored, rollout, state)
        ahead = is_lost and state is not None and goes_forward(rollout, state)
        key = (rollout.number, robot.id)
        leased_for = self._timers.seconds((*key, "leased"), leased)
        away_for = self._timers.seconds((*key, "away"), reachable)
        if robot.away_since is not None:
            away_for = time.monotonic() - robot.away_since
        return Seen(
            reachable=reachable,
            trouble=trouble,
            undelivered=robot.answered("failed").get(rollout.dataflow, "")
            or (strange_text(rollout.dataflow, strange) if strange else ""),
            away_for=0.0 if reachable else away_for,
            state=state,
            arms=robot.attached is not None and robot.attached.arms,
            leased_for=leased_for if leased else 0.0,
            phase_for=self._timers.in_phase(
                key,
                (member.order, member.generation),
                -1 if phase is None else _RANKS[phase.phase],
                reachable=reachable,
            )
            if member.in_flight
            else 0.0,
            ahead=ahead,
            owned=self._is_owned(rollout, member, robot) and (ahead or not is_lost),
        )

    def _is_owned(self, rollout: Rollout, member: Member, robot: Robot) -> bool:
        """Return False if a robot has since received an order of another rollout."""
        wanted = self._fleet.owner(robot.id, rollout.dataflow)
        return not member.order or (wanted is not None and wanted.generation == member.generation)


def dated(
    timers: Timers, rollout: Rollout, members: Mapping[str, Member], now: float
) -> tuple[Rollout, dict[str, Member]]:
    """Return a rollout and its robots with their times by the wall clock that shows `now`."""
    number = rollout.number
    created = timers.date((number, "created"), rollout.created, now)
    if created != rollout.created:
        rollout = msgspec.structs.replace(rollout, created=created)
    dated_members = {}
    for id_, member in members.items():
        at = timers.date((number, id_, "at"), member.at, now)
        dated_members[id_] = member if at == member.at else msgspec.structs.replace(member, at=at)
    return rollout, dated_members


def was_lost(restored: Restored | None, rollout: Rollout, state: ReleaseState | None) -> bool:
    """Return True for an order after the backup from which the store was restored."""
    return (
        restored is not None
        and state is not None
        and rollout.generation_before <= restored.backup < state.generation < restored.first
    )


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
