"""The summary of a rollout for people: its state, its robots by state. Pure functions."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dorad.control.messages.releases import PREPARING
from dorafleet.rollout.decide import Decision, goes_back
from dorafleet.rollout.instances import why_split
from dorafleet.rollout.messages import RolloutRobot, RolloutSummary, State, Wave
from dorafleet.rollout.model import BACK, FAILURES, FORWARD, MOVING, Member, Rollout, Seen, View
from dorafleet.rollout.phases import NO_WAY_BACK, soaks_until
from dorafleet.rollout.verdicts import reported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorafleet.rollout.gates import Gate

MAX_REASON = 300
MAX_LEASES = 5

_ORDER: tuple[Gate, ...] = ("window", "budget", "busy", "files", "machines", "unreachable")
"""The order of reasons to wait: the first one that applies names the rollout's state."""


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
        wave.failed += row.state in FAILURES
    waiting = Counter[str](decision.waiting.values())
    away = [m for m in view.members.values() if not m.verdict and not view.seen_of(m).reachable]
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
        scope=rollout.scope,
        reason=rollout.question or rollout.reason,
        question=rollout.question,
        paused=rollout.paused,
        counts=dict(Counter[str](row.state for row in rows)),
        unreachable=len(away),
        waves=[waves[batch] for batch in sorted(waves)],
        waiting=dict(waiting),
        opening=decision.opening,
        soaks_until=soaks_until(view) if rollout.phase == "soaking" else None,
    )
    summary.state = _state(rollout, rows, decision)
    return summary


def _state(rollout: Rollout, rows: Iterable[RolloutRobot], decision: Decision) -> str:
    if rollout.paused:
        return f"paused ({rollout.phase})"
    if rollout.phase not in ("canary", "rolling", "reverting") or any(map(_goes_on, rows)):
        return rollout.phase
    gates = set(decision.waiting.values())
    first = next((gate for gate in _ORDER if gate in gates), None)
    return rollout.phase if first is None else f"{rollout.phase}, waiting ({first})"


def _goes_on(row: RolloutRobot) -> bool:
    """Return True if a robot does something, or gets ready for it."""
    ready = row.state in PREPARING and not row.waiting
    return row.state in MOVING or ready


def row(view: View, member: Member, gate: Gate | None, files: str = "") -> RolloutRobot:
    """Return the row of one robot.

    `gate` is what it waits for; `files` says what is done about files that it waits for.
    """
    rollout, seen = view.rollout, view.seen_of(member)
    state = seen.state
    here = reported(member, seen) if member.order else None
    shown = RolloutRobot(
        rollout=rollout.number,
        robot=member.robot,
        batch=member.batch,
        instance=member.instance,
        state=_robot_state(member, seen),
        reachable=seen.reachable,
        since=member.at,
        waiting=gate or "",
        reason=member.reason,
        before=member.before,
        evidence=member.evidence,
        goes_back=goes_back(view, member),
    )
    if state is not None and not member.verdict:
        shown.leases = [f"{each.reason} ({each.owner})" for each in state.leases[:MAX_LEASES]]
        if here is not None:
            shown.reason = shown.reason or here.reason[:MAX_REASON]
            shown.waiting = shown.waiting or ("" if here.waiting == "switch" else here.waiting)
            if here.waiting == "files":
                shown.reason = files or shown.reason
            if here.phase in (*MOVING, "reverted", "stuck"):
                shown.evidence = here.evidence
    if here is not None and member.verdict == "confirmed":
        shown.restarted = here.restarted
    if rollout.phase in BACK and member.order == "switch" and not view.has_way_back(member):
        shown.reason = NO_WAY_BACK
    if member.order and not member.verdict:
        shown.reason = seen.undelivered or shown.reason
    if not seen.reachable and not member.verdict:
        shown.waiting, shown.reason = "unreachable", shown.reason or seen.trouble
    if member.undone:
        shown.reason = member.undone + (f"; {shown.reason}" if shown.reason else "")
    if split := why_split(view, member):
        shown.reason = f"{split}; {shown.reason}" if shown.reason else split
    return shown


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
