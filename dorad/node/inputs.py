"""The inputs of a node, one by one: rings and timers, and how a message becomes an event."""

from __future__ import annotations

import functools
import gc
import importlib
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from dorad.node import metadata as metadata_codec
from dorad.node.clock import Clock, as_datetime
from dorad.node.events import Event, error, tick
from dorad.shm import hops, latencies, native
from dorad.shm.layout import (
    RING_HEAD,
    RING_LAST,
    RING_LATE_MAX,
    RING_LATENCY_DIFF,
    RING_LATENCY_SUM,
    RING_MISSED,
    RING_RECEIVED,
    RING_TAIL,
    RingPlan,
    read_count,
)
from dorad.shm.stepping import NO_STAMP
from dorad.shm.steps import step, twin

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.shm.borrow import Taken
    from dorad.shm.inlet import Inlet
    from dorad.shm.mapping import Mapping
    from dorad.shm.picking import PickingInlet

_log = logging.getLogger(__name__)

NEVER_NS = 1 << 62
"""A time on CLOCK_MONOTONIC that never comes."""

_monotonic_ns = time.monotonic_ns
_fromtimestamp = datetime.fromtimestamp

if native.module is not None:
    native.module.use_metadata(metadata_codec.decode, datetime, UTC)


class Input(Protocol):
    """One ring or timer that feeds an input; see `RingInput` and `TimerInput`."""

    id: str
    ring: int
    removed: bool

    def ready(self) -> bool:
        """See `RingInput`."""

    def holds(self) -> bool:
        """See `RingInput`."""

    def moved(self) -> bool:
        """See `RingInput`."""

    def next_stamp(self) -> int:
        """See `RingInput`."""

    def take(self) -> Event | None:
        """See `RingInput`."""

    def stop(self) -> None:
        """See `RingInput`."""

    def leave(self) -> None:
        """See `RingInput`."""


@functools.cache
def load_decoder() -> Callable[[Taken], Any]:
    """Import pyarrow and return the function that builds the array of a message."""
    import pyarrow as pa

    from dorad.shm.arrow import BARE, decode

    from_buffers = pa.Array.from_buffers
    foreign = pa.foreign_buffer
    wrap = pa.py_buffer

    def build(taken: Taken) -> Any:
        _, code, length, nulls, size, payload, borrow, offset, _ = taken
        if borrow is None:
            buffer = wrap(payload)
        else:
            buffer = foreign(borrow.mapping.address() + offset, size, borrow)
        if code in BARE and not nulls:
            kind, bits = BARE[code]
            if (length * bits + 7) >> 3 == size:
                return from_buffers(kind, length, [None, buffer], 0)
        return decode(code, length, nulls, buffer, shared=borrow is not None)

    return build


def warm_up(config: dict[str, Any]) -> None:
    """Do the work of a first message before the start barrier: imports and a garbage collection.

    It takes long enough for a queue to overflow. The first conversion in pyarrow imports pandas if
    that is installed, and computing on arrays imports `pyarrow.compute`. A node without data inputs
    and outputs skips the imports.
    """
    receives = any(item["interval_ns"] is None for item in config["inputs"])
    if receives or config["outputs"]:
        started = _monotonic_ns()
        load_decoder()
        import pyarrow as pa

        pa.array([0]).to_numpy()
        if receives:
            importlib.import_module("pyarrow.compute")  # for `array.sum()`, `cast` and the like
        _log.debug("warmed up in %.0f ms", (_monotonic_ns() - started) / 1e6)
    gc.collect()


@twin
class RingInputState:
    """The fields of one ring."""

    __slots__ = ("_build", "clock", "id", "inlet", "removed", "ring")


