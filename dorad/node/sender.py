"""The sender of a node: place a message in memory once, and push it to every subscriber."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from dorad.node import metadata as metadata_codec
from dorad.node.correlation import MARKING, flags_of
from dorad.node.sharedarrays import SharedArrays
from dorad.shm import doorbell, hops
from dorad.shm.fence import fence
from dorad.shm.layout import BOX_ASLEEP, BOX_MAIL, ENTRY, INLINE, TRIM_EVERY_NS
from dorad.shm.pool import Pool, Sample, joined
from dorad.shm.steps import step, twin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dorad.node.clock import Clock
    from dorad.node.connection import DaemonConnection
    from dorad.node.latching import KeptMessage
    from dorad.shm.nested import Encoded
    from dorad.shm.outlet import Outlet

POLL_NS = 100_000_000
"""How often a sender that waits for room checks for packets of the daemon."""


class Backpressure:
    """Waits for room, for one sender."""

    def __init__(self, connection: DaemonConnection, beat: Callable[[], None]) -> None:
        """`beat` counts a heartbeat while the sender waits."""
        self._connection = connection
        self._beat = beat
        self._waiter: doorbell.Waiter | None = None

    def has_room(self, outlet: Outlet, outlets: tuple[Outlet, ...]) -> bool:
        """Block until a ring with backpressure has room; return False if the node stops first.

        `outlets` are all receivers of the message: those that have it already are woken first.
        """
        if not outlet.full():
            return True
        fence()
        for other in outlets:
            other.peer.wake()
        connection = self._connection
        _log.debug("waiting for room in a queue of %d messages", outlet.queue_size)
        if self._waiter is None:
            self._waiter = doorbell.Waiter(connection.space, [connection.descriptor])
        try:
            while not outlet.closed:
                outlet.announce_waiting(True)
                if not outlet.blocking or not outlet.full():
                    return True
                if connection.daemon_events.stopping or connection.lost:
                    outlet.refuse()
                    return False
                self._beat()
                self._waiter.wait(POLL_NS)
                connection.read_mail()
        finally:
            outlet.announce_waiting(False)
            if connection.late_outputs:
                # This message is already being sent: late subscribers are served before the next.
                connection.mail = -1
        return False


_log = logging.getLogger(__name__)

_pack = ENTRY.pack
_hop_sent = hops.sent
_hop_context = hops.context

BUSY_TIMEOUT_S = 0.005
"""How long a receiving thread waits for a sending one, which may be waiting for room."""


@twin
class SenderState:
    """The fields of a sender."""

    __slots__ = (
        "_busy",
        "_clock",
        "_connection",
        "_deferred",
        "_encode",
        "_lock",
        "_trim_due_ns",
        "_words",
        "pool",
        "shared_arrays",
    )


class Sender(SenderState):
    """Sends messages on a node's outputs. Safe to use from several threads and signal handlers.

    A signal handler may interrupt a send of its own thread. Its messages are deferred until that
    send is done, and are sent next.
    """

    def __init__(
        self,
        connection: DaemonConnection,
        clock: Clock,
        keep: int,
        beat: Callable[[], None] | None = None,
    ) -> None:
        """Create an empty pool, which keeps up to `keep` bytes of shared memory while idle.

        `beat` counts a heartbeat while a call waits; None stands for that of the connection.
        """
        self._connection = connection
        self._words = connection.box.words
        self._clock = clock
        self._backpressure = Backpressure(connection, beat or connection.beat)
        self.pool = Pool(connection.grow, connection.retire, keep, connection.grow_ahead)
        self.shared_arrays = SharedArrays(self.pool)
        self._lock = threading.RLock()
        self._busy = False
        self._deferred: deque[Callable[[], None]] = deque()
        self._encode: Callable[[Any], Encoded] | None = None
        self._trim_due_ns = 0
        self._kept: dict[str, KeptMessage] = {}

    @step
    def send(self, output: str, data: Any, metadata: dict[str, Any] | None) -> None:
        """Send `data` on a declared output; blocks only for inputs with `backpressure`.

        Raises:
            RuntimeError: `data` is not Arrow data, or /dev/shm is full.
            TypeError, OverflowError: the metadata cannot be sent.
        """
        meta, flags = b"", 0
        if metadata:
            meta = metadata_codec.encode(metadata)
            if not MARKING.isdisjoint(metadata):
                flags = flags_of(metadata)
        encode = self._encode
        if encode is None:
            from dorad.shm import arrow

            encode = self._encode = arrow.encode
        connection = self._connection
        shared_arrays = self.shared_arrays
        self._lock.acquire()
        if self._busy:
            self._defer_data(output, data, meta, flags)
            return
        self._busy = True
        try:
            if self._words[BOX_MAIL] != connection.mail:
                self._read_mail()
            shared = shared_arrays.find(data) if shared_arrays else None
            outlets = connection.outlets.get(output)
            if shared is None:
                encoded = encode(data)
                if outlets:
                    self._push(outlets, encoded, meta, None, flags)
                else:
                    self._keep(output, encoded, meta, None)
            else:
                array, encoded = shared
                sample = None if array is None else array.sample
                if outlets:
                    self._push(outlets, encoded, meta, sample, flags)
                else:
                    self._keep(output, encoded, meta, sample)
                if array is not None:
                    array.freeze()
        finally:
            self._busy = False
            self._lock.release()
            if self._deferred:
                self._flush_deferred()

    def _defer_data(self, output: str, data: Any, meta: bytes, flags: int) -> None:
        """Defer a message of a signal handler until the interrupted send is done.

        The caller holds the lock; this method releases it. Raises what `send` raises for the data.
        """
        try:
            assert self._encode is not None
            shared = self.shared_arrays.find(data) if self.shared_arrays else None
            array, encoded = shared or (None, self._encode(data))
            sample = None
            if array is not None:
                sample = array.sample
                array.freeze()
            _log.debug("output %s: a message of a signal handler is deferred", output)
            self._defer(output, encoded, meta, sample, flags)
        finally:
            self._lock.release()

    def _defer(
        self, output: str, encoded: Encoded, meta: bytes, sample: Sample | None, flags: int
    ) -> None:
        if sample is not None:
            sample.held += 1
        self._deferred.append(
            functools.partial(self._send_deferred, output, encoded, meta, sample, flags)
        )

    def _send_deferred(
        self, output: str, encoded: Encoded, meta: bytes, sample: Sample | None, flags: int
    ) -> None:
        try:
            self._read_mail()
            outlets = self._connection.outlets.get(output)
            if outlets:
                self._push(outlets, encoded, meta, sample, flags)
            else:
                self._keep(output, encoded, meta, sample)
        finally:
            if sample is not None:
                self.pool.give_back(sample)

    def _flush_deferred(self) -> None:
        """Send the deferred messages, unless this thread is in a send, which will do it."""
        while self._deferred:
            with self._lock:
                if self._busy:
                    return
                self._busy = True
                try:
                    while self._deferred:
                        self._deferred.popleft()()
                finally:
                    self._busy = False

    @contextlib.contextmanager
    def _exclusive(self, what: str) -> Iterator[None]:
        """Hold the lock, and refuse a signal handler that has interrupted a send.

        Raises:
            RuntimeError: a signal handler has interrupted a send of its own thread.
        """
        with self._lock:
            if self._busy:
                raise RuntimeError(
                    f"{what} was called in a signal handler that has interrupted a send; "
                    "use `send_output` there, or set a flag and send later"
                )
            self._busy = True
            try:
                yield
            finally:
                self._busy = False
        if self._deferred:
            self._flush_deferred()

    def send_sample(
        self, output: str, sample: Sample, length: int, metadata: dict[str, Any] | None
    ) -> None:
        """Send the first `length` bytes of a sample taken from `pool`, as UInt8."""
        from dorad.shm.arrow import UINT8_CODE

        meta = metadata_codec.encode(metadata) if metadata else b""
        flags = flags_of(metadata) if metadata else 0
        encoded: Encoded = (UINT8_CODE, length, 0, length, ())
        with self._lock:
            self._defer(output, encoded, meta, sample, flags)
            self._flush_deferred()

    def send_encoded(self, output: str, encoded: Encoded, metadata: dict[str, Any] | None) -> None:
        """Send an encoded array; see `dorad.shm.arrow.encode`."""
        meta = metadata_codec.encode(metadata) if metadata else b""
        flags = flags_of(metadata) if metadata else 0
        with self._exclusive("sending"):
            self._read_mail()
            self._push(self._connection.outlets.get(output, ()), encoded, meta, None, flags)

    def _read_mail(self) -> None:
        """Handle the packets from the daemon, if there are new ones. The caller holds the lock."""
        connection = self._connection
        connection.refresh()
        if connection.late_outputs:
            self._catch_up()

    def _keep(self, output: str, encoded: Encoded, meta: bytes, sample: Sample | None) -> None:
        """Keep the last message of an output without subscribers, for late ones."""
        from dorad.node.latching import keep

        kept = keep(self._clock.now(), encoded, meta, sample)
        if kept is None:
            self._kept.pop(output, None)
        else:
            self._kept[output] = kept

    def catch_up(self) -> bool:
        """Send the last messages to late subscribers; return False if the sender is busy."""
        if not self._connection.late_outputs:
            return True
        if not self._lock.acquire(timeout=BUSY_TIMEOUT_S):
            return False
        try:
            if self._busy:
                return False
            self._busy = True
            try:
                self._catch_up()
            finally:
                self._busy = False
        finally:
            self._lock.release()
            if self._deferred:
                self._flush_deferred()
        return True

    def _next_late(self) -> str | None:
        """Remove and return an output of this sender that has a late subscriber, or None."""
        late = self._connection.late_outputs
        return late.pop() if late else None

    def _catch_up(self) -> None:
        from dorad.node.latching import send_last

        connection = self._connection
        while (output := self._next_late()) is not None:
            outlets = connection.outlets.get(output)
            last = self._kept.pop(output, None)
            _log.debug("output %s: sending the last message to late subscribers", output)
            if outlets and not send_last(outlets, self.pool, last, self._push_kept):
                connection.note(
                    f"output {output}: the last message is no longer in memory; "
                    "a new latched input starts with the next message"
                )

    def _push_kept(self, outlets: tuple[Outlet, ...], last: KeptMessage) -> None:
        self._push_sample(outlets, last.encoded, last.meta, None, last.stamp, 0)
        fence()
        for outlet in outlets:
            outlet.peer.wake()

    @step
    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Return an uninitialised numpy array in shared memory; see `SharedArrays.empty`."""
        with self._exclusive("empty"):
            return self.shared_arrays.empty(shape, dtype)

    def take_sample(self, size: int) -> Sample:
        """Return a sample for `send_sample`; the caller holds it until `pool.give_back`.

        Raises:
            RuntimeError: /dev/shm is full.
        """
        with self._exclusive("send_output_raw"):
            sample = self._place(max(size, 1), ())
            sample.held = 1
        return sample

    def _push(
        self,
        outlets: tuple[Outlet, ...],
        encoded: Encoded,
        meta: bytes,
        sample: Sample | None,
        flags: int,
    ) -> None:
        code, length, nulls, size, parts = encoded
        if flags:
            outlets = tuple([outlet.lane or outlet for outlet in outlets])
        stamp = self._clock.now()
        meta_size = len(meta)
        try:
            if sample is None and size + meta_size <= INLINE:
                entry = _pack(stamp, length, nulls, size, 0, 0, 0, 0, meta_size, code, 0, flags)
                entry += meta
                entry += parts[0][1] if len(parts) == 1 else joined(parts, size)
                for outlet in outlets:
                    if not outlet.blocking or self._backpressure.has_room(outlet, outlets):
                        outlet.push(entry, size, stamp)
            else:
                self._push_sample(outlets, encoded, meta, sample, stamp, flags)
        finally:
            # Also if a signal handler raises during a wait: some rings have the message already.
            fence()
            for outlet in outlets:
                peer = outlet.peer
                if peer.words[BOX_ASLEEP]:
                    doorbell.ring(peer.bell)
        if _hop_sent is not None and outlets:
            if hops.tasks is not None:
                hops.tasks.enter(self._words)
            _hop_sent(self._words, outlets[0].output, stamp, time.time_ns(), size)
            if meta and _hop_context is not None:
                _hop_context(self._words, outlets[0].output, stamp, meta)
        if stamp > self._trim_due_ns:
            self._trim(stamp)

    def _trim(self, stamp: int) -> None:
        self._trim_due_ns = stamp + TRIM_EVERY_NS
        self.pool.trim(stamp)

    def _push_sample(
        self,
        outlets: tuple[Outlet, ...],
        encoded: Encoded,
        meta: bytes,
        sample: Sample | None,
        stamp: int,
        flags: int,
    ) -> None:
        code, length, nulls, size, parts = encoded
        meta_size = len(meta)
        meta_at = meta_home = at = home = 0
        holder: Sample | None = None
        marks: list[tuple[Outlet, int]] = []
        try:
            if meta_size > INLINE:
                holder = self._place(meta_size, ((0, meta),))
                meta_at, meta_home = holder.offset, holder.segment.number
                meta = b""
            if sample is None and size:
                sample = self._place(size, parts)
            if sample is not None:
                at, home = sample.offset, sample.segment.number
            entry = _pack(
                stamp, length, nulls, size, at, meta_at, home, meta_home, meta_size, code, 0, flags
            )
            entry += meta
            for outlet in outlets:
                if not outlet.blocking or self._backpressure.has_room(outlet, outlets):
                    marks.append((outlet, outlet.head))
                    outlet.push(entry, size, stamp)
        finally:
            # Also if a signal handler raises during a wait: some receivers may read the sample.
            if sample is not None:
                self.pool.sent(sample, marks)
            if holder is not None:
                self.pool.sent(holder, marks)

    def _place(self, size: int, parts: tuple[tuple[int, Any], ...]) -> Sample:
        try:
            sample = self.pool.take(size)
        except OSError as error:
            raise RuntimeError(f"a message of {size} bytes cannot be sent: {error}") from error
        for at, data in parts:
            sample.write(at, data)
        return sample
