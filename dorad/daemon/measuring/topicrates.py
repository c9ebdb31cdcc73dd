"""How often an output sends, measured only with the counters of its rings.

While a client measures, a ring's newest timestamp is polled every 2 ms. One message between two
polls gives the exact interval, on the sender's clock. Several messages give the mean of their
intervals: above about 500 Hz, minimum, maximum and deviation are those of short means.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from dorad.control.errors import ControlError
from dorad.control.messages import TopicRate, TopicRates
from dorad.dataflow.model import Input, NodeOutput

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence

    from dorad.daemon.broker.broker import Broker
    from dorad.shm.counters import Counters

    Receivers = Callable[[NodeOutput], Iterable[tuple[str, str]]]

_log = logging.getLogger(__name__)

POLL_S = 0.002
REPORT_S = 1.0
_MAX_POLLS = 4
_MAX_GROUPS = 50_000
_MS = 1e6


class Source(Protocol):
    """Ring whose counters measure one output."""

    @property
    def ring(self) -> object:
        """Identity of the ring that `poll` reads."""

    def poll(self) -> Counters | None:
        """Return the counters of the ring; None if it no longer exists."""

    async def choose(self) -> bool:
        """Choose a ring that the output feeds now; called once a second.

        Return False if the output no longer exists.
        """


class _Group(NamedTuple):
    """Messages that arrived between two polls."""

    at: float
    messages: int
    span_ns: int
    """From the newest message before them to the newest of them."""
    size: int


class _Arrival(NamedTuple):
    """Messages of one output that arrived between two polls."""

    newest_ns: int
    """Timestamp of the newest of them."""
    messages: int
    size: int


class TopicMeter:
    """Intervals of one output over the last `window` seconds, or of several as one stream.

    Times `at` are monotonic.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._groups: deque[_Group] = deque(maxlen=_MAX_GROUPS)
        self._last: Counters | None = None
        self._ring: object = None
        self._last_at = 0.0
        self._newest_ns: int | None = None
        """The newest message of a merged stream."""

    def add(self, at: float, now: Counters, ring: object = None) -> _Arrival | None:
        """Add the counters of `ring` at `at`; return what has arrived since the last time.

        A ring other than the last one starts a new count.
        """
        before, self._last = self._last, now
        if ring != self._ring:
            self._ring = ring
            return None
        if before is not None and now.sent == before.sent:
            self._last = before
            return None
        arrival = None
        if before is not None and now.sent > before.sent:
            size = now.payload_bytes - before.payload_bytes
            arrival = _Arrival(now.last_ns, now.sent - before.sent, size)
            if before.sent:
                span = max(now.last_ns - before.last_ns, 0)
                self._groups.append(_Group(at, arrival.messages, span, size))
        elif before is not None and now.sent < before.sent:
            self._groups.clear()  # a new ring in the place of the old one
        self._last_at = at
        return arrival

    def merge(self, at: float, arrivals: Iterable[_Arrival]) -> None:
        """Add what has arrived on several outputs since the last time, as one stream."""
        for newest_ns, messages, size in sorted(arrivals):
            before, self._newest_ns = self._newest_ns, max(newest_ns, self._newest_ns or 0)
            if before is not None:
                self._groups.append(_Group(at, messages, max(newest_ns - before, 0), size))
            self._last_at = at

    def rate(self, topic: str, at: float) -> TopicRate:
        """Return the figures of the window that ends at `at`."""
        while self._groups and self._groups[0].at < at - self._window:
            self._groups.popleft()
        count = sum(group.messages for group in self._groups)
        if not count:
            return TopicRate(topic=topic, hz=0.0, bandwidth=0.0, count=0)
        span = sum(group.span_ns for group in self._groups)
        means = [group.span_ns / group.messages for group in self._groups]
        mean = span / count
        square = sum(
            group.messages * (each - mean) ** 2
            for group, each in zip(self._groups, means, strict=True)
        )
        # The rate of a silent output falls, instead of staying at its last value.
        silence = (at - self._last_at) * 1e9
        whole = span + (silence if silence > max(means) else 0.0)
        hz = count / whole * 1e9 if whole else 0.0
        return TopicRate(
            topic=topic,
            hz=hz,
            bandwidth=sum(group.size for group in self._groups) / count * hz,
            count=count,
            mean_ms=mean / _MS,
            min_ms=min(means) / _MS,
            max_ms=max(means) / _MS,
            std_ms=math.sqrt(square / count) / _MS,
            samples=len(means),
        )


