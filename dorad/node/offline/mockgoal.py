"""The goal of a `MockNode`, with prepared feedback and result."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from dorad.node.correlation import GOAL_ID, GOAL_STATUS, uuid7
from dorad.node.patterns.errors import NoAnswerError, RemoteError
from dorad.node.patterns.goals import CANCELED, SUCCEEDED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from dorad.node.events import Event


class MockGoal:
    """A substitute for `Goal` that never waits."""

    def __init__(self, output: str, answers: Sequence[Any] | None) -> None:
        """`answers` are the feedback and, last, the result or an exception."""
        self.id = uuid7()
        self.status: str | None = None
        self.canceled = False
        self._output = output
        self._answers = None if answers is None else deque(answers)

    def __iter__(self) -> Iterator[Event]:
        """Yield each feedback event."""
        while self._answers is not None and len(self._answers) > 1:
            yield self._event(self._answers.popleft(), {})

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield each feedback event."""
        for event in self:
            yield event

    def result(self, timeout: float | None = None) -> Event:
        """Return the result; its status is `canceled` after `cancel`.

        Raises:
            NoAnswerError: no result was prepared.
            RemoteError: an exception was prepared.
        """
        if not self._answers:
            raise NoAnswerError(f"service_responses have no result for goals on `{self._output}`")
        found = self._answers[-1]
        self.status = CANCELED if self.canceled else SUCCEEDED
        if isinstance(found, Exception):
            self.status = "aborted"
            raise RemoteError(type(found).__name__, str(found))
        return self._event(found, {GOAL_STATUS: self.status})

    async def result_async(self, timeout: float | None = None) -> Event:
        """Return the result like `result`."""
        return self.result(timeout)

    def cancel(self, data: Any = b"") -> None:
        """Set `canceled`."""
        self.canceled = True

    def _event(self, value: Any, metadata: dict[str, Any]) -> Event:
        metadata = {GOAL_ID: self.id, **metadata}
        return {"type": "INPUT", "id": self._output, "value": value, "metadata": metadata}
