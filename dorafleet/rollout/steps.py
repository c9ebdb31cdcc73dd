"""The steps of a rollout, and the rollout after one. Pure functions.

A step is one of three: verdicts about robots, a new phase, or orders to robots. It is written to
the journal before anything else happens, so that the next coordinator continues there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dorafleet.rollout.model import Member, Phase, Rollout, StepKind
    from dorafleet.rollout.verdicts import Judged


@dataclass(frozen=True, slots=True)
class Verdicts:
    """New verdicts about robots."""

    judged: tuple[Judged, ...]


@dataclass(frozen=True, slots=True)
class Enter:
    """The rollout enters a phase."""

    phase: Phase
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Orders:
    """Orders to robots, all of one kind."""

    kind: StepKind
    robots: tuple[str, ...]
    reason: str = ""


Step: TypeAlias = Verdicts | Enter | Orders


def is_another(rollout: Rollout, members: Iterable[Member]) -> bool:
    """Return True if a rollout changes the release, and not only parameters of robots that have it.

    Only then its end rejects the release as such.
    """
    return any(member.before != rollout.release for member in members)


def apply(
    rollout: Rollout, members: Mapping[str, Member], step: Step, generation: int, now: float
) -> tuple[Rollout, dict[str, Member]]:
    """Return the rollout after a step, and the robots that it has changed."""
    replace = msgspec.structs.replace
    rollout = replace(rollout, steps=rollout.steps + 1)
    match step:
        case Verdicts(judged):
            changed = {
                each.robot: replace(
                    members[each.robot],
                    verdict=each.verdict,
                    reason=each.reason,
                    evidence=list(each.evidence),
                    at=now,
                )
                for each in judged
            }
            return rollout, changed
        case Enter(phase, reason):
            rejected = rollout.rejected
            if phase == "reverting":
                rejected = is_another(rollout, members.values())
            after = replace(rollout, phase=phase, reason=reason, since=now, rejected=rejected)
            return after, {}
        case Orders("withdraw", robots, _):
            return rollout, {
                robot: replace(members[robot], generation=generation, withdrawn=True)
                for robot in robots
            }
        case Orders("arm", robots, _):
            return rollout, {
                robot: replace(members[robot], generation=generation, armed=True, at=now)
                for robot in robots
            }
        case Orders("commit", robots, _):
            # One that has gone back meanwhile goes forward again.
            return rollout, {
                robot: replace(
                    members[robot],
                    order="switch",
                    generation=generation,
                    armed=False,
                    committed=True,
                    verdict="" if members[robot].failed else members[robot].verdict,
                )
                for robot in robots
            }
        case Orders(kind, robots, reason):
            return rollout, {
                robot: replace(
                    members[robot],
                    order=kind,
                    generation=generation,
                    armed=False,
                    withdrawn=False,
                    committed=False,
                    verdict="" if kind != "recall" else members[robot].verdict,
                    reason=reason if kind != "recall" else members[robot].reason,
                    at=now,
                )
                for robot in robots
            }
