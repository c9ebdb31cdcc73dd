"""Ask a connected robot, now and then, for its clock and for the audit that it knows.

Reports come without a question, so that a late one looks like a clock that is behind. An answer
lies between two moments of the coordinator.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages.agent import AGENT_REMEMBER, Remember
from dorad.jitter import between
from dorad.problems import ProblemError
from dorafleet.coordinator.reports import MAX_NAME, MAX_SECONDS

EVERY_S = 60.0
"""Seconds between two questions. A robot writes the audit's head to its disk each time."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Skew:
    """How far a clock is ahead of the coordinator's, in seconds."""

    seconds: float = 0.0
    margin: float = 0.0
    """Half of the time that the answer took: the true value differs by at most as much."""

    def beyond(self, seconds: float) -> bool:
        """Return True if the clock is certainly further off than this."""
        return abs(self.seconds) - self.margin > seconds

    @property
    def correction(self) -> float:
        """What to subtract from times by that clock: nothing if it may be right."""
        return self.seconds if self.beyond(0.0) else 0.0


def skew_of(clock: float, asked_at: float, answered_at: float) -> Skew:
    """Return the skew of a clock that was read between two moments of the coordinator's clock."""
    return Skew(clock - (asked_at + answered_at) / 2, (answered_at - asked_at) / 2)


class Probe:
    """Asks one robot over one connection."""

    def __init__(
        self, client: AsyncClient, robot: str, question: Callable[[], Awaitable[Remember]]
    ) -> None:
        """`question` returns what the robot is to remember."""
        self._client = client
        self._robot = robot
        self._question = question
        self._due = 0.0
        self._answers = True
        self._plan()

    def soon(self) -> None:
        """Ask at the next opportunity, because a report looks wrong."""
        self._due = 0.0

    async def when_due(self) -> tuple[Skew, Remember, str] | None:
        """Return the skew, what was sent, and the head that the robot knew; None if not asked.

        An agent of an earlier version is not asked twice: it does not know the method.
        """
        if not self._answers or time.monotonic() < self._due:
            return None
        self._plan()
        try:
            sent = await self._question()
        except ProblemError as error:
            _log.warning("robot `%s` is not asked for its audit: %s", self._robot, error)
            return None
        asked_at = time.time()
        try:
            remembered = await self._client.call(AGENT_REMEMBER, sent)
        except ControlError as error:
            _log.debug("robot `%s` does not report its clock: %s", self._robot, error)
            self._answers = error.code != "unknown-method"
            return None
        clock = min(max(remembered.time, -MAX_SECONDS), MAX_SECONDS)
        return skew_of(clock, asked_at, time.time()), sent, remembered.audit[:MAX_NAME]

    def _plan(self) -> None:
        # Not all robots at one time.
        self._due = time.monotonic() + between(EVERY_S / 2, EVERY_S)
