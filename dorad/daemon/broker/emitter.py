"""The daemon as a sender: it sends printed and logged lines of nodes to inputs, as texts."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

from dorad.node.clock import Clock
from dorad.shm.fence import fence
from dorad.shm.layout import ENTRY, INLINE
from dorad.shm.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.daemon.broker.edges import Edge, EdgeKey
    from dorad.daemon.broker.rings import Ring
    from dorad.daemon.broker.segments import Segments
    from dorad.daemon.broker.state import BrokerState
    from dorad.shm.outlet import Outlet
    from dorad.shm.pool import Sample

TEXT_CODE = 100
"""The type code of an Arrow array of utf8 in `dorad.shm.arrow`, which needs pyarrow."""

_OFFSETS = struct.Struct("=ii")


def encode_text(text: str) -> bytes:
    """Return an Arrow array of one utf8 text in its shared memory form: offsets, then bytes."""
    data = text.encode(errors="replace")
    return _OFFSETS.pack(0, len(data)) + data


class Emitter:
    """Pushes texts into rings whose producer is the daemon. It never waits for room."""

    def __init__(self, state: BrokerState, segments: Segments) -> None:
        self._state = state
        self._clock = Clock()
        self._pool = Pool(segments.grow_own, segments.retire_own)
        self._outlets: dict[EdgeKey, tuple[Ring, Outlet]] = {}

    def emit(self, node_id: str, input_id: str, text: str) -> None:
        """Send one text to an input that the daemon feeds; it arrives as an array of utf8.

        Raises:
            OSError: /dev/shm is full.
        """
        edges = [edge for edge in self._state.edges.into(node_id, input_id) if edge.daemon]
        self._push(edges, text)

    def emit_output(self, node_id: str, output: str, text: str) -> None:
        """Send one text to all receivers of an output of printed or logged lines.

        Raises:
            OSError: /dev/shm is full.
        """
        self._push(self._state.edges.printed(node_id, output), text)

    def has_receivers(self, node_id: str, output: str) -> bool:
        """Return True if an output that carries printed or logged lines has a receiver."""
        return bool(self._state.edges.printed(node_id, output))

    def _push(self, edges: Sequence[Edge], text: str) -> None:
        edges = [edge for edge in edges if edge.consumer not in self._state.exited]
        if not edges:
            return
        payload = encode_text(text)
        outlets = [self._outlet(edge) for edge in edges]
        size = len(payload)
        stamp = self._clock.now()
        sample: Sample | None = None
        at = home = 0
        tail = payload
        if size > INLINE:
            sample = self._pool.take(size)
            sample.write(0, payload)
            at, home, tail = sample.offset, sample.segment.number, b""
        entry = ENTRY.pack(stamp, 1, 0, size, at, 0, home, 0, 0, TEXT_CODE, 0, 0) + tail
        marks = [(outlet, outlet.push(entry, size, stamp)) for outlet in outlets]
        if sample is not None:
            self._pool.sent(sample, marks)
            self._pool.trim(time.monotonic_ns())
        fence()
        for edge in edges:
            self._state.wake(edge.consumer)

    def _outlet(self, edge: Edge) -> Outlet:
        box = self._state.mailboxes[edge.consumer]
        ring = box.rings[edge.ring]
        known = self._outlets.get(edge.key)
        if known is None or known[0] is not ring:
            known = self._outlets[edge.key] = (ring, box.outlet(edge.ring))
        return known[1]

    def close(self) -> None:
        """Unmap all memory now, and not whenever the garbage collector comes by."""
        self._outlets.clear()
        self._pool.close()

    def forget(self, consumer: str) -> None:
        """Stop waiting for a consumer that no longer receives."""
        for key in [key for key in self._outlets if key.node == consumer]:
            self._outlets.pop(key)[1].closed = True
