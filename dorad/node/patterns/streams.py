"""Streams: chunks in segments of a session, and `flush`, which voids what was sent before it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dorad.node.correlation import FLUSH_KEY, SESSION_ID, id_in
from dorad.node.identifiers import uuid7

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from dorad.node.events import Event

SEGMENT_ID = "segment_id"
SEQ = "seq"
FIN = "fin"


class StreamSender:
    """One session that this node sends; numbers its segments and the chunks within each.

    As a context manager it sends the end of the session when the block ends without an exception.
    May be used from several threads.
    """

    def __init__(
        self,
        send: Callable[[str, Any, dict[str, Any]], None],
        output: str,
        session_id: str | None,
    ) -> None:
        self.session_id = session_id or uuid7()
        self.segment_id = 0
        self._send = send
        self._output = output
        self._seq = 0
        self._lock = threading.RLock()

    def send(self, data: Any, metadata: dict[str, Any] | None = None, *, fin: bool = False) -> None:
        """Send a chunk; `fin` marks the last one of the segment, and the next one begins another.

        Raises what `send_output` does.
        """
        with self._lock:
            self._put(data, metadata, fin, flush=False)

    def flush(
        self, data: Any = b"", metadata: dict[str, Any] | None = None, *, fin: bool = False
    ) -> None:
        """Void all chunks of the session that were not received yet, and begin a new segment.

        `data` is its first chunk. Other sessions on the same output are not touched.
        """
        with self._lock:
            if self._seq:
                self._next_segment()
            self._put(data, metadata, fin, flush=True)

    def react(self, event: Event) -> bool:
        """Break off the present segment if an event is a `flush` of this very session.

        Returns whether it is. Call it with what comes back from those who listen: they may
        interrupt. The next chunk begins a new segment.
        """
        metadata = event.get("metadata") or {}
        if metadata.get(FLUSH_KEY) is not True or metadata.get(SESSION_ID) != self.session_id:
            return False
        with self._lock:
            if self._seq:
                self._next_segment()
        return True

    def close(self, data: Any = b"", metadata: dict[str, Any] | None = None) -> None:
        """Send a last chunk with `fin`, if the present segment has any."""
        with self._lock:
            if self._seq:
                self._put(data, metadata, True, flush=False)

    def _next_segment(self) -> None:
        self.segment_id += 1
        self._seq = 0

    def _put(self, data: Any, metadata: dict[str, Any] | None, fin: bool, *, flush: bool) -> None:
        sent = {
            **(metadata or {}),
            SESSION_ID: self.session_id,
            SEGMENT_ID: self.segment_id,
            SEQ: self._seq,
            FIN: fin,
        }
        if flush:
            sent[FLUSH_KEY] = True
        self._send(self._output, data, sent)
        self._seq += 1
        if fin:
            self._next_segment()

    def __enter__(self) -> StreamSender:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk as it was received.

    `missing` chunks of its segment between the one before and this one were dropped on the way.
    With `flush`, all that was received of the session before is void.
    """

    session_id: str
    segment_id: int
    seq: int
    fin: bool
    flush: bool
    missing: int
    event: Event

    @property
    def value(self) -> Any:
        """The data of the chunk."""
        return self.event["value"]


class StreamReader:
    """Makes chunks of the events of one input, and keeps its sessions apart."""

    def __init__(self, input_id: str) -> None:
        self.input_id = input_id
        self._at: dict[str, tuple[int, int]] = {}

    def take(self, event: Event) -> Chunk | None:
        """Return the chunk that an event is; None if it is none, or void.

        A chunk is void if a newer segment of its session was begun by a `flush`, or is going on.
        """
        if event.get("type") != "INPUT" or event.get("id") != self.input_id:
            return None
        metadata = event.get("metadata") or {}
        session = id_in(metadata, SESSION_ID)
        segment, seq = metadata.get(SEGMENT_ID, 0), metadata.get(SEQ, 0)
        if session is None or not isinstance(segment, int) or not isinstance(seq, int):
            return None
        fin, flush = metadata.get(FIN) is True, metadata.get(FLUSH_KEY) is True
        at = self._at.get(session)
        if at is not None and segment < at[0] and not flush:
            return None
        expected = at[1] if at is not None and segment == at[0] and not flush else 0
        self._at[session] = (segment, seq + 1)
        return Chunk(session, segment, seq, fin, flush, max(0, seq - expected), event)

    def forget(self, session_id: str) -> None:
        """Forget a session that will not go on."""
        self._at.pop(session_id, None)
