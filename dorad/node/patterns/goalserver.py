"""Action goals at the server: run several at once, send feedback and results, handle cancels."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

from dorad.node.correlation import GOAL_ID, GOAL_STATUS, id_in
from dorad.node.patterns.errors import GoalCanceledError, RemoteError
from dorad.node.patterns.goals import ABORTED, CANCELED, ERROR, ERROR_TYPE, STATUSES, SUCCEEDED

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.node.events import Event
    from dorad.node.node import Node
    from dorad.node.patterns.goalturns import GoalTurns

_log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0
"""How long goals may take to end after the node is stopped."""


def call_handler(handler: Any, given: Any) -> Any:
    """Return what a handler returns. Raises what it raises, TypeError for a coroutine."""
    result = handler(given)
    if hasattr(result, "__await__"):
        result.close()
        raise TypeError("the handler is a coroutine function: use serve_async")
    return result


async def await_handler(handler: Any, given: Any) -> Any:
    """Return what a handler returns, or its coroutine. Raises what it raises."""
    result = handler(given)
    return await result if hasattr(result, "__await__") else result


def split_result(result: Any) -> tuple[Any, dict[str, Any]]:
    """Split the return value of a handler into data and metadata."""
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict):
        return result
    return result, {}


def empty_for(data: Any) -> Any:
    """Return the data to send: an empty array instead of None."""
    if data is not None:
        return data
    import pyarrow as pa

    return pa.nulls(0)


class ServedGoal:
    """One goal as its handler sees it. It ends with exactly one result."""

    def __init__(self, service: GoalService, event: Event, goal_id: str) -> None:
        self.id = goal_id
        self.event = event
        self._service = service
        self._lock = threading.Lock()
        self._canceled = threading.Event()
        self._wake: Callable[[], None] | None = None
        self._cancel_seen = False
        self.ended = False

    @property
    def value(self) -> Any:
        """The data of the goal, a pyarrow array."""
        return self.event["value"]

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the goal."""
        return dict(self.event["metadata"])

    @property
    def canceled(self) -> bool:
        """True if the goal was canceled, or the node is being stopped.

        A handler that has read True and then returns gives a result with the status `canceled`.
        """
        self._cancel_seen = self._cancel_seen or self._canceled.is_set()
        return self._cancel_seen

    def check(self) -> None:
        """Raise dora.patterns.GoalCanceledError if the goal was canceled."""
        if self.canceled:
            raise GoalCanceledError("the goal was canceled")

    def wait(self, seconds: float) -> bool:
        """Sleep until the goal is canceled, up to `seconds`; return True if it is."""
        turns = self._service.turns
        if turns is not None and turns.has_this_thread():
            turns.wait(seconds, self._canceled.is_set)
        else:
            self._canceled.wait(seconds)
        return self.canceled

    async def wait_async(self, seconds: float) -> bool:
        """Sleep like `wait`, without blocking the event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(woken.set)

        self._wake = wake
        try:
            if not self._canceled.is_set():
                await asyncio.wait_for(woken.wait(), seconds)
        except TimeoutError:
            pass
        finally:
            self._wake = None
        return self.canceled

    def feedback(self, data: Any, metadata: dict[str, Any] | None = None) -> None:
        """Send feedback to the client.

        Raises:
            RuntimeError: `serve_goals` was given no output for feedback; or as `send_output`.
        """
        self._service.send_feedback(self.id, data, metadata or {})

    def finish(self, status: str, data: Any = None, metadata: dict[str, Any] | None = None) -> None:
        """Send the result now; the return value of the handler is then ignored.

        `status` is one of dora: `succeeded`, `aborted` or `canceled`. A second result is ignored.

        Raises:
            ValueError: the status is unknown.
        """
        if status not in STATUSES:
            raise ValueError(f"unknown status {status!r}; known: {', '.join(STATUSES)}")
        with self._lock:
            if self.ended:
                return
            self.ended = True
        _log.debug("goal %s has %s", self.id, status)
        self._service.send_result(self.id, status, data, metadata or {})

    def cancel(self) -> None:
        """Request that the handler end."""
        _log.debug("goal %s is canceled", self.id)
        self._canceled.set()
        wake = self._wake
        if wake is not None:
            wake()

    def conclude(self, result: Any) -> None:
        """Send the return value of the handler as the result."""
        data, metadata = split_result(result)
        try:
            self.finish(CANCELED if self._cancel_seen else SUCCEEDED, data, metadata)
        except (RuntimeError, TypeError, OverflowError) as error:
            self.ended = False
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Send the exception of the handler as the result."""
        if isinstance(error, GoalCanceledError):
            self.finish(CANCELED)
            return
        kind, text = type(error).__name__, str(error)
        if isinstance(error, RemoteError):
            kind, text = error.kind, error.text
        self._service.report_failure(self.id, error)
        self.finish(ABORTED, None, {ERROR: text, ERROR_TYPE: kind})