async def measure(sources: Mapping[str, Source], window: float) -> AsyncGenerator[TopicRates, None]:
    """Yield the rates of outputs once a second, until closed or no output is left."""
    meters = {topic: TopicMeter(window) for topic in sources}
    together = TopicMeter(window)
    due = time.monotonic() + REPORT_S
    existing = [await source.choose() for source in sources.values()]
    while any(existing):
        arrivals = []
        for topic, source in sources.items():
            counters = _settled(source)
            if counters is not None:
                arrival = meters[topic].add(time.monotonic(), counters, source.ring)
                if arrival is not None:
                    arrivals.append(arrival)
        now = time.monotonic()
        together.merge(now, arrivals)
        if now >= due:
            due += REPORT_S * math.ceil((now - due) / REPORT_S or 1)
            rates = [meter.rate(topic, now) for topic, meter in meters.items()]
            yield TopicRates(at=time.time(), rates=rates, merged=together.rate("ALL", now))
            existing = [await source.choose() for source in sources.values()]
        await asyncio.sleep(POLL_S)


def _settled(source: Source) -> Counters | None:
    """Return the counters once two polls agree.

    A sender stores the timestamp of a message just before it counts the message. A poll in between
    sees the new timestamp with the old count.
    """
    now = source.poll()
    for _ in range(_MAX_POLLS):
        again = source.poll()
        if again is None or now is None:
            return again
        if (again.sent, again.last_ns) == (now.sent, now.last_ns):
            break
        now = again
    return now


async def watch(
    broker: Broker,
    observer_id: str,
    topics: Sequence[NodeOutput],
    receivers: Receivers,
    window: float,
) -> AsyncGenerator[TopicRates, None]:
    """Yield the rates of outputs once a second, until closed or all their nodes are removed.

    `receivers` returns the inputs (node, input) that an output feeds now. If it feeds none, a
    counting observer subscribes to it; its id is `observer_id` with a number.
    """
    sources = {
        str(topic): _Output(broker, f"{observer_id}-{number}", topic, receivers)
        for number, topic in enumerate(dict.fromkeys(topics))
    }
    try:
        async with contextlib.aclosing(measure(sources, window)) as reports:
            async for report in reports:
                yield report
    finally:
        for source in sources.values():
            source.close()


class _Output:
    """A ring that an output feeds: of a running node, or else of a counting observer.

    A counting observer has no process. Its ring only counts messages.
    """

    def __init__(
        self, broker: Broker, observer_id: str, topic: NodeOutput, receivers: Receivers
    ) -> None:
        self.ring: tuple[str, str] | None = None
        self._broker = broker
        self._counting = (observer_id, str(topic))
        self._topic = topic
        self._receivers = receivers

    async def choose(self) -> bool:
        """Choose the ring of a running node, because outputs do not feed one that has exited."""
        if self._connected(self._topic.node) is None:
            self.close()
            return False
        running = [each for each in self._receivers(self._topic) if self._connected(each[0])]
        if running and self.ring not in running:
            self.close()
            self.ring = running[0]
            _log.debug("%s is measured at %s", self._topic, self.ring)
        elif not running and self.ring != self._counting:
            observer_id, name = self._counting
            try:
                await self._broker.observers.add(
                    observer_id, (Input(name, self._topic, queue_size=1),)
                )
            except OSError as error:
                raise ControlError("internal", f"cannot join the dataflow: {error}") from error
            self.ring = self._counting
            _log.debug("%s is measured by observer %s", self._topic, observer_id)
            if self._connected(self._topic.node) is None:  # the dataflow has ended meanwhile
                self.close()
                return False
        return True

    def poll(self) -> Counters | None:
        """Return the counters of the ring; None if it no longer exists."""
        try:
            return None if self.ring is None else self._broker.stats.input_counters(*self.ring)
        except KeyError:
            return None

    def close(self) -> None:
        """Remove the counting observer, if there is one."""
        if self.ring == self._counting:
            self.ring = None
            self._broker.observers.remove(self._counting[0])

    def _connected(self, node_id: str) -> bool | None:
        """Return True if a node has a process; None if the node or the dataflow does not exist."""
        try:
            return self._broker.stats.vitals(node_id).connected
        except KeyError:
            return None
