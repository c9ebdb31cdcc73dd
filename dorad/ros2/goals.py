"""The goals that an action server of ROS 2 has, their states, and who waits for their results."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

MAX_ACTIVE = 256
MAX_ENDED = 1000
"""Results that are kept for clients who ask late."""
MAX_WAITING = 1000
"""Clients that wait for a result; the first ones are given up."""
KEPT_S = 10.0
"""How long a result is kept, as rclpy keeps it."""


class State(IntEnum):
    """The state of a goal, as action_msgs/GoalStatus numbers it."""

    UNKNOWN = 0
    """Offered, but not accepted yet; or not known at all."""
    EXECUTING = 2
    CANCELING = 3
    SUCCEEDED = 4
    CANCELED = 5
    ABORTED = 6


ENDED = (State.SUCCEEDED, State.CANCELED, State.ABORTED)


class CancelCode(IntEnum):
    """The answer to a cancel, as action_msgs/CancelGoal numbers it."""

    NONE = 0
    REJECTED = 1
    UNKNOWN_GOAL_ID = 2
    GOAL_TERMINATED = 3


@dataclass(slots=True, eq=False)
class Goal:
    """One goal; `header` belongs to the request that has offered it."""

    id: bytes
    header: Any
    array: Any
    offered_s: float
    state: State = State.UNKNOWN
    stamp_ns: int = 0
    """When it was accepted, by the clock of ROS."""
    ended_s: float = 0.0
    result: Any = None
    fetched: bool = False
    """Whether a client has got its result."""
    waiting: list[Any] = field(default_factory=list)
    """The headers of requests for its result."""


class ServedGoals:
    """All goals of one server; times in seconds are of one monotonic clock."""

    def __init__(self) -> None:
        self._goals: dict[bytes, Goal] = {}
        self._ended: deque[Goal] = deque()
        self._waiting = 0

    def get(self, goal_id: bytes) -> Goal | None:
        """Return a goal, None if it is unknown or no longer kept."""
        return self._goals.get(goal_id)

    def active(self) -> list[Goal]:
        """Return the goals that have been accepted and have not ended."""
        return [
            each
            for each in self._goals.values()
            if each.state in (State.EXECUTING, State.CANCELING)
        ]

    def accepted(self) -> list[Goal]:
        """Return all goals that clients may know, also those that have ended."""
        return [each for each in self._goals.values() if each.state is not State.UNKNOWN]

    def offer(self, goal_id: bytes, header: Any, array: Any, now_s: float) -> str | None:
        """Add a goal that is not accepted yet; return the reason if it cannot be."""
        if goal_id in self._goals:
            return "its id is in use"
        if len(self._goals) - len(self._ended) >= MAX_ACTIVE:
            return f"{MAX_ACTIVE} goals have not ended"
        self._goals[goal_id] = Goal(goal_id, header, array, now_s)
        return None

    def undecided(self, before_s: float) -> list[Goal]:
        """Return the goals that were offered before a time and are neither accepted nor not."""
        return [
            each
            for each in self._goals.values()
            if each.state is State.UNKNOWN and each.offered_s < before_s
        ]

    def accept(self, goal: Goal, stamp_ns: int) -> None:
        """Let a goal execute."""
        goal.state, goal.stamp_ns = State.EXECUTING, stamp_ns

    def reject(self, goal: Goal) -> None:
        """Forget a goal that is not accepted."""
        del self._goals[goal.id]

    def cancel(
        self, goal_id: bytes, stamp_ns: int, *, allowed: bool
    ) -> tuple[CancelCode, list[Goal]]:
        """Cancel the goals that a request means; return the code, and those that now end early.

        A request means a goal by its id, and all that were accepted up to a time. One with neither
        means all goals.
        """
        everything = not any(goal_id) and not stamp_ns
        goal = self._goals.get(goal_id)
        if any(goal_id) and not stamp_ns:
            if goal is None or goal.state is State.UNKNOWN:
                return CancelCode.UNKNOWN_GOAL_ID, []
            if goal.state in ENDED:
                return CancelCode.GOAL_TERMINATED, []
        meant = [
            each
            for each in self.active()
            if everything or each is goal or (stamp_ns and each.stamp_ns <= stamp_ns)
        ]
        if meant and not allowed:
            return CancelCode.REJECTED, []
        for each in meant:
            each.state = State.CANCELING
        return CancelCode.NONE, meant

    def wait(self, goal: Goal, header: Any) -> Any:
        """Let a request wait for the result of a goal; return the header of one given up, or None.

        The goal is active.
        """
        goal.waiting.append(header)
        self._waiting += 1
        if self._waiting <= MAX_WAITING:
            return None
        self._waiting -= 1
        return next(each for each in self._goals.values() if each.waiting).waiting.pop(0)

    def finish(self, goal: Goal, state: State, result: Any, now_s: float) -> list[Any]:
        """End an active goal; return the headers of the requests that wait for its result."""
        goal.state, goal.result, goal.ended_s, goal.array = state, result, now_s, None
        self._ended.append(goal)
        waiting, goal.waiting = goal.waiting, []
        goal.fetched = bool(waiting)
        self._waiting -= len(waiting)
        self.expire(now_s)
        return waiting

    def fetched(self) -> bool:
        """Return True if a client has got each result."""
        return all(each.fetched for each in self._ended)

    def expire(self, now_s: float) -> None:
        """Forget the results that have been kept long enough, or are too many."""
        while self._ended and (
            now_s - self._ended[0].ended_s > KEPT_S or len(self._ended) > MAX_ENDED
        ):
            del self._goals[self._ended.popleft().id]
