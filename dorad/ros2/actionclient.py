"""An action of ROS 2 to which the dataflow sends goals, any number at once."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pyarrow as pa

from dorad.node.correlation import GOAL_ID, GOAL_STATUS, id_in
from dorad.node.patterns import goals
from dorad.ros2 import qos
from dorad.ros2.arrowtypes import ConversionError
from dorad.ros2.counts import Count
from dorad.ros2.decode import HEADER, CdrError, decoder
from dorad.ros2.encode import encoder
from dorad.ros2.goals import MAX_ACTIVE, State
from dorad.ros2.objects import from_array, ros_class, to_array
from dorad.ros2.requests import Requester
from dorad.ros2.services import SERVER_TIMEOUT_S, no_server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.node.events import Event
    from dorad.ros2.dataflow import Dataflow
    from dorad.ros2.definitions import Definitions

_log = logging.getLogger(__name__)

CANCEL = "cancel"
"""The input for cancels; all others bring goals."""
FEEDBACK, RESULT = "feedback", "result"
"""The outputs; only the result is required."""

ANSWER_TIMEOUT_S = 30.0
"""How long a server may take to accept a goal or not."""

_STATUSES = {
    State.SUCCEEDED: goals.SUCCEEDED,
    State.CANCELED: goals.CANCELED,
    State.ABORTED: goals.ABORTED,
}


@dataclass(slots=True, eq=False)
class _Goal:
    name: str
    """The `goal_id` of the dataflow."""
    uuid: bytes
    request: Any
    """None once it is sent."""
    deadline_s: float
    """When it must be sent, and then accepted or not."""
    accepted: bool = False
    canceled: bool = False


class ActionClient:
    """Sends the goals and cancels of the dataflow; its feedback and results come back."""

    def __init__(
        self, ros: Any, endpoint: Mapping[str, Any], definitions: Definitions, dataflow: Dataflow
    ) -> None:
        """Look for a server. Raises DefinitionError."""
        goal, result, _ = definitions.action(endpoint["type"])
        self._encode_goal, self._decode_result = encoder(goal), decoder(result)
        self._decode_feedback = decoder(definitions.feedback_message(endpoint["type"]))
        self._class = ros_class(endpoint["type"], "action")
        self._ros = ros
        self._type = endpoint["type"]
        self._dataflow = dataflow
        self._outputs = endpoint["outputs"]
        self.title = ros.resolve_service_name(endpoint["name"])
        self._failed = Count(f"goals of {self.title} failed")
        self._refused = Count(f"messages of {self.title} refused")
        self._unknown = Count(f"cancels have no goal of {self.title} that executes")
        self._lock = threading.Lock()
        self._goals: dict[bytes, _Goal] = {}
        profile = qos.to_rclpy(qos.offered(endpoint["qos"]))
        kinds, name = self._class.Impl, f"{self.title}/_action"
        self._send_goal, self._cancel_goal, self._get_result = (
            Requester(ros, kind, f"{name}/{service}", profile, take, self._refuse)
            for service, kind, take in (
                ("send_goal", kinds.SendGoalService, self._take_answer),
                ("cancel_goal", kinds.CancelGoalService, self._take_cancel_answer),
                ("get_result", kinds.GetResultService, self._take_result),
            )
        )
        # An action may have many clients, whose feedback comes here, too.
        ros.create_subscription(
            kinds.FeedbackMessage, f"{name}/feedback", self._take_feedback, profile, raw=True
        )

    def has_peer(self) -> bool:
        """Return True if the action has a server, whose answers get through."""
        return all(
            each.has_server() for each in (self._send_goal, self._cancel_goal, self._get_result)
        )

    def open(self) -> None:
        """Do nothing: it is open."""

    def take(self, event: Event) -> None:
        """Send a goal of the dataflow once there is a server, or cancel one."""
        name = id_in(event["metadata"], GOAL_ID)
        if event["id"] == CANCEL:
            if name is None:
                self._unknown.add(1, "no goal_id in its metadata")
                self._dataflow.count_refused(event["id"])
            else:
                self._cancel(name)
            return
        uuid = _uuid_of(name)
        goal = _Goal(name or str(UUID(bytes=uuid)), uuid, None, time.monotonic() + SERVER_TIMEOUT_S)
        try:
            content = from_array(event["value"], self._encode_goal, self._class.Goal)
        except ConversionError as error:
            self._dataflow.count_refused(event["id"], failed=False)
            self._fail(goal, "ConversionError", str(error))
            return
        goal.request = self._class.Impl.SendGoalService.Request(goal=content)
        goal.request.goal_id.uuid = list(uuid)
        with self._lock:
            is_known, is_full = uuid in self._goals, len(self._goals) >= MAX_ACTIVE
            if not is_known and not is_full:
                self._goals[uuid] = goal
        if is_known:
            self._failed.add(1, f"goal {goal.name} has come again")
            self._dataflow.count_refused(event["id"])
        elif is_full:
            self._fail(goal, "GoalRefusedError", f"{MAX_ACTIVE} goals have not ended")
        self._send_waiting()

    def check(self) -> None:
        """Send what a server has appeared for; fail what can have no result any more."""
        self._send_waiting()
        now = time.monotonic()
        with self._lock:
            late = [
                each for each in self._goals.values() if not each.accepted and each.deadline_s < now
            ]
        for goal in late:
            if goal.request is None:
                why = f"the server of {self.title} does not answer within {ANSWER_TIMEOUT_S:g} s"
                self._end(goal, "NoAnswerError", why)
            else:
                wanted = self._type.replace("/", "/action/")
                why = no_server("action", self.title, wanted, self._ros)
                self._end(goal, "NoServerError", why)
        for requester in (self._send_goal, self._get_result, self._cancel_goal):
            for goal in requester.abandoned():
                self._end(goal, "ServerLostError", f"the server of {self.title} has ended")

    def interrupted(self, why: str) -> None:
        """Do nothing: goals go on, as those of any client that has ended."""

    def settled(self) -> bool:
        """Return True if the server has had all goals and cancels."""
        with self._lock:
            return not self._cancel_goal.pending() and all(
                each.accepted for each in self._goals.values()
            )

    def close(self) -> None:
        """Report the counts, and leave the graph."""
        for requester in (self._send_goal, self._cancel_goal, self._get_result):
            requester.close()
        for each in (self._failed, self._refused, self._unknown):
            each.close()

    def _refuse(self, why: str) -> None:
        self._refused.add(1, why)
        self._dataflow.failed = True

    def _send_waiting(self) -> None:
        with self._lock:
            waiting = [each for each in self._goals.values() if each.request]
            if not waiting or not self.has_peer():
                return
            for goal in waiting:
                _log.debug("%s: goal %s", self.title, goal.name)
                request, goal.request = goal.request, None
                goal.deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
                self._send_goal.send(request, goal)

    def _cancel(self, name: str) -> None:
        with self._lock:
            goal = next((each for each in self._goals.values() if each.name == name), None)
            if goal is None:
                self._unknown.add(1, name)
                return
            goal.canceled = True
            unsent = goal.request is not None
            if goal.accepted:
                self._send_cancel(goal)
        if unsent:
            self._finish(goal, goals.CANCELED, pa.nulls(0), {})

    def _send_cancel(self, goal: _Goal) -> None:
        _log.debug("%s: cancel of goal %s", self.title, goal.name)
        request = self._class.Impl.CancelGoalService.Request()
        request.goal_info.goal_id.uuid = list(goal.uuid)
        self._cancel_goal.send(request, goal)

    def _take_answer(self, goal: _Goal, response: Any) -> None:
        if not response.accepted:
            self._end(goal, "GoalRejectedError", f"the server of {self.title} has rejected it")
            return
        request = self._class.Impl.GetResultService.Request()
        request.goal_id.uuid = list(goal.uuid)
        with self._lock:
            goal.accepted = True
            if self._goals.get(goal.uuid) is goal:
                self._get_result.send(request, goal)
            else:
                goal.canceled = True  # its sender has the error that it came too late
            if goal.canceled:
                self._send_cancel(goal)

    def _take_cancel_answer(self, goal: _Goal, response: Any) -> None:
        if response.return_code:
            _log.info("%s: the server does not cancel goal %s", self.title, goal.name)

    def _take_feedback(self, cdr: bytes) -> None:
        # The first field is the id, whose 16 bytes need no length.
        with self._lock:
            goal = self._goals.get(cdr[HEADER : HEADER + 16])
        if goal is None or FEEDBACK not in self._outputs:
            return
        try:
            array = self._decode_feedback(cdr)
        except CdrError as error:
            self._refuse(f"feedback {error}")
            self._dataflow.count_lost((FEEDBACK,), 1)
            return
        self._dataflow.send(FEEDBACK, array.field("feedback"), {GOAL_ID: goal.name})

    def _take_result(self, goal: _Goal, response: Any) -> None:
        if response.status not in _STATUSES:
            self._end(goal, "GoalLostError", f"the server of {self.title} does not know it")
            return
        try:
            array = to_array(response.result, self._decode_result)
        except CdrError as error:
            self._end(goal, "CdrError", f"the result {error}")
            return
        self._finish(goal, _STATUSES[response.status], array, {})

    def _end(self, goal: _Goal, kind: str, why: str) -> None:
        """End a goal with an error, unless it has ended."""
        with self._lock:
            present = self._goals.get(goal.uuid) is goal
        if present:
            self._fail(goal, kind, why)

    def _fail(self, goal: _Goal, kind: str, why: str) -> None:
        self._failed.add(1, why)
        marked = {goals.ERROR: why, goals.ERROR_TYPE: kind}
        self._finish(goal, goals.ABORTED, pa.nulls(0), marked)

    def _finish(self, goal: _Goal, status: str, array: Any, marked: dict[str, Any]) -> None:
        with self._lock:
            if self._goals.get(goal.uuid) is goal:
                del self._goals[goal.uuid]
        _log.debug("%s: goal %s has %s", self.title, goal.name, status)
        self._dataflow.send(RESULT, array, {GOAL_ID: goal.name, GOAL_STATUS: status, **marked})


def _uuid_of(name: str | None) -> bytes:
    """Return the id of a goal in ROS 2: the same if it is a UUID."""
    try:
        return UUID(name).bytes if name else uuid4().bytes
    except ValueError:
        return uuid4().bytes
