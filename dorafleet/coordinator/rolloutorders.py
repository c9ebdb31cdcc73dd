"""What a robot is to run after a step of a rollout, and to what it goes back. Pure functions."""

from collections.abc import Collection, Iterable

import msgspec

from dorad.control.messages.releases import Group, Rejection, ReleaseState
from dorafleet.coordinator.records import RobotAssignment
from dorafleet.rollout.model import Member, Rollout

MAX_REJECTS = 50
"""Releases that were undone, in one order."""


def wanted_of(rollout: Rollout, member: Member, rejected: Collection[str]) -> RobotAssignment:
    """Return the desired state of a robot after an order.

    `rejected` are the releases that were undone: the robot may have been off then.
    """
    if member.leaves and member.order in ("stage", "switch"):
        return _wanted_of_leaving(rollout, member, rejected)
    forward = member.order in ("stage", "switch")
    release = rollout.release if forward else member.before
    group = member.group if forward else member.before_group
    rejects = [
        Rejection(release=each, reason="it was undone", whole=True)
        for each in sorted({*rejected} - {release, rollout.release})[:MAX_REJECTS]
    ]
    if member.order == "back" and rollout.release:
        undone = Rejection(
            release=rollout.release,
            params=member.params,
            reason=member.undone or rollout.reason,
            group=member.group,
        )
        rejects.append(undone)
    return RobotAssignment(
        generation=member.generation,
        release=release,
        params=member.params if forward else member.before_params,
        enabled=bool(release),
        switch=member.order != "stage",
        arm=member.armed,
        rollout=rollout.number,
        allow_lower=rollout.allow_lower or not forward,
        retry=(rollout.retry or not forward) and not member.withdrawn,
        stay=member.order == "recall",
        rejects=rejects,
        soak_time=rollout.strategy.soak_time if forward else 0.0,
        withdraw=member.withdrawn and forward,
        group=group,
        scope=rollout.scope if forward else member.before_scope,
        # What they go back to was committed before.
        committed=group is not None and (member.committed or not forward),
    )


def _wanted_of_leaving(
    rollout: Rollout, member: Member, rejected: Collection[str]
) -> RobotAssignment:
    """Return the desired state of a machine that is left without a node of its instance.

    It runs on until the others switch, stops then, and forgets all once they are committed.
    """
    stays = member.order == "stage" or member.withdrawn
    if member.committed and not stays:
        member = msgspec.structs.replace(member, before="", before_group=None)
    as_before = wanted_of(rollout, msgspec.structs.replace(member, order="recall"), rejected)
    if stays or not member.before:
        return as_before
    return msgspec.structs.replace(as_before, enabled=False, stay=False, returns=True)


def rejected_of(heads: Iterable[Rollout]) -> frozenset[str]:
    """Return the releases that the newest rollout of each has rejected."""
    newest: dict[str, Rollout] = {}
    for head in sorted(heads, key=lambda each: each.number):
        newest[head.release] = head
    return frozenset(release for release, head in newest.items() if head.rejected)


def before_of(state: ReleaseState, rejected: Collection[str]) -> tuple[str, Group | None]:
    """Return the release to which a robot goes back: the last confirmed one that was not undone.

    And the group in which it ran that.
    """
    if state.confirmed in rejected and state.previous and state.previous not in rejected:
        return state.previous, state.previous_group
    return state.confirmed, state.group
