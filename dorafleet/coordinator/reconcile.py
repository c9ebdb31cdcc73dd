"""Compare desired and reported shares, and decide what to do. Pure functions.

Both are level-triggered: they look at states, never at what has changed, so that it does not matter
how often or after which failure they are asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dorad.control.messages import LinkPeer
    from dorad.control.messages.agent import ShareState
    from dorafleet.coordinator.records import Record, Restored, Wanted

FINAL = frozenset({"stopped", "finished", "failed"})
"""Statuses of a share that do not change by themselves."""

AT_BARRIER = frozenset({"ready", "running"})


@dataclass(frozen=True, slots=True)
class SetShare:
    """Send the robot its share."""

    dataflow: str


@dataclass(frozen=True, slots=True)
class OpenShare:
    """Open the start barrier on the robot."""

    dataflow: str


@dataclass(frozen=True, slots=True)
class RemoveShare:
    """Let the robot forget a share that has ended."""

    dataflow: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """A share that the store does not know: leave it as it is until an operator decides."""

    dataflow: str
    reason: str


Action: TypeAlias = "SetShare | OpenShare | RemoveShare | Conflict"


def actions_for(
    wanted: Mapping[str, Wanted],
    opened: Collection[str],
    shares: Mapping[str, ShareState],
    restored: Restored | None,
    newer: Mapping[str, tuple[int, str]],
) -> list[Action]:
    """Return the actions for one robot; after them it is in its desired state.

    `wanted` and `shares` are by dataflow, `opened` are the dataflows whose barrier is open. `newer`
    are those that the robot has in a newer generation than this one, as it has reported. While
    there is a conflict, nothing else is done for the robot.
    """
    conflicts = [
        Conflict(name, reason)
        for name, share in shares.items()
        if (reason := _conflict(wanted.get(name), share, restored))
    ]
    conflicts += [
        Conflict(name, reason)
        for name, (generation, reason) in newer.items()
        if name in wanted and wanted[name].generation == generation
    ]
    if conflicts:
        return list(conflicts)
    actions: list[Action] = []
    for name, target in wanted.items():
        share = shares.get(name)
        if share is None:
            if target.enabled:
                actions.append(SetShare(name))
        elif share.generation < target.generation:
            actions.append(SetShare(name))
        elif share.status == "ready" and name in opened:
            actions.append(OpenShare(name))
    actions += [RemoveShare(name) for name in shares if name not in wanted]
    return actions


def _conflict(target: Wanted | None, share: ShareState, restored: Restored | None) -> str:
    """Return why a share is newer than the store, or an empty text."""
    lost = restored is not None and restored.backup < share.generation < restored.first
    if target is None:
        if share.status in FINAL:
            # Nothing is left to decide, and cleaning up what was adopted must not pause its robot.
            return ""
        if lost:
            return "it was started after the backup from which the store was restored"
        return "it runs, and the store does not know it"
    if share.generation > target.generation:
        if lost:
            return "it was changed after the backup from which the store was restored"
        return f"its generation {share.generation} is above {target.generation}"
    return ""


@dataclass(frozen=True, slots=True)
class Open:
    """All robots are ready: open the start barrier."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The start has failed: stop what has been started."""

    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The dataflow has ended on all robots but those that are not waited for."""

    missing: tuple[str, ...] = ()


Verdict: TypeAlias = "Open | Fail | Finish"


def current(record: Record, share: ShareState | None) -> ShareState | None:
    """Return the share if the robot has its last order, else None."""
    if share is None or (share.uuid, share.generation) != (record.uuid, record.generation):
        return None
    return share


def judge(
    record: Record,
    shares: Mapping[str, ShareState | None],
    unreachable: Mapping[str, str],
    refused: Mapping[str, str],
    undelivered: Mapping[str, str],
    idle: Collection[str],
    *,
    overdue: bool,
) -> Verdict | None:
    """Return what follows from the shares of a dataflow, by robot; None if nothing does.

    `unreachable` are the robots that cannot be reached, `refused` those that have refused their
    share, `undelivered` those that could not store it, each with the reason; `idle` are those that
    have no share and get none now. `overdue` says that the time for the start is over.
    """
    if not record.running:
        return None
    found = {robot: current(record, shares.get(robot)) for robot in record.robots}
    if record.enabled and not record.opened:
        if all(share is not None and share.status in AT_BARRIER for share in found.values()):
            return Open()
        for robot in record.robots:
            share = found[robot]
            if robot in refused:
                return Fail(f"`{robot}` refuses its share: {refused[robot]}")
            if share is not None and share.status in FINAL:
                why = share.reason or _failures(share) or f"its share has {share.status}"
                return Fail(f"`{robot}`: {why}")
        if overdue:
            late = unready(record, shares, {**undelivered, **unreachable})
            after = f"is not ready after {record.hold:g} s"
            return Fail("; ".join(f"`{robot}` {after}: {why}" for robot, why in late.items()))
        return None
    awaited = still_running(record, shares, () if record.enabled else idle)
    missing: tuple[str, ...] = ()
    if not record.enabled and (record.force or record.failure):
        # They stop it once they are back.
        missing = tuple(robot for robot in record.robots if robot in awaited & unreachable.keys())
    return None if awaited - set(missing) else Finish(missing)


def still_running(
    record: Record, shares: Mapping[str, ShareState | None], idle: Collection[str]
) -> set[str]:
    """Return the robots where a dataflow has not ended; `idle` are those without a share of it."""
    found = {robot: current(record, shares.get(robot)) for robot in record.robots}
    return {
        robot
        for robot, share in found.items()
        if robot not in idle and (share is None or share.status not in FINAL)
    }


def unready(
    record: Record, shares: Mapping[str, ShareState | None], reasons: Mapping[str, str]
) -> dict[str, str]:
    """Return why each robot that a start waits for is not ready; `reasons` has known reasons."""
    late = {}
    for robot in record.robots:
        share = current(record, shares.get(robot))
        if share is not None and share.status in AT_BARRIER:
            continue
        if robot in reasons:
            late[robot] = reasons[robot]
        elif share is None:
            late[robot] = "it has not answered"
        else:
            down = [
                _describe(peer, link) for peer, link in share.links.items() if link.state != "up"
            ]
            links = f", without a link to {', '.join(down)}" if down else ""
            late[robot] = share.reason or f"it is {share.status}{links}"
    return late


def _describe(machine: str, link: LinkPeer) -> str:
    return f"`{machine}` ({link.reason})" if link.reason else f"`{machine}`"


def _failures(share: ShareState) -> str:
    if share.outcome is None:
        return ""
    return "; ".join(each.headline for each in share.outcome.failures)
