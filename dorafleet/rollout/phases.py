"""The next phase of a rollout, from the verdicts of its robots. Pure functions."""

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from dorad.phrases import first_of
from dorafleet.rollout.gates import is_leased
from dorafleet.rollout.model import FORWARD, HAVE_IT, Member, View
from dorafleet.rollout.steps import Enter
from dorafleet.rollout.strategy import tolerated

DEFER_S = 15.0
"""Seconds without contact after which the others do not wait for a robot."""

BUSY_AGAIN_S = 3600.0
"""Seconds until a robot gets the order to switch again after `busy_max`."""

NO_WAY_BACK = "it keeps the release: the one before was undone, too; roll out another one"
"""Why an undo leaves a robot as it is."""

TOO_BUSY = "busy for too long"
"""The reason of such an order to get ready again."""


def next_phase(view: View) -> Enter | None:
    """Return the step to the next phase; None if it is not time for it."""
    rollout, members = view.rollout, view.members
    match rollout.phase:
        case "planned":
            canaries = any(member.batch == 0 for member in members.values())
            return Enter("canary" if canaries else "rolling")
        case "canary":
            return _after_canaries(view)
        case "awaiting_promotion":
            return _failed_canaries(view)
        case "rolling" | "soaking" | "settled":
            return _failed_canaries(view) or _after_rolling(view)
        case "reverting" | "revert_incomplete":
            return _after_reverting(view)
    return None


def _failed_canaries(view: View) -> Enter | None:
    """Return the end of a rollout of which a canary has failed, perhaps after its confirmation."""
    failed = failures(member for member in view.members.values() if member.batch == 0)
    if not failed:
        return None
    word = "refuses it" if all(each.verdict == "refused" for each in failed) else "failed"
    if any(each.verdict == "failed" for each in failed):
        word = "failed after its confirmation"
    return _fail(view, f"the canary {word}: {_named(failed)}")


def _after_canaries(view: View) -> Enter | None:
    if ended := _failed_canaries(view):
        return ended
    members = [member for member in view.members.values() if member.verdict != "removed"]
    canaries = [member for member in members if member.batch == 0]
    if not canaries:
        return _fail(view, "its canaries were removed from the fleet")
    if any(member.verdict != "confirmed" for member in canaries):
        return None
    if len(canaries) == len(members):
        return Enter("soaking" if soaks_until(view) else "settled")
    return Enter("rolling" if view.rollout.strategy.auto_promote else "awaiting_promotion")


def _after_rolling(view: View) -> Enter | None:
    rollout, members = view.rollout, view.members
    failed = failures(members.values())
    limit = tolerated(rollout.strategy, len(view.units))
    units = {member.unit for member in failed}
    if len(units) > limit:
        return _fail(view, f"{len(units)} failed, {limit} accepted: {_named(failed)}")
    open_ = [member for member in members.values() if view.is_open(member)]
    left = {
        member.unit
        for member in members.values()
        if member.verdict != "removed" and not member.undone
    }
    if failed and not open_ and units >= left:
        return _fail(view, f"no robot has it: {_named(failed)}")
    if not left:
        if any(member.undone for member in members.values()):
            return Enter("reverted", "undone on each instance")
        return _fail(view, "all its robots were removed from the fleet")
    if rollout.phase == "rolling":
        if not all(is_deferred(view, member) for member in open_):
            return None
        reason = f"for later: {_named(open_)}" if open_ else ""
        return Enter("soaking" if soaks_until(view) else "settled", reason)
    soaked = (soaks_until(view) or 0.0) <= view.now
    if rollout.phase == "soaking":
        if not soaked or not all(is_deferred(view, member) for member in open_):
            return None
        return Enter("settled", f"for later: {_named(open_)}" if open_ else "")
    if not open_:
        if not soaked:
            return None
        if failed:
            return Enter("succeeded_partially", f"failed: {_named(failed)}")
        return Enter("succeeded")
    if view.now - rollout.created < rollout.strategy.catch_up:
        return None
    reason = f"not reached in time: {_named(open_)}"
    if failed:
        reason += f"; failed: {_named(failed)}"
    if any(member.verdict == "confirmed" for member in members.values()):
        return Enter("succeeded_partially", reason)
    return _fail(view, reason) if failed else Enter("failed", reason)