class RingInput(RingInputState):
    """One ring that feeds an input from another node.

    `removed` is True once the daemon has disconnected the ring; its queue may not be empty yet.
    """

    __slots__ = ()

    def __init__(self, input_id: str, inlet: Inlet, clock: Clock) -> None:
        self.id = input_id
        self.inlet = inlet
        self.ring = inlet.base
        self.removed = False
        self.clock = clock
        self._build = load_decoder()

    def ready(self) -> bool:
        """Return True if an event is queued."""
        return self.inlet.ready()

    def holds(self) -> bool:
        """Return True if the input must not end yet, because messages are still queued."""
        return self.ready()

    def moved(self) -> bool:
        """Return True if an event seems to be queued; safe in any thread."""
        return self.inlet.moved()

    def next_stamp(self) -> int:
        """Return the timestamp of the oldest queued message, NO_STAMP if no event is queued."""
        return self.inlet.next_stamp() if self.ready() else NO_STAMP

    @step
    def take(self) -> Event | None:
        """Return the next event, or None.

        An unreadable message becomes an ERROR event: its sender may have written anything, and
        the code of an extension type may refuse it.
        """
        try:
            taken = self.inlet.take()
        except ValueError as failure:  # the handler of a signal may have raised any other
            return self._unreadable(failure)
        if taken is None:
            return None
        stamp = taken[0]
        try:
            metadata = metadata_codec.decode(taken[-1]) if taken[-1] else {}
            if "timestamp" not in metadata:
                metadata["timestamp"] = _fromtimestamp(stamp / 1e9, UTC)
            value = self._build(taken)
        except Exception as failure:  # noqa: BLE001 - extension types run any code
            return self._unreadable(failure)
        self.clock.saw(stamp)
        return {
            "kind": "dora",
            "type": "INPUT",
            "id": self.id,
            "value": value,
            "metadata": metadata,
        }

    def _unreadable(self, failure: Exception) -> Event:
        """Count a message that cannot be read, and return its ERROR event."""
        self.inlet.count_unreadable()
        _log.debug("input %s: unreadable message", self.id, exc_info=failure)
        return error(f"a message on input {self.id!r} cannot be read: {failure}")

    def stop(self) -> None:
        """Return only what is queued now."""
        self.inlet.freeze()

    def leave(self) -> None:
        """Return what is queued now; then the ring no longer feeds the input."""
        self.removed = True
        self.inlet.freeze()


class ChoosyInput(RingInput):
    """A ring input that selects among its queued messages; see `dorad.node.choosing`.

    `served` takes the selected messages from the ring, and builds their events.
    """

    __slots__ = ("picking", "served")

    def __init__(self, served: RingInput, inlet: PickingInlet, clock: Clock) -> None:
        super().__init__(served.id, inlet, clock)
        self.picking = inlet
        self.served = served

    def next_ns(self) -> int:
        """Return when an event may become due without a new message, or NEVER_NS."""
        return NEVER_NS

    def moved(self) -> bool:
        """Return True if an event is queued; safe in any thread."""
        return self.ready()

    def watched(self) -> tuple[int, int] | None:
        """Return the word that a new message changes, and its value at the last poll.

        None if a new message makes no event due.
        """
        return (self.picking.head_at, self.picking.tail)


@twin
class TimerInputState:
    """The fields of a timer input."""

    __slots__ = (
        "_deadline_ns",
        "_due_ns",
        "_interval_ns",
        "_late_max_ns",
        "_late_ns",
        "_latency_diff_ns",
        "_latency_sum_ns",
        "_missed",
        "_queue_size",
        "_received",
        "_stopped",
        "_tail",
        "_words",
        "id",
        "ring",
    )


