"""The verdict about one robot from its reports. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dorad.control.messages.releases import PREPARING, Evidence, ReleaseState
from dorafleet.rollout.gates import is_leased
from dorafleet.rollout.model import MOVING, Member, Rollout, Seen, Verdict

if TYPE_CHECKING:
    from dorafleet.rollout.strategy import Strategy

REMOVED = "it was removed from the fleet"
LEFT = "it has left its instance: no node is placed on it"
GIVEN_UP = "it was given up, and leaves its instance when it is back"

MAX_REASON = 500
MAX_EVIDENCE = 20
MAX_TEXT = 300
"""Characters and entries of a robot's report that the journal keeps."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict about a robot."""

    robot: str
    verdict: Verdict
    reason: str = ""
    evidence: tuple[Evidence, ...] = ()


def judge(
    member: Member, seen: Seen, release: str, strategy: Strategy, *, watched: bool = True
) -> Judged | None:
    """Return the verdict about a robot if there is a new one.

    `watched` is whether failures after its confirmation count.
    """
    if seen.removed:
        return _of_removed(member)
    if not seen.owned:
        return _released(member)
    state = reported(member, seen)
    if member.leaves:
        return _of_leaving(member, seen, state, strategy)
    if member.verdict == "lost":
        # If it is back, its own verdict counts.
        if member.order == "switch":
            return _of_switch(member, state, release)
        return _of_going_back(member, seen, state) if member.order == "back" else None
    if member.verdict in ("confirmed", "failed") and member.order == "switch":
        return _after_confirmation(member, state, watched=watched)
    if member.verdict:
        return None
    if member.order == "stage" and state is not None and state.refused:
        return _judged(member, "refused", state)
    if member.order == "switch":
        return _of_switch(member, state, release) or _overdue(member, seen, strategy)
    if member.order == "back":
        return _of_going_back(member, seen, state) or _overdue(member, seen, strategy)
    return None


def reported(member: Member, seen: Seen) -> ReleaseState | None:
    """Return what a robot reports about the last order, None if it has not got it yet."""
    state = seen.state
    return None if state is None or state.generation < member.generation else state


def goes_forward(rollout: Rollout, state: ReleaseState) -> bool:
    """Return True if a robot follows an order of this rollout to get or to run its release."""
    return state.rollout == str(rollout.number) and state.release == rollout.release


def is_moving(seen: Seen) -> bool:
    """Return True if the robot is in the middle of a switch, of any order."""
    return seen.state is not None and seen.state.phase in MOVING


def is_waiting(member: Member, seen: Seen) -> bool:
    """Return True if it may switch, but has not begun: it waits for leases."""
    state = reported(member, seen)
    return state is not None and state.phase in PREPARING


def needs_files(member: Member, seen: Seen) -> bool:
    """Return True if a robot has an order, can be reached, and lacks files of the release."""
    if member.verdict or member.order not in ("stage", "switch") or not seen.reachable:
        return False
    state = reported(member, seen)
    return state is not None and state.waiting == "files" and not state.refused


def _of_removed(member: Member) -> Judged | None:
    """Return the verdict about a robot that has left the fleet.

    An instance of which a machine left before its commit cannot be committed any more: that is a
    failure of the instance. Otherwise it counts neither way.
    """
    if member.verdict:
        return None
    fails = member.instance and not member.committed and member.order != "back"
    return Judged(member.robot, "lost" if fails else "removed", REMOVED)


def _released(member: Member) -> Judged | None:
    """Return the verdict about a robot that was ordered otherwise meanwhile."""
    if not member.in_flight:
        return None
    reason = "it got another order before it had reported a verdict"
    return Judged(member.robot, "lost" if member.order == "switch" else "back", reason)


def _of_switch(member: Member, state: ReleaseState | None, release: str) -> Judged | None:
    if state is None:
        return None
    if state.refused:
        return _judged(member, "refused", state)
    if state.phase == "confirmed" and state.running == release:
        return _judged(member, "confirmed", state)
    if state.phase in ("reverted", "stuck"):
        return _judged(member, "reverted" if state.phase == "reverted" else "stuck", state)
    return None


