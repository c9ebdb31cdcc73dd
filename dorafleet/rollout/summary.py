"""The summary of a rollout for people: its state, its robots by state. Pure functions."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dorafleet.rollout.messages import RolloutRobot, RolloutSummary, State, Wave
from dorafleet.rollout.model import FORWARD, MOVING, Seen
from dorafleet.rollout.verdicts import reported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorafleet.rollout.decide import Decision
    from dorafleet.rollout.gates import Gate
    from dorafleet.rollout.model import Member, View

MAX_REASON = 300
MAX_LEASES = 5

_ORDER: tuple[Gate, ...] = ("window", "budget", "busy", "files", "unreachable")
"""The order of reasons to wait: the first one that applies names the rollout's state."""

_NOWHERE = Seen()


def summarise(view: View, decision: Decision, robots: Iterable[RolloutRobot]) -> RolloutSummary:
    """Return a rollout in brief; `robots` are its rows."""
    rollout = view.rollout
    rows = list(robots)
    waves: dict[int, Wave] = {}
    for row in rows:
        wave = waves.setdefault(row.batch, Wave(batch=row.batch, size=0))
        wave.size += 1
        wave.confirmed += row.state == "confirmed"
        wave.moving += row.state in MOVING
        wave.failed += row.state in ("reverted", "stuck", "refused", "lost")
    waiting = Counter[str](decision.waiting.values())
    away = [m for m in view.members.values() if not m.verdict and not _seen(view, m).reachable]
    waiting.pop("unreachable", None)
    if away and rollout.phase in FORWARD:
        waiting["unreachable"] = len(away)
    summary = RolloutSummary(
        rollout=rollout.number,
        dataflow=rollout.dataflow,
        release=rollout.release,
        name=rollout.name,
        phase=rollout.phase,
        since=rollout.since or rollout.created,
        by=rollout.by,
        created=rollout.created,
        size=rollout.size,
        reason=rollout.reason,
        paused=rollout.paused,
        counts=dict(Counter[str](row.state for row in rows)),
        unreachable=len(away),
        waves=[waves[batch] for batch in sorted(waves)],
        waiting=dict(waiting),
        opening=decision.opening,
    )
    summary.state = _state(summary, moving=any(row.state in MOVING for row in rows))
    return summary


def _state(summary: RolloutSummary, *, moving: bool) -> str:
    if summary.paused:
        return f"paused ({summary.phase})"
    if summary.phase not in ("canary", "rolling", "reverting") or moving:
        return summary.phase
    for gate in _ORDER:
        if summary.waiting.get(gate):
            return f"{summary.phase}, waiting ({gate})"
    return summary.phase


def row(view: View, member: Member, gate: Gate | None) -> RolloutRobot:
    """Return the row of one robot; `gate` is what it waits for."""
    seen = _seen(view, member)
    state = seen.state
    here = reported(member, seen) if member.order else None
    found = RolloutRobot(
        rollout=view.rollout.number,
        robot=member.robot,
        batch=member.batch,
        state=_robot_state(member, seen),
        reachable=seen.reachable,
        since=member.at,
        waiting=gate or "",
        reason=member.reason,
        before=member.before,
        evidence=member.evidence,
    )
    if state is not None and not member.verdict:
        found.leases = [f"{each.reason} ({each.owner})" for each in state.leases[:MAX_LEASES]]
        if here is not None:
            found.reason = found.reason or here.reason[:MAX_REASON]
            found.waiting = found.waiting or ("" if here.waiting == "switch" else here.waiting)
            if here.phase in MOVING:
                found.evidence = here.evidence
    if here is not None and member.verdict == "confirmed":
        found.restarted = here.restarted
    if not seen.reachable and not member.verdict:
        found.waiting, found.reason = "unreachable", found.reason or seen.trouble
    return found


def _robot_state(member: Member, seen: Seen) -> State:
    if member.order == "recall" and not member.verdict:
        return "left"
    if member.verdict:
        return member.verdict
    if not member.order:
        return "waiting"
    state = reported(member, seen)
    if state is None:
        return "pending"
    if state.phase == "staged" and (state.waiting == "busy" or state.leases):
        return "busy"
    # `confirmed` without a verdict: it still runs what it had.
    return "pending" if state.phase == "confirmed" else state.phase


def _seen(view: View, member: Member) -> Seen:
    return view.seen.get(member.robot, _NOWHERE)
