"""An action of ROS 2 that the dataflow serves: goals, feedback, results, cancels, rejection.

An action is three services and two topics. They are bridged one by one, because rclpy's own server
runs each goal in a callback, and accepts it before anybody else can say no.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pyarrow as pa

from dorad.node.correlation import GOAL_ID, GOAL_STATUS, REQUEST_ID, id_in
from dorad.node.patterns import calls, goals
from dorad.ros2 import qos
from dorad.ros2.arrowtypes import ConversionError, arrow_type
from dorad.ros2.counts import Count
from dorad.ros2.decode import CdrError, decoder
from dorad.ros2.encode import encoder
from dorad.ros2.goals import Goal, ServedGoals, State
from dorad.ros2.objects import from_array, ros_class, to_array
from dorad.ros2.requests import Responder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.node.events import Event
    from dorad.ros2.dataflow import Dataflow
    from dorad.ros2.definitions import Definitions

_log = logging.getLogger(__name__)

DECISION_TIMEOUT_S = 10.0
"""How long the dataflow may take to accept a goal or not."""

GOAL, CANCEL, ASK = "goal", "cancel", "goal_request"
"""The outputs; the last two are optional."""
FEEDBACK, RESULT, DECISION = "feedback", "result", "goal_response"
"""The inputs; only the result is required."""

_STATES = {
    goals.SUCCEEDED: State.SUCCEEDED,
    goals.CANCELED: State.CANCELED,
    goals.ABORTED: State.ABORTED,
}


class ActionServer:
    """Passes the goals of clients to the dataflow, and its feedback and results to them."""

    def __init__(
        self, ros: Any, endpoint: Mapping[str, Any], definitions: Definitions, dataflow: Dataflow
    ) -> None:
        """Raises DefinitionError."""
        goal, result, _ = definitions.action(endpoint["type"])
        feedback = definitions.feedback_message(endpoint["type"])
        self._decode_goal = decoder(goal)
        self._encode_result, self._encode_feedback = encoder(result), encoder(feedback)
        self._id_type = arrow_type(feedback).field("goal_id").type
        self._class = ros_class(endpoint["type"], "action")
        self._ros = ros
        self._profile = qos.to_rclpy(qos.offered(endpoint["qos"]))
        self._dataflow = dataflow
        self._outputs = endpoint["outputs"]
        self.title = ros.resolve_service_name(endpoint["name"])
        self._failed = Count(f"goals of {self.title} failed")
        self._rejected = Count(f"goals of {self.title} rejected")
        self._refused = Count(f"messages of clients of {self.title} refused")
        self._unknown = Count(f"messages to {self.title} have no goal that executes")
        # Messages to the dataflow are sent without it: they may wait for room.
        self._lock = threading.RLock()
        self._goals = ServedGoals()
        self._responders: dict[str, Responder] = {}
        self._feedback: Any = None
        self._status: Any = None

    def has_peer(self) -> bool:
        """Return True: clients come and go."""
        return True

    def open(self) -> None:
        """Serve: the dataflow can take goals now."""
        from rclpy.qos import qos_profile_action_status_default

        kinds, name = self._class.Impl, f"{self.title}/_action"
        self._feedback = self._ros.create_publisher(
            kinds.FeedbackMessage, f"{name}/feedback", self._profile
        )
        self._status = self._ros.create_publisher(
            kinds.GoalStatusMessage, f"{name}/status", qos_profile_action_status_default
        )
        for service, kind, take in (
            ("cancel_goal", kinds.CancelGoalService, self._take_cancel),
            ("get_result", kinds.GetResultService, self._take_result_request),
            ("send_goal", kinds.SendGoalService, self._take_goal),
        ):
            self._responders[service] = Responder(
                self._ros, kind, f"{name}/{service}", self._profile, take, self._refuse
            )

    def take(self, event: Event) -> None:
        """Pass on feedback, a result or a decision of the dataflow."""
        if event["id"] == DECISION:
            self._take_decision(event)
            return
        goal_id = _uuid(id_in(event["metadata"], GOAL_ID))
        if goal_id is None:
            self._unknown.add(1, f"{event['id']} without a goal_id")
            self._dataflow.count_refused(event["id"])
            return
        with self._lock:
            goal = self._goals.get(goal_id)
            if goal is None or goal not in self._goals.active():
                self._unknown.add(1, f"{event['id']} for {UUID(bytes=goal_id)}")
            elif event["id"] == FEEDBACK:
                self._publish_feedback(goal, event)
            else:
                self._take_result(goal, event)

    def check(self) -> None:
        """Reject goals that the dataflow does not decide on; forget old results."""
        now = time.monotonic()
        with self._lock:
            for goal in self._goals.undecided(now - DECISION_TIMEOUT_S):
                self._reject(goal, f"no decision within {DECISION_TIMEOUT_S:g} s")
            self._goals.expire(now)

    def interrupted(self, why: str) -> None:
        """Abort all goals: who works on them cannot go on."""
        with self._lock:
            for goal in self._goals.undecided(float("inf")):
                self._reject(goal, why)
            for goal in self._goals.active():
                self._failed.add(1, why)
                self._finish(goal, State.ABORTED, self._class.Result())

    def settled(self) -> bool:
        """Return True if the clients have their results."""
        with self._lock:
            return self._goals.fetched() and all(
                each.settled() for each in self._responders.values()
            )

    def close(self) -> None:
        """Report the counts, and leave the graph."""
        for responder in self._responders.values():
            responder.close()
        for each in (self._failed, self._rejected, self._refused, self._unknown):
            each.close()

    # -- from clients

    def _refuse(self, why: str) -> None:
        self._refused.add(1, why)
        self._dataflow.failed = True

    def _take_goal(self, request: Any, header: Any) -> None:
        goal_id = bytes(request.goal_id.uuid)
        try:
            array = to_array(request.goal, self._decode_goal)
            with self._lock:
                why = self._goals.offer(goal_id, header, array, time.monotonic())
        except CdrError as error:
            self._dataflow.count_lost((GOAL,), 1, failed=False)
            why = f"it {error}"
        if why is not None:
            self._rejected.add(1, why)
            self._answer_goal(header, accepted=False)
            return
        name = str(UUID(bytes=goal_id))
        _log.debug("%s: goal %s", self.title, name)
        if ASK in self._outputs:
            self._dataflow.send(ASK, array, {REQUEST_ID: name})
        else:
            self._accept(goal_id)

    def _accept(self, goal_id: bytes) -> None:
        with self._lock:
            goal = self._goals.get(goal_id)
            if goal is None or goal.state is not State.UNKNOWN:
                return
            stamp = self._ros.get_clock().now()
            self._goals.accept(goal, stamp.nanoseconds)
            self._answer_goal(goal.header, accepted=True, stamp=stamp.to_msg())
            self._publish_status()
            array = goal.array
        self._dataflow.send(GOAL, array, {GOAL_ID: str(UUID(bytes=goal_id))})

    def _reject(self, goal: Goal, why: str) -> None:
        self._rejected.add(1, why)
        self._goals.reject(goal)
        self._answer_goal(goal.header, accepted=False)

    def _answer_goal(self, header: Any, *, accepted: bool, stamp: Any = None) -> None:
        response = self._class.Impl.SendGoalService.Response(accepted=accepted)
        if stamp is not None:
            response.stamp = stamp
        self._responders["send_goal"].respond(header, response)

    def _take_cancel(self, request: Any, header: Any) -> None:
        info = request.goal_info
        stamp_ns = info.stamp.sec * 1_000_000_000 + info.stamp.nanosec
        response = self._class.Impl.CancelGoalService.Response()
        with self._lock:
            code, canceling = self._goals.cancel(
                bytes(info.goal_id.uuid), stamp_ns, allowed=CANCEL in self._outputs
            )
            response.return_code = int(code)
            response.goals_canceling = [self._info(each) for each in canceling]
            self._responders["cancel_goal"].respond(header, response)
            if canceling:
                self._publish_status()
        for each in canceling:
            name = str(UUID(bytes=each.id))
            _log.debug("%s: goal %s is canceled", self.title, name)
            self._dataflow.send(CANCEL, pa.nulls(0), {GOAL_ID: name})

    def _take_result_request(self, request: Any, header: Any) -> None:
        with self._lock:
            goal = self._goals.get(bytes(request.goal_id.uuid))
            if goal is not None and goal in self._goals.active():
                given_up = self._goals.wait(goal, header)
                if given_up is not None:
                    self._refused.add(1, "too many clients wait for results")
                    self._answer_result(given_up, State.UNKNOWN, self._class.Result())
            elif goal is None or goal.state is State.UNKNOWN:
                self._answer_result(header, State.UNKNOWN, self._class.Result())
            else:
                goal.fetched = True
                self._answer_result(header, goal.state, goal.result)

    # -- from the dataflow

    def _take_decision(self, event: Event) -> None:
        metadata = event["metadata"]
        goal_id = _uuid(id_in(metadata, REQUEST_ID))
        value = event["value"]
        accepted = len(value) > 0 and value[0].as_py() is True
        if goal_id is None:
            self._unknown.add(1, f"{DECISION} without a request_id")
            self._dataflow.count_refused(event["id"])
            return
        with self._lock:
            goal = self._goals.get(goal_id)
            if goal is None or goal.state is not State.UNKNOWN:
                self._unknown.add(1, f"{DECISION} for {UUID(bytes=goal_id)}")
                return
            if not accepted:
                self._reject(goal, str(metadata.get(calls.ERROR, "the dataflow rejects it")))
                return
        self._accept(goal.id)

    def _publish_feedback(self, goal: Goal, event: Event) -> None:
        value = event["value"]
        try:
            if len(value) != 1:
                raise ConversionError(f"feedback is one struct, not {len(value)}")
            goal_id = pa.array([{"uuid": list(goal.id)}], self._id_type)
            message = pa.StructArray.from_arrays([goal_id, value], ["goal_id", "feedback"])
            self._feedback.publish(self._encode_feedback(message))
        except ConversionError as error:
            self._dataflow.count_refused(event["id"])
            self._unknown.add(1, str(error))

    def _take_result(self, goal: Goal, event: Event) -> None:
        metadata, value = event["metadata"], event["value"]
        word = metadata.get(GOAL_STATUS, goals.SUCCEEDED)
        state = _STATES.get(word, State.ABORTED)
        why = None if word in _STATES else f"unknown goal_status {word!r}"
        if goals.ERROR in metadata:
            state = State.ABORTED
            why = f"{metadata.get(goals.ERROR_TYPE, 'Error')}: {metadata[goals.ERROR]}"
        result = self._class.Result()
        if len(value) or state is State.SUCCEEDED:
            try:
                result = from_array(value, self._encode_result, self._class.Result)
            except ConversionError as error:
                self._dataflow.count_refused(event["id"], failed=False)
                state, why = State.ABORTED, str(error)
        if why is not None:
            self._failed.add(1, why)
        self._finish(goal, state, result)

    def _finish(self, goal: Goal, state: State, result: Any) -> None:
        _log.debug("%s: goal %s: %s", self.title, UUID(bytes=goal.id), state.name)
        for header in self._goals.finish(goal, state, result, time.monotonic()):
            self._answer_result(header, state, result)
        self._publish_status()

    def _answer_result(self, header: Any, state: State, result: Any) -> None:
        response = self._class.Impl.GetResultService.Response(status=int(state), result=result)
        self._responders["get_result"].respond(header, response)

    def _publish_status(self) -> None:
        status = ros_class("action_msgs/GoalStatus", "msg")
        message = self._class.Impl.GoalStatusMessage()
        message.status_list = [
            status(goal_info=self._info(each), status=int(each.state))
            for each in self._goals.accepted()
        ]
        self._status.publish(message)

    def _info(self, goal: Goal) -> Any:
        from rclpy.time import Time

        info = ros_class("action_msgs/GoalInfo", "msg")(
            stamp=Time(nanoseconds=goal.stamp_ns).to_msg()
        )
        info.goal_id.uuid = list(goal.id)
        return info


def _uuid(text: str | None) -> bytes | None:
    try:
        return None if text is None else UUID(text).bytes
    except ValueError:
        return None
