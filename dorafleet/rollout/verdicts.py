"""The verdict about one robot from its reports. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dorad.control.messages.releases import PREPARING, Evidence
from dorafleet.rollout.gates import is_leased
from dorafleet.rollout.model import MOVING, Verdict

if TYPE_CHECKING:
    from dorad.control.messages.releases import ReleaseState
    from dorafleet.rollout.model import Member, Seen
    from dorafleet.rollout.strategy import Strategy

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
    if not seen.owned:
        return _released(member)
    state = reported(member, seen)
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
        # The agent forgets the dataflow: a report over a new connection lacks it.
        gone = seen.state is None or (state is not None and not (state.release or state.running))
        return Judged(member.robot, "back") if seen.reachable and gone else None
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
