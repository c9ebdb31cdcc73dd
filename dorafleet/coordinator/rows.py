"""The row of a robot, from its own report and the coordinator's knowledge. Pure functions."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from dorad.control.messages import FleetRow
from dorad.control.messages.agent import ShareState
from dorafleet.coordinator.findings import MAX_FINDINGS, MAX_TEXT, OVER, RobotFacts, findings_of
from dorafleet.coordinator.reports import MAX_COUNT, MAX_SECONDS

HELD_S = 60.0
"""Seconds for which a robot that has failed during a change stays failed: crashes count as long."""


class Software(NamedTuple):
    """What is known of a robot's release, from rollouts."""

    release: str = ""
    updating: str = ""
    """The rollout or upgrade that changes it now; empty if there is none."""
    busy: str = ""
    """Why it must not be interrupted; empty if it may be."""
    since: float | None = None
    """Since when it is changed or busy, by the robot's clock; None if that is not known."""
    instances: tuple[str, ...] = ()
    """Those over several machines to which it belongs, as commands name them."""


class Known(NamedTuple):
    """What a row has besides the robot's own report and its findings."""

    facts: RobotFacts
    seen_at: float | None
    labels: Mapping[str, str]
    version: str
    software: Software = Software()
    coming: bool = False
    """Whether an earlier coordinator knew it, and this one has just started."""
    awaited: bool = False
    """Whether it is connected, and what is known of it is of before that."""


class Failure(NamedTuple):
    """The last failure of a robot during a change of its release."""

    why: str
    since: float | None
    until: float
    """When it is forgotten, unless the robot fails again."""


def checked(row: FleetRow, robot: str, skew: float) -> FleetRow:
    """Return a row that a robot has sent, with bounded texts and times of the coordinator."""
    kept = [
        msgspec.structs.replace(
            each,
            cause=each.cause[:MAX_TEXT],
            subject=each.subject[:MAX_TEXT],
            text=each.text[:MAX_TEXT],
            brief=each.brief[:MAX_TEXT],
            error=each.error[:MAX_TEXT],
            since=_moment(each.since - skew),
            hint="",  # it is what an operator does: no robot says it
            dataflow=None if each.dataflow is None else each.dataflow[:MAX_TEXT],
            node=None if each.node is None else each.node[:MAX_TEXT],
        )
        for each in row.findings[:MAX_FINDINGS]
    ]
    return msgspec.structs.replace(
        row,
        robot=robot,
        why=row.why[:MAX_TEXT],
        dataflow=row.dataflow[:MAX_TEXT],
        release=row.release[:MAX_TEXT],
        version=row.version[:MAX_TEXT],
        since=None if row.since is None else _moment(row.since - skew),
        nodes=_bounded(row.nodes),
        running=_bounded(row.running),
        stopped=[each[:MAX_TEXT] for each in row.stopped[:MAX_FINDINGS]],
        labels={},
        findings=kept,
    )


def _moment(seconds: float) -> float:
    return min(max(seconds, -MAX_SECONDS), MAX_SECONDS)


def _bounded(count: int) -> int:
    return min(max(count, 0), MAX_COUNT)


def fleet_row(own: FleetRow | None, known: Known, now: float) -> FleetRow:
    """Return the row of a robot; `own` is its own last report."""
    facts = known.facts
    base = own or FleetRow(robot=facts.robot, known=False)
    current = findings_of(base.findings, facts, now)
    worst = current[0] if current else None
    dataflow = base.dataflow if own is not None else _names(facts.shares)
    row = msgspec.structs.replace(
        base,
        robot=facts.robot,
        dataflow=dataflow,
        release=known.software.release or base.release,
        instances=[*known.software.instances],
        known=facts.is_connected and own is not None and not known.awaited,
        seen_at=known.seen_at,
        labels=dict(known.labels),
        version=base.version or known.version,
        findings=current,
    )
    if not facts.is_connected:
        why = _why_away(own, known)
        return msgspec.structs.replace(row, state="unreach", why=why, since=facts.away_since)
    if worst is not None and worst.severity == "fail":
        return msgspec.structs.replace(row, state="fail", why=worst.text)
    if known.software.updating:
        why, since = known.software.updating, _changed(known)
        return msgspec.structs.replace(row, state="update", why=why, since=since)
    if worst is not None:
        return msgspec.structs.replace(row, state="warn", why=worst.text)
    if known.awaited:
        # What it has said of itself, and since when, is of before.
        return msgspec.structs.replace(row, state="unreach", why=_why_awaited(own), since=None)
    if known.software.busy:
        why, since = known.software.busy, _changed(known)
        return msgspec.structs.replace(row, state="busy", why=why, since=since)
    own_why = own.why if own is not None and own.state == "ok" else ""
    why = own_why if dataflow else "no dataflow runs"
    return msgspec.structs.replace(row, state="ok", why=why)


def _changed(known: Known) -> float | None:
    since = known.software.since
    return None if since is None else _moment(since - known.facts.ahead)


def steady(
    row: FleetRow, before: FleetRow | None, failure: Failure | None, now: float
) -> tuple[FleetRow, Failure | None]:
    """Return the row to show, and the failure that the next one needs.

    A node that crashes in a loop fails and runs by turns. A robot that fails during a change stays
    failed meanwhile. One that has failed before the change is updated as soon as it does not fail.
    """
    if failure is not None and now >= failure.until:
        failure = None
    if row.state == "unreach":
        return row, failure
    if row.state == "fail" and (failure or (before is not None and before.state == "update")):
        since = row.since if failure is None else failure.since
        return msgspec.structs.replace(row, since=since), Failure(row.why, since, now + HELD_S)
    if row.state == "update" and failure is not None:
        why = f"{failure.why}; {row.why}"
        return msgspec.structs.replace(row, state="fail", why=why, since=failure.since), failure
    return row, None


def resumed(since: float, last: tuple[str, float] | None, now: float) -> float:
    """Return since when a robot is well of which an earlier coordinator has kept the `last` state.

    `since` is what the robot says: it does not know that it was out of reach, and the earlier
    coordinator does not know what has happened after its end.
    """
    since = min(since, now)
    if last is None:
        return since
    state, began = last
    if state == "ok":
        return max(began, since)
    return since if since > began else now


def _why_away(own: FleetRow | None, known: Known) -> str:
    if known.coming:
        return "not back yet: the coordinator has just started"
    if known.facts.state == "never-seen":
        return "never connected"
    if own is None:
        return "no contact"
    return f"no contact, {_was(own)}"


def _why_awaited(own: FleetRow | None) -> str:
    return "connected, has not described itself yet" + (f", {_was(own)}" if own else "")


def _was(own: FleetRow) -> str:
    return "was " + {"ok": "well", "busy": "well"}.get(own.state, own.why or own.state)


def _names(shares: Iterable[ShareState]) -> str:
    names = sorted(share.dataflow for share in shares if share.status not in OVER)
    return ", ".join(names)[:MAX_TEXT]
