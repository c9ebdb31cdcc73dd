"""How often an output sends, seen from the counters alone: nothing is asked of the dataflow.

Somebody who measures looks at a ring's newest timestamp every 2 ms. One message between two looks
gives the exact interval, by the sender's own clock. Several give the mean of their intervals: for
outputs above about 500 Hz minimum, maximum and deviation are those of short means.
"""

from __future__ import annotations

import asyncio
import contextlib
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
    from dorad.shm.ring import Counters

    Receivers = Callable[[NodeOutput], Iterable[tuple[str, str]]]

LOOK_S = 0.002
REPORT_S = 1.0
_LOOKS = 4
_MAX_GROUPS = 50_000
_MS = 1e6


class Source(Protocol):
    """Where the messages of one output are counted."""

    @property
    def ring(self) -> object:
        """Which ring it is that `look` looks at."""

    def look(self) -> Counters | None:
        """What the ring counts now; None once it is gone."""

    async def choose(self) -> bool:
        """See to it that the ring is one that the output feeds; called once a second.

        False if there is no such output any more.
        """


class _Group(NamedTuple):
    """Messages that came between two looks."""

    at: float
    messages: int
    span_ns: int
    """From the newest one before to the newest one of these."""
    size: int


class TopicMeter:
    """The intervals of one output over the last `window` seconds. Times `at` are monotonic."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._groups: deque[_Group] = deque(maxlen=_MAX_GROUPS)
        self._last: Counters | None = None
        self._ring: object = None
        self._last_at = 0.0

    def look(self, at: float, now: Counters, ring: object = None) -> None:
        """Take in what `ring` counts at `at`; another ring than before starts another count."""
        before, self._last = self._last, now
        if ring != self._ring:
            self._ring = ring
            return
        if before is not None and now.sent == before.sent:
            self._last = before
            return
        if before is not None and before.sent and now.sent > before.sent:
            span = max(now.last_ns - before.last_ns, 0)
            size = now.payload_bytes - before.payload_bytes
            self._groups.append(_Group(at, now.sent - before.sent, span, size))
        elif before is not None and now.sent < before.sent:
            self._groups.clear()  # another ring in the place of the old one
        self._last_at = at

    def rate(self, topic: str, at: float) -> TopicRate:
        """What the window that ends at `at` holds."""
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
        # An output that fell silent slows down, instead of keeping its last rate until the end.
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
    """The rates of outputs once a second, until closed or none of the outputs is left."""
    meters = {topic: TopicMeter(window) for topic in sources}
    due = time.monotonic() + REPORT_S
    there = [await source.choose() for source in sources.values()]
    while any(there):
        for topic, source in sources.items():
            counters = _settled(source)
            if counters is not None:
                meters[topic].look(time.monotonic(), counters, source.ring)
        now = time.monotonic()
        if now >= due:
            due += REPORT_S * math.ceil((now - due) / REPORT_S or 1)
            rates = [meter.rate(topic, now) for topic, meter in meters.items()]
            yield TopicRates(at=time.time(), rates=rates)
            there = [await source.choose() for source in sources.values()]
        await asyncio.sleep(LOOK_S)


def _settled(source: Source) -> Counters | None:
    """The counters once two looks agree.

    A sender stores the timestamp of a message just before it counts it; what one look finds in
    between would put the new timestamp to the old count.
    """
    now = source.look()
    for _ in range(_LOOKS):
        again = source.look()
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
    """The rates of outputs once a second, until closed or all their nodes are gone.

    `receivers` tells which inputs (node, input) an output feeds now. For one that feeds nobody, a
    ghost called `observer_id` and a number receives it.
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
    """Whichever ring an output feeds just now: the one of a node that runs, else a ghost's."""

    def __init__(self, broker: Broker, ghost: str, topic: NodeOutput, receivers: Receivers) -> None:
        self.ring: tuple[str, str] | None = None
        self._broker = broker
        self._ghost = (ghost, str(topic))
        self._topic = topic
        self._receivers = receivers

    async def choose(self) -> bool:
        """Take the ring of a node that runs; to one that has ended nothing is pushed any more."""
        if self._connected(self._topic.node) is None:
            self.close()
            return False
        alive = [each for each in self._receivers(self._topic) if self._connected(each[0])]
        if alive and self.ring not in alive:
            self.close()
            self.ring = alive[0]
        elif not alive and self.ring != self._ghost:
            ghost, name = self._ghost
            try:
                await self._broker.observers.add(ghost, (Input(name, self._topic, queue_size=1),))
            except OSError as error:
                raise ControlError("internal", f"nobody can join the dataflow: {error}") from error
            self.ring = self._ghost
            if self._connected(self._topic.node) is None:  # the dataflow has ended meanwhile
                self.close()
                return False
        return True

    def look(self) -> Counters | None:
        """The counters of the ring; None once it is gone."""
        try:
            return None if self.ring is None else self._broker.stats.input_counters(*self.ring)
        except KeyError:
            return None

    def close(self) -> None:
        """Let the ghost go, if there is one."""
        if self.ring == self._ghost:
            self.ring = None
            self._broker.observers.remove(self._ghost[0])

    def _connected(self, node_id: str) -> bool | None:
        """Whether a node has a process now; None if there is no such node, or no dataflow."""
        try:
            return self._broker.stats.vitals(node_id).connected
        except KeyError:
            return None
