"""Topics of a ROS 2 node in Python: quality of service, publishers and subscriptions."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dorad.node.externalinput import Backlog
from dorad.ros2 import qos
from dorad.ros2.api.runtime import plain_errors
from dorad.ros2.counts import Count, Gaps
from dorad.ros2.decode import CdrError, decoder
from dorad.ros2.encode import encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dorad.ros2.definitions import Message

_log = logging.getLogger(__name__)

DISCOVERY_S = 1.0
"""How long the first `publish` waits for a subscription, from the creation of its publisher on."""
MAX_QUEUED = 10_000
MATCHED_S = 0.2
"""How long a subscription may need to know its publisher, after that knows it: what is published
before, it never gets unless it is transient local."""
_PAUSE_S = 0.01


class Ros2Durability(IntEnum):
    """Whether a publisher keeps messages for late subscriptions. ROS 2 has only the first two."""

    Volatile = 0
    TransientLocal = 1
    Transient = 2
    Persistent = 3


class Ros2Liveliness(IntEnum):
    """How a publisher shows that it is alive."""

    Automatic = 0
    ManualByParticipant = 1
    ManualByTopic = 2


_DURABILITY = {
    Ros2Durability.Volatile: "volatile",
    Ros2Durability.TransientLocal: "transient_local",
}
_LIVELINESS = {
    Ros2Liveliness.Automatic: "automatic",
    Ros2Liveliness.ManualByParticipant: "manual_by_participant",
    Ros2Liveliness.ManualByTopic: "manual_by_topic",
}


class Ros2QosPolicies:
    """Quality of service of a topic: by default best effort, with a queue of one message.

    `lease_duration` is in seconds. `max_blocking_time` has no effect: rclpy does not offer it.
    """

    def __init__(
        self,
        durability: Ros2Durability | None = None,
        liveliness: Ros2Liveliness | None = None,
        reliable: bool | None = None,
        keep_all: bool | None = None,
        lease_duration: float | None = None,
        max_blocking_time: float | None = None,
        keep_last: int | None = None,
    ) -> None:
        """See the class.

        Raises:
            TypeError: an argument has another type.
            ValueError: a number is negative or not a number, or `keep_last` is less than 1.
            RuntimeError: ROS 2 has no such durability.
        """
        durability = _of(Ros2Durability, "durability", durability, Ros2Durability.Volatile)
        if durability not in _DURABILITY:
            raise RuntimeError(
                f"ROS 2 has no durability {durability.name}: use Ros2Durability.TransientLocal"
            )
        liveliness = _of(Ros2Liveliness, "liveliness", liveliness, Ros2Liveliness.Automatic)
        lease_s = _seconds("lease_duration", lease_duration)
        _seconds("max_blocking_time", max_blocking_time)
        depth = _of(int, "keep_last", keep_last, 1)
        if depth < 1:
            raise ValueError(f"keep_last is at least 1, not {depth}")
        self.profile = qos.Profile(
            reliable=_of(bool, "reliable", reliable, False),
            transient_local=durability is Ros2Durability.TransientLocal,
            depth=0 if _of(bool, "keep_all", keep_all, False) else depth,
            liveliness=_LIVELINESS[liveliness],
            lease_s=lease_s,
        )

    def __repr__(self) -> str:
        return f"<Ros2QosPolicies: {self.profile}>"


def _of(kind: type[Any], name: str, value: Any, default: Any) -> Any:
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__}")
    return value


def _seconds(name: str, value: float | None) -> float | None:
    """Return a time, None if it is infinite."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a float, got {type(value).__name__}")
    if math.isnan(value) or value < 0:
        raise ValueError(f"{name} is not negative, got {value}")
    return None if math.isinf(value) else float(value)


@dataclass(frozen=True)
class Ros2Topic:
    """A topic, from `Ros2Node.create_topic`."""

    name: str
    """Absolute."""
    message: Message
    kind: Any
    """The class of the messages in rclpy."""
    qos: Ros2QosPolicies


class Ros2Publisher:
    """A publisher, from `Ros2Node.create_publisher`."""

    def __init__(self, ros: Any, topic: Ros2Topic, policies: Ros2QosPolicies | None) -> None:
        """`ros` is the node of rclpy. Raises RuntimeError."""
        from rclpy.event_handler import PublisherEventCallbacks

        self._ros = ros
        self.title = topic.name
        self._profile = (policies or topic.qos).profile
        self._encode = encoder(topic.message)
        self._incompatible = Count(f"subscriptions of {topic.name} with an incompatible QoS")
        with plain_errors():
            self._publisher = ros.create_publisher(
                topic.kind,
                topic.name,
                qos.to_rclpy(self._profile),
                event_callbacks=PublisherEventCallbacks(incompatible_qos=self._on_incompatible),
            )
        self._deadline_s: float | None = time.monotonic() + DISCOVERY_S

    def publish(self, data: Any) -> None:
        """Publish a message: a struct array of length 1, a struct scalar, or a dictionary.

        Fields that are missing get the default of their definition, or zero. The first message
        waits until a subscription is found, at most until one second after the creation, and then
        a moment more, until that knows the publisher, too.

        Raises:
            RuntimeError: the data does not fit the type of the topic; the text names the field.
            TypeError: it is something else.
        """
        with plain_errors():
            cdr = self._encode(as_array(data))
        if self._deadline_s is not None:
            self._wait_for_subscription(self._deadline_s)
            self._deadline_s = None
        with plain_errors():
            self._publisher.publish(cdr)

    def _wait_for_subscription(self, deadline_s: float) -> None:
        found_s = deadline_s - DISCOVERY_S  # at the creation, if it is there already
        while not self._publisher.get_subscription_count():
            found_s = time.monotonic()
            if found_s >= deadline_s:
                _log.info("%s has no subscription yet", self.title)
                return
            time.sleep(_PAUSE_S)
        time.sleep(max(0.0, found_s + MATCHED_S - time.monotonic()))

    def settled(self) -> bool:
        """Return True if every reliable subscription has all messages."""
        from rclpy.duration import Duration

        return bool(self._publisher.wait_for_all_acked(Duration()))

    def close(self) -> None:
        """Report the counts."""
        self._incompatible.close()

    def _on_incompatible(self, event: Any) -> None:
        infos = self._ros.get_subscriptions_info_by_topic(self.title)
        count_incompatible(self._incompatible, event, infos, self._profile)