def soaks_until(view: View) -> float | None:
    """Return when the robots that are confirmed have been watched for long enough.

    None if there is nothing to be watched.
    """
    at = [member.at for member in view.members.values() if member.verdict == "confirmed"]
    soak = view.rollout.strategy.soak_time
    return max(at) + soak if at and soak else None


def is_watched(view: View, member: Member) -> bool:
    """Return True if failures of a confirmed robot still count."""
    phase = view.rollout.phase
    if phase == "settled":
        return view.now < member.at + view.rollout.strategy.soak_time
    return phase in FORWARD or phase == "awaiting_promotion"


def _after_reverting(view: View) -> Enter | None:
    rollout = view.rollout
    left = [member for member in view.members.values() if _must_go_back(view, member)]
    if not left:
        stuck = [
            member if view.has_way_back(member) else replace(member, reason=NO_WAY_BACK)
            for member in view.members.values()
            if (member.order == "back" and member.failed) or _has_nothing_left(view, member)
        ]
        if not stuck:
            return Enter("reverted", rollout.reason)
        if rollout.phase == "reverting":
            return Enter("revert_incomplete", f"{rollout.reason}; not back: {_named(stuck)}")
        return None
    if rollout.phase == "reverting" and all(is_deferred(view, member) for member in left):
        return Enter("revert_incomplete", f"{rollout.reason}; not reached: {_named(left)}")
    return None


def _must_go_back(view: View, member: Member) -> bool:
    """Return True if a robot has, or may have, the release, or an order that says so."""
    if view.seen_of(member).removed or member.verdict == "removed":
        return False
    if member.order == "back":
        return not member.verdict
    return member.order in ("stage", "switch") and not _has_nothing_left(view, member)


def _has_nothing_left(view: View, member: Member) -> bool:
    """Return True for a robot that has the release, and whose former one was undone, too."""
    has_it = member.order == "switch" and member.verdict in HAVE_IT
    return has_it and not view.has_way_back(member)


def _fail(view: View, reason: str) -> Enter:
    """Return the end of a rollout of which too many robots have failed."""
    if not any(
        member.order in ("switch", "back") and member.verdict != "refused"
        for member in view.members.values()
    ):
        return Enter("refused", reason)
    if view.rollout.phase == "settled":
        return Enter("failed", f"no robot is left: {reason}")
    return Enter("reverting" if view.rollout.strategy.auto_revert else "failed", reason)


def is_deferred(view: View, member: Member) -> bool:
    """Return True if the others do not wait for this robot."""
    seen = view.seen_of(member)
    if not seen.owned or member.lost:
        return True
    if member.in_flight and member.order == "switch" and not member.committed:
        return False
    if not seen.reachable:
        return seen.away_for >= DEFER_S
    if was_too_busy(view, member):
        return True
    strategy = view.rollout.strategy
    return strategy.busy == "wait" and is_leased(seen) and seen.leased_for >= strategy.busy_max


def was_too_busy(view: View, member: Member) -> bool:
    """Return True for a robot that has waited for `busy_max` with the order, not long ago."""
    return (
        member.order == "stage"
        and member.reason == TOO_BUSY
        and view.now - member.at < BUSY_AGAIN_S
    )


def failures(members: Iterable[Member]) -> list[Member]:
    """Return the robots that count as failed."""
    return [member for member in members if member.failed and not member.undone]


def _named(members: Iterable[Member], most: int = 3) -> str:
    """Return robots with the reasons of their verdicts, the first few of them."""
    return first_of(_texts(members), most)


def _texts(members: Iterable[Member]) -> Iterator[str]:
    for member in members:
        yield f"`{member.robot}`" + (f" ({member.reason})" if member.reason else "")
