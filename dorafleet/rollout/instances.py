"""An instance over several machines switches as one: when it is committed or taken back. Pure.

All its machines get ready, and reserve the switch for a short time: no lease begins on them. Once
all have, all get the order to switch. Each judges itself, and reports when it is healthy; one that
is left without a node stops its part. Only when all have is the release committed: that is stored
first, then each machine confirms it, or forgets the dataflow. If one fails before, or does not
begin, all go back. Afterwards a failure is one of the soak: all go back, too.
"""

from collections.abc import Iterable, Sequence

from dorad.phrases import first_of
from dorafleet.rollout.gates import Passing, is_leased
from dorafleet.rollout.model import BACK, MOVING, Member, Seen, View, units_of
from dorafleet.rollout.steps import Orders
from dorafleet.rollout.verdicts import has_stopped, is_waiting, reported

YIELD_S = 60.0
"""Seconds for which a busy robot with the order to switch keeps its place."""

ARM_S = 20.0
"""Seconds for which the machines of an instance reserve their switch."""

UNARMED = "not all machines of its instance could switch at one moment"
"""The reason of an order to get ready again after reservations have expired."""

BUSY_MACHINE = "a machine of its instance is busy"
"""The reason of the order to go back from a switch that not all machines of an instance begin."""


def next_orders(view: View) -> Orders | None:
    """Return the next orders that keep the machines of each instance together."""
    instances = [
        members
        for members in units_of(view.members.values()).values()
        if members[0].instance and not members[0].undone
    ]
    if view.rollout.phase not in BACK:
        for members in instances:
            if _may_commit(view, members) or _was_committed(view, members):
                return Orders("commit", _ids(members))
        for members in instances:
            if taken := _taken_back(view, members) or _never_begun(view, members):
                return taken
    return None


def _may_commit(view: View, members: Iterable[Member]) -> bool:
    """Return True if each machine has just said that it is healthy with the release.

    One that ran the release before, with the same nodes, has nothing to prove.
    """
    return any(member.in_flight for member in members) and all(
        member.order == "switch"
        and not member.committed
        and view.seen_of(member).owned
        and (has_stopped if member.leaves else _is_healthy)(member, view.seen_of(member))
        for member in members
    )


def _is_healthy(member: Member, seen: Seen) -> bool:
    state = reported(member, seen)
    if not seen.reachable or state is None:
        return False
    return member.verdict == "confirmed" or (state.phase == "probation" and state.healthy)


def _was_committed(view: View, members: Sequence[Member]) -> bool:
    """Return True if the store has lost the commit of an instance, and one machine proves it.

    A machine confirms another release than before only once it is told that all were healthy.
    """
    return not any(member.committed for member in members) and any(
        (seen := view.seen_of(member)).ahead
        and (state := seen.state) is not None
        and state.phase == "confirmed"
        and state.running == view.rollout.release != member.before
        and state.group is not None
        and member.group is not None
        and state.group.uuid == member.group.uuid
        for member in members
    )


def switched_ahead(view: View) -> tuple[str, ...]:
    """Return robots that have begun a switch of which the store has lost the order.

    With the other machines of their instances: that order was for all.
    """
    units = {
        member.unit
        for member in view.members.values()
        if member.order == "stage"
        and (seen := view.seen_of(member)).ahead
        and (state := seen.state) is not None
        and state.phase in (*MOVING, "reverted", "stuck")
    }
    return tuple(
        member.robot
        for unit in units
        for member in view.units[unit]
        if member.order == "stage" and view.seen_of(member).owned
    )


def _taken_back(view: View, members: Sequence[Member]) -> Orders | None:
    """Return the order for the machines of an instance of which one has failed."""
    failed = [member for member in members if member.failed]
    if not failed:
        return None
    why = f"`{failed[0].robot}` of its instance has failed"
    owned = [member for member in members if view.seen_of(member).owned]
    if waiting := [
        each
        for each in owned
        if (each.order == "stage" and not each.verdict)
        # It may not have got the order yet, and must not switch alone when it is back.
        or (each.order == "switch" and each.verdict == "lost" and not each.committed)
    ]:
        return Orders("recall", _ids(waiting), why)
    switched = [
        each
        for each in owned
        if each.order == "switch"
        and not each.committed
        and each.in_flight
        and (not each.before or view.has_way_back(each))
    ]
    return Orders("back", _ids(switched), why) if switched else None


def _never_begun(view: View, members: Sequence[Member]) -> Orders | None:
    """Return the order to go back, if a busy machine keeps the others from being committed."""
    if any(member.committed or not member.in_flight for member in members):
        return None
    busy = [
        member
        for member in members
        if member.order == "switch"
        and is_waiting(member, seen := view.seen_of(member))
        and is_leased(seen)
        and seen.leased_for >= YIELD_S
    ]
    if not busy or len(busy) == len(members):
        return None
    return Orders("back", _ids(members), BUSY_MACHINE)


def arm(view: View, passing: Passing) -> Orders | None:
    """Return the next order about reservations; robots that wait for one are taken from `passing`.

    Those that stay may switch: all machines of their instances have reserved it now.
    """
    for members in units_of(view.members[robot] for robot in passing.robots).values():
        arming = [
            each
            for each in members
            if each.instance and not each.leaves and view.seen_of(each).arms
        ]
        if len(members) == 1 or all(_is_armed(view, each) for each in arming):
            continue
        if not any(each.armed for each in arming):
            if all(each.reason != UNARMED or view.now - each.at >= YIELD_S for each in arming):
                return Orders("arm", _ids(arming))
        elif all(view.now - each.at >= ARM_S for each in arming):
            return Orders("stage", _ids(members), UNARMED)
        waiting = _ids(members)
        passing.robots = [robot for robot in passing.robots if robot not in waiting]
        passing.waiting |= dict.fromkeys(waiting, "machines")
    return None


def _is_armed(view: View, member: Member) -> bool:
    """Return True for a machine that has reserved its switch, or has the release already."""
    state = reported(member, view.seen_of(member))
    if state is None or not member.armed:
        return False
    return state.armed or (state.phase == "confirmed" and state.running == view.rollout.release)


def withdrawn_with(view: View, failing: Iterable[str]) -> tuple[str, ...]:
    """Return robots that go back because nodes failed, with the other machines of their instances.

    Those go back that have confirmed the release, too.
    """
    wanted = set(failing)
    for members in units_of(view.members.values()).values():
        if members[0].instance and any(
            each.robot in wanted or (each.failed and each.committed) for each in members
        ):
            wanted |= {
                each.robot
                for each in members
                if each.verdict == "confirmed"
                and each.order == "switch"
                and not each.withdrawn
                and (seen := view.seen_of(each)).owned
                and seen.reachable
            }
    return tuple(robot for robot in view.members if robot in wanted)


def why_split(view: View, member: Member) -> str:
    """Return that other machines have what was committed and one not yet; empty if it is not so."""
    if member.verdict or not member.committed:
        return ""
    have_it = [each.robot for each in view.unit_of(member) if each.verdict == "confirmed"]
    return f"split: {first_of(have_it, 3)} confirmed it, this machine follows" if have_it else ""


def _ids(members: Iterable[Member]) -> tuple[str, ...]:
    return tuple(member.robot for member in members)
