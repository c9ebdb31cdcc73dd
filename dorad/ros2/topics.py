"""The topics of a bridge: a subscription that feeds outputs, a publisher that inputs feed."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from dorad.ros2 import qos
from dorad.ros2.arrowtypes import ConversionError
from dorad.ros2.counts import Count, Gaps
from dorad.ros2.decode import STAMP, CdrError, decoder, stamp_reader
from dorad.ros2.encode import encoder, with_stamp
from dorad.ros2.objects import ros_class

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dorad.node.events import Event
    from dorad.ros2.dataflow import Dataflow
    from dorad.ros2.definitions import Definitions, Message

_log = logging.getLogger(__name__)
MISFIT_S = 0.5
"""How long a publisher usually takes to appear with its QoS once that is known not to fit."""
UNKNOWN_S = 10.0
"""How much longer a busy machine may take; then the warning names the others only."""
_NO_NAME = "_NODE_NAME_UNKNOWN_"
_TURN = 100
"""Messages of one subscription before the next one has its turn."""
MAX_TRIES = 100
"""How often a publisher is created until the graph shows which one it is."""
MAX_TIMES = 10_000
"""Messages whose times a publisher remembers: the longest queue that may bring them back."""
_ROUNDED_NS = 1000
_LONG_NS = 3600 * 1_000_000_000


class PeerTypes:
    """The peers of a topic that have another type, or another version of it.

    The middleware connects types of the same name; their messages may decode, but mean something
    else.
    """

    def __init__(self, message: Message, what: str) -> None:
        """`what` names the peers: `publishers of /image`."""
        self._name, self._hash = message.name, message.type_hash
        self._count = Count(f"{what} with another type")
        self._reported: set[bytes] = set()
        self.wrong: dict[bytes, str] = {}
        """Why the messages of a peer cannot be used."""

    def update(self, infos: Iterable[Any]) -> None:
        """Look at all peers that are present."""
        self.wrong = {}
        for each in infos:
            why = self._why(each)
            if why is not None:
                gid = bytes(each.endpoint_gid)
                self.wrong[gid] = why
                # The names of nodes come a little after their endpoints.
                if gid not in self._reported and each.node_name != _NO_NAME:
                    self._reported.add(gid)
                    self._count.add(1, why)
        self._reported &= self.wrong.keys()

    def close(self) -> None:
        """Report the count."""
        self._count.close()

    def _why(self, info: Any) -> str | None:
        who = (
            "a node"
            if info.node_name == _NO_NAME
            else f"{info.node_namespace.rstrip('/')}/{info.node_name}"
        )
        if info.topic_type != self._name:
            return f"{who} has {info.topic_type}, the bridge {self._name}"
        theirs = str(info.topic_type_hash)
        if theirs.startswith("RIHS") and theirs != self._hash:
            return f"{who} has {self._name} with the hash {theirs}, the bridge {self._hash}"
        return None


def sim_time_ns(ros: Any) -> int | None:
    """Return the time of /clock; None if a node does not follow it, or before its first message."""
    clock = ros.get_clock()
    return int(clock.now().nanoseconds) or None if clock.ros_time_is_active else None


class TopicReader:
    """Subscribes to a topic, and sends each message as an Arrow array on its outputs."""

    def __init__(
        self,
        ros: Any,
        endpoint: Mapping[str, Any],
        definitions: Definitions,
        dataflow: Dataflow,
        own: Mapping[str, list[TopicWriter]],
    ) -> None:
        """`ros` is the node of rclpy; `own` has its publishers, which are ignored, by topic.

        Raises DefinitionError.
        """
        message = definitions.message(endpoint["type"])
        self._ros = ros
        self.title = ros.resolve_topic_name(endpoint["name"])
        self._declared = endpoint["qos"]
        self._decode = decoder(message)
        self._read_stamp = stamp_reader(message)
        self._class = ros_class(endpoint["type"], "msg")
        self._dataflow = dataflow
        self._outputs = endpoint["outputs"]
        self._own = own.get(self.title, [])
        self._known: frozenset[bytes] = frozenset()
        """The publishers of the topic in other nodes."""
        self._counted: bytes | None = None
        """The one of them whose messages are counted, if messages do not tell theirs."""
        self._subscription: Any = None
        self._profile = qos.requested(self._declared, ())
        self._gaps = Gaps()
        self._misfits = 0
        """Publishers that do not fit, until they are handled."""
        self._misfit_policy, self._misfit_due_s = "", 0.0
        self._types = PeerTypes(message, f"publishers of {self.title}")
        self._lost = Count(f"messages lost on {self.title}, before the bridge got them")
        self._refused = Count(f"messages refused on {self.title}")
        self._incompatible = Count(f"publishers of {self.title} with an incompatible QoS")

    def has_peer(self) -> bool:
        """Return True if a publisher of the topic is known."""
        return bool(self._ros.count_publishers(self.title))

    def open(self) -> None:
        """Subscribe, with what the publishers found so far offer unless the file says more."""
        from rclpy.event_handler import SubscriptionEventCallbacks

        publishers = self._publishers()
        if self._subscription is not None:
            self._ros.destroy_subscription(self._subscription)
        self._profile = qos.requested(self._declared, publishers)
        _log.debug("%s has %d publishers: %s", self.title, len(publishers), self._profile)
        self._subscription = self._ros.create_subscription(
            self._class,
            self.title,
            self._receive,
            qos.to_rclpy(self._profile),
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible),
        )

    def take(self, event: Event) -> None:
        """Do nothing: a subscription has no input."""

    def interrupted(self, why: str) -> None:
        """Do nothing: nobody waits for an answer."""

    def settled(self) -> bool:
        """Return True: nobody waits for anything."""
        return True

    def check(self) -> None:
        """Look at the types of the publishers, and at those whose QoS does not fit."""
        self._update_types()
        if self._misfits and time.monotonic() >= self._misfit_due_s:
            self._handle_misfits()

    def _update_types(self) -> None:
        others = self._others()
        self._types.update(others)
        self._known = frozenset(bytes(each.endpoint_gid) for each in others)

    def close(self) -> None:
        """Report the counts."""
        if self._misfits:
            self._report_misfits(self._publishers())
        for each in (self._lost, self._refused, self._incompatible, self._types):
            each.close()

    def _publishers(self) -> list[qos.Profile]:
        return [qos.from_rclpy(each.qos_profile) for each in self._others()]

    def _others(self) -> list[Any]:
        """Return what the graph knows of the publishers of other nodes."""
        own = {each.gid for each in self._own}
        infos = self._ros.get_publishers_info_by_topic(self.title)
        return [each for each in infos if bytes(each.endpoint_gid) not in own]

    def _publisher_of(self, info: Mapping[str, Any], number: int) -> bytes | None:
        """Return the identity of the publisher of a message, None if it is not known.

        Jazzy does not tell it. There it is known while the topic has one publisher alone, which the
        graph is asked for whenever the numbers do not follow each other.
        """
        if (gid := info.get("publisher_gid")) is not None:
            publisher: bytes = gid["data"]
            if publisher not in self._gaps:
                self._update_types()
            return publisher
        if len(self._known) < 2 and not any(
            self._gaps.follows(each, number) for each in self._known
        ):
            self._update_types()
        only = next(iter(self._known)) if len(self._known) == 1 else None
        if only != self._counted:
            # What it has published before, beside others, was not counted.
            self._gaps, self._counted = Gaps(), only
        return only

    def _receive(self, cdr: bytes, info: Mapping[str, Any]) -> None:
        """Pass on a message, and those that wait behind it."""
        self._pass_on(cdr, info)
        handle = self._subscription.handle
        for _ in range(_TURN):
            taken = handle.take_message(self._class, True)
            if taken is None:
                return
            self._pass_on(*taken)

    def _pass_on(self, cdr: bytes, info: Mapping[str, Any]) -> None:
        number = info.get("publication_sequence_number")
        if number is not None:  # otherwise this middleware does not count
            if any(each.has_sent(info) for each in self._own):
                return
            publisher = self._publisher_of(info, number)
            if publisher is not None and (lost := self._gaps.before(publisher, number)):
                self._lost.add(lost)
                # The queue of one side was full, or the network lost what is best effort.
                self._dataflow.count_lost(self._outputs, lost, failed=False)
            if publisher is not None and (why := self._types.wrong.get(publisher)):
                self._refuse(why)
                return
        try:
            array = self._decode(cdr)
        except CdrError as error:
            self._refuse(f"it {error}")
            return
        read_stamp = self._read_stamp
        stamp = sim_time_ns(self._ros) if read_stamp is None else read_stamp(cdr)
        metadata = None if stamp is None else {STAMP: stamp}
        for output in self._outputs:
            self._dataflow.send(output, array, metadata)

    def _refuse(self, why: str) -> None:
        self._refused.add(1, why)
        self._dataflow.count_lost(self._outputs, 1)

    def _on_incompatible(self, event: Any) -> None:
        # What the publisher offers is known a little later than that it does not fit.
        self._misfits += event.total_count_change
        self._misfit_policy = qos.policy_name(event.last_policy_kind)
        self._misfit_due_s = time.monotonic() + MISFIT_S

    def _handle_misfits(self) -> None:
        """Subscribe again to what all publishers offer; report it if the file asks for more."""
        publishers = self._publishers()
        if qos.requested(self._declared, publishers) == self._profile:
            all_fit = all(qos.fits(each, self._profile) for each in publishers)
            if not all_fit or time.monotonic() >= self._misfit_due_s + UNKNOWN_S:
                self._report_misfits(publishers)
            return
        self._misfits = 0
        offers = "; ".join(dict.fromkeys(map(str, publishers)))
        _log.info("%s: a publisher offers %s: subscribing again", self.title, offers)
        self.open()

    def _report_misfits(self, publishers: list[qos.Profile]) -> None:
        count, self._misfits = self._misfits, 0
        offers = "; ".join(dict.fromkeys(map(str, publishers)))
        self._incompatible.add(
            count,
            f"{self._misfit_policy}; they offer {offers}, the bridge requests {self._profile}",
        )


class TopicWriter:
    """Publishes Arrow arrays on a topic."""

    def __init__(
        self, ros: Any, endpoint: Mapping[str, Any], definitions: Definitions, dataflow: Dataflow
    ) -> None:
        """Create the publisher. Raises DefinitionError, RuntimeError."""
        message = definitions.message(endpoint["type"])
        self._ros = ros
        self.title = ros.resolve_topic_name(endpoint["name"])
        self._encode = encoder(message)
        self._has_stamp = stamp_reader(message) is not None
        self._dataflow = dataflow
        self._types = PeerTypes(message, f"subscriptions of {self.title}")
        self._refused = Count(f"messages not published on {self.title}")
        self._unheard = 0
        self._incompatible = Count(f"subscriptions of {self.title} with an incompatible QoS")
        self._profile = qos.offered(endpoint["qos"])
        _log.debug("publishing on %s: %s", self.title, self._profile)
        self._publisher, self.gid = self._create(ros_class(endpoint["type"], "msg"))
        self._count = 0
        self._times: dict[int, tuple[int, int]] = {}
        """When each of the last messages was published: from, and to, in ns since 1970."""

    def _create(self, kind: Any) -> tuple[Any, bytes | None]:
        """Return a publisher and its identity, None if the middleware does not tell that at once.

        rclpy does not know it: it is what the graph has gained. While a node of the same name
        brings another publisher of the topic, only one more try can tell which is which.
        """
        from rclpy.event_handler import PublisherEventCallbacks

        for _ in range(MAX_TRIES):
            before = self._gids()
            publisher = self._ros.create_publisher(
                kind,
                self.title,
                qos.to_rclpy(self._profile),
                event_callbacks=PublisherEventCallbacks(incompatible_qos=self._on_incompatible),
            )
            new = self._gids() - before
            if len(new) <= 1:
                return publisher, next(iter(new), None)
            _log.debug("%d new publishers of %s have the node's name", len(new), self.title)
            self._ros.destroy_publisher(publisher)
        name = self._ros.get_fully_qualified_name()
        raise RuntimeError(f"publishers of {self.title} in nodes named {name} keep appearing")

    def has_peer(self) -> bool:
        """Return True if a subscription gets what is published."""
        return bool(self._publisher.get_subscription_count())

    def open(self) -> None:
        """Do nothing: it is open."""

    def take(self, event: Event) -> None:
        """Publish one message; count it if it does not fit.

        A header without a stamp gets that of the metadata, else the time of a simulation.
        """
        array, metadata = event["value"], event["metadata"]
        try:
            cdr = self._encode(array)
            if self._has_stamp:
                stamp = metadata.get(STAMP, sim_time_ns(self._ros))
                cdr = cdr if stamp is None else with_stamp(cdr, array.type, stamp)
            # Usual in ROS 2, and no loss; but whoever waits for the first message wants to know.
            self._unheard += not self.has_peer()
            self._publish(cdr)
        except (ConversionError, RuntimeError) as error:  # RuntimeError is of rcl
            self._refused.add(1, str(error))
            self._dataflow.count_refused(event["id"])

    def _publish(self, cdr: bytes) -> None:
        number, began_ns = self._count + 1, time.time_ns()
        # It may come back before it is published.
        self._times[number] = (began_ns, began_ns + _LONG_NS)
        self._publisher.publish(cdr)
        self._count, self._times[number] = number, (began_ns, time.time_ns())
        self._times.pop(number - MAX_TIMES, None)

    def has_sent(self, info: Mapping[str, Any]) -> bool:
        """Return True if a message that has come is one of this publisher."""
        if (gid := info.get("publisher_gid")) is not None:
            return bool(gid["data"] == self.gid)
        # rclpy of Jazzy does not tell whose it is, but its number and when it was published.
        began_ns, ended_ns = self._times.get(info["publication_sequence_number"], (0, 0))
        sent_ns: int = info["source_timestamp"]
        return began_ns - _ROUNDED_NS <= sent_ns <= ended_ns + _ROUNDED_NS

    def interrupted(self, why: str) -> None:
        """Do nothing: nobody waits for an answer."""

    def settled(self) -> bool:
        """Return True if every reliable subscription has all messages."""
        from rclpy.duration import Duration

        return bool(self._publisher.wait_for_all_acked(Duration()))

    def check(self) -> None:
        """Look at the types of the subscriptions."""
        self._types.update(self._ros.get_subscriptions_info_by_topic(self.title))

    def close(self) -> None:
        """Report the counts."""
        for each in (self._refused, self._incompatible, self._types):
            each.close()
        if self._unheard:
            _log.info(
                "%d messages published on %s before anyone subscribed, or after all had left",
                self._unheard,
                self.title,
            )

    def _gids(self) -> frozenset[bytes]:
        """Return the publishers of the topic that have the name of this node."""
        me = (self._ros.get_name(), self._ros.get_namespace())
        return frozenset(
            bytes(each.endpoint_gid)
            for each in self._ros.get_publishers_info_by_topic(self.title)
            if (each.node_name, each.node_namespace) == me
        )

    def _on_incompatible(self, event: Any) -> None:
        infos = self._ros.get_subscriptions_info_by_topic(self.title)
        wants = "; ".join(dict.fromkeys(str(qos.from_rclpy(each.qos_profile)) for each in infos))
        self._incompatible.add(
            event.total_count_change,
            f"{qos.policy_name(event.last_policy_kind)}; they request {wants},"
            f" the bridge offers {self._profile}",
        )
