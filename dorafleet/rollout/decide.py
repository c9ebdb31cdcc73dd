"""The state machine of a rollout: the next step from the latest observations. Pure functions.

A step is one of three: verdicts about robots, a new phase, or orders to robots. It is written to
the journal before anything else happens, so that the next coordinator goes on from there.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from dorafleet.rollout.gates import Gate, Passing, is_leased, pass_gates
from dorafleet.rollout.model import BACK, FORWARD, Member, Rollout, Seen
from dorafleet.rollout.strategy import tolerated
from dorafleet.rollout.verdicts import Judged, is_moving, is_waiting, judge, reported

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dorafleet.rollout.model import OrderKind, Phase, View

ASIDE_S = 15.0
"""Seconds without contact after which the others do not wait for a robot."""


YIELD_S = 60.0
"""Seconds for which a busy robot with the order to switch keeps its place."""

BUSY_AGAIN_S = 3600.0
"""Seconds until a robot gets the order to switch again after `busy_max`."""

YIELDS = "busy: others go first"
TOO_BUSY = "busy for too long"

_NOWHERE = Seen()


@dataclass(frozen=True, slots=True)
class Verdicts:
    """New verdicts about robots."""

    judged: tuple[Judged, ...]


@dataclass(frozen=True, slots=True)
class Enter:
    """The rollout enters a phase."""

    phase: Phase
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Orders:
    """Orders to robots, all of one kind."""

    kind: OrderKind
    robots: tuple[str, ...]
    reason: str = ""


Step: TypeAlias = "Verdicts | Enter | Orders"


@dataclass(frozen=True, slots=True)
class Decision:
    """The next step, and the gates that robots without an order wait for."""

    step: Step | None = None
    waiting: Mapping[str, Gate] = field(default_factory=dict)
    opening: float | None = None
    """When the next window opens."""


def decide(view: View) -> Decision:
    """Return the next step of a rollout; without one there is nothing to do before a change."""
    rollout = view.rollout
    judged = tuple(
        found
        for member in view.members.values()
        if (found := judge(member, _seen(view, member), rollout.release, rollout.strategy))
    )
    if judged:
        return Decision(Verdicts(judged))
    if rollout.paused and not rollout.is_final:
        return Decision()
    enter = _next_phase(view)
    if enter is not None:
        return Decision(enter)
    if rollout.phase in FORWARD:
        return _forward(view)
    if rollout.phase in BACK:
        return _back(view)
    if rollout.is_final:
        return Decision(_wind_down(view))
    return Decision()


def apply(
    rollout: Rollout, members: Mapping[str, Member], step: Step, generation: int, now: float
) -> tuple[Rollout, dict[str, Member]]:
    """Return the rollout after a step, and the robots that it has changed."""
    replace = msgspec.structs.replace
    rollout = replace(rollout, steps=rollout.steps + 1)
    match step:
        case Verdicts(judged):
            changed = {
                each.robot: replace(
                    members[each.robot],
                    verdict=each.verdict,
                    reason=each.reason,
                    evidence=list(each.evidence),
                    at=now,
                )
                for each in judged
            }
            return rollout, changed
        case Enter(phase, reason):
            return replace(rollout, phase=phase, reason=reason, since=now), {}
        case Orders(kind, robots, reason):
            return rollout, {
                robot: replace(
                    members[robot],
                    order=kind,
                    generation=generation,
                    verdict="" if kind != "recall" else members[robot].verdict,
                    reason=reason if kind != "recall" else members[robot].reason,
                    at=now,
                )
                for robot in robots
            }


def is_over(view: View) -> bool:
    """Return True if only `undo` can change a rollout."""
    if not view.rollout.is_final or decide(view).step is not None:
        return False
    return not any(
        _seen(view, member).owned
        and (member.in_flight or (member.order == "switch" and member.verdict == "lost"))
        for member in view.members.values()
    )


def failures(members: Iterable[Member]) -> list[Member]:
    """Return the robots that count as failed."""
    return [member for member in members if member.failed]


# -- phases


def _next_phase(view: View) -> Enter | None:
    rollout, members = view.rollout, view.members
    match rollout.phase:
        case "planned":
            canaries = any(member.batch == 0 for member in members.values())
            return Enter("canary" if canaries else "rolling")
        case "canary":
            return _after_canaries(view)
        case "rolling" | "settled":
            return _after_rolling(view)
        case "reverting" | "revert_incomplete":
            return _after_reverting(view)
    return None


def _after_canaries(view: View) -> Enter | None:
    canaries = [member for member in view.members.values() if member.batch == 0]
    failed = failures(canaries)
    if failed:
        return _fail(view.rollout, f"the canary failed: {_named(failed)}")
    if any(member.verdict != "confirmed" for member in canaries):
        return None
    if len(canaries) == len(view.members):
        return Enter("settled")
    return Enter("rolling" if view.rollout.strategy.auto_promote else "awaiting_promotion")


def _after_rolling(view: View) -> Enter | None:
    rollout, members = view.rollout, view.members
    failed = failures(members.values())
    limit = tolerated(rollout.strategy, rollout.size)
    if len(failed) > limit:
        reason = f"{len(failed)} failed, {limit} accepted: {_named(failed)}"
        if rollout.phase == "settled":
            return Enter("failed", f"no robot follows any more: {reason}")
        return _fail(rollout, reason)
    open_ = [member for member in members.values() if not member.verdict]
    if not open_:
        if rollout.phase != "settled":
            return Enter("settled")
        if failed:
            return Enter("succeeded_partially", f"failed: {_named(failed)}")
        return Enter("succeeded")
    if rollout.phase == "settled":
        if view.now - rollout.created >= rollout.strategy.catch_up:
            reason = f"not reached in time: {_named(open_)}"
            return Enter("succeeded_partially", reason)
        return None
    if all(_is_aside(view, member) for member in open_):
        return Enter("settled", f"for later: {_named(open_)}")
    return None


def _after_reverting(view: View) -> Enter | None:
    rollout = view.rollout
    left = [member for member in view.members.values() if _must_go_back(member)]
    if not left:
        stuck = [m for m in view.members.values() if m.order == "back" and m.failed]
        if not stuck:
            return Enter("reverted", rollout.reason)
        if rollout.phase == "reverting":
            return Enter("revert_incomplete", f"{rollout.reason}; not back: {_named(stuck)}")
        return None
    if rollout.phase == "reverting" and all(_is_aside(view, member) for member in left):
        return Enter("revert_incomplete", f"{rollout.reason}; not reached: {_named(left)}")
    return None


def _must_go_back(member: Member) -> bool:
    """Return True if a robot has, or may have, the release, or an order that says so."""
    if member.order == "back":
        return not member.verdict
    return member.order in ("stage", "switch")


def _fail(rollout: Rollout, reason: str) -> Enter:
    return Enter("reverting" if rollout.strategy.auto_revert else "failed", reason)


def _is_aside(view: View, member: Member) -> bool:
    """Return True if the others do not wait for this robot."""
    seen = _seen(view, member)
    if not seen.owned:
        return True
    if member.in_flight and member.order == "switch":
        return False
    if not seen.reachable:
        return seen.away_for >= ASIDE_S
    if _was_too_busy(view, member):
        return True
    strategy = view.rollout.strategy
    return strategy.busy == "wait" and is_leased(seen) and seen.leased_for >= strategy.busy_max


def _was_too_busy(view: View, member: Member) -> bool:
    """Return True for a robot that has waited for `busy_max` with the order, not long ago."""
    return (
        member.order == "stage"
        and member.reason == TOO_BUSY
        and view.now - member.at < BUSY_AGAIN_S
    )


# -- orders


def _forward(view: View) -> Decision:
    """Return orders of the phases in which robots get the release."""
    members = view.members
    eligible = [member for member in _eligible(view) if _seen(view, member).owned]
    stage = [
        member.robot
        for member in eligible
        if not member.order and not member.verdict and _is_free(view, member)
    ]
    if stage:
        return Decision(Orders("stage", tuple(stage)))
    late = _busy(view, eligible, view.rollout.strategy.busy_max)
    if late:
        return Decision(Orders("stage", tuple(late), TOO_BUSY))
    open_ = [member for member in eligible if not member.verdict and not member.in_flight]
    staged = [each for each in open_ if _is_staged(view, each) and not _was_too_busy(view, each)]
    # Robots that were busy come last, so that they take no place from the others.
    staged.sort(key=lambda each: each.reason == YIELDS)
    passing = pass_gates(view, staged, forward=True)
    if "parallel" in passing.waiting.values() and not passing.robots:
        busy = _busy(view, eligible, YIELD_S)
        waits_first = any(
            members[robot].reason != YIELDS
            for robot, gate in passing.waiting.items()
            if gate == "parallel"
        )
        if busy and waits_first:
            return Decision(Orders("stage", tuple(busy), YIELDS))
    for member in open_:
        if _was_too_busy(view, member):
            passing.waiting[member.robot] = "busy"
        elif not _is_staged(view, member):
            seen = _seen(view, member)
            passing.waiting[member.robot] = "files" if seen.reachable else "unreachable"
    return _as_decision(passing, "switch")


def _eligible(view: View) -> list[Member]:
    """Return the robots of the batches that have begun, in order."""
    members = sorted(view.members.values(), key=lambda member: member.batch)
    if view.rollout.phase == "canary":
        return [member for member in members if member.batch == 0]
    last = next(
        (m.batch for m in members if not m.verdict and not _is_aside(view, m)),
        members[-1].batch if members else 0,
    )
    return [member for member in members if member.batch <= last]


def _is_staged(view: View, member: Member) -> bool:
    state = reported(member, _seen(view, member))
    return (
        member.order == "stage"
        and state is not None
        and (state.phase == "staged" or state.running == view.rollout.release)
        and not is_moving(_seen(view, member))
    )


def _busy(view: View, members: Iterable[Member], seconds: float) -> list[str]:
    """Return the robots with the order to switch that have been busy for this time."""
    return [
        member.robot
        for member in members
        if member.in_flight
        and member.order == "switch"
        and (seen := _seen(view, member)).reachable
        and is_leased(seen)
        and is_waiting(member, seen)
        and seen.leased_for >= seconds
    ]


def _back(view: View) -> Decision:
    """Return orders of the phases in which robots go back."""
    members = [member for member in view.members.values() if _seen(view, member).owned]
    recall = _recalls(
        view,
        [
            member
            for member in members
            if member.order == "stage" or member.verdict in ("reverted", "refused")
        ],
    )
    if recall is not None:
        return Decision(recall)
    going = [
        member
        for member in members
        if member.order == "switch"
        and (member.verdict in ("confirmed", "stuck", "lost") or _is_undecided(view, member))
        and not is_moving(_seen(view, member))
    ]
    return _as_decision(pass_gates(view, going, forward=False), "back")


def _wind_down(view: View) -> Orders | None:
    """Return the orders that a rollout still gives after its end: none that interrupts a robot."""
    members = [member for member in view.members.values() if _seen(view, member).owned]
    return _recalls(
        view,
        [member for member in members if member.order == "stage" or _is_undecided(view, member)],
    )


def _recalls(view: View, members: Iterable[Member]) -> Orders | None:
    """Return the order to stay with what runs, for those that have another one."""
    robots = tuple(
        member.robot
        for member in members
        if member.order in ("stage", "switch") and not is_moving(_seen(view, member))
    )
    return Orders("recall", robots) if robots else None


def _is_undecided(view: View, member: Member) -> bool:
    """Return True for a robot that may switch, and is known not to have begun."""
    seen = _seen(view, member)
    return (
        member.order == "switch"
        and member.in_flight
        and seen.reachable
        and is_waiting(member, seen)
    )


def _is_free(view: View, member: Member) -> bool:
    seen = _seen(view, member)
    return seen.reachable and not is_moving(seen)


def _as_decision(passing: Passing, kind: OrderKind) -> Decision:
    step = Orders(kind, tuple(passing.robots)) if passing.robots else None
    return Decision(step, passing.waiting, passing.opening)


def _seen(view: View, member: Member) -> Seen:
    return view.seen.get(member.robot, _NOWHERE)


def _named(members: Iterable[Member], most: int = 3) -> str:
    """Return robots with the reasons of their verdicts, the first few of them."""
    texts = list(_texts(members))
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _texts(members: Iterable[Member]) -> Iterator[str]:
    for member in members:
        yield f"`{member.robot}`" + (f" ({member.reason})" if member.reason else "")


def waiting_counts(decision: Decision) -> dict[Gate, int]:
    """Return how many robots wait for each gate."""
    return dict(Counter(decision.waiting.values()))
