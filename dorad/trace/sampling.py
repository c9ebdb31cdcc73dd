"""Which traces exporters of telemetry get, and the queue in front of each exporter."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dorad.control import messages as m

MAX_SOURCES = 256
"""Sources with a rate of their own, and sources whose traces are counted."""
MAX_SPANS = 20_000
"""Spans that wait for one exporter."""
BATCH_SPANS = 2_000
"""Spans from which on a batch gets no more traces."""

_log = logging.getLogger(__name__)


class _Allowance:
    """What a source may still send: a second of its rate at most."""

    __slots__ = ("at", "left")

    def __init__(self, at: float, left: float) -> None:
        self.at = at
        self.left = left


class Sampler:
    """Chooses traces by the rate of what they begin with. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._rates: dict[str, float | None] = {"": 1.0}
        self._allowances: dict[str, _Allowance] = {}

    @property
    def rates(self) -> Mapping[str, float | None]:
        """The rates by source, see `TraceSample`."""
        return self._rates

    def set(self, source: str, rate: float | None) -> bool:
        """Set a rate; return False if too many sources have one."""
        if not source:
            self._rates = {"": rate}
        elif source in self._rates or len(self._rates) <= MAX_SOURCES:
            self._rates[source] = rate
        else:
            return False
        self._allowances.clear()
        return True

    def wants(self, topic: str, now: float, *, special: bool) -> bool:
        """Return True if a trace that begins with a topic is to be sent.

        A `special` one, which is slow or troubled, is sent at any rate.
        """
        rate = self._rate(topic)
        if rate is None:
            return False
        allowance = self._allowances.get(topic)
        if allowance is None:
            if len(self._allowances) >= MAX_SOURCES:
                self._allowances.clear()
            allowance = self._allowances[topic] = _Allowance(now, 1.0)
        allowance.left = min(max(rate, 1.0), allowance.left + (now - allowance.at) * rate)
        allowance.at = now
        if rate > 0 and allowance.left >= 1.0:
            allowance.left -= 1.0
            return True
        return special

    def _rate(self, topic: str) -> float | None:
        for source in (topic, topic.partition("/")[0]):
            if source in self._rates:
                return self._rates[source]
        return self._rates[""]


class TraceQueue:
    """Traces that wait for one exporter."""

    def __init__(self) -> None:
        self._traces: deque[m.Trace] = deque()
        self._spans = self._left_out = 0
        self._filled = asyncio.Event()

    def put(self, trace: m.Trace) -> None:
        """Append a trace, or drop and count it."""
        if self._traces and self._spans + len(trace.spans) > MAX_SPANS:
            self._left_out += 1
        else:
            self._traces.append(trace)
            self._spans += len(trace.spans)
        self._filled.set()

    def take(self) -> m.TraceBatch | None:
        """Return some of those that wait; None if there are none."""
        batch = m.TraceBatch(left_out=self._left_out)
        self._left_out = spans = 0
        while self._traces and spans < BATCH_SPANS:
            trace = self._traces.popleft()
            batch.traces.append(trace)
            spans += len(trace.spans)
        self._spans -= spans
        if not self._traces:
            self._filled.clear()
        return batch if batch.traces or batch.left_out else None

    async def wait(self) -> m.TraceBatch:
        """Wait for traces, and return some of them."""
        while True:
            await self._filled.wait()
            if (batch := self.take()) is not None:
                return batch


class TraceExport:
    """The exporters that get traces of one process, and how many they get."""

    def __init__(self) -> None:
        self._sampler = Sampler()
        self._queues: list[TraceQueue] = []

    def wants(self, topic: str, *, special: bool) -> bool:
        """Return True if an exporter is to get a trace; see `Sampler.wants`."""
        return bool(self._queues) and self._sampler.wants(topic, time.monotonic(), special=special)

    def put(self, trace: m.Trace) -> None:
        """Queue a trace for all exporters."""
        for queue in self._queues:
            queue.put(trace)

    def set(self, source: str, rate: float | None) -> bool:
        """Set a rate; return False if too many sources have one."""
        _log.debug("traces for exporters: %s of %s", rate, source or "all")
        return self._sampler.set(source, rate)

    @property
    def sampling(self) -> m.TraceSampling:
        """How many traces exporters get."""
        return m.TraceSampling(rates=dict(self._sampler.rates), exporters=len(self._queues))

    @contextmanager
    def follow(self) -> Iterator[TraceQueue]:
        """Have a queue of the traces for one exporter."""
        queue = TraceQueue()
        self._queues.append(queue)
        try:
            yield queue
        finally:
            self._queues.remove(queue)