class TimerInput(TimerInputState):
    """A timer input.

    Tick k is due at `epoch + k * interval` on CLOCK_MONOTONIC, for all nodes of a dataflow alike.
    At most `queue_size` ticks are queued; older ones count as dropped. Ticks taken after their
    deadline, or never, count as missed. The first tick of a process is exempt, because it was due
    before the process started.
    """

    __slots__ = ("removed",)

    def __init__(
        self,
        input_id: str,
        box: Mapping,
        ring: RingPlan,
        interval_ns: int,
        epoch_ns: int,
        deadline_ns: int | None = None,
    ) -> None:
        """Start with the latest tick that is due, or the next one if a previous process took it.

        The deadline after each tick is the interval, unless given.
        """
        self.id = input_id
        self.ring = ring.base
        self.removed = False
        self._words = words = box.words
        base = ring.base
        self._queue_size = ring.queue_size
        self._interval_ns = interval_ns = min(interval_ns, NEVER_NS)
        self._deadline_ns = min(deadline_ns or interval_ns, NEVER_NS)
        self._late_ns: int | None = None
        self._stopped = False
        self._tail = read_count(words, base + RING_TAIL)
        self._received = read_count(words, base + RING_RECEIVED)
        self._latency_sum_ns = read_count(words, base + RING_LATENCY_SUM)
        self._latency_diff_ns = read_count(words, base + RING_LATENCY_DIFF)
        self._late_max_ns = read_count(words, base + RING_LATE_MAX)
        self._missed = read_count(words, base + RING_MISSED)
        now = _monotonic_ns()
        fired = max(0, now - epoch_ns) // interval_ns
        last = words[base + RING_LAST]
        if 0 < last <= now:
            fired = max(fired, (last - epoch_ns) // interval_ns + 1)
        # Counting continues over restarts: the tick due next has the index TAIL.
        self._due_ns = epoch_ns + fired * interval_ns
        words[base + RING_HEAD] = self._tail

    def next_ns(self) -> int:
        """Return when the next tick is due, on CLOCK_MONOTONIC."""
        return self._due_ns

    def ready(self) -> bool:
        """Return True if a tick is due."""
        return not self._stopped and _monotonic_ns() >= self._due_ns

    def holds(self) -> bool:
        """Return True if the input must not end yet, because a tick is due."""
        return self.ready()

    moved = ready

    def next_stamp(self) -> int:
        """Return a timestamp before all messages if a tick is due, else NO_STAMP."""
        return 0 if self.ready() else NO_STAMP

    @step
    def take(self) -> Event | None:
        """Return the next tick's event, or None when none is due."""
        now = _monotonic_ns()
        due = self._due_ns
        if now < due or self._stopped:
            return None
        interval_ns = self._interval_ns
        tail = self._tail
        head = tail + (now - due) // interval_ns + 1
        skipped = head - self._queue_size - tail
        if skipped > 0:
            tail += skipped
            due += skipped * interval_ns
        self._due_ns = due + interval_ns
        words = self._words
        base = self.ring
        words[base + RING_HEAD] = head
        self._tail = words[base + RING_TAIL] = tail + 1
        self._received = words[base + RING_RECEIVED] = self._received + 1
        words[base + RING_LAST] = due
        late_ns = now - due
        before_ns = self._late_ns
        self._late_ns = late_ns
        if before_ns is not None:
            latencies.count(words, base, late_ns)
            self._latency_sum_ns += late_ns
            words[base + RING_LATENCY_SUM] = self._latency_sum_ns
            self._latency_diff_ns += abs(late_ns - before_ns)
            words[base + RING_LATENCY_DIFF] = self._latency_diff_ns
            if late_ns > self._late_max_ns:
                self._late_max_ns = words[base + RING_LATE_MAX] = late_ns
            if skipped > 0 or late_ns > self._deadline_ns:
                self._missed += max(skipped, 0) + (late_ns > self._deadline_ns)
                words[base + RING_MISSED] = self._missed
        at = time.time_ns()
        if hops.received is not None:
            hops.received(words, base, max(0, at - late_ns), at, 0)
        return tick(self.id, {"timestamp": as_datetime(at - late_ns)})

    def stop(self) -> None:
        """Stop ticking."""
        self._stopped = True

    def leave(self) -> None:
        """Stop ticking; the timer no longer feeds the input."""
        self.removed = True
        self._stopped = True
