"""The steps of the stop ladder: first an event, then SIGTERM, then SIGKILL."""

from enum import StrEnum

from msgspec import Struct

GRACE_S = 10.0
"""Seconds between the STOP event and SIGTERM, unless the user gives another time."""

RESTART_GRACE_S = 5.0
"""The same for a node that is restarted."""


class Step(StrEnum):
    """What happens to the nodes that still run."""

    EVENT = "event"
    TERMINATE = "terminate"
    KILL = "kill"


class StopStep(Struct, frozen=True):
    """One step and when it is due, in seconds since the start of the stop."""

    after: float
    step: Step


def ladder(grace: float = GRACE_S) -> tuple[StopStep, ...]:
    """Return the steps in order: STOP now, SIGTERM after `grace`, SIGKILL after 1.5 times that."""
    return (
        StopStep(0.0, Step.EVENT),
        StopStep(grace, Step.TERMINATE),
        StopStep(grace * 1.5, Step.KILL),
    )