class GoalService:
    """Runs the goals of one input."""

    def __init__(
        self,
        node: Node,
        handler: Any,
        goal: str,
        result: str,
        feedback: str | None,
        concurrent: int,
        turns: GoalTurns | None,
    ) -> None:
        """`turns` lets one goal run at a time, in a node that is stepped."""
        self._node = node
        self.turns = turns
        self._handler = handler
        self._input = goal
        self._result = result
        self._feedback = feedback
        self._concurrent = concurrent
        self._lock = threading.Lock()
        self._goals: dict[str, ServedGoal] = {}
        self._waiting: deque[tuple[ServedGoal, Callable[[Any], None] | None]] = deque()
        self._running = 0
        self._threads: set[threading.Thread] = set()

    def begin(self, event: Event, start: Callable[[Any], None] | None) -> None:
        """Run or queue a goal; `start` runs coroutines, without it goals run in threads."""
        goal_id = id_in(event.get("metadata") or {}, GOAL_ID)
        if goal_id is None:
            self._node.log(
                "warn",
                f"a message on input `{self._input}` has no goal_id in its metadata: it is not a "
                "goal (send goals with `send_goal`)",
            )
            return
        goal = ServedGoal(self, event, goal_id)
        with self._lock:
            known = goal_id in self._goals
            if not known:
                self._goals[goal_id] = goal
                self._waiting.append((goal, start))
        if known:
            self._node.log(
                "warn", f"goal {goal_id} came again on input `{self._input}`; it is ignored"
            )
        if self.turns is None or start is not None:
            self.start_next()

    def cancel(self, event: Event) -> bool:
        """Cancel a goal; return False if it is unknown."""
        with self._lock:
            goal = self._goals.get(id_in(event.get("metadata") or {}, GOAL_ID) or "")
            waiting = None
            for item in self._waiting:
                if item[0] is goal:
                    waiting = item
            if waiting is not None:
                self._waiting.remove(waiting)
        if goal is None:
            return False
        goal.cancel()
        if waiting is not None:
            goal.finish(CANCELED)
            self._forget(goal)
        return True

    def warn_of_cancel(self, event: Event) -> None:
        """Warn about a cancel that matches no goal."""
        goal_id = id_in(event.get("metadata") or {}, GOAL_ID)
        what = "has no goal_id in its metadata"
        if goal_id is not None:
            what = f"names goal {goal_id}, which is unknown or has ended"
        self._node.log("warn", f"a cancel on input `{event['id']}` {what}; it is ignored")

    def end(self) -> None:
        """Cancel all goals, because the node stops."""
        with self._lock:
            goals = list(self._goals.values())
            waiting = [item[0] for item in self._waiting]
            self._waiting.clear()
        for goal in goals:
            goal.cancel()
        for goal in waiting:
            goal.finish(CANCELED)
            self._forget(goal)

    def join(self) -> None:
        """Wait for the threads of goals, up to `STOP_TIMEOUT_S`."""
        until = time.monotonic() + STOP_TIMEOUT_S
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def start_next(self) -> bool:
        """Start the goals that may run now; return True if there was one."""
        has_started = False
        while True:
            with self._lock:
                if not self._waiting or self._running >= self._concurrent:
                    return has_started
                has_started = True
                goal, start = self._waiting.popleft()
                self._running += 1
            _log.debug("goal %s starts", goal.id)
            if start is not None:
                start(self._run_async(goal))
            else:
                # A daemon thread: a handler that ignores its cancel cannot keep the process alive.
                thread = threading.Thread(target=self._run, args=(goal,), daemon=True)
                with self._lock:
                    self._threads.add(thread)
                if self.turns is None:
                    thread.start()
                else:
                    self.turns.start(thread)

    def _run(self, goal: ServedGoal) -> None:
        try:
            result = call_handler(self._handler, goal)
        except BaseException as error:  # noqa: BLE001 - sent to the client
            goal.fail(error)
        else:
            goal.conclude(result)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())
            self._finished(goal)
            if self.turns is None:
                self.start_next()
            else:
                self.turns.end()

    async def _run_async(self, goal: ServedGoal) -> None:
        try:
            result = await await_handler(self._handler, goal)
        except Exception as error:  # noqa: BLE001 - sent to the client
            goal.fail(error)
        else:
            goal.conclude(result)
        finally:
            self._finished(goal)
            self.start_next()

    def _finished(self, goal: ServedGoal) -> None:
        with self._lock:
            self._running -= 1
        self._forget(goal)

    def _forget(self, goal: ServedGoal) -> None:
        with self._lock:
            self._goals.pop(goal.id, None)

    def send_feedback(self, goal_id: str, data: Any, metadata: dict[str, Any]) -> None:
        """Send feedback. Raises RuntimeError without an output for it."""
        if self._feedback is None:
            raise RuntimeError("serve_goals was given no output for feedback")
        self._node.send_output(self._feedback, data, {**metadata, GOAL_ID: goal_id})

    def send_result(self, goal_id: str, status: str, data: Any, metadata: dict[str, Any]) -> None:
        """Send the result of a goal."""
        sent = {**metadata, GOAL_ID: goal_id, GOAL_STATUS: status}
        self._node.send_output(self._result, empty_for(data), sent)

    def report_failure(self, goal_id: str, error: BaseException) -> None:
        """Log the exception of a handler."""
        text = "".join(traceback.format_exception(error)).rstrip()
        self._node.log("error", f"goal {goal_id} on input `{self._input}` failed: {text}")
