"""Subscriptions to the outputs of one running dataflow, for clients of the control API.

The daemon itself never touches messages. Each subscription has a small process that attaches to the
dataflow as an observer and passes the received messages to the daemon. If the client reads slowly,
the process keeps copies of the newest messages, and no node waits.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from dorad.control.errors import ControlError
from dorad.control.messages import Published, TopicHeader
from dorad.daemon.broker.broker import Broker
from dorad.daemon.subscription.observer import ObserverProcess
from dorad.daemon.subscription.publisher import Publisher
from dorad.dataflow.model import Input, NodeOutput
from dorad.launch.helper import HelperHost, LocalHelpers

MAX_SUBSCRIPTIONS = 16
"""Per dataflow. Each is a process of about 60 MB."""

MAX_QUEUE = 4096
"""Upper bound of the messages of a topic that wait for a slow reader."""

_RING_BYTES = 32 << 20
_MIN_RING, _DEFAULT_RING = 4, 16

_log = logging.getLogger(__name__)


class Subscription:
    """Messages of some outputs as they are sent: an async context manager and iterator.

    Yields a header and an Arrow IPC stream for each message. Ends when the dataflow ends.
    """

    def __init__(
        self,
        broker: Broker,
        helpers: HelperHost,
        observer_id: str,
        topics: Sequence[NodeOutput],
        *,
        queue_size: int,
        reduce: str = "",
    ) -> None:
        """Keep up to `queue_size` messages of each topic for a slow reader.

        `reduce` says how they are made smaller, see `reducing`.
        """
        self._reduce = reduce
        self.topics = tuple(dict.fromkeys(str(topic) for topic in topics))
        self._broker = broker
        self._process = ObserverProcess(broker, helpers, observer_id)
        self._queue_size = min(max(queue_size, 1), MAX_QUEUE)
        self._inputs = tuple(
            Input(str(topic), topic, min(self._queue_size, _ring_size(broker, topic)))
            for topic in dict.fromkeys(topics)
        )
        self._counts = dict.fromkeys(self.topics, 0)
        self._missed = dict.fromkeys(self.topics, 0)
        self._missed_before: dict[str, int] = {}
        self.joined = False
        """Whether it is part of the dataflow now."""

    def stop(self) -> None:
        """Kill the process; the iteration ends after the messages that it has sent."""
        self._process.stop()

    @property
    def observer(self) -> str:
        """The id of its observer, whose inputs have the names of the topics."""
        return self._process.id

    async def __aenter__(self) -> Subscription:
        try:
            await self._process.start(
                "echo", self._inputs, queue_size=self._queue_size, reduce=self._reduce
            )
            # Messages that were displaced before the process was ready do not count as dropped.
            self._missed_before = {topic: self._displaced(topic) for topic in self.topics}
            self.joined = True
        except BaseException:
            await self._process.end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.joined = False
        await self._process.end()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> tuple[TopicHeader, bytes]:
        frame = await self._process.receive()
        if frame is None:
            raise StopAsyncIteration
        topic = frame.head.topic
        if topic not in self._counts:
            raise ControlError("internal", f"the subscription process sent {topic!r}", "try again")
        self._counts[topic] += 1
        with contextlib.suppress(KeyError):  # the dataflow has ended; this was sent before
            self._missed[topic] = max(self._displaced(topic) - self._missed_before[topic], 0)
        header = TopicHeader(
            stream=0,
            topic=topic,
            sequence=self._counts[topic],
            dropped=self._missed[topic] + frame.head.displaced,
            metadata=frame.head.metadata,
        )
        return header, frame.payload

    def _displaced(self, topic: str) -> int:
        """Return how many messages left the ring before the process took them."""
        return self._broker.stats.input_counters(self._process.id, topic).dropped


def _ring_size(broker: Broker, topic: NodeOutput) -> int:
    """Return the queue size of the ring, which is smaller for large messages."""
    sizes = [
        counters.payload_bytes // counters.sent
        for counters in broker.stats.counters()
        if counters.sent and (counters.source_node, counters.output) == (topic.node, topic.output)
    ]
    if not sizes:
        return _DEFAULT_RING
    return min(max(_RING_BYTES // max(*sizes, 1), _MIN_RING), MAX_QUEUE)


class Subscriptions:
    """All subscriptions of one dataflow, and its publisher. Belongs to one event loop."""

    def __init__(self, broker: Broker, helpers: HelperHost | None = None) -> None:
        """Start processes with `helpers`, or without it as children of this process."""
        self._broker = broker
        self._helpers = LocalHelpers() if helpers is None else helpers
        self._open: set[Subscription] = set()
        self._publisher = Publisher(broker, self._helpers, self._new_id)
        self._observers = 0

    async def subscribe(
        self, topics: Sequence[NodeOutput], *, queue_size: int, stream: int, reduce: str = ""
    ) -> AsyncGenerator[tuple[TopicHeader, bytes], None]:
        """Yield the messages of the outputs from now on, until closed or the dataflow ends.

        `stream` goes into the headers; `reduce` says how messages are made smaller, see `reducing`.
        Raises ControlError.
        """
        if len(self._open) >= MAX_SUBSCRIPTIONS:
            raise ControlError(
                "busy",
                f"{MAX_SUBSCRIPTIONS} clients receive topics of this dataflow",
                "end one of them",
            )
        subscription = Subscription(
            self._broker,
            self._helpers,
            self._new_id(),
            topics,
            queue_size=queue_size,
            reduce=reduce,
        )
        _log.debug("observer %s subscribes to %s", subscription.observer, subscription.topics)
        self._open.add(subscription)
        try:
            async with subscription:
                async for header, payload in subscription:
                    header.stream = stream
                    yield header, payload
        finally:
            self._open.discard(subscription)

    async def publish(
        self,
        topic: NodeOutput,
        targets: Sequence[tuple[str, str]],
        data: list[Any],
        metadata: dict[str, Any],
    ) -> Published:
        """Send each entry of `data` as a message of `topic`, to the inputs `targets` (node, input).

        Open subscriptions to the topic receive it too. A list becomes an array of its items, any
        other value an array of one. Raises ControlError; if a value is not Arrow data, nothing is
        sent.
        """
        name = str(topic)
        subscribers = [(s.observer, name) for s in self._open if s.joined and name in s.topics]
        receivers = (*targets, *subscribers)
        if receivers and data:
            await self._publisher.send(topic, receivers, data, metadata)
        return Published(messages=len(data), subscribers=len(receivers))

    async def close(self) -> None:
        """End all subscriptions, which stop yielding, and the publisher."""
        for subscription in self._open:
            subscription.stop()
        await self._publisher.close()

    def _new_id(self) -> str:
        self._observers += 1
        return f".observer-{self._observers}"
