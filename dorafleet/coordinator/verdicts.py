"""What follows for a started dataflow from the shares that robots report. Pure functions.

They look at states, never at what has changed: it does not matter how often they are asked.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from dorad.control.messages import LinkPeer
from dorad.control.messages.agent import ShareState
from dorafleet.coordinator.records import DataflowRecord

FINAL = frozenset({"stopped", "finished", "failed"})
"""Statuses of a share that do not change by themselves."""

AT_BARRIER = frozenset({"ready", "running"})


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


Verdict: TypeAlias = Open | Fail | Finish


def current(record: DataflowRecord, share: ShareState | None) -> ShareState | None:
    """Return the share if the robot has its last order, else None."""
    if share is None or (share.uuid, share.generation) != (record.uuid, record.generation):
        return None
    return share


def judge(
    record: DataflowRecord,
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
    parts = {robot: current(record, shares.get(robot)) for robot in record.robots}
    if record.enabled and not record.opened:
        if all(share is not None and share.status in AT_BARRIER for share in parts.values()):
            return Open()
        for robot in record.robots:
            share = parts[robot]
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
    record: DataflowRecord, shares: Mapping[str, ShareState | None], idle: Collection[str]
) -> set[str]:
    """Return the robots where a dataflow has not ended; `idle` are those without a share of it."""
    parts = {robot: current(record, shares.get(robot)) for robot in record.robots}
    return {
        robot
        for robot, share in parts.items()
        if robot not in idle and (share is None or share.status not in FINAL)
    }


def unready(
    record: DataflowRecord, shares: Mapping[str, ShareState | None], reasons: Mapping[str, str]
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