def has_stopped(member: Member, seen: Seen) -> bool:
    """Return True for a machine without a node that has stopped its part, or was given up."""
    state = reported(member, seen)
    return member.lost or (
        seen.reachable and state is not None and state.phase == "confirmed" and not state.running
    )


def _of_leaving(
    member: Member, seen: Seen, state: ReleaseState | None, strategy: Strategy
) -> Judged | None:
    """Return the verdict about a machine that is left without a node of its instance.

    It keeps what it ran until the others are committed, and gets it back if they go back.
    """
    if member.withdrawn and member.verdict == "confirmed":
        back = _of_going_back(member, seen, state)
        if back is None or back.verdict != "back":
            return back
        return Judged(member.robot, "reverted", "other machines of its instance went back")
    if member.verdict and member.verdict != "lost":
        return None
    if member.order == "back":
        if member.lost:
            return Judged(member.robot, "removed", GIVEN_UP)
        late = None if member.verdict else _overdue(member, seen, strategy)
        return _of_going_back(member, seen, state) or late
    if member.order != "switch":
        return None
    if not member.committed:
        return None if member.lost or member.verdict else _overdue(member, seen, strategy)
    if _has_forgotten(seen, state):
        return Judged(member.robot, "confirmed", LEFT)
    return Judged(member.robot, "removed", GIVEN_UP) if member.lost else None


def _has_forgotten(seen: Seen, state: ReleaseState | None) -> bool:
    """Return True for a robot that does not know the dataflow any more."""
    # The agent forgets it: a report over a new connection lacks it.
    gone = seen.state is None or (state is not None and not (state.release or state.running))
    return seen.reachable and gone


def _after_confirmation(
    member: Member, state: ReleaseState | None, *, watched: bool
) -> Judged | None:
    """Return that nodes of a confirmed robot have failed since, or how its return has ended."""
    if state is None:
        return None
    if state.phase in ("reverted", "stuck"):
        return _judged(member, "reverted" if state.phase == "reverted" else "stuck", state)
    if member.verdict == "failed":
        return None
    if state.phase == "reverting":
        return _judged(member, "failed", state)
    if not watched or not state.failed:
        return None
    texts = [(f"node {name}"[:MAX_TEXT], text[:MAX_TEXT]) for name, text in state.failed.items()]
    texts = texts[:MAX_EVIDENCE]
    reason = "; ".join(f"{name} {text}" for name, text in texts)[:MAX_REASON]
    evidence = tuple(Evidence(check=name, ok=False, text=text) for name, text in texts)
    return Judged(member.robot, "failed", reason, evidence)


def _of_going_back(member: Member, seen: Seen, state: ReleaseState | None) -> Judged | None:
    if not member.before:
        return Judged(member.robot, "back") if _has_forgotten(seen, state) else None
    if state is None:
        return None
    if state.phase == "confirmed" and state.running == member.before:
        return Judged(member.robot, "back")
    if state.refused or state.phase in ("reverted", "stuck"):
        return _judged(member, "refused" if state.refused else "stuck", state)
    return None


def _overdue(member: Member, seen: Seen, strategy: Strategy) -> Judged | None:
    if not seen.reachable:
        if seen.away_for < strategy.rules.confirm_deadline or member.order == "back":
            return None
        if member.committed:
            return None  # it may have gone back meanwhile: then it switches again, as was decided
        reason = f"it has not been reached for {seen.away_for:.0f} s after the order to switch"
        return Judged(member.robot, "lost", reason)
    if is_leased(seen) or seen.phase_for < strategy.progress_deadline:
        return None
    phase = "nothing" if seen.state is None else seen.state.phase
    reason = f"no verdict for {seen.phase_for:.0f} s: it reports {phase}"
    return Judged(member.robot, "lost", reason)


def _judged(member: Member, verdict: Verdict, state: ReleaseState) -> Judged:
    if verdict == "confirmed":
        return Judged(member.robot, verdict)
    failed = [each for each in state.evidence if not each.ok]
    evidence = tuple(
        replace(each, check=each.check[:MAX_TEXT], text=each.text[:MAX_TEXT])
        for each in [*failed, *(each for each in state.evidence if each.ok)][:MAX_EVIDENCE]
    )
    reason = state.reason or "; ".join(f"{each.check}: {each.text}" for each in failed)
    return Judged(member.robot, verdict, reason[:MAX_REASON], evidence)
