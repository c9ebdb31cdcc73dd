"""The commands that an operator may give in each phase of a rollout. Pure functions."""

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import msgspec

from dorad.control.errors import ControlError
from dorad.dataflow.nearest import did_you_mean
from dorafleet.rollout.model import FINAL, FORWARD, Member, Phase, Rollout, Seen, units_of
from dorafleet.rollout.steps import Enter, is_another
from dorafleet.rollout.strategy import Amount, amount
from dorafleet.rollout.verdicts import MAX_REASON, Judged, needs_files

Act = Literal["pause", "resume", "promote", "abort", "undo", "supersede"]

_STOPPABLE = frozenset({"planned", "canary", "awaiting_promotion", "rolling", "soaking", "settled"})
_UNDONE = frozenset({"reverting", "reverted", "superseded"})


class Pace(msgspec.Struct, frozen=True):
    """How fast an undo goes, if not as its rollout did."""

    parallel: Amount | None = None
    """Maximum number of robots at a time."""
    at_once: bool = False
    """All robots that are not leased, whatever the budget."""


def operate(
    rollout: Rollout,
    members: Iterable[Member],
    act: Act,
    by: str,
    now: float,
    pace: Pace | None = None,
) -> Rollout:
    """Return the rollout after a command of an operator; `pace` is for an undo.

    Raises:
        ControlError: it cannot be done in this phase; the message says why.
    """
    replace = msgspec.structs.replace
    match act:
        case "pause":
            if rollout.is_final:
                raise _refusal(rollout, "it has ended")
            if rollout.paused:
                raise _refusal(rollout, "it is paused already")
            return replace(rollout, paused=True, steps=rollout.steps + 1)
        case "resume":
            if not rollout.paused:
                raise _refusal(rollout, "it is not paused")
            return replace(rollout, paused=False, question="", steps=rollout.steps + 1)
        case "promote":
            if rollout.phase != "awaiting_promotion":
                raise _refusal(rollout, f"it waits for no promotion, it is {rollout.phase}")
            return _enter(rollout, Enter("rolling", f"promoted by {by}"), now)
        case "abort":
            if rollout.phase not in _STOPPABLE:
                raise _refusal(rollout, f"it is {rollout.phase}")
            return _enter(rollout, Enter("aborted", f"aborted by {by}"), now)
        case "undo":
            return _undo(rollout, list(members), by, now, pace)
        case "supersede":
            return _enter(rollout, Enter("superseded", by), now)


def undo_instances(
    rollout: Rollout, members: Iterable[Member], instances: Collection[str], by: str
) -> tuple[Rollout, dict[str, Member]]:
    """Return the rollout after an operator has undone it on these instances, and their robots.

    They go back; the rollout goes on with the others.

    Raises:
        ControlError: names an instance that has no part in it, or cannot go back.
    """
    units = units_of(members)
    changed: dict[str, Member] = {}
    if rollout.phase in _UNDONE:
        raise _refusal(rollout, f"it is {rollout.phase}")
    for name in instances:
        unit = units.get(name)
        if unit is None:
            cell = next((cell for cell in units if name in _robots_of(units[cell])), "")
            hint = f"`{name}` is a machine of `{cell}`" if cell else did_you_mean(name, units)
            raise ControlError(
                "not-found", f"rollout {rollout.number} has no instance `{name[:100]}`", hint
            )
        if rollout.phase in ("planned", "canary") and unit[0].batch == 0:
            raise _refusal(rollout, f"`{name}` is a canary: undo all of it")
        if unit[0].undone:
            raise _refusal(rollout, f"`{name}` was {unit[0].undone} already")
        if not any(member.order in ("stage", "switch") for member in unit):
            raise _refusal(rollout, f"it has not given the release to `{name}`")
        changed |= {
            member.robot: msgspec.structs.replace(member, undone=f"undone by {by}")
            for member in unit
        }
    return msgspec.structs.replace(rollout, over=False, steps=rollout.steps + 1), changed


def _robots_of(members: Iterable[Member]) -> set[str]:
    return {member.robot for member in members}


def possible_acts(phase: Phase, *, paused: bool) -> frozenset[Act]:
    """Return what an operator may do in a phase. `undo` also needs a robot with the release."""
    acts: dict[Act, bool] = {
        "pause": phase not in FINAL and not paused,
        "resume": paused,
        "promote": phase == "awaiting_promotion",
        "abort": phase in _STOPPABLE,
        "undo": phase not in _UNDONE,
    }
    return frozenset(act for act, possible in acts.items() if possible)


def refuse(rollout: Rollout, member: Member, seen: Seen, reason: str) -> Judged | None:
    """Return the verdict about a robot that does not take the files; None if it has that verdict.

    Raises:
        ControlError: the rollout has ended, or the robot does not wait for files.
    """
    if member.verdict == "refused":
        return None
    if rollout.phase not in FORWARD:
        raise _refusal(rollout, f"it is {rollout.phase}")
    if not needs_files(member, seen):
        raise _refusal(rollout, f"`{member.robot}` does not wait for files")
    return Judged(member.robot, "refused", reason[:MAX_REASON])


def is_moving_on(rollout: Rollout, members: Iterable[Member]) -> bool:
    """Return True if another rollout should not silently take its place."""
    if rollout.phase in ("reverting",) and not rollout.paused:
        return True
    return any(
        member.in_flight or (member.undone and member.order == "switch") for member in members
    )


def _enter(rollout: Rollout, step: Enter, now: float) -> Rollout:
    return msgspec.structs.replace(
        rollout,
        phase=step.phase,
        reason=step.reason,
        since=now,
        paused=False,
        question="",
        over=False,
        steps=rollout.steps + 1,
    )


def _undo(
    rollout: Rollout, members: Sequence[Member], by: str, now: float, pace: Pace | None
) -> Rollout:
    if pace is not None:
        rollout = _paced(rollout, pace)
    if pace is not None and rollout.phase == "reverting":
        # It goes back already: only how fast changes.
        return msgspec.structs.replace(rollout, paused=False, steps=rollout.steps + 1)
    _check_undo(rollout, members)
    after = _enter(rollout, Enter("reverting", f"undone by {by}"), now)
    return msgspec.structs.replace(after, rejected=is_another(rollout, members))


def _paced(rollout: Rollout, pace: Pace) -> Rollout:
    if pace.parallel is not None:
        try:
            if amount(pace.parallel, 100) < 1:
                raise ControlError("bad-request", "max_parallel: 0 robots would never switch")
        except ValueError as error:
            raise ControlError("bad-request", f"max_parallel: {error}") from None
    return msgspec.structs.replace(rollout, back_parallel=pace.parallel, back_at_once=pace.at_once)


def _check_undo(rollout: Rollout, members: Iterable[Member]) -> None:
    if rollout.phase in _UNDONE:
        raise _refusal(rollout, f"it is {rollout.phase}")
    if not any(member.order in ("stage", "switch") for member in members):
        raise _refusal(rollout, "it has given the release to no robot")


def _refusal(rollout: Rollout, why: str) -> ControlError:
    return ControlError(
        "refused",
        f"rollout {rollout.number}: {why}",
        f"`dorafleet rollout status {rollout.number}` shows it",
    )
