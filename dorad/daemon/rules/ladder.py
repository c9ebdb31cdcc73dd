"""The stop ladder: first an event, then SIGTERM, then SIGKILL."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

GRACE_S = 10.0
"""Seconds between the STOP event and SIGTERM, unless the user says otherwise."""


RESTART_GRACE_S = 5.0
"""The same for a node that is ended only to be started again."""


class Step(StrEnum):
    """What is done to every node that still runs."""

    EVENT = "event"
    TERMINATE = "terminate"
    KILL = "kill"


class StopStep(Struct, frozen=True):
    """One step and when it is due, in seconds since the stop began."""

    after: float
    step: Step


def ladder(grace: float = GRACE_S, *, force: bool = False) -> tuple[StopStep, ...]:
    """Return the rungs in order: STOP now, SIGTERM after `grace`, SIGKILL after 1.5 times that.

    With `force` there is only the last, at once.
    """
    if force:
        return (StopStep(0.0, Step.KILL),)
    return (
        StopStep(0.0, Step.EVENT),
        StopStep(grace, Step.TERMINATE),
        StopStep(grace * 1.5, Step.KILL),
    )
