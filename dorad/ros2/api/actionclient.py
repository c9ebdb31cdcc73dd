"""The client of an action of ROS 2 in Python."""

from __future__ import annotations

import threading
import time
from enum import IntEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from dorad.node.externalinput import Backlog
from dorad.ros2.api.runtime import plain_errors
from dorad.ros2.api.services import (
    TAKE_TIMEOUT_S,
    Requester,
    from_data,
    seconds,
)
from dorad.ros2.counts import Count
from dorad.ros2.decode import CdrError, decoder
from dorad.ros2.encode import encoder
from dorad.ros2.objects import to_array

if TYPE_CHECKING:
    import pyarrow as pa

    from dorad.ros2.definitions import Message

GOAL_TIMEOUT_S = 30.0
RESULT_TIMEOUT_S = 300.0
CANCEL_TIMEOUT_S = 10.0
MAX_GOALS = 256
"""Goals of one client whose results were not taken."""
MAX_FEEDBACK = 1000
"""Feedback of one goal that was not taken; the oldest makes room."""


class Status(IntEnum):
    """The state of a goal, as action_msgs/GoalStatus numbers it."""

    UNKNOWN = 0
    ACCEPTED = 1
    EXECUTING = 2
    CANCELING = 3
    SUCCEEDED = 4
    CANCELED = 5
    ABORTED = 6


class Ros2ActionClient:
    """A client of an action, from `Ros2Node.create_action_client`."""

    def __init__(
        self,
        ros: Any,
        name: str,
        kind: Any,
        parts: tuple[Message, Message, Message],
        profile: Any,
    ) -> None:
        """Raises RuntimeError."""
        goal, result, feedback = parts
        self._encode, self._decode = encoder(goal), decoder(result)
        self._decode_feedback = decoder(feedback)
        self._kind, self.title = kind, name
        service = f"{name}/_action"
        impl = kind.Impl
        self._send_goal = Requester(ros, impl.SendGoalService, f"{service}/send_goal", profile)
        self._get_result = Requester(ros, impl.GetResultService, f"{service}/get_result", profile)
        self._cancel_goal = Requester(
            ros, impl.CancelGoalService, f"{service}/cancel_goal", profile
        )
        self._refused = Count(f"feedback of {name} refused")
        self._dropped = Count(f"feedback of {name} dropped, since the node took none")
        self._lock = threading.Lock()
        self._feedback: dict[str, Backlog] = {}
        self._arrived = threading.Condition(self._lock)
        with plain_errors():
            ros.create_subscription(
                impl.FeedbackMessage, f"{service}/feedback", self._receive, profile
            )

    def send_goal(self, goal: Any, timeout_s: float | None = None) -> str | None:
        """Send a goal; return its id once the server has accepted it, None if it has rejected it.

        `timeout_s`, 30 seconds by default, includes the wait for a server.

        Raises:
            RuntimeError: there was no answer in time, 256 goals have no result yet, or the goal
                does not fit its type.
            TypeError: the goal is no array, dictionary or struct scalar.
            ValueError: the timeout is negative or not finite.
        """
        deadline_s = time.monotonic() + seconds(timeout_s, GOAL_TIMEOUT_S)
        request = self._kind.Impl.SendGoalService.Request()
        request.goal = from_data(goal, self._encode, self._kind.Goal)
        uuid = uuid4()
        request.goal_id.uuid = list(uuid.bytes)
        with self._lock:
            if len(self._feedback) >= MAX_GOALS:
                raise RuntimeError(f"{MAX_GOALS} goals have no result yet: take or cancel some")
            self._feedback[str(uuid)] = Backlog(MAX_FEEDBACK)
        try:
            for each in (self._send_goal, self._get_result):
                if not each.wait_for_server(max(0.0, deadline_s - time.monotonic())):
                    raise RuntimeError(f"the action {self.title} has no server")
            answer = self._send_goal.answer(request, max(0.0, deadline_s - time.monotonic()))
        except BaseException:
            self._forget(str(uuid))
            raise
        if not answer.accepted:
            self._forget(str(uuid))
            return None
        return str(uuid)

    def take_feedback(self, goal_id: str, timeout_s: float | None = None) -> pa.Array | None:
        """Return the next feedback of a goal, None after `timeout_s`, 1 second by default.

        Raises:
            RuntimeError: there is no such goal, or its result was taken.
            ValueError: the timeout is negative or not finite.
        """
        deadline_s = time.monotonic() + seconds(timeout_s, TAKE_TIMEOUT_S)
        with self._arrived:
            while True:
                backlog = self._feedback.get(goal_id)
                if backlog is None:
                    raise RuntimeError(f"there is no goal {goal_id}, or its result was taken")
                array = backlog.popleft()
                left_s = deadline_s - time.monotonic()
                if array is not None or left_s <= 0:
                    return array
                self._arrived.wait(left_s)

    def take_result(
        self, goal_id: str, timeout_s: float | None = None
    ) -> tuple[str, pa.Array] | None:
        """Return the status and the result of a goal that has ended.

        The status is `succeeded`, `aborted`, `canceled` or, if the server does not know the goal,
        `unknown`. Return None after `timeout_s`, 300 seconds by default; it can be called again.

        Raises:
            RuntimeError: there is no such goal, its result was taken, or it cannot be read.
            ValueError: the timeout is negative or not finite.
        """
        timeout_s = seconds(timeout_s, RESULT_TIMEOUT_S)
        with self._lock:
            if goal_id not in self._feedback:
                raise RuntimeError(f"there is no goal {goal_id}, or its result was taken")
        request = self._kind.Impl.GetResultService.Request()
        request.goal_id.uuid = list(UUID(goal_id).bytes)
        response = self._get_result.call(request, timeout_s)
        if response is None:
            return None
        self._forget(goal_id)
        with plain_errors():
            return Status(response.status).name.lower(), to_array(response.result, self._decode)

    def cancel(self, goal_id: str | None = None, timeout_s: float | None = None) -> int:
        """Cancel a goal, or all goals of the server without `goal_id`; return the server's code.

        It is 0 if goals are being canceled, 1 if the server refuses, 2 if it does not know the
        goal, 3 if the goal has ended. `timeout_s` is 10 seconds by default.

        Raises:
            RuntimeError: there was no answer in time.
            ValueError: `goal_id` is no id, or the timeout is negative or not finite.
        """
        timeout_s = seconds(timeout_s, CANCEL_TIMEOUT_S)
        request = self._kind.Impl.CancelGoalService.Request()
        if goal_id is not None:
            request.goal_info.goal_id.uuid = list(UUID(goal_id).bytes)
        return int(self._cancel_goal.answer(request, timeout_s).return_code)

    def settled(self) -> bool:
        """Return True: what it sends was answered."""
        return True

    def close(self) -> None:
        """Report the counts."""
        self._refused.close()
        self._dropped.close()

    def _forget(self, goal_id: str) -> None:
        with self._arrived:
            self._feedback.pop(goal_id, None)
            self._arrived.notify_all()

    def _receive(self, message: Any) -> None:
        """Queue feedback, in the thread of the executor; that of other clients comes here, too."""
        goal_id = str(UUID(bytes=bytes(message.goal_id.uuid)))
        with self._arrived:
            backlog = self._feedback.get(goal_id)
            if backlog is None:
                return
            try:
                array = to_array(message.feedback, self._decode_feedback)
            except CdrError as error:
                self._refused.add(1, f"it {error}")
                return
            if dropped := backlog.append(array, array.nbytes):
                self._dropped.add(dropped)
            self._arrived.notify_all()
