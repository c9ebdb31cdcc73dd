"""The state machine of a rollout: from what is seen to the next step. Pure functions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from dorafleet.rollout.gates import Gate, Passing, is_leased, next_opening, pass_gates
from dorafleet.rollout.instances import (
    YIELD_S,
    arm,
    next_orders,
    switched_ahead,
    withdrawn_with,
)
from dorafleet.rollout.model import BACK, FORWARD, HAVE_IT, Member, StepKind, View
from dorafleet.rollout.phases import (
    TOO_BUSY,
    is_deferred,
    is_watched,
    next_phase,
    was_too_busy,
)
from dorafleet.rollout.steps import Orders, Step, Verdicts
from dorafleet.rollout.verdicts import is_moving, is_waiting, judge, needs_files, reported

YIELDS = "busy: others go first"
"""The reason of such an order to get ready again."""

CLOSED, PAUSED = "the window has closed", "the rollout is paused"
"""The reasons of orders to get ready again for robots that have not begun to switch."""


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
        decision
        for member in view.members.values()
        if (
            decision := judge(
                member,
                view.seen_of(member),
                rollout.release,
                rollout.strategy,
                watched=is_watched(view, member),
            )
        )
    )
    if judged:
        return Decision(Verdicts(judged))
    undone = Decision()
    if rollout.phase not in BACK:
        undone = _back(view, [each for each in view.members.values() if _is_undone(view, each)])
    if undone.step is not None:
        return undone
    if not rollout.question and (together := next_orders(view)):
        return Decision(together)
    if rollout.paused and not rollout.is_final:
        return Decision(_hold(view, PAUSED) if rollout.phase in FORWARD else None)
    enter = next_phase(view)
    if enter is not None:
        return Decision(enter)
    if rollout.phase in (*FORWARD, *BACK) and (lost := switched_ahead(view)):
        return Decision(Orders("switch" if rollout.phase in FORWARD else "back", lost))
    if rollout.phase not in BACK and (failing := withdrawn_with(view, _failing(view))):
        return Decision(Orders("withdraw", failing))
    if rollout.phase in FORWARD:
        forward = _forward(view)
        return replace(forward, waiting={**undone.waiting, **forward.waiting})
    if rollout.phase in BACK:
        return _back(view, view.members.values())
    if rollout.is_final:
        return Decision(_wind_down(view))
    return Decision()


def is_over(view: View) -> bool:
    """Return True if only `undo` can change a rollout."""
    if not view.rollout.is_final or decide(view).step is not None:
        return False
    return not any(
        view.seen_of(member).owned and (member.in_flight or _may_change(view, member))
        for member in view.members.values()
    )


def _may_change(view: View, member: Member) -> bool:
    """Return True if the verdict about a robot that may have the release is not the last one."""
    if member.order != "switch":
        return False
    if _is_undone(view, member) and view.has_way_back(member):
        return member.verdict in HAVE_IT
    if member.verdict == "confirmed":
        # It may have gone back in its soak time, and tells it when it is back.
        strategy, seen = view.rollout.strategy, view.seen_of(member)
        return strategy.soak_time > 0 and not seen.reachable and seen.away_for < strategy.catch_up
    return member.verdict in ("lost", "failed")


def goes_back(view: View, member: Member) -> bool:
    """Return True for a robot that an undo switches back: it has the release, or may have it."""
    return (
        view.seen_of(member).owned
        and member.order == "switch"
        and (not member.verdict or member.verdict in HAVE_IT)
        and view.has_way_back(member)
        and not _is_undecided(view, member)
    )


def _forward(view: View) -> Decision:
    """Return orders of the phases in which robots get the release."""
    eligible = [
        member for member in _eligible(view) if view.seen_of(member).owned and not member.undone
    ]
    stage = [
        member.robot
        for member in eligible
        if not member.order and view.is_open(member) and (member.lost or _is_free(view, member))
    ]
    if stage:
        return Decision(Orders("stage", tuple(stage)))
    if again := [member.robot for member in eligible if all(map(_is_back, view.unit_of(member)))]:
        # A machine of the instance was busy.
        return Decision(Orders("stage", tuple(again), TOO_BUSY))
    if next_opening(view) != view.now and (held := _hold(view, CLOSED)):
        return Decision(held)
    late = _busy(view, eligible, view.rollout.strategy.busy_max)
    if late:
        return Decision(Orders("stage", tuple(late), TOO_BUSY))
    open_ = [member for member in eligible if view.is_open(member) and not member.in_flight]
    ready = {
        each.robot for each in open_ if _is_staged(view, each) and not was_too_busy(view, each)
    }
    staged = [each for each in open_ if all(m.robot in ready for m in view.unit_of(each))]
    # Those that were busy come last, so that they keep no place from the others.
    staged.sort(key=lambda each: each.reason == YIELDS)
    passing = pass_gates(view, staged, forward=True)
    if not passing.robots and any(
        gate == "parallel" and view.members[robot].reason != YIELDS
        for robot, gate in passing.waiting.items()
    ):
        busy = _busy(view, eligible, YIELD_S)
        if busy:
            return Decision(Orders("stage", tuple(busy), YIELDS))
    for member in open_:
        if was_too_busy(view, member):
            passing.waiting[member.robot] = "busy"
        elif not member.lost and not view.seen_of(member).reachable:
            passing.waiting[member.robot] = "unreachable"
        elif needs_files(member, view.seen_of(member)):
            passing.waiting[member.robot] = "files"
        elif member.robot in ready and member not in staged:
            passing.waiting[member.robot] = "machines"
    if reserved := arm(view, passing):
        return Decision(reserved, passing.waiting, passing.opening)
    return _as_decision(passing, "switch")


def _eligible(view: View) -> list[Member]:
    """Return the robots of the batches that have begun, in order."""
    members = sorted(view.members.values(), key=lambda member: member.batch)
    if view.rollout.phase == "canary":
        return [member for member in members if member.batch == 0]
    last = next(
        (m.batch for m in members if view.is_open(m) and not is_deferred(view, m)),
        members[-1].batch if members else 0,
    )
    return [member for member in members if member.batch <= last]


def _is_staged(view: View, member: Member) -> bool:
    state = reported(member, view.seen_of(member))
    if member.leaves:
        # It runs on what it has.
        return member.order == "stage" and (
            member.lost or (state is not None and state.phase == "confirmed")
        )
    return (
        member.order == "stage"
        and state is not None
        and (state.phase == "staged" or state.running == view.rollout.release)
        and not is_moving(view.seen_of(member))
    )


def _busy(view: View, members: Iterable[Member], seconds: float) -> list[str]:
    """Return the robots with the order to switch that have been busy for this time.

    With the other machines of their instances, which wait for them.
    """
    busy = {
        member.unit
        for member in members
        if member.order == "switch"
        and _is_undecided(view, member)
        and is_leased(seen := view.seen_of(member))
        and seen.leased_for >= seconds
    }
    return [each.robot for unit in busy for each in view.units[unit] if each.in_flight]


def _back(view: View, members: Iterable[Member]) -> Decision:
    """Return the orders to robots that go back."""
    members = [member for member in members if view.seen_of(member).owned]
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
    unproven = tuple(member.robot for member in members if _may_turn_round(view, member))
    if unproven:
        return Decision(Orders("back", unproven))
    going = [
        member
        for member in members
        if member.order == "switch"
        and (member.verdict in HAVE_IT or _is_undecided(view, member))
        and view.has_way_back(member)
        and not is_moving(view.seen_of(member))
    ]
    return _as_decision(pass_gates(view, going, forward=False), "back")


def _is_undone(view: View, member: Member) -> bool:
    """Return True for a robot that goes back alone, with the other machines of its instance.

    A newer rollout that has given one of them an order decides about all of them.
    """
    return bool(member.undone) and all(
        (seen := view.seen_of(each)).owned or seen.removed for each in view.unit_of(member)
    )


def _failing(view: View) -> tuple[str, ...]:
    """Return the robots that go back by themselves: nodes failed after their confirmation.

    One in its own soak time needs no order; it gets it all the same.
    """
    return tuple(
        member.robot
        for member in view.members.values()
        if member.verdict == "failed"
        and member.order == "switch"
        and not (member.withdrawn or member.undone)
        and (seen := view.seen_of(member)).owned
        and seen.reachable
        and not is_moving(seen)
        and reported(member, seen) is not None
    )


def _wind_down(view: View) -> Orders | None:
    """Return the orders that a rollout still gives after its end: none that interrupts a robot."""
    refused = view.rollout.phase == "refused"
    return _recalls(
        view,
        [
            member
            for member in view.members.values()
            if view.seen_of(member).owned
            and (
                member.order == "stage"
                or _is_undecided(view, member)
                or (refused and member.verdict == "refused")
            )
        ],
    )


def _recalls(view: View, members: Iterable[Member]) -> Orders | None:
    """Return the order to stay with what runs, for those that have another one."""
    robots = tuple(
        member.robot
        for member in members
        if member.order in ("stage", "switch") and not is_moving(view.seen_of(member))
    )
    return Orders("recall", robots) if robots else None


def _hold(view: View, reason: str) -> Orders | None:
    """Return the order to get ready again, for robots that may switch and have not begun.

    They wait for a lease that has begun after the order, or the order has not reached them. Without
    this they would switch whenever the lease ends, or the connection is back.
    """
    robots = tuple(
        member.robot
        for member in view.members.values()
        if view.seen_of(member).owned
        and (_is_undecided(view, member) or _is_undelivered(view, member))
    )
    return Orders("stage", robots, reason) if robots else None


def _is_undelivered(view: View, member: Member) -> bool:
    """Return True for a robot whose last report is from before the order to switch."""
    seen = view.seen_of(member)
    return (
        member.order == "switch"
        and member.in_flight
        and not member.instance  # the other machines may have begun
        and not seen.reachable
        and seen.state is not None  # else this coordinator has had no report yet
        and reported(member, seen) is None
    )


def _is_undecided(view: View, member: Member) -> bool:
    """Return True for a robot that may switch, and is known not to have begun.

    No other machine of its instance has begun, either.
    """
    return (
        member.order == "switch"
        and member.in_flight
        and all(
            (seen := view.seen_of(each)).reachable and is_waiting(each, seen)
            for each in view.unit_of(member)
            if each.in_flight
        )
    )


def _may_turn_round(view: View, member: Member) -> bool:
    """Return True for a robot that has switched, has not confirmed, and has no lease.

    It goes back in the middle of its switch. It is unavailable already, so it waits for no gate.
    """
    seen = view.seen_of(member)
    if member.leaves:
        may = member.order == "switch" and member.in_flight and not member.committed
        return may and (member.lost or seen.reachable) and view.has_way_back(member)
    state = reported(member, seen)
    return (
        member.order == "switch"
        and member.in_flight
        and seen.reachable
        and state is not None
        and state.phase in ("switching", "probation")
        and view.has_way_back(member)
        and not (is_leased(seen) and view.rollout.strategy.busy == "wait")
    )


def _is_back(member: Member) -> bool:
    """Return True for a machine of an instance that has left its switch."""
    return bool(member.instance) and (member.order, member.verdict) == ("back", "back")


def _is_free(view: View, member: Member) -> bool:
    seen = view.seen_of(member)
    return seen.reachable and not is_moving(seen)


def _as_decision(passing: Passing, kind: StepKind) -> Decision:
    step = Orders(kind, tuple(passing.robots)) if passing.robots else None
    return Decision(step, passing.waiting, passing.opening)
