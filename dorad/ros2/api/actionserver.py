"""The server of an action of ROS 2 in Python, which is polled."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dorad.ros2.api.actionclient import RESULT_TIMEOUT_S, Status
from dorad.ros2.api.runtime import plain_errors
from dorad.ros2.api.services import TAKE_TIMEOUT_S, Responder, from_data, seconds
from dorad.ros2.counts import Count
from dorad.ros2.decode import CdrError, decoder
from dorad.ros2.encode import encoder
from dorad.ros2.objects import to_array

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from dorad.ros2.definitions import Message

MAX_GOALS = 256
"""Goals without a result; more are rejected."""
MAX_ENDED = 1000
"""Results that are kept for clients who ask late."""
MAX_WAITING = 16
"""Clients that wait for one result; the first are given up."""
_LOOK_S = 0.05
"""How often a wait for one thing looks at what else has come."""


class Cancel(IntEnum):
    """The answer to a cancel, as action_msgs/CancelGoal numbers it."""

    NONE = 0
    UNKNOWN_GOAL_ID = 2
    GOAL_TERMINATED = 3


@dataclass
class _Goal:
    uuid: bytes
    stamp: Any
    status: Status = Status.EXECUTING
    result: Any = None
    """The response with the result, once there is one."""
    delivered: bool = False


class Ros2ActionServer:
    """The server of an action, from `Ros2Node.create_action_server`.

    Goals are accepted when they are taken. All requests stay in the middleware until one of its
    methods is called, so poll them from time to time.
    """

    def __init__(
        self,
        ros: Any,
        name: str,
        kind: Any,
        parts: tuple[Message, Message, Message],
        profile: Any,
    ) -> None:
        """Raises RuntimeError."""
        from rclpy.qos import qos_profile_action_status_default

        goal, result, feedback = parts
        self._decode, self._encode = decoder(goal), encoder(result)
        self._encode_feedback = encoder(feedback)
        self._ros, self._kind, self.title = ros, kind, name
        impl, service = kind.Impl, f"{name}/_action"
        self._send_goal = Responder(ros, impl.SendGoalService, f"{service}/send_goal", profile)
        self._cancel_goal = Responder(
            ros, impl.CancelGoalService, f"{service}/cancel_goal", profile
        )
        self._get_result = Responder(ros, impl.GetResultService, f"{service}/get_result", profile)
        with plain_errors():
            self._feedback = ros.create_publisher(
                impl.FeedbackMessage, f"{service}/feedback", profile
            )
            self._status = ros.create_publisher(
                impl.GoalStatusMessage, f"{service}/status", qos_profile_action_status_default
            )
        self._rejected = Count(f"goals of {name} rejected")
        self._lock = threading.RLock()
        self._goals: dict[bytes, _Goal] = {}
        self._waiting: dict[bytes, list[Any]] = {}
        """Headers of requests for results that are not there yet."""

    def take_goal(self, timeout_s: float | None = None) -> tuple[str, pa.Array] | None:
        """Accept the next goal; return its id and array, None after `timeout_s`, 1 s by default.

        Raises:
            ValueError: the timeout is negative or not finite.
        """
        deadline_s = time.monotonic() + seconds(timeout_s, TAKE_TIMEOUT_S)
        for taken in self._taken(self._send_goal, deadline_s):
            request, header = taken
            uuid = bytes(request.goal_id.uuid)
            response = self._kind.Impl.SendGoalService.Response()
            response.stamp = self._ros.get_clock().now().to_msg()
            try:
                array = to_array(request.goal, self._decode)
                why = self._refusal(uuid)
            except CdrError as error:
                why = f"it {error}"
            response.accepted = why is None
            if why is None:
                with self._lock:
                    self._goals[uuid] = _Goal(uuid, response.stamp)
            else:
                self._rejected.add(1, why)
            self._send_goal.respond(header, response)
            if why is None:
                self._publish_status()
                return str(UUID(bytes=uuid)), array
        return None

    def _refusal(self, uuid: bytes) -> str | None:
        with self._lock:
            if uuid in self._goals:
                return "its id is in use"
            active = sum(each.result is None for each in self._goals.values())
            return f"{MAX_GOALS} goals have no result yet" if active >= MAX_GOALS else None

    def take_cancel(self, timeout_s: float | None = None) -> list[str] | None:
        """Return the ids of goals that a client cancels, None after `timeout_s`, 1 s by default.

        Answer each with `send_result(goal_id, result, "canceled")`.

        Raises:
            ValueError: the timeout is negative or not finite.
        """
        deadline_s = time.monotonic() + seconds(timeout_s, TAKE_TIMEOUT_S)
        for request, header in self._taken(self._cancel_goal, deadline_s):
            response = self._kind.Impl.CancelGoalService.Response()
            with self._lock:
                code, goals = self._meant(request.goal_info)
                for each in goals:
                    each.status = Status.CANCELING
            response.return_code = int(code)
            response.goals_canceling = [self._info(each) for each in goals]
            self._cancel_goal.respond(header, response)
            if goals:
                self._publish_status()
                return [str(UUID(bytes=each.uuid)) for each in goals]
        return None

    def _meant(self, info: Any) -> tuple[Cancel, list[_Goal]]:
        """Return the goals that a cancel means: one, those up to a time, or with neither all."""
        uuid, stamp = bytes(info.goal_id.uuid), (info.stamp.sec, info.stamp.nanosec)
        goal = self._goals.get(uuid)
        if any(uuid) and not any(stamp):
            if goal is None:
                return Cancel.UNKNOWN_GOAL_ID, []
            if goal.result is not None:
                return Cancel.GOAL_TERMINATED, []
            return Cancel.NONE, [goal]
        active = [each for each in self._goals.values() if each.result is None]
        if any(stamp):
            active = [
                each
                for each in active
                if each is goal or (each.stamp.sec, each.stamp.nanosec) <= stamp
            ]
        return Cancel.NONE, active

    def send_feedback(self, goal_id: str, feedback: Any) -> None:
        """Publish feedback of a goal that has no result yet.

        Raises:
            RuntimeError: there is no such goal, or the feedback does not fit its type.
            TypeError: the feedback is no array, dictionary or struct scalar.
        """
        goal = self._executing(goal_id)
        message = self._kind.Impl.FeedbackMessage()
        message.goal_id.uuid = list(goal.uuid)
        message.feedback = from_data(feedback, self._encode_feedback, self._kind.Feedback)
        with plain_errors():
            self._feedback.publish(message)

    def send_result(
        self,
        goal_id: str,
        result: Any,
        status: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """End a goal with its result, and wait until a client has asked for it.

        `status` is `succeeded`, by default, `canceled` or `aborted`; any other counts as that.

        Raises:
            RuntimeError: there is no such goal, the result does not fit its type, or no client has
                asked within `timeout_s`, 300 seconds by default. Clients may still ask later.
            TypeError: the result is no array, dictionary or struct scalar.
            ValueError: the timeout is negative or not finite.
        """
        timeout_s = seconds(timeout_s, RESULT_TIMEOUT_S)
        goal = self._executing(goal_id)
        response = self._kind.Impl.GetResultService.Response()
        response.result = from_data(result, self._encode, self._kind.Result)
        ended = {None: Status.SUCCEEDED, "succeeded": Status.SUCCEEDED, "canceled": Status.CANCELED}
        with self._lock:
            goal.status = ended.get(status, Status.ABORTED)
            response.status = int(goal.status)
            goal.result = response
            self._expire()
            for header in self._waiting.pop(goal.uuid, ()):
                self._answer(goal, header)
        self._publish_status()
        deadline_s = time.monotonic() + timeout_s
        while not goal.delivered:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise RuntimeError(
                    f"no client has asked for the result of {goal_id} within {timeout_s:g} s"
                )
            self._serve_results(min(left_s, _LOOK_S))

    def settled(self) -> bool:
        """Return True if all responses have been sent."""
        return all(
            each.settled() for each in (self._send_goal, self._cancel_goal, self._get_result)
        )

    def close(self) -> None:
        """Report the counts, and leave the graph."""
        for each in (self._send_goal, self._cancel_goal, self._get_result, self._rejected):
            each.close()

    def _executing(self, goal_id: str) -> _Goal:
        try:
            goal = self._goals.get(UUID(goal_id).bytes)
        except ValueError:
            goal = None
        if goal is None or goal.result is not None:
            raise RuntimeError(f"there is no goal {goal_id}, or it has a result already")
        return goal

    def _taken(self, responder: Responder, deadline_s: float) -> Iterator[tuple[Any, Any]]:
        """Yield requests until a deadline; meanwhile answer those for results."""
        while True:
            self._serve_results(0.0)
            left_s = max(0.0, deadline_s - time.monotonic())
            taken = responder.take(min(left_s, _LOOK_S))
            if taken is not None:
                yield taken
            elif left_s <= 0:
                return

    def _serve_results(self, timeout_s: float) -> None:
        """Answer the requests for results that have come; wait for one at most `timeout_s`."""
        while (taken := self._get_result.take(timeout_s)) is not None:
            request, header = taken
            uuid = bytes(request.goal_id.uuid)
            with self._lock:
                goal = self._goals.get(uuid)
                if goal is None:
                    # Its status is UNKNOWN.
                    response = self._kind.Impl.GetResultService.Response()
                    self._get_result.respond(header, response)
                elif goal.result is None:
                    waiting = self._waiting.setdefault(uuid, [])
                    waiting.append(header)
                    del waiting[:-MAX_WAITING]
                else:
                    self._answer(goal, header)
            timeout_s = 0.0

    def _answer(self, goal: _Goal, header: Any) -> None:
        self._get_result.respond(header, goal.result)
        goal.delivered = True

    def _expire(self) -> None:
        """Forget the oldest results."""
        ended = [each for each in self._goals.values() if each.result is not None]
        for each in ended[:-MAX_ENDED]:
            del self._goals[each.uuid]

    def _info(self, goal: _Goal) -> Any:
        from action_msgs.msg import GoalInfo

        info = GoalInfo(stamp=goal.stamp)
        info.goal_id.uuid = list(goal.uuid)
        return info

    def _publish_status(self) -> None:
        from action_msgs.msg import GoalStatus

        message = self._kind.Impl.GoalStatusMessage()
        with self._lock:
            message.status_list = [
                GoalStatus(goal_info=self._info(each), status=int(each.status))
                for each in self._goals.values()
            ]
        with plain_errors():
            self._status.publish(message)
