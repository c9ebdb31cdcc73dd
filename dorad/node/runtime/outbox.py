"""Send the messages of one operator: by reference within the process, else in shared memory."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from dorad.node.outputids import check_output_id
from dorad.node.runtime.inprocess import InProcessInput, Message
from dorad.node.sender import Sender
from dorad.shm import hops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dorad.node.clock import Clock
    from dorad.node.connection import DaemonConnection
    from dorad.node.typecheck import CheckingSender
    from dorad.shm.outlet import Outlet


class OperatorSender(Sender):
    """A sender that can send to some of the receivers of an output."""

    def __init__(
        self,
        operator: str,
        connection: DaemonConnection,
        clock: Clock,
        keep: int,
        beat: Callable[[], None],
    ) -> None:
        super().__init__(connection, clock, keep, beat)
        self._own = f"{operator}/"

    def _next_late(self) -> str | None:
        late = self._connection.late_outputs
        for output in [*late]:
            if output.startswith(self._own):
                late.discard(output)
                return output
        return None

    def send_to(self, outlets: tuple[Outlet, ...], array: Any, meta: bytes, flags: int) -> None:
        """Send an Arrow array to some of the receivers of an output.

        Raises:
            RuntimeError: /dev/shm is full.
        """
        from dorad.shm.arrow import encode

        with self._exclusive("send_output"):
            self._push(outlets, encode(array), meta, None, flags)


class Outbox:
    """The `send_output` of one operator."""

    def __init__(
        self,
        operator: str,
        connection: DaemonConnection,
        sender: OperatorSender,
        clock: Clock,
        inprocess: Mapping[int, InProcessInput],
        beat: Callable[[], None],
        warn: Callable[[str], None],
    ) -> None:
        """`inprocess` holds the inputs of this process's operators, by the base of their rings."""
        config = connection.config
        own = f"{operator}/"
        self._names = {
            name.removeprefix(own): name for name in config["outputs"] if name.startswith(own)
        }
        self._operator = operator
        self._node_id: str = config["node_id"]
        self._connection = connection
        self._sender = sender
        self._checked: CheckingSender | None = None
        self._clock = clock
        self._inprocess = inprocess
        self._beat = beat
        self._warn = warn
        self._warned: set[str] = set()
        self._split: dict[str, tuple[Any, tuple[Outlet, ...], tuple[Outlet, ...]]] = {}

    def check(self, checked: Sender | CheckingSender) -> None:
        """Send through `checked` if it checks types."""
        from dorad.node.typecheck import CheckingSender

        if isinstance(checked, CheckingSender):
            self._checked = checked

    def send_output(
        self, output_id: str, data: Any, metadata: dict[str, Any] | None = None
    ) -> None:
        """Send `data` on an output of this operator.

        `data` is a pyarrow array, a RecordBatch (arrives as a struct array), or `bytes` (arrives
        as UInt8). An output that the dataflow does not declare is ignored with one warning.

        Raises:
            RuntimeError: the type of the data is not accepted, the id is malformed, a metadata key
                is not a string, or /dev/shm is full.
            TypeError, OverflowError: a metadata value cannot be sent.
        """
        name = self._names.get(output_id)
        if name is None:
            self._undeclared(output_id)
            return
        self._beat()
        try:
            inner, outer = self._receivers(name)
            if inner:
                if self._checked is not None:
                    self._checked.check(name, data, metadata)
                self._send_both(inner, outer, data, metadata)
            else:
                (self._checked or self._sender).send(name, data, metadata)
        finally:
            self._beat()

    def _receivers(self, name: str) -> tuple[tuple[Outlet, ...], tuple[Outlet, ...]]:
        """Return the receivers of an output inside of this process, and those outside."""
        connection = self._connection
        connection.refresh()
        outlets = connection.outlets.get(name, ())
        known = self._split.get(name)
        if known is None or known[0] is not outlets:
            own = connection.peer(self._node_id)
            inner = tuple(o for o in outlets if o.peer is own and o.base in self._inprocess)
            outer = tuple(o for o in outlets if o not in inner)
            known = self._split[name] = (outlets, inner, outer)
        return known[1:]

    def _send_both(
        self,
        inner: tuple[Outlet, ...],
        outer: tuple[Outlet, ...],
        data: Any,
        metadata: dict[str, Any] | None,
    ) -> None:
        from dorad.shm.arrow import as_array

        array = as_array(data)
        message = Message.of(self._clock.now(), array, _size(array), metadata)
        if hops.sent is not None:
            key, words = inner[0].output, self._connection.box.words
            hops.sent(words, key, message.stamp, time.time_ns(), message.size)
            if message.meta and hops.context is not None:
                hops.context(words, key, message.stamp, message.meta)
        for outlet in _by_blocking(inner, False):
            self._inprocess[outlet.base].put(message)
        if outer:
            self._sender.send_to(outer, array, message.meta, message.flags)
        for outlet in _by_blocking(inner, True):
            may_wait = functools.partial(self._may_wait, outlet)
            self._inprocess[outlet.base].put_blocking(message, may_wait=may_wait)

    def _may_wait(self, outlet: Outlet) -> bool:
        self._beat()
        connection = self._connection
        connection.refresh()
        return not (outlet.closed or connection.daemon_events.stopping or connection.lost)

    def _undeclared(self, output_id: str) -> None:
        check_output_id(output_id)
        if output_id not in self._warned:
            self._warned.add(output_id)
            self._warn(
                f"operator {self._operator!r}: ignoring output `{output_id}`, which is not in its"
                " list of outputs"
            )


def _by_blocking(outlets: tuple[Outlet, ...], blocking: bool) -> Iterable[Outlet]:
    return [outlet for outlet in outlets if outlet.blocking is blocking]


def _size(array: Any) -> int:
    """Return the size of an array in bytes, for the counters."""
    import pyarrow as pa

    try:
        return int(array.nbytes)
    except pa.ArrowNotImplementedError:  # unknown for slices of some nested types
        return int(array.get_total_buffer_size())
