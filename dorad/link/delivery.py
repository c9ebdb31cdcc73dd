"""Puts messages of other machines into the queues of the nodes here.

It works like the sending half of a node, but never waits for room: the link serves other channels
meanwhile.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from dorad.link.frames import Content
from dorad.link.numbering import count_missing
from dorad.node.latching import keep, send_last
from dorad.shm import hops
from dorad.shm.layout import BEYOND_NS
from dorad.shm.pool import Pool, Sample

if TYPE_CHECKING:
    from dorad.link.incoming import Arrived, Memory
    from dorad.link.machine import In
    from dorad.node.connection import DaemonConnection
    from dorad.node.latching import KeptMessage
    from dorad.shm.outlet import Outlet

_CONTEXT = b"traceparent"
"""In the metadata of all messages with a trace context of OpenTelemetry."""

_log = logging.getLogger(__name__)


class NoMemory:
    """Stands for the memory of a payload for which there is none."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def write(self, at: int, data: Any) -> None:
        """Discard the bytes."""


class Delivery:
    """The outputs of a link process."""

    def __init__(self, connection: DaemonConnection, keep: int) -> None:
        """`keep` is the size of the shared memory that the pool keeps while idle, in bytes."""
        self._connection = connection
        self.outlets = connection.outlets
        """By output: the ends of the edges of its receivers."""
        self.pool = Pool(connection.grow, connection.retire, keep)
        self._kept: dict[str, KeptMessage | None] = {}
        """The last messages of outputs without a receiver, for late subscribers; None if it cannot
        be kept."""
        self.reached: dict[str, tuple[tuple[Outlet, ...], int, int]] = {}
        """By output: where the last message went, its numbering, and the number after it."""

    def allocate(self, size: int) -> Sample | NoMemory:
        """Return shared memory for a payload, or `NoMemory` if that is full."""
        try:
            return self.pool.take(size)
        except OSError as error:
            return NoMemory(f"a message of {size} bytes cannot be delivered: {error}")

    def drop(self, memory: Memory) -> None:
        """Take back the memory of a message that never became complete."""
        if isinstance(memory, Sample):
            self.pool.sent(memory, [])

    def is_blocked(self, output: str) -> bool:
        """Return True if an input with backpressure has no room; its taking rings `space` then."""
        blocked = False
        for outlet in self.outlets.get(output, ()):
            if outlet.blocking and not outlet.closed and outlet.full():
                outlet.announce_waiting(True)
                if outlet.full():
                    blocked = True
                else:
                    outlet.announce_waiting(False)
        return blocked

    def unblock(self, output: str) -> None:
        """Stop waiting for room."""
        for outlet in self.outlets.get(output, ()):
            if outlet.blocking:
                outlet.announce_waiting(False)

    def push(self, output: str, arrived: Arrived) -> bool:
        """Push a message into the queues of all nodes that receive the output and lack it.

        Returns False if there was no memory for it.
        """
        memory = arrived.memory
        if isinstance(memory, NoMemory):
            return False
        assert memory is None or isinstance(memory, Sample)
        receivers = self.outlets.get(output, ())
        if receivers:
            self._kept.pop(output, None)
        else:
            self._keep(output, arrived, memory)
        content, outlets = arrived.content, receivers
        reached = self.reached.pop(output, None)
        if reached != (receivers, arrived.numbering.id, arrived.number):
            outlets = self._lacking(output, receivers, arrived, reached)
        if content.flags:
            outlets = tuple([outlet.lane or outlet for outlet in outlets])
        try:
            self.pool.push(outlets, content, arrived.metadata, arrived.payload, memory)
        except OSError as error:
            _log.debug("output %s: %s", output, error)
            return False
        if len(outlets) == len(receivers):
            self.reached[output] = (receivers, arrived.numbering.id, arrived.number + 1)
        return True

    def record_context(self, output: str, arrived: Arrived) -> None:
        """Record the trace context that a message carries, as its sender does on its machine."""
        receivers = self.outlets.get(output)
        if hops.context is not None and receivers:
            words, stamp = self._connection.box.words, arrived.content.stamp
            hops.context(words, receivers[0].output, stamp, arrived.metadata)

    def _lacking(
        self,
        output: str,
        receivers: tuple[Outlet, ...],
        arrived: Arrived,
        reached: tuple[tuple[Outlet, ...], int, int] | None,
    ) -> tuple[Outlet, ...]:
        """Return the receivers that lack a message, after counting what they lack before it."""
        (numbering, begin), number = arrived.numbering, arrived.number
        if reached is not None and reached[1] == numbering:
            begin = reached[2]
        lacking = count_missing(receivers, numbering, number, begin)
        _log.debug(
            "output %s: message %d, expected %d, for %d of %d receivers",
            *(output, number, begin, len(lacking), len(receivers)),
        )
        return lacking

    def _keep(self, output: str, arrived: Arrived, sample: Sample | None) -> None:
        stamp, code, length, nulls, size, _ = arrived.content
        whole = ((0, arrived.payload),) if arrived.payload else ()
        encoded = (code, length, nulls, size, whole)
        self._kept[output] = keep(stamp, encoded, arrived.metadata, sample)

    def catch_up(self, now_s: float) -> None:
        """Do what can wait: give memory back, send last messages to latched late subscribers."""
        self.pool.trim(int(now_s * 1e9))
        late = self._connection.late_outputs
        while late:
            output = late.pop()
            outlets = self.outlets.get(output)
            if outlets:
                send_last(outlets, self.pool, self._kept.pop(output, None), self._push_kept)

    def _push_kept(self, outlets: tuple[Outlet, ...], last: KeptMessage) -> None:
        code, length, nulls, size, parts = last.encoded
        payload = bytes(parts[0][1]) if parts else b""
        content = Content(last.stamp, code, length, nulls, size, 0)
        try:
            self.pool.push(outlets, content, last.meta, payload, None)
        except OSError as error:
            _log.warning("a message of %d bytes cannot be delivered late: %s", size, error)


def push(delivery: Delivery, each: In, item: Arrived) -> None:
    """Push a message of a channel to its receivers, and count how long it has taken to get here."""
    if delivery.push(each.output, item):
        latency = time.time_ns() - item.content.stamp
        # A clock was set, or the sender took over a timestamp that is wrong.
        if 0 <= latency < BEYOND_NS:
            each.latency_ns += latency
        each.latencies += 1
        if _CONTEXT in item.metadata:
            delivery.record_context(each.output, item)
    elif isinstance(item.memory, NoMemory):
        _log.warning("%s: %s", each.spec.name, item.memory.reason)