class Ros2Subscription:
    """A subscription, from `Ros2Node.create_subscription`.

    Messages come into a queue of the length that its policies have; the oldest make room for new
    ones. What is missing or dropped is counted and reported, if the queue is longer than one
    message.
    """

    def __init__(self, ros: Any, topic: Ros2Topic, policies: Ros2QosPolicies | None) -> None:
        """`ros` is the node of rclpy. Raises RuntimeError."""
        from rclpy.event_handler import SubscriptionEventCallbacks

        self._ros = ros
        self.title = topic.name
        self._profile = (policies or topic.qos).profile
        self._decode = decoder(topic.message)
        depth = MAX_QUEUED if self._profile.depth == 0 else self._profile.depth or 1
        self._queue = Backlog(depth)
        self._gaps = Gaps() if depth > 1 else None
        self._wake: Callable[[], None] | None = None
        self._lost = Count(f"messages of {topic.name} lost, before the node got them")
        self._dropped = Count(f"messages of {topic.name} dropped, since the node took none")
        self._refused = Count(f"messages of {topic.name} refused")
        self._incompatible = Count(f"publishers of {topic.name} with an incompatible QoS")
        with plain_errors():
            self._subscription = ros.create_subscription(
                topic.kind,
                topic.name,
                self._receive,
                qos.to_rclpy(self._profile),
                raw=True,
                event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible),
            )

    def next(self) -> pa.Array | None:
        """Return the next message as a struct array of length 1, None if none has come.

        Raises:
            RuntimeError: `Node.merge_external_events` has taken over the subscription.
        """
        if self._wake is not None:
            raise RuntimeError(
                "the subscription was already used: its messages are events of the node"
            )
        return self._queue.popleft()

    def merge_into(self, wake: Callable[[], None]) -> Backlog:
        """Return the queue; from now on, call `wake` after each message.

        Raises:
            RuntimeError: it was called before.
        """
        if self._wake is not None:
            raise RuntimeError("the subscription was already used: it is merged into a node")
        self._wake = wake
        return self._queue

    def settled(self) -> bool:
        """Return True: it sends nothing."""
        return True

    def close(self) -> None:
        """Report the counts."""
        for each in (self._lost, self._dropped, self._refused, self._incompatible):
            each.close()

    def _receive(self, cdr: bytes, info: Mapping[str, Any]) -> None:
        """Queue a message, in the thread of the executor."""
        gid, number = info.get("publisher_gid"), info.get("publication_sequence_number")
        if (
            self._gaps is not None
            and gid is not None
            and number is not None  # not every middleware counts
            and (lost := self._gaps.before(gid["data"], number))
        ):
            self._lost.add(lost)
        try:
            array = self._decode(cdr)
        except CdrError as error:
            self._refused.add(1, f"it {error}")
            return
        dropped = self._queue.append(array, len(cdr))
        if dropped and self._gaps is not None:
            self._dropped.add(dropped)
        if self._wake is not None:
            self._wake()

    def _on_incompatible(self, event: Any) -> None:
        infos = self._ros.get_publishers_info_by_topic(self.title)
        count_incompatible(self._incompatible, event, infos, self._profile)


def count_incompatible(count: Count, event: Any, infos: Any, own: qos.Profile) -> None:
    """Count peers whose quality of service does not fit, and report both sides."""
    theirs = "; ".join(dict.fromkeys(str(qos.from_rclpy(each.qos_profile)) for each in infos))
    policy = qos.policy_name(event.last_policy_kind)
    count.add(event.total_count_change, f"{policy}; they have {theirs}, the node {own}")


def as_array(data: Any) -> pa.Array:
    """Return a dictionary or a struct scalar as an array of length 1; an array as it is.

    Raises TypeError.
    """
    if isinstance(data, dict):
        return pa.array([data])
    if isinstance(data, pa.StructScalar):
        return pa.array([data.as_py()], data.type)
    if not isinstance(data, pa.Array):
        raise TypeError(f"a message is a pyarrow array, not {type(data).__name__}")
    return data
